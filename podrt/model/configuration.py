"""ConfigMap, Secret and ServiceAccount (core/v1): what Pods are configured with.

A Secret's values never appear in a message: ``data`` and ``stringData`` have scalar types whose errors name the key
and not the content.
"""

from __future__ import annotations

import base64

import msgspec

from podrt.model.base import Base64, HiddenText, Struct, always, made
from podrt.model.event import ObjectReference
from podrt.model.meta import ListMeta, ObjectMeta
from podrt.model.volume import LocalObjectReference


class ConfigMap(Struct, frozen=True, kw_only=True):
    """Keys are of ``data`` or of ``binary_data``, never of both."""

    api_version: str = always("v1")
    kind: str = always("ConfigMap")
    metadata: ObjectMeta = made(ObjectMeta)
    immutable: bool | None = None
    data: dict[str, str] = msgspec.field(default_factory=dict)
    binary_data: dict[str, Base64] = msgspec.field(default_factory=dict)

    def content(self) -> dict[str, bytes]:
        """All keys with their bytes."""
        texts = {key: text.encode() for key, text in self.data.items()}
        return texts | {key: base64.b64decode(text) for key, text in self.binary_data.items()}


class ConfigMapList(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("ConfigMapList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[ConfigMap, ...] = always(())


class Secret(Struct, frozen=True, kw_only=True):
    """``string_data`` is for writing: the server moves it into ``data``."""

    api_version: str = always("v1")
    kind: str = always("Secret")
    metadata: ObjectMeta = made(ObjectMeta)
    immutable: bool | None = None
    data: dict[str, Base64] = msgspec.field(default_factory=dict)
    string_data: dict[str, HiddenText] = msgspec.field(default_factory=dict)
    type: str = ""

    def content(self) -> dict[str, bytes]:
        """All keys with their bytes."""
        return {key: base64.b64decode(text) for key, text in self.data.items()}

    def __repr__(self) -> str:
        """Without the values: an object may be logged."""
        return f"Secret({self.metadata.namespace}/{self.metadata.name}, keys={sorted(self.data)})"

    __str__ = __repr__


class SecretList(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("SecretList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[Secret, ...] = always(())


class ServiceAccount(Struct, frozen=True, kw_only=True):
    """Who a Pod is, in its tokens. Nothing is granted to an account: podrt has no authorization."""

    api_version: str = always("v1")
    kind: str = always("ServiceAccount")
    metadata: ObjectMeta = made(ObjectMeta)
    secrets: tuple[ObjectReference, ...] = ()
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    automount_service_account_token: bool | None = None


class ServiceAccountList(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("ServiceAccountList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[ServiceAccount, ...] = always(())
