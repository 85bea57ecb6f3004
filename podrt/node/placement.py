"""Does a Pod fit on this node? The scheduler's filters for one node, as pure functions.

Each filter gives the reason in the words of kube-scheduler, for the FailedScheduling event and the PodScheduled
condition. Preferences (weights) choose between nodes, so with one node they have no effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from podrt.model import node_match
from podrt.model.meta import LabelSelector
from podrt.model.node import Node
from podrt.model.node_match import tolerates
from podrt.model.pod import Pod
from podrt.model.resources import pod_requests, qos_class
from podrt.model.scheduling import (
    PodAffinityTerm,
    Taint,
    TopologySpreadConstraint,
)
from podrt.model.selectors import LabelSelection
from podrt.node.resources import milli, whole

MEMORY_PRESSURE_TAINT = "node.kubernetes.io/memory-pressure"
UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"
PORTS = "node(s) didn't have free ports for the requested pod ports"
ANTI_AFFINITY = "node(s) didn't match pod anti-affinity rules"
EXISTING_ANTI_AFFINITY = "node(s) didn't satisfy existing pods anti-affinity rules"

Port = tuple[str, int, str]
"""(protocol, host port, host IP; "" for all)."""


class Demand(NamedTuple):
    """What a Pod takes of the node."""

    amounts: Mapping[str, int]
    """Resource name to thousandths of a unit."""
    ports: tuple[Port, ...]


class Space(NamedTuple):
    """What the Pods that have a place here take together."""

    amounts: Mapping[str, int]
    ports: Sequence[Port]
    taken: int
    """How many Pods there are."""
    pods: Sequence[Pod]
    """Looked at only for affinity; those being deleted are among them until they are gone."""


def demand(pod: Pod) -> Demand:
    """What a Pod takes, from its requests and host ports."""
    amounts = {name: round(quantity.value * 1000) for name, quantity in pod_requests(pod.spec).items()}
    ports = tuple(
        (port.protocol or "TCP", port.host_port, "" if port.host_ip in ("0.0.0.0", "::") else port.host_ip)
        for container in (*pod.spec.init_containers, *pod.spec.containers)
        for port in container.ports
        if port.host_port
    )
    return Demand(amounts, ports)


def unfit(pod: Pod, wanted: Demand, node: Node, space: Space) -> list[str]:
    """Why ``pod`` cannot be placed on ``node``: the reasons of the first filter that fails; [] if it fits."""
    return (
        _taints(pod, node)
        or _node_selection(pod, node)
        or _spread(pod, node, space.pods)
        or resources(wanted, node, space)
        or pod_affinity(pod, node, space.pods)
    )


def resources(wanted: Demand, node: Node, space: Space) -> list[str]:
    """Host ports and amounts: what a preemption can help with."""
    reasons = []
    if any(_clash(port, other) for port in wanted.ports for other in space.ports):
        reasons.append(PORTS)
    allocatable = node.status.allocatable
    if space.taken + 1 > whole(allocatable.get("pods", "500")):
        reasons.append("Too many pods")
    for name, amount in sorted(wanted.amounts.items()):
        free = milli(allocatable.get(name, "0")) - space.amounts.get(name, 0)
        if amount > 0 and amount > free:
            reasons.append(f"Insufficient {name}")
    return reasons


def _clash(one: Port, other: Port) -> bool:
    return one[:2] == other[:2] and (one[2] == other[2] or not one[2] or not other[2])


# Taints


def _taints(pod: Pod, node: Node) -> list[str]:
    taints = [taint for taint in node.spec.taints if taint.effect in ("NoSchedule", "NoExecute")]
    if node.spec.unschedulable:
        taints.append(Taint(key=UNSCHEDULABLE_TAINT, effect="NoSchedule"))
    for taint in taints:
        if taint.key == MEMORY_PRESSURE_TAINT and qos_class(pod.spec) != "BestEffort":
            continue  # Kubernetes gives such Pods the toleration when they are made
        if not any(tolerates(toleration, taint) for toleration in pod.spec.tolerations):
            if taint.key == UNSCHEDULABLE_TAINT:
                return ["node(s) were unschedulable"]
            value = f"{taint.key}: {taint.value}" if taint.value else f"{taint.key}: "
            return [f"node(s) had untolerated taint {{{value}}}"]
    return []


# The node's labels


def _node_selection(pod: Pod, node: Node) -> list[str]:
    return [] if node_match.selects(pod.spec, node) else ["node(s) didn't match Pod's node affinity/selector"]


# Other Pods


def pod_affinity(pod: Pod, node: Node, pods: Iterable[Pod]) -> list[str]:
    """Affinity to and against the Pods that are here, and theirs against this one."""
    others = [other for other in pods if other.metadata.uid != pod.metadata.uid]
    affinity = pod.spec.affinity
    if affinity is not None and affinity.pod_affinity is not None:
        terms = affinity.pod_affinity.required_during_scheduling_ignored_during_execution
        for term in terms:
            if term.topology_key not in node.metadata.labels:
                return ["node(s) didn't match pod affinity rules"]
            selects = _Selects(term, pod)
            # The first Pod of a group that wants to be together may be placed: it matches itself.
            if not any(selects(other) for other in others) and not selects(pod):
                return ["node(s) didn't match pod affinity rules"]
    if any(_Selects(term, pod)(other) for term in _against(pod, node) for other in others):
        return [ANTI_AFFINITY]
    if any(_Selects(term, other)(pod) for other in others for term in _against(other, node)):
        return [EXISTING_ANTI_AFFINITY]
    return []


def has_anti_affinity(pod: Pod) -> bool:
    """Whether a Pod keeps others away, so that it has to be looked at for each of them."""
    affinity = pod.spec.affinity.pod_anti_affinity if pod.spec.affinity else None
    return affinity is not None and bool(affinity.required_during_scheduling_ignored_during_execution)


def looks_at_pods(pod: Pod) -> bool:
    """Whether the placement of a Pod depends on which others are here."""
    return pod.spec.affinity is not None or bool(pod.spec.topology_spread_constraints)


def _against(pod: Pod, node: Node) -> Iterator[PodAffinityTerm]:
    affinity = pod.spec.affinity.pod_anti_affinity if pod.spec.affinity else None
    for term in affinity.required_during_scheduling_ignored_during_execution if affinity else ():
        if term.topology_key in node.metadata.labels:
            yield term


class _Selects:
    """Whether an affinity term of ``owner`` selects a Pod.

    Namespace selectors are taken by name only: an empty one selects all namespaces, another one those whose label
    ``kubernetes.io/metadata.name`` it matches.
    """

    def __init__(self, term: PodAffinityTerm, owner: Pod) -> None:
        self._labels = _selection(term.label_selector, term.match_label_keys, owner, term.mismatch_label_keys)
        self._namespaces = term.namespaces
        self._selector = term.namespace_selector
        if not term.namespaces and term.namespace_selector is None:
            self._namespaces = (owner.metadata.namespace,)

    def __call__(self, pod: Pod) -> bool:
        namespace = pod.metadata.namespace
        inside = namespace in self._namespaces
        if not inside and self._selector is not None:
            inside = LabelSelection.of(self._selector).matches({"kubernetes.io/metadata.name": namespace})
        return inside and self._labels is not None and self._labels(pod.metadata.labels)


class _Labels:
    def __init__(self, selection: LabelSelection, same: Mapping[str, str], other: Mapping[str, str]) -> None:
        self._selection, self._same, self._other = selection, same, other

    def __call__(self, labels: Mapping[str, str]) -> bool:
        return (
            self._selection.matches(labels)
            and all(labels.get(key) == value for key, value in self._same.items())
            and all(labels.get(key) != value for key, value in self._other.items())
        )


def _selection(
    selector: LabelSelector | None, same: Sequence[str], owner: Pod, other: Sequence[str] = ()
) -> _Labels | None:
    """None, which selects nothing, for an absent selector."""
    if selector is None:
        return None
    labels = owner.metadata.labels
    return _Labels(
        LabelSelection.of(selector),
        {key: labels[key] for key in same if key in labels},
        {key: labels[key] for key in other if key in labels},
    )


def _spread(pod: Pod, node: Node, pods: Sequence[Pod]) -> list[str]:
    for constraint in pod.spec.topology_spread_constraints:
        if constraint.when_unsatisfiable != "DoNotSchedule":
            continue
        if constraint.topology_key not in node.metadata.labels:
            return ["node(s) didn't match pod topology spread constraints (missing required label)"]
        if _skew(constraint, pod, pods) > constraint.max_skew:
            return ["node(s) didn't match pod topology spread constraints"]
    return []


def _skew(constraint: TopologySpreadConstraint, pod: Pod, pods: Sequence[Pod]) -> int:
    """How many more this node would have than the emptiest domain. With one node that is itself, unless ``minDomains``
    wants more domains than there are: then the emptiest is one that doesn't exist."""
    selects = _selection(constraint.label_selector, constraint.match_label_keys, pod)
    if selects is None:
        return 0
    here = sum(
        1
        for other in pods
        if other.metadata.namespace == pod.metadata.namespace
        and other.metadata.deletion_timestamp is None
        and selects(other.metadata.labels)
    )
    least = 0 if (constraint.min_domains or 1) > 1 else here
    return here + (1 if selects(pod.metadata.labels) else 0) - least


