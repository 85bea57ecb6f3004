"""What the actors share: the parts they call, adoption, and making and deleting Pods.

A Controller's ``sync`` is called with the name of one object; whatever it raises on purpose brings the key back later.
Batches of creations begin with one and double; they end at the first failure, and after ``BURST`` Pods the event loop
has its turn before the next.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from msgspec.structs import replace

from podrt.controllers.index import Index, controller_of
from podrt.controllers.pods import with_owner, without_owner
from podrt.controllers.queue import Key, WorkQueue
from podrt.errors import NotFoundError, PodrtError
from podrt.model.kinds import BY_KIND, Object, resource_of_struct
from podrt.model.meta import DeleteOptions, LabelSelector, ObjectMeta, Preconditions
from podrt.model.pod import Pod
from podrt.model.selectors import LabelSelection
from podrt.store.events import EventRecorder
from podrt.store.objects import Registry
from podrt.store.watch import Change

BURST = 8
"""Pods made or deleted for one object before the event loop turns."""
SOON = 0.0
"""``again`` of a sync that has more to do at once."""

T = TypeVar("T", bound=Object)
K = TypeVar("K", bound=Object)


class Parts:
    """What every controller is given."""

    def __init__(self, registry: Registry, index: Index, clock: Callable[[], float] = time.time) -> None:
        self.registry = registry
        self.store = registry.store
        self.index = index
        self.clock = clock
        self.queue: WorkQueue


class Controller(ABC, Generic[T]):
    """One kind's actor. ``kind`` is what it keeps, ``component`` its name in events."""

    kind: type[T]
    component: str
    owns: tuple[type[Object], ...] = (Pod,)
    """Kinds whose changes concern their controlling owner."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.store = parts.store
        self.registry = parts.registry
        self.index = parts.index
        self.recorder = EventRecorder(parts.store, self.component)
        self.resource = BY_KIND[(self.kind().api_version, self.kind().kind)]
        self._owned = {resource_of_struct(kind).name for kind in self.owns}

    # Routing

    def all(self) -> None:
        """Look at everything there is, at the start."""
        for obj in self.store.list(self.kind).items:
            self.add(obj.metadata.namespace, obj.metadata.name)

    def add(self, namespace: str, name: str) -> None:
        self.parts.queue.add(Key(self.resource.name, namespace, name))

    def on_change(self, change: Change) -> None:
        """Put what a change concerns into the queue."""
        if change.resource == self.resource.name:
            self.add(change.object.metadata.namespace, change.object.metadata.name)
        if change.resource not in self._owned:
            return
        for obj in (change.old, change.new):
            if obj is None:
                continue
            owner = controller_of(obj.metadata)
            if owner is not None and owner.kind == self.resource.kind:
                self.add(obj.metadata.namespace, owner.name)
        if change.new is not None and controller_of(change.new.metadata) is None:
            self._matching(change.new)

    def _matching(self, orphan: Object) -> None:
        if orphan.metadata.deletion_timestamp is not None or not orphan.metadata.labels:
            return
        for obj in self.store.list(self.kind, orphan.metadata.namespace).items:
            selector = getattr(obj.spec, "selector", None)  # type: ignore[union-attr]
            if selector is not None and LabelSelection.of(selector).matches(orphan.metadata.labels):
                self.add(obj.metadata.namespace, obj.metadata.name)

    def sync_key(self, key: Key) -> float | None:
        obj = self.store.find(self.kind, key.namespace, key.name)
        if obj is None:
            self.gone(key)
            return None
        return self.sync(obj)

    @abstractmethod
    def sync(self, obj: T) -> float | None:
        """One step. Seconds after which to be called again without a change, or None."""

    def gone(self, key: Key) -> None:
        """The object is no more; its dependents are the garbage collector's."""
        return

    # Adoption

    def claim(self, kind: type[K], owner: T, selector: LabelSelector | None) -> list[K]:
        """What ``owner`` controls, after adopting orphans that match and letting go what no longer does."""
        if selector is None:
            return []
        selection = LabelSelection.of(selector)
        found: list[K] = []
        for obj in self.index.controlled(kind, owner):
            if selection.matches(obj.metadata.labels) or obj.metadata.deletion_timestamp is not None:
                found.append(obj)
            elif owner.metadata.deletion_timestamp is None:
                self._change(obj, without_owner(obj.metadata, owner.metadata.uid))
            else:
                found.append(obj)
        if owner.metadata.deletion_timestamp is None:
            for obj in self.index.orphans(kind, owner.metadata.namespace):
                if obj.metadata.deletion_timestamp is None and selection.matches(obj.metadata.labels):
                    found.append(self._change(obj, with_owner(obj.metadata, owner)))
        return found

    def _change(self, obj: K, metadata: ObjectMeta) -> K:
        return self.store.update(replace(obj, metadata=metadata))

    # Acting

    def set_status(self, obj: T, status: Any) -> T:
        """Write a status if it differs. The object may have gone meanwhile."""
        if obj.status == status:  # type: ignore[union-attr]
            return obj
        namespace, name = obj.metadata.namespace, obj.metadata.name
        return self.store.modify(self.kind, namespace, name, lambda old: replace(old, status=status))

    def create_pods(self, owner: T, pods: Iterable[Pod]) -> bool:
        """Make Pods; True if all were made, False after BURST of them. Raises what stopped it, told as an event."""
        for made, pod in enumerate(pods):
            if made == BURST:
                return False
            self.create_pod(owner, pod)
        return True

    def create_pod(self, owner: T, pod: Pod) -> Pod:
        try:
            created = self.registry.create(pod)
        except PodrtError as error:
            self.recorder.record(owner, "Warning", "FailedCreate", f"Error creating: {error}")
            raise
        self.recorder.record(owner, "Normal", "SuccessfulCreate", f"Created pod: {created.metadata.name}")
        return created

    def delete_pod(self, owner: T, pod: Pod) -> None:
        """Ask for a Pod's deletion, with its own grace."""
        options = DeleteOptions(propagation_policy="Background", preconditions=Preconditions(uid=pod.metadata.uid))
        try:
            self.registry.delete(Pod, pod.metadata.namespace, pod.metadata.name, options)
        except NotFoundError:
            return
        self.recorder.record(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.metadata.name}")

    def delete(self, obj: Object) -> None:
        """Delete a dependent that is no Pod."""
        options = DeleteOptions(propagation_policy="Background", preconditions=Preconditions(uid=obj.metadata.uid))
        resource = resource_of_struct(type(obj)).name
        try:
            self.registry.delete(resource, obj.metadata.namespace, obj.metadata.name, options)
        except NotFoundError:
            return
