"""Events: what happened to an object, for ``kubectl describe`` and ``kubectl events``.

Equal events (same object, field, type, reason and message) are one object whose count and lastTimestamp go up. Each
lives ``ttl`` seconds past its last occurrence and there are never more than ``limit``; both are enforced as new ones
are recorded and by :meth:`EventRecorder.prune`. Recording never raises: an event is not worth failing what it tells of.
"""

from __future__ import annotations

import logging
import time

import msgspec

from podrt.errors import PodrtError
from podrt.model.base import format_time, parse_time
from podrt.model.defaults import new_metadata
from podrt.model.event import Event, EventSource, ObjectReference
from podrt.model.kinds import Object
from podrt.model.meta import ObjectMeta
from podrt.model.namespace import Namespace
from podrt.store.store import Store
from podrt.store.watch import Change

logger = logging.getLogger(__name__)

NORMAL = "Normal"
WARNING = "Warning"
MAX_MESSAGE = 1024
"""Kubernetes' limit of an event's message."""
PRUNE_PERIOD = 60.0

Key = tuple[str, str, str, str, str, str, str]


def reference(obj: Object, field_path: str = "") -> ObjectReference:
    """A reference to an object, or to a part of it such as ``spec.containers{name}``."""
    return ObjectReference(
        kind=obj.kind,
        namespace=obj.metadata.namespace,
        name=obj.metadata.name,
        uid=obj.metadata.uid,
        api_version=obj.api_version,
        resource_version=obj.metadata.resource_version,
        field_path=field_path,
    )


class EventRecorder:
    """Records events of one component (``kubelet`` for the node agent, so that clients show what they know)."""

    def __init__(
        self, store: Store, component: str = "kubelet", host: str = "", *, ttl: float = 3600, limit: int = 5000
    ) -> None:
        self._store = store
        self._source = EventSource(component=component, host=host)
        self._ttl = ttl
        self._limit = limit
        self._known: dict[Key, tuple[str, str]] = {}
        self._pruned = 0.0
        for event in store.list(Event).items:
            self._known[_key(event)] = (event.metadata.namespace, event.metadata.name)
        store.subscribe(self._on_change, Event)

    def _on_change(self, change: Change) -> None:
        if change.new is None and isinstance(change.old, Event):
            self._known.pop(_key(change.old), None)

    def record(self, obj: Object, type_: str, reason: str, message: str, field_path: str = "") -> None:
        """Note that something happened to ``obj``. ``type_`` is Normal or Warning, ``reason`` one CamelCase word.

        Events of objects without a namespace go to ``default``.
        """
        moment = time.time()
        try:
            self._record(reference(obj, field_path), type_, reason, message[:MAX_MESSAGE], moment)
            if moment - self._pruned > PRUNE_PERIOD or self._store.count(Event) > self._limit:
                self.prune(moment)
        except PodrtError:
            logger.exception("event %s of %s %s is lost", reason, obj.kind, obj.metadata.name)

    def _record(self, about: ObjectReference, type_: str, reason: str, message: str, moment: float) -> None:
        namespace = about.namespace or "default"
        space = self._store.find(Namespace, "", namespace)
        if space is None or space.metadata.deletion_timestamp is not None:
            logger.debug("namespace %s is gone or going: event %s of %s is dropped", namespace, reason, about.name)
            return
        stamp = format_time(moment)
        new = Event(
            metadata=ObjectMeta(namespace=namespace, name=f"{about.name}.{time.time_ns():016x}"),
            involved_object=about,
            reason=reason,
            message=message,
            source=self._source,
            first_timestamp=stamp,
            last_timestamp=stamp,
            count=1,
            type=type_,
            reporting_component=self._source.component,
            reporting_instance=self._source.host,
        )
        key = _key(new)
        known = self._known.get(key)
        if known is not None and self._store.find(Event, *known) is not None:
            self._store.modify(
                Event,
                *known,
                lambda old: msgspec.structs.replace(old, count=max(old.count, 1) + 1, last_timestamp=stamp),
            )
            return
        created = self._store.create(msgspec.structs.replace(new, metadata=new_metadata(new.metadata, 0)))
        self._known[key] = (namespace, created.metadata.name)

    def prune(self, moment: float | None = None) -> int:
        """Delete events that have outlived their time, and the oldest beyond the limit. How many."""
        moment = time.time() if moment is None else moment
        self._pruned = moment
        events = sorted(((_last_seen(event), event) for event in self._store.list(Event).items), key=_first)
        surplus = len(events) - self._limit
        if surplus > 0:
            # A tenth more, so that a flood does not prune at each event.
            surplus += self._limit // 10
        gone = 0
        for index, (seen, event) in enumerate(events):
            if index < surplus or moment - seen > self._ttl:
                self._store.delete(Event, event.metadata.namespace, event.metadata.name)
                gone += 1
        return gone


def _first(pair: tuple[float, Event]) -> float:
    return pair[0]


def _key(event: Event) -> Key:
    about = event.involved_object
    return (
        event.metadata.namespace,
        about.uid or about.name,
        about.kind,
        about.field_path,
        event.type,
        event.reason,
        event.message,
    )


def _last_seen(event: Event) -> float:
    text = event.last_timestamp or event.event_time or event.metadata.creation_timestamp
    try:
        return parse_time(text).timestamp() if text else 0.0
    except ValueError:
        return 0.0