# Preemption


def victims(pod: Pod, wanted: Demand, node: Node, space: Space, demands: Mapping[str, Demand]) -> list[Pod]:
    """The Pods to evict so that ``pod`` fits: of lower priority, as few and as unimportant as will do; [] if none help.

    ``demands`` by uid. Pods that are being deleted already are waited for and never chosen.
    """
    if pod.spec.preemption_policy == "Never":
        return []
    priority = pod.spec.priority or 0
    lower = [one for one in space.pods if (one.spec.priority or 0) < priority]
    if not lower or any(one.metadata.deletion_timestamp is not None for one in lower):
        return []
    # Least important first, and among equals the youngest.
    lower.sort(key=lambda one: one.metadata.creation_timestamp or "", reverse=True)
    lower.sort(key=lambda one: one.spec.priority or 0)
    chosen: list[Pod] = []
    for one in lower:
        chosen.append(one)
        if not unfit(pod, wanted, node, without(space, chosen, demands)):
            break
    else:
        return []
    # Give back those that turn out not to be needed, the most important first.
    for one in reversed(chosen[:-1]):
        fewer = [other for other in chosen if other is not one]
        if not unfit(pod, wanted, node, without(space, fewer, demands)):
            chosen = fewer
    return chosen


def without(space: Space, gone: Sequence[Pod], demands: Mapping[str, Demand]) -> Space:
    """``space`` as it is once the Pods ``gone`` are."""
    uids = {pod.metadata.uid for pod in gone}
    amounts = dict(space.amounts)
    ports = list(space.ports)
    for uid in uids:
        for name, amount in demands[uid].amounts.items():
            amounts[name] = amounts.get(name, 0) - amount
        for port in demands[uid].ports:
            ports.remove(port)
    return Space(amounts, ports, space.taken - len(uids), [pod for pod in space.pods if pod.metadata.uid not in uids])
