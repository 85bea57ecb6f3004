"""The ServiceAccount ``default`` of every namespace: made with the namespace, and again if it is deleted."""

from __future__ import annotations

from collections.abc import Callable

from podrt.model.configuration import ServiceAccount
from podrt.model.meta import ObjectMeta
from podrt.model.namespace import Namespace
from podrt.store.store import Store
from podrt.store.watch import Change

DEFAULT = "default"


class AccountKeeper:
    """Sees to it that there is one in each namespace that is not being deleted."""

    def __init__(self, store: Store, create: Callable[[ServiceAccount], object]) -> None:
        """``create`` stores an account with its defaults."""
        self._store = store
        self._create = create
        for namespace in store.list(Namespace).items:
            self._ensure(namespace.metadata.name)
        store.subscribe(self._on_change)

    def _on_change(self, change: Change) -> None:
        if change.resource == "namespaces" and change.old is None:
            self._ensure(change.object.metadata.name)
        elif change.resource == "serviceaccounts" and change.new is None and change.object.metadata.name == DEFAULT:
            self._ensure(change.object.metadata.namespace)

    def _ensure(self, name: str) -> None:
        namespace = self._store.find(Namespace, "", name)
        if namespace is None or namespace.metadata.deletion_timestamp is not None:
            return
        if self._store.find(ServiceAccount, name, DEFAULT) is None:
            self._create(ServiceAccount(metadata=ObjectMeta(name=DEFAULT, namespace=name)))
