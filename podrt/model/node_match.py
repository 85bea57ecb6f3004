"""Does a Pod belong on a node, by the node's name, labels and taints? Pure; for the scheduler and for DaemonSets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from podrt.model.node import Node
from podrt.model.pod import PodSpec
from podrt.model.scheduling import NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration


def selects(spec: PodSpec, node: Node) -> bool:
    """Whether ``nodeSelector`` and the required node affinity let a Pod onto a node."""
    labels = node.metadata.labels
    if any(labels.get(key) != value for key, value in spec.node_selector.items()):
        return False
    affinity = spec.affinity.node_affinity if spec.affinity is not None else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity is not None else None
    return required is None or any(_term(term, node) for term in required.node_selector_terms)


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Whether a toleration matches a taint; without a key it is one for all, without an effect for every effect."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    return toleration.operator == "Exists" or (bool(toleration.key) and toleration.value == taint.value)


def _term(term: NodeSelectorTerm, node: Node) -> bool:
    if not term.match_expressions and not term.match_fields:
        return False
    fields = {"metadata.name": node.metadata.name}
    return all(_requirement(one, node.metadata.labels) for one in term.match_expressions) and all(
        _requirement(one, fields) for one in term.match_fields
    )


def _requirement(requirement: NodeSelectorRequirement, values: Mapping[str, str]) -> bool:
    value = values.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            return _compare(requirement.operator, value, requirement.values)
    return False


def _compare(operator: str, value: str | None, bounds: Sequence[str]) -> bool:
    try:
        number, bound = int(value or ""), int(bounds[0])
    except (ValueError, IndexError):
        return False
    return number > bound if operator == "Gt" else number < bound
