"""Placement: node selector, affinity, tolerations, topology, gates."""

from __future__ import annotations

from podrt.model.names import (
    dns_label_errors,
    dns_subdomain_errors,
    label_value_errors,
    qualified_name_errors,
)
from podrt.model.pod import PodSpec
from podrt.model.scheduling import (
    NodeSelectorTerm,
    PodAffinity,
    PodAffinityTerm,
    Toleration,
    TopologySpreadConstraint,
)
from podrt.model.validation.causes import Causes
from podrt.model.validation.meta import label_map, label_selector

EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")
NODE_OPERATORS = ("DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn")
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def scheduling(causes: Causes, spec: PodSpec) -> None:
    """Everything that says where a Pod may go."""
    label_map(causes, "spec.nodeSelector", spec.node_selector)
    if spec.node_name:
        causes.check("spec.nodeName", spec.node_name, dns_subdomain_errors(spec.node_name))
    tolerations(causes, "spec.tolerations", spec.tolerations)
    _affinity(causes, spec)
    _topology(causes, spec.topology_spread_constraints)
    seen: set[str] = set()
    for index, gate in enumerate(spec.scheduling_gates):
        causes.check(f"spec.schedulingGates[{index}].name", gate.name, qualified_name_errors(gate.name))
        if gate.name in seen:
            causes.duplicate(f"spec.schedulingGates[{index}]", gate.name)
        seen.add(gate.name)
    if spec.scheduling_gates and spec.node_name:
        causes.forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared")
    if spec.priority_class_name:
        causes.check("spec.priorityClassName", spec.priority_class_name, dns_subdomain_errors(spec.priority_class_name))
    causes.one_of("spec.preemptionPolicy", spec.preemption_policy, ("Never", "PreemptLowerPriority"))


def tolerations(causes: Causes, field: str, values: tuple[Toleration, ...]) -> None:
    """Also of a RuntimeClass."""
    for index, toleration in enumerate(values):
        _toleration(causes, f"{field}[{index}]", toleration)


