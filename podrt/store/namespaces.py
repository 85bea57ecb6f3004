"""Namespaces: the ones that are always there, and emptying one that is deleted.

A deleted namespace is Terminating until its content is gone: its objects are deleted first (Pods with their grace),
then its Events, then the namespace. An unfinished deletion goes on after a restart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from podrt.errors import PodrtError
from podrt.model.event import Event
from podrt.model.kinds import RESOURCES, Object
from podrt.model.namespace import Namespace
from podrt.store.store import Store
from podrt.store.watch import DELETED, Change

logger = logging.getLogger(__name__)

PROTECTED = frozenset({"default", "kube-system", "kube-public"})
"""Namespaces that can't be deleted."""

CONTENT = tuple(resource for resource in RESOURCES if resource.namespaced and resource.struct is not Event)


def first_namespaces() -> tuple[str, ...]:
    """The namespaces that every server has."""
    return ("default", "kube-node-lease", "kube-public", "kube-system")


class NamespaceReaper:
    """Removes namespaces that are being deleted once they are empty."""

    def __init__(self, store: Store, delete: Callable[[Object], None]) -> None:
        """``delete`` asks for one object to be deleted and returns at once."""
        self._store = store
        self._delete = delete
        store.subscribe(self._on_change)
        for namespace in store.list(Namespace).items:
            if namespace.metadata.deletion_timestamp is not None:
                self.reap(namespace.metadata.name)

    def _on_change(self, change: Change) -> None:
        metadata = change.object.metadata
        if change.resource == "namespaces":
            if change.new is not None and metadata.deletion_timestamp is not None and not metadata.finalizers:
                self._remove_if_empty(metadata.name)
        elif change.type == DELETED and change.resource != "events":
            namespace = self._store.find(Namespace, "", metadata.namespace)
            if namespace is not None and namespace.metadata.deletion_timestamp is not None:
                self._remove_if_empty(metadata.namespace)

    def reap(self, name: str) -> bool:
        """Ask for everything in a namespace to be deleted. Whether the namespace is gone already."""
        for resource in CONTENT:
            for obj in self._store.list(resource.name, name).items:
                try:
                    self._delete(obj)
                except PodrtError:
                    logger.exception("namespace %s: %s %s can't be deleted", name, resource.name, obj.metadata.name)
        self._remove_if_empty(name)
        return self._store.find(Namespace, "", name) is None

    def _remove_if_empty(self, name: str) -> None:
        namespace = self._store.find(Namespace, "", name)
        if namespace is None or namespace.metadata.finalizers:
            return
        if any(self._store.list(resource.name, name).items for resource in CONTENT):
            return
        for event in self._store.list(Event, name).items:
            self._store.delete(Event, name, event.metadata.name)
        self._store.delete(Namespace, "", name)
