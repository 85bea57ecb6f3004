"""LimitRange and ResourceQuota (core/v1): what the Pods of a namespace may ask for."""

from __future__ import annotations

import msgspec

from podrt.model.base import ResourceList, Struct, always, made
from podrt.model.meta import ListMeta, ObjectMeta


class LimitRangeItem(Struct, frozen=True, kw_only=True):
    type: str = always("")
    """Container, Pod or PersistentVolumeClaim."""
    max: ResourceList = msgspec.field(default_factory=dict)
    min: ResourceList = msgspec.field(default_factory=dict)
    default: ResourceList = msgspec.field(default_factory=dict)
    """Limits of containers that have none."""
    default_request: ResourceList = msgspec.field(default_factory=dict)
    max_limit_request_ratio: ResourceList = msgspec.field(default_factory=dict)


class LimitRangeSpec(Struct, frozen=True, kw_only=True):
    limits: tuple[LimitRangeItem, ...] = always(())


class LimitRange(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("LimitRange")
    metadata: ObjectMeta = made(ObjectMeta)
    spec: LimitRangeSpec = made(LimitRangeSpec)


class LimitRangeList(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("LimitRangeList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[LimitRange, ...] = always(())


class ScopedResourceSelectorRequirement(Struct, frozen=True, kw_only=True):
    scope_name: str = always("")
    operator: str = always("")
    """In, NotIn, Exists or DoesNotExist."""
    values: tuple[str, ...] = ()


class ScopeSelector(Struct, frozen=True, kw_only=True):
    match_expressions: tuple[ScopedResourceSelectorRequirement, ...] = ()


class ResourceQuotaSpec(Struct, frozen=True, kw_only=True):
    hard: ResourceList = msgspec.field(default_factory=dict)
    scopes: tuple[str, ...] = ()
    scope_selector: ScopeSelector | None = None


class ResourceQuotaStatus(Struct, frozen=True, kw_only=True):
    hard: ResourceList = msgspec.field(default_factory=dict)
    used: ResourceList = msgspec.field(default_factory=dict)


class ResourceQuota(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("ResourceQuota")
    metadata: ObjectMeta = made(ObjectMeta)
    spec: ResourceQuotaSpec = made(ResourceQuotaSpec)
    status: ResourceQuotaStatus = made(ResourceQuotaStatus)


class ResourceQuotaList(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("ResourceQuotaList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[ResourceQuota, ...] = always(())