def _toleration(causes: Causes, field: str, value: Toleration) -> None:
    if value.key:
        causes.check(f"{field}.key", value.key, qualified_name_errors(value.key))
    elif value.operator != "Exists":
        causes.invalid(f"{field}.operator", value.operator, "operator must be Exists when `key` is empty")
    if value.toleration_seconds is not None and value.effect != "NoExecute":
        causes.invalid(f"{field}.effect", value.effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
    causes.one_of(f"{field}.operator", value.operator, ("Equal", "Exists"))
    if value.operator == "Exists" and value.value:
        causes.invalid(f"{field}.operator", value.operator, "value must be empty when `operator` is 'Exists'")
    elif value.operator in ("", "Equal"):
        causes.check(f"{field}.value", value.value, label_value_errors(value.value))
    causes.one_of(f"{field}.effect", value.effect, EFFECTS)


def _affinity(causes: Causes, spec: PodSpec) -> None:
    if spec.affinity is None:
        return
    node = spec.affinity.node_affinity
    if node is not None:
        required = node.required_during_scheduling_ignored_during_execution
        if required is not None:
            field = f"spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms"
            if not required.node_selector_terms:
                causes.required(field, "must have at least one node selector term")
            for index, term in enumerate(required.node_selector_terms):
                _node_term(causes, f"{field}[{index}]", term)
        for index, preferred in enumerate(node.preferred_during_scheduling_ignored_during_execution):
            field = f"spec.affinity.nodeAffinity.{PREFERRED}[{index}]"
            causes.between(f"{field}.weight", preferred.weight, 1, 100)
            _node_term(causes, f"{field}.preference", preferred.preference)
    _pod_affinity(causes, "spec.affinity.podAffinity", spec.affinity.pod_affinity)
    _pod_affinity(causes, "spec.affinity.podAntiAffinity", spec.affinity.pod_anti_affinity)


def _node_term(causes: Causes, field: str, term: NodeSelectorTerm) -> None:
    for index, expression in enumerate(term.match_expressions):
        where = f"{field}.matchExpressions[{index}]"
        causes.check(f"{where}.key", expression.key, qualified_name_errors(expression.key))
        if expression.operator not in NODE_OPERATORS:
            causes.invalid(f"{where}.operator", expression.operator, "not a valid selector operator")
        elif expression.operator in ("In", "NotIn") and not expression.values:
            causes.required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif expression.operator in ("Exists", "DoesNotExist") and expression.values:
            causes.forbidden(f"{where}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        elif expression.operator in ("Gt", "Lt") and len(expression.values) != 1:
            causes.required(f"{where}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")
    for index, expression in enumerate(term.match_fields):
        where = f"{field}.matchFields[{index}]"
        if expression.key != "metadata.name":
            causes.invalid(f"{where}.key", expression.key, "not a valid field selector key: only metadata.name is")
        if expression.operator not in ("In", "NotIn"):
            causes.invalid(f"{where}.operator", expression.operator, "not a valid selector operator")
        if len(expression.values) != 1:
            causes.required(f"{where}.values", "must be only one value when `operator` is 'In' or 'NotIn'")


def _pod_affinity(causes: Causes, field: str, affinity: PodAffinity | None) -> None:
    if affinity is None:
        return
    for index, term in enumerate(affinity.required_during_scheduling_ignored_during_execution):
        _pod_term(causes, f"{field}.{REQUIRED}[{index}]", term)
    for index, weighted in enumerate(affinity.preferred_during_scheduling_ignored_during_execution):
        where = f"{field}.{PREFERRED}[{index}]"
        causes.between(f"{where}.weight", weighted.weight, 1, 100)
        _pod_term(causes, f"{where}.podAffinityTerm", weighted.pod_affinity_term)


def _pod_term(causes: Causes, field: str, term: PodAffinityTerm) -> None:
    label_selector(causes, f"{field}.labelSelector", term.label_selector)
    label_selector(causes, f"{field}.namespaceSelector", term.namespace_selector)
    for index, name in enumerate(term.namespaces):
        causes.check(f"{field}.namespaces[{index}]", name, dns_label_errors(name))
    if not term.topology_key:
        causes.required(f"{field}.topologyKey", "can not be empty")
    else:
        causes.check(f"{field}.topologyKey", term.topology_key, qualified_name_errors(term.topology_key))


def _topology(causes: Causes, constraints: tuple[TopologySpreadConstraint, ...]) -> None:
    seen: set[tuple[str, str]] = set()
    for index, entry in enumerate(constraints):
        field = f"spec.topologySpreadConstraints[{index}]"
        if entry.max_skew <= 0:
            causes.invalid(f"{field}.maxSkew", entry.max_skew, "must be greater than zero")
        if not entry.topology_key:
            causes.required(f"{field}.topologyKey", "can not be empty")
        else:
            causes.check(f"{field}.topologyKey", entry.topology_key, qualified_name_errors(entry.topology_key))
        causes.one_of(
            f"{field}.whenUnsatisfiable", entry.when_unsatisfiable, ("DoNotSchedule", "ScheduleAnyway"), required=True
        )
        if (entry.topology_key, entry.when_unsatisfiable) in seen:
            causes.duplicate(f"{field}.{{topologyKey, whenUnsatisfiable}}", entry.topology_key)
        seen.add((entry.topology_key, entry.when_unsatisfiable))
        if entry.min_domains is not None and entry.min_domains <= 0:
            causes.invalid(f"{field}.minDomains", entry.min_domains, "must be greater than zero")
        causes.one_of(f"{field}.nodeAffinityPolicy", entry.node_affinity_policy, ("Honor", "Ignore"))
        causes.one_of(f"{field}.nodeTaintsPolicy", entry.node_taints_policy, ("Honor", "Ignore"))
        label_selector(causes, f"{field}.labelSelector", entry.label_selector)
