"""meta/v1: what every object carries, and the objects of the protocol itself (Status, DeleteOptions)."""

from __future__ import annotations

from typing import Any

import msgspec

from podrt.model.base import Int32, Int64, Struct, Time, always, made


class OwnerReference(Struct, frozen=True, kw_only=True):
    api_version: str = always("")
    kind: str = always("")
    name: str = always("")
    uid: str = always("")
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ManagedFieldsEntry(Struct, frozen=True, kw_only=True):
    """Bookkeeping of server-side apply. Kept as sent; ``fields_v1`` is not looked into."""

    manager: str = ""
    operation: str = ""
    api_version: str = ""
    time: Time | None = None
    fields_type: str = ""
    fields_v1: dict[str, Any] | None = None
    subresource: str = ""


class ObjectMeta(Struct, frozen=True, kw_only=True):
    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    self_link: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: Int64 = 0
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    deletion_grace_period_seconds: Int64 | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()
    managed_fields: tuple[ManagedFieldsEntry, ...] = ()


class ListMeta(Struct, frozen=True, kw_only=True):
    self_link: str = ""
    resource_version: str = ""
    continue_: str = ""
    remaining_item_count: Int64 | None = None


class LabelSelectorRequirement(Struct, frozen=True, kw_only=True):
    key: str = always("")
    operator: str = always("")
    """In, NotIn, Exists or DoesNotExist."""
    values: tuple[str, ...] = ()


class LabelSelector(Struct, frozen=True, kw_only=True):
    match_labels: dict[str, str] = msgspec.field(default_factory=dict)
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()


class Condition(Struct, frozen=True, kw_only=True):
    """metav1.Condition, as newer kinds use it. Pods and Nodes have condition types of their own."""

    type: str = always("")
    status: str = always("")
    observed_generation: Int64 = 0
    last_transition_time: Time | None = always(None)
    reason: str = always("")
    message: str = always("")


class Preconditions(Struct, frozen=True, kw_only=True):
    uid: str | None = None
    resource_version: str | None = None


class DeleteOptions(Struct, frozen=True, kw_only=True):
    api_version: str = ""
    kind: str = ""
    grace_period_seconds: Int64 | None = None
    preconditions: Preconditions | None = None
    orphan_dependents: bool | None = None
    propagation_policy: str | None = None
    """Orphan, Background or Foreground."""
    dry_run: tuple[str, ...] = ()
    ignore_store_read_error_with_cluster_breaking_potential: bool | None = None


class StatusCause(Struct, frozen=True, kw_only=True):
    reason: str = ""
    message: str = ""
    field: str = ""


class StatusDetails(Struct, frozen=True, kw_only=True):
    name: str = ""
    group: str = ""
    kind: str = ""
    uid: str = ""
    causes: tuple[StatusCause, ...] = ()
    retry_after_seconds: Int32 = 0


class Status(Struct, frozen=True, kw_only=True):
    """The answer to a request that has no object to return, and of every failed one."""

    api_version: str = always("v1")
    kind: str = always("Status")
    metadata: ListMeta = made(ListMeta)
    status: str = ""
    """Success or Failure."""
    message: str = ""
    reason: str = ""
    details: StatusDetails | None = None
    code: Int32 = 0


class List(Struct, frozen=True, kw_only=True):
    """``kind: List`` of any objects, as ``kubectl get -o yaml`` writes it; items are decoded one by one."""

    api_version: str = always("v1")
    kind: str = always("List")
    metadata: ListMeta = made(ListMeta)
    items: tuple[dict[str, Any], ...] = always(())
