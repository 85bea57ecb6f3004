"""The garbage collector: what is owned goes with its owner, as the deletion asks.

Background: the owner is gone, its dependents follow. Foreground: the owner waits (finalizer ``foregroundDeletion``)
for the dependents that block it. Orphan: the dependents lose their reference first (finalizer ``orphan``). An object
with several owners stays while one of them does. References to kinds that this server doesn't have are left alone.
"""

from __future__ import annotations

from podrt.controllers.base import Parts
from podrt.controllers.pods import without_owner
from podrt.controllers.queue import Key
from podrt.errors import NotFoundError
from podrt.model.kinds import BY_KIND, RESOURCES, Object, resource_of
from podrt.model.meta import DeleteOptions, OwnerReference, Preconditions
from podrt.model.pod import Pod
from podrt.store.deletion import FOREGROUND, ORPHAN
from podrt.store.watch import DELETED, Change

NAME = "garbage"
BURST = 32
"""Dependents of one owner that are asked to go before the event loop turns."""


class GarbageCollector:
    """Keys are ``(garbage, <resource>/<namespace>, <name>)`` of owners and of dependents alike."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store = parts.store
        self._registry = parts.registry
        self._index = parts.index

    def all(self) -> None:
        for resource in RESOURCES:
            if resource.name != "events":
                for obj in self._store.list(resource.name).items:
                    if obj.metadata.owner_references or obj.metadata.finalizers:
                        self._add(obj)

    def _add(self, obj: Object) -> None:
        self._parts.queue.add(Key(NAME, f"{resource_of(obj).name}/{obj.metadata.namespace}", obj.metadata.name))

    def on_change(self, change: Change) -> None:
        if change.resource == "events":
            return
        obj = change.object
        if change.type == DELETED:
            for dependent in self._index.dependents(obj.metadata.uid):
                self._add(dependent)
            # An owner that waits in the foreground waits for this, too.
            for owner in obj.metadata.owner_references:
                if (found := self._owner(owner, obj.metadata.namespace)) is not None:
                    self._wake(found)
        elif change.old is None:
            if obj.metadata.owner_references:
                self._add(obj)
        elif change.old.metadata.owner_references != obj.metadata.owner_references:
            self._add(obj)
        if change.new is not None:
            self._wake(change.new)

    def _wake(self, owner: Object) -> None:
        metadata = owner.metadata
        if metadata.deletion_timestamp is not None and (
            FOREGROUND in metadata.finalizers or ORPHAN in metadata.finalizers
        ):
            self._add(owner)

    def sync_key(self, key: Key) -> float | None:
        resource, _, namespace = key.namespace.partition("/")
        obj = self._store.find(resource, namespace, key.name)
        if obj is None:
            return None
        again = self._as_owner(obj)
        if self._store.find(resource, namespace, key.name) is not None:
            self._as_dependent(obj)
        return again

    # As an owner that is being deleted

    def _as_owner(self, obj: Object) -> float | None:
        if obj.metadata.deletion_timestamp is None:
            return None
        uid = obj.metadata.uid
        dependents = self._index.dependents(uid)
        if ORPHAN in obj.metadata.finalizers:
            for dependent in dependents[:BURST]:
                self._forget(dependent, uid)
            if len(dependents) > BURST:
                return 0.0
            self._registry.release(obj, ORPHAN)
        elif FOREGROUND in obj.metadata.finalizers:
            going = [dependent for dependent in dependents if dependent.metadata.deletion_timestamp is None]
            for dependent in going[:BURST]:
                self._as_dependent(dependent)
            if len(going) > BURST:
                return 0.0
            if not any(_blocks(dependent, uid) for dependent in self._index.dependents(uid)):
                self._registry.release(obj, FOREGROUND)
        return None

    # As a dependent

    def _owner(self, reference: OwnerReference, namespace: str) -> Object | None:
        """The owner itself; None if it is gone or is another object by now."""
        resource = BY_KIND[(reference.api_version, reference.kind)]
        obj = self._store.find(resource.name, namespace if resource.namespaced else "", reference.name)
        return obj if obj is not None and obj.metadata.uid == reference.uid else None

    def _as_dependent(self, obj: Object) -> None:
        references = obj.metadata.owner_references
        known = [entry for entry in references if (entry.api_version, entry.kind) in BY_KIND]
        if not known:
            return
        namespace = obj.metadata.namespace
        owners = {entry.uid: self._owner(entry, namespace) for entry in known}
        gone = [entry for entry in known if owners[entry.uid] is None]
        waiting = [entry for entry in known if _waits(owners[entry.uid])]
        if len(gone) + len(waiting) < len(references):
            # Somebody else still owns it: it only forgets those that go.
            for entry in (*gone, *waiting):
                self._forget(obj, entry.uid)
            return
        if obj.metadata.deletion_timestamp is not None:
            return
        policy = "Background"
        if waiting and not isinstance(obj, Pod) and self._index.dependents(obj.metadata.uid):
            policy = "Foreground"
        options = DeleteOptions(propagation_policy=policy, preconditions=Preconditions(uid=obj.metadata.uid))
        try:
            self._registry.delete(resource_of(obj).name, namespace, obj.metadata.name, options)
        except NotFoundError:
            return

    def _forget(self, obj: Object, uid: str) -> None:
        from msgspec.structs import replace

        self._store.modify(
            type(obj),
            obj.metadata.namespace,
            obj.metadata.name,
            lambda old: replace(old, metadata=without_owner(old.metadata, uid)),
        )


def _waits(owner: Object | None) -> bool:
    """Whether an owner is being deleted in the foreground."""
    return (
        owner is not None and owner.metadata.deletion_timestamp is not None and FOREGROUND in owner.metadata.finalizers
    )


def _blocks(dependent: Object, uid: str) -> bool:
    return any(entry.uid == uid and entry.block_owner_deletion for entry in dependent.metadata.owner_references)
