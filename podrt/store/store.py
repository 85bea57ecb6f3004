"""The revisioned table of objects with its cache and watches. It knows no rule of any kind: those are in ``objects``.

Every write gets the next global revision, is committed to the database, then put in the cache, then told to watchers
(queued) and subscribers (called at once, in the order of the writes). A write that changes nothing gets no revision.
Objects handed out are the cached ones: they are frozen, and their dictionaries must not be changed. For one thread; a
write takes about 0.1 ms.

Kinds are given as the struct (``Pod``, which types the result) or as the plural name (``"pods"``).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import msgspec

from podrt.errors import AlreadyExistsError, Cause, ConflictError, InvalidError, NotFoundError
from podrt.model.kinds import RESOURCES, Object, resource_named, resource_of_struct
from podrt.model.selectors import FieldSelection, LabelSelection
from podrt.store.database import Database, Row
from podrt.store.watch import ADDED, Change, Hub, Predicate, Watcher, WatchEvent, at_revision

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=Object)
Key = tuple[str, str]
Labels = LabelSelection | str | None
Fields = FieldSelection | str | None


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """Objects of one kind, and the revision to watch on from."""

    items: list[T]
    revision: int


class Subscription:
    """A callback that is told of every change, until :meth:`close`."""

    def __init__(self, callback: Callable[[Change], None], resource: str | None) -> None:
        self.callback = callback
        self.resource = resource
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Store:
    """All objects of one daemon. ``window`` changes of each resource can be watched back, see ``watch``."""

    def __init__(self, path: Path, *, window: int = 2048, queue_size: int = 4096) -> None:
        """Open or create ``path``. Rows that can't be read are set aside and logged; see :attr:`broken`.

        Raises UnavailableError if the file can't be opened or is of a newer version.
        """
        self._database = Database(path)
        self._cache: dict[str, dict[Key, Object]] = {resource.name: {} for resource in RESOURCES}
        self.broken: list[str] = []
        """What was set aside at this start, one line each."""
        self._load()
        if self._database.set_aside:
            self._report(f"{path}: damaged; it was moved to {self._database.set_aside}, what could be read was kept")
        self._revision = self._database.revision()
        self._hub = Hub(self._revision, window, queue_size)
        self._subscriptions: list[Subscription] = []
        self._pending: deque[Change] = deque()
        self._dispatching = False

    @property
    def revision(self) -> int:
        """The revision of the latest write."""
        return self._revision

    # Reading

    @overload
    def get(self, kind: type[T], namespace: str, name: str) -> T: ...
    @overload
    def get(self, kind: str, namespace: str, name: str) -> Object: ...
    def get(self, kind: Any, namespace: str, name: str) -> Any:
        """One object (``namespace`` "" for kinds without). Raises NotFoundError."""
        resource = _resource(kind)
        obj = self._cache[resource].get((namespace, name))
        if obj is None:
            raise _not_found(resource, name)
        return obj

    @overload
    def find(self, kind: type[T], namespace: str, name: str) -> T | None: ...
    @overload
    def find(self, kind: str, namespace: str, name: str) -> Object | None: ...
    def find(self, kind: Any, namespace: str, name: str) -> Any:
        """One object, or None."""
        return self._cache[_resource(kind)].get((namespace, name))

    @overload
    def list(
        self,
        kind: type[T],
        namespace: str | None = None,
        label_selector: Labels = None,
        field_selector: Fields = None,
    ) -> Listing[T]: ...
    @overload
    def list(
        self, kind: str, namespace: str | None = None, label_selector: Labels = None, field_selector: Fields = None
    ) -> Listing[Object]: ...
    def list(
        self, kind: Any, namespace: str | None = None, label_selector: Labels = None, field_selector: Fields = None
    ) -> Any:
        """The selected objects of a namespace (None: of all), by namespace and name. Raises InvalidError for a bad
        selector.
        """
        resource = _resource(kind)
        matches = _predicate(resource, label_selector, field_selector)
        items = [
            obj
            for (space, _), obj in sorted(self._cache[resource].items())
            if (namespace is None or space == namespace) and (matches is None or matches(obj))
        ]
        return Listing(items, self._revision)

    def count(self, kind: str | type[Object]) -> int:
        """How many objects of a kind there are."""
        return len(self._cache[_resource(kind)])

    # Writing

    def create(self, obj: T) -> T:
        """Store a new object. Raises AlreadyExistsError."""
        resource, key = _resource(type(obj)), _key(obj)
        if key in self._cache[resource]:
            raise AlreadyExistsError(f'{resource} "{key[1]}" already exists')
        return self._write(resource, key, None, obj)

    def update(self, obj: T, expected_revision: int | str | None = None) -> T:
        """Replace an object, if it still is at ``expected_revision`` (None or "": whatever it is at).

        Raises NotFoundError, ConflictError.
        """
        resource, key = _resource(type(obj)), _key(obj)
        old = self.find(type(obj), *key)
        if old is None:
            raise _not_found(resource, key[1])
        if expected_revision not in (None, "") and str(expected_revision) != old.metadata.resource_version:
            raise ConflictError(
                f'Operation cannot be fulfilled on {resource} "{key[1]}": the object has been modified; '
                "please apply your changes to the latest version and try again"
            )
        return self._write(resource, key, old, obj)

    def modify(self, kind: type[T], namespace: str, name: str, change: Callable[[T], T]) -> T:
        """Replace an object by ``change(object)``. Can't conflict, nothing runs in between. Raises NotFoundError."""
        old = self.get(kind, namespace, name)
        return self._write(_resource(kind), (namespace, name), old, change(old))

    @overload
    def delete(self, kind: type[T], namespace: str, name: str) -> T: ...
    @overload
    def delete(self, kind: str, namespace: str, name: str) -> Object: ...
    def delete(self, kind: Any, namespace: str, name: str) -> Any:
        """Remove an object at once and return it, at the revision of its removal. Raises NotFoundError."""
        resource = _resource(kind)
        old = self.get(resource, namespace, name)
        revision = self._revision + 1
        self._database.delete(resource, namespace, name, revision)
        self._revision = revision
        del self._cache[resource][(namespace, name)]
        last = at_revision(old, revision)
        self._publish(Change(revision, resource, last, None))
        return last

    def _write(self, resource: str, key: Key, old: T | None, obj: T) -> T:
        if _key(obj) != key:
            raise ConflictError(f'{resource} "{key[1]}": name and namespace of an object cannot change')
        if old is not None:
            unchanged = at_revision(obj, int(old.metadata.resource_version))
            if unchanged == old or msgspec.json.encode(unchanged) == msgspec.json.encode(old):
                return old
        revision = self._revision + 1
        new = at_revision(obj, revision)
        self._database.put(Row(resource, *key, revision, msgspec.json.encode(new)))
        self._revision = revision
        self._cache[resource][key] = new
        self._publish(Change(revision, resource, old, new))
        return new

    # Following

    def subscribe(self, callback: Callable[[Change], None], kind: str | type[Object] | None = None) -> Subscription:
        """Call ``callback`` after every change of a kind (None: of all), within the write, in order.

        It should only note the change and return. What it raises is logged and stops nobody else; what it writes
        is told after the present change has been told to all.
        """
        subscription = Subscription(callback, None if kind is None else _resource(kind))
        self._subscriptions.append(subscription)
        return subscription

    def watch(
        self,
        kind: str | type[Object],
        namespace: str | None = None,
        since: int | str | None = None,
        label_selector: Labels = None,
        field_selector: Fields = None,
        bookmark_interval: float | None = None,
    ) -> Watcher:
        """Changes after revision ``since``; None, "" or 0: first everything that is there as ADDED, then all changes.

        ``bookmark_interval`` seconds without an event give a BOOKMARK. Raises ExpiredError, InvalidError.
        """
        resource = _resource(kind)
        matches = _predicate(resource, label_selector, field_selector)
        revision = _revision_of(since)
        changes = self._hub.since(resource, revision) if revision else []
        watcher = self._hub.add(resource, namespace, matches, bookmark_interval)
        if revision:
            watcher.preload(event for change in changes if (event := watcher.translate(change)))
        else:
            items = self.list(resource, namespace, label_selector, field_selector).items
            watcher.preload(WatchEvent(ADDED, obj) for obj in items)
        return watcher

    def watchers(self) -> int:
        """How many watches are open."""
        return self._hub.watchers()

    def close(self) -> None:
        """Close the file. Everything answered so far is in it already."""
        self._database.close()

    def _publish(self, change: Change) -> None:
        self._hub.publish(change)
        self._pending.append(change)
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while self._pending:
                self._tell(self._pending.popleft())
        finally:
            self._dispatching = False

    def _tell(self, change: Change) -> None:
        self._subscriptions = [subscription for subscription in self._subscriptions if not subscription.closed]
        for subscription in tuple(self._subscriptions):
            if subscription.closed or subscription.resource not in (None, change.resource):
                continue
            try:
                subscription.callback(change)
            except Exception:
                logger.exception("a subscriber failed on %s %s", change.resource, change.object.metadata.name)

    # Start

    def _load(self) -> None:
        decoders = {resource.name: msgspec.json.Decoder(resource.struct) for resource in RESOURCES}
        for row in self._database.load():
            try:
                obj = decoders[row.resource].decode(row.data)
                if _key(obj) != (row.namespace, row.name) or obj.metadata.resource_version != str(row.revision):
                    raise ValueError("the object is not the one its row names")
            except (msgspec.MsgspecError, KeyError, ValueError, UnicodeDecodeError) as error:
                self._database.move_to_broken(row, str(error))
                self._report(f"{row.resource} {row.namespace}/{row.name}: set aside, can't be read: {error}")
            else:
                self._cache[row.resource][(row.namespace, row.name)] = obj

    def _report(self, line: str) -> None:
        self.broken.append(line)
        logger.error("%s", line)


def _resource(kind: str | type[Any]) -> str:
    return resource_named(kind).name if isinstance(kind, str) else resource_of_struct(kind).name


def _revision_of(since: int | str | None) -> int:
    if isinstance(since, str) and since and not (since.isascii() and since.isdigit() and len(since) < 19):
        message = f'Invalid value: "{since[:64]}": must be a resourceVersion that this server gave'
        raise InvalidError(f"resourceVersion: {message}", [Cause("resourceVersion", message)])
    return int(since or 0)


def _key(obj: Object) -> Key:
    return obj.metadata.namespace, obj.metadata.name


def _not_found(resource: str, name: str) -> NotFoundError:
    return NotFoundError(f'{resource} "{name}" not found')


def _predicate(resource: str, labels: Labels, fields: Fields) -> Predicate | None:
    if isinstance(labels, str):
        labels = LabelSelection.parse(labels)
    if isinstance(fields, str):
        fields = FieldSelection.parse(resource, fields)
    if not labels and not fields:
        return None
    return lambda obj: (not labels or labels.matches(obj.metadata.labels)) and (not fields or fields.matches(obj))
