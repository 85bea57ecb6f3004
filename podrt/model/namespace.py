"""Namespace (core/v1)."""

from __future__ import annotations

from podrt.model.base import Struct, Time, always, made
from podrt.model.meta import ListMeta, ObjectMeta


class NamespaceSpec(Struct, frozen=True, kw_only=True):
    finalizers: tuple[str, ...] = ()


class NamespaceCondition(Struct, frozen=True, kw_only=True):
    type: str = always("")
    status: str = always("")
    last_transition_time: Time | None = None
    reason: str = ""
    message: str = ""


class NamespaceStatus(Struct, frozen=True, kw_only=True):
    phase: str = ""
    """Active or Terminating."""
    conditions: tuple[NamespaceCondition, ...] = ()


class Namespace(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("Namespace")
    metadata: ObjectMeta = made(ObjectMeta)
    spec: NamespaceSpec = made(NamespaceSpec)
    status: NamespaceStatus = made(NamespaceStatus)


class NamespaceList(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("NamespaceList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[Namespace, ...] = always(())
