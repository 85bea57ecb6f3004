"""Who owns what: the dependents of each uid, and the Pods and ReplicaSets that nobody controls.

It is told of each change before any controller is, so what it says is what the store has.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

from podrt.model.kinds import Object, resource_of_struct
from podrt.model.meta import ObjectMeta, OwnerReference
from podrt.store.store import Store
from podrt.store.watch import Change

T = TypeVar("T", bound=Object)
ADOPTABLE = ("pods", "replicasets", "controllerrevisions")


def _plural(kind: type[Any]) -> str:
    return resource_of_struct(kind).name


class Place(NamedTuple):
    """Where an object is in the store."""

    resource: str
    namespace: str
    name: str


def controller_of(metadata: ObjectMeta) -> OwnerReference | None:
    """The owner that manages an object."""
    return next((owner for owner in metadata.owner_references if owner.controller), None)


class Index:
    """``dependents[uid]`` in the order of their creation; ``orphans[(resource, namespace)]``."""

    def __init__(self, store: Store, resources: tuple[str, ...]) -> None:
        self._store = store
        self._owned: dict[str, dict[Place, None]] = {}
        self._orphans: dict[tuple[str, str], dict[str, None]] = {}
        for resource in resources:
            for obj in store.list(resource).items:
                self._put(resource, obj.metadata)

    def on_change(self, change: Change) -> None:
        if change.resource == "events":
            return
        old, new = change.old, change.new
        if old is not None and (new is None or new.metadata.owner_references != old.metadata.owner_references):
            self._drop(change.resource, old.metadata)
        if new is not None and (old is None or new.metadata.owner_references != old.metadata.owner_references):
            self._put(change.resource, new.metadata)

    def _put(self, resource: str, metadata: ObjectMeta) -> None:
        place = Place(resource, metadata.namespace, metadata.name)
        for owner in metadata.owner_references:
            self._owned.setdefault(owner.uid, {})[place] = None
        if resource in ADOPTABLE and controller_of(metadata) is None:
            self._orphans.setdefault((resource, metadata.namespace), {})[metadata.name] = None

    def _drop(self, resource: str, metadata: ObjectMeta) -> None:
        place = Place(resource, metadata.namespace, metadata.name)
        for owner in metadata.owner_references:
            places = self._owned.get(owner.uid, {})
            places.pop(place, None)
            if not places:
                self._owned.pop(owner.uid, None)
        self._orphans.get((resource, metadata.namespace), {}).pop(metadata.name, None)

    def dependents(self, uid: str) -> list[Object]:
        """All objects that name ``uid`` as an owner."""
        found = (self._store.find(*place) for place in tuple(self._owned.get(uid, ())))
        return [obj for obj in found if obj is not None]

    def controlled(self, kind: type[T], owner: Any) -> list[T]:
        """The objects of a kind that ``owner`` controls, by name."""
        uid, resource = owner.metadata.uid, _plural(kind)
        found: list[T] = []
        for place in self._owned.get(uid, ()):
            if place.resource == resource:
                obj = self._store.find(kind, place.namespace, place.name)
                if obj is not None and (by := controller_of(obj.metadata)) is not None and by.uid == uid:
                    found.append(obj)
        return sorted(found, key=lambda obj: obj.metadata.name)

    def orphans(self, kind: type[T], namespace: str) -> list[T]:
        """The objects of a kind that nothing controls."""
        names = self._orphans.get((_plural(kind), namespace), ())
        found = (self._store.find(kind, namespace, name) for name in tuple(names))
        return [obj for obj in found if obj is not None]
