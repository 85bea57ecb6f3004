"""What every namespace has: the ServiceAccount ``default``, and with a TLS door the ConfigMap ``kube-root-ca.crt``.
Both are made with the namespace, and again if they are deleted; the certificate is put back if somebody changes it.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from podrt.model.configuration import ConfigMap, ServiceAccount
from podrt.model.kinds import Object
from podrt.model.meta import ObjectMeta
from podrt.model.namespace import Namespace
from podrt.store.store import Store
from podrt.store.watch import Change

DEFAULT = "default"
ROOT_CERTIFICATE = "kube-root-ca.crt"
"""The ConfigMap with the certificate by which clients know the API's TLS door."""


class AccountKeeper:
    """Sees to it that they are in each namespace that is not being deleted."""

    def __init__(self, store: Store, create: Callable[[Object], object]) -> None:
        """``create`` stores an object with its defaults."""
        self._store = store
        self._create = create
        self._certificate = ""
        self._ensure_all()
        store.subscribe(self._on_change)

    def publish(self, certificate: str) -> None:
        """Tell all namespaces of the certificate (PEM) of the API's door."""
        self._certificate = certificate
        self._ensure_all()

    def _on_change(self, change: Change) -> None:
        if change.resource == "namespaces" and change.old is None:
            self._ensure(change.object.metadata.name)
        elif (change.resource, change.object.metadata.name) == ("configmaps", ROOT_CERTIFICATE) or (
            change.new is None and (change.resource, change.object.metadata.name) == ("serviceaccounts", DEFAULT)
        ):
            self._ensure(change.object.metadata.namespace)

    def _ensure_all(self) -> None:
        for namespace in self._store.list(Namespace).items:
            self._ensure(namespace.metadata.name)

    def _ensure(self, name: str) -> None:
        namespace = self._store.find(Namespace, "", name)
        if namespace is None or namespace.metadata.deletion_timestamp is not None:
            return
        if self._store.find(ServiceAccount, name, DEFAULT) is None:
            self._create(ServiceAccount(metadata=ObjectMeta(name=DEFAULT, namespace=name)))
        if not self._certificate:
            return
        data = {"ca.crt": self._certificate}
        found = self._store.find(ConfigMap, name, ROOT_CERTIFICATE)
        if found is None:
            self._create(ConfigMap(metadata=ObjectMeta(name=ROOT_CERTIFICATE, namespace=name), data=data))
        elif found.data != data:
            self._store.update(replace(found, data=data))
