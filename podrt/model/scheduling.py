"""Placement: affinity, tolerations, taints, topology (core/v1). One node can only accept or refuse by them."""

from __future__ import annotations

from podrt.model.base import Int32, Int64, Struct, Time, always, made
from podrt.model.event import ObjectReference
from podrt.model.meta import LabelSelector, ObjectMeta


class NodeSelectorRequirement(Struct, frozen=True, kw_only=True):
    key: str = always("")
    operator: str = always("")
    """In, NotIn, Exists, DoesNotExist, Gt or Lt."""
    values: tuple[str, ...] = ()


class NodeSelectorTerm(Struct, frozen=True, kw_only=True):
    match_expressions: tuple[NodeSelectorRequirement, ...] = ()
    match_fields: tuple[NodeSelectorRequirement, ...] = ()


class NodeSelector(Struct, frozen=True, kw_only=True):
    node_selector_terms: tuple[NodeSelectorTerm, ...] = always(())


class PreferredSchedulingTerm(Struct, frozen=True, kw_only=True):
    weight: Int32 = always(0)
    preference: NodeSelectorTerm = made(NodeSelectorTerm)


class NodeAffinity(Struct, frozen=True, kw_only=True):
    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredSchedulingTerm, ...] = ()


class PodAffinityTerm(Struct, frozen=True, kw_only=True):
    label_selector: LabelSelector | None = None
    namespaces: tuple[str, ...] = ()
    topology_key: str = always("")
    namespace_selector: LabelSelector | None = None
    match_label_keys: tuple[str, ...] = ()
    mismatch_label_keys: tuple[str, ...] = ()


class WeightedPodAffinityTerm(Struct, frozen=True, kw_only=True):
    weight: Int32 = always(0)
    pod_affinity_term: PodAffinityTerm = made(PodAffinityTerm)


class PodAffinity(Struct, frozen=True, kw_only=True):
    """Also the shape of podAntiAffinity."""

    required_during_scheduling_ignored_during_execution: tuple[PodAffinityTerm, ...] = ()
    preferred_during_scheduling_ignored_during_execution: tuple[WeightedPodAffinityTerm, ...] = ()


class Affinity(Struct, frozen=True, kw_only=True):
    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class Toleration(Struct, frozen=True, kw_only=True):
    key: str = ""
    operator: str = ""
    """Exists or Equal (the default); Lt and Gt are alpha."""
    value: str = ""
    effect: str = ""
    toleration_seconds: Int64 | None = None


class Taint(Struct, frozen=True, kw_only=True):
    key: str = always("")
    value: str = ""
    effect: str = always("")
    time_added: Time | None = None


class TopologySpreadConstraint(Struct, frozen=True, kw_only=True):
    max_skew: Int32 = always(0)
    topology_key: str = always("")
    when_unsatisfiable: str = always("")
    """DoNotSchedule or ScheduleAnyway."""
    label_selector: LabelSelector | None = None
    min_domains: Int32 | None = None
    node_affinity_policy: str | None = None
    node_taints_policy: str | None = None
    match_label_keys: tuple[str, ...] = ()


class PodSchedulingGate(Struct, frozen=True, kw_only=True):
    name: str = always("")


class PodSchedulingGroup(Struct, frozen=True, kw_only=True):
    pod_group_name: str | None = None


class Binding(Struct, frozen=True, kw_only=True):
    """The body of ``pods/binding``: which node a scheduler has chosen. Never stored."""

    api_version: str = always("v1")
    kind: str = always("Binding")
    metadata: ObjectMeta = made(ObjectMeta)
    target: ObjectReference = made(ObjectReference)
