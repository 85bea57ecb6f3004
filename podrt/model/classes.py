"""PriorityClass (scheduling.k8s.io/v1) and RuntimeClass (node.k8s.io/v1): names that stand for a Pod's priority, and
for how it is run.
"""

from __future__ import annotations

import msgspec

from podrt.model.base import Int32, ResourceList, Struct, always, made
from podrt.model.meta import ListMeta, ObjectMeta
from podrt.model.scheduling import Toleration

SYSTEM_PRIORITIES = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}
"""The classes that every server has."""
SYSTEM_PREFIX = "system-"
HIGHEST_PRIORITY = 1_000_000_000
"""Of the classes that users make."""
DEFAULT_PREEMPTION = "PreemptLowerPriority"

HANDLER = "podrt"
USERNS_HANDLER = "podrt-userns"
"""Gives each Pod a user namespace of its own."""
HANDLERS = (HANDLER, USERNS_HANDLER)
"""The runtime handlers of this node."""


class PriorityClass(Struct, frozen=True, kw_only=True):
    api_version: str = always("scheduling.k8s.io/v1")
    kind: str = always("PriorityClass")
    metadata: ObjectMeta = made(ObjectMeta)
    value: Int32 = always(0)
    global_default: bool = False
    description: str = ""
    preemption_policy: str | None = None
    """Never or PreemptLowerPriority."""


class PriorityClassList(Struct, frozen=True, kw_only=True):
    api_version: str = always("scheduling.k8s.io/v1")
    kind: str = always("PriorityClassList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[PriorityClass, ...] = always(())


class Overhead(Struct, frozen=True, kw_only=True):
    pod_fixed: ResourceList = msgspec.field(default_factory=dict)


class Scheduling(Struct, frozen=True, kw_only=True):
    """Which nodes have the handler."""

    node_selector: dict[str, str] = msgspec.field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()


class RuntimeClass(Struct, frozen=True, kw_only=True):
    api_version: str = always("node.k8s.io/v1")
    kind: str = always("RuntimeClass")
    metadata: ObjectMeta = made(ObjectMeta)
    handler: str = always("")
    overhead: Overhead | None = None
    scheduling: Scheduling | None = None


class RuntimeClassList(Struct, frozen=True, kw_only=True):
    api_version: str = always("node.k8s.io/v1")
    kind: str = always("RuntimeClassList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[RuntimeClass, ...] = always(())
