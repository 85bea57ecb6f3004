"""DaemonSet: which nodes run its Pod, and how its Pods are replaced. Pure functions."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from podrt.controllers.pods import NEVER, available_in, is_finished, is_ready
from podrt.model.apps import REVISION_HASH, DaemonSet, DaemonSetStatus
from podrt.model.intorstr import scaled
from podrt.model.node import Node
from podrt.model.node_match import selects, tolerates
from podrt.model.pod import Pod, PodSpec
from podrt.model.scheduling import Toleration

TOLERATED = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
"""Taints that a DaemonSet's Pods tolerate in any case."""


class Plan(NamedTuple):
    """``create``: names of nodes; ``failed``: Pods that are deleted because they failed, with back-off."""

    create: tuple[str, ...]
    delete: tuple[Pod, ...]
    failed: tuple[Pod, ...]
    status: DaemonSetStatus
    again: float | None


def tolerations(spec: PodSpec) -> tuple[Toleration, ...]:
    """The Pod's own and those that every daemon has."""
    more = [Toleration(key=key, operator="Exists", effect=effect) for key, effect in TOLERATED]
    if spec.host_network:
        key = "node.kubernetes.io/network-unavailable"
        more.append(Toleration(key=key, operator="Exists", effect="NoSchedule"))
    return (*spec.tolerations, *(entry for entry in more if entry not in spec.tolerations))


def runs_on(spec: PodSpec, node: Node) -> bool:
    """Whether a Pod of this spec belongs on a node: its name, labels, required affinity, and taints."""
    if spec.node_name and spec.node_name != node.metadata.name:
        return False
    if not selects(spec, node):
        return False
    accepted = tolerations(spec)
    return all(
        taint.effect == "PreferNoSchedule" or any(tolerates(entry, taint) for entry in accepted)
        for taint in node.spec.taints
    )


def plan(value: DaemonSet, pods: list[Pod], nodes: list[Node], update: str, now: float) -> Plan:
    """What one DaemonSet needs; ``update`` is the name of the present template's revision."""
    template = value.spec.template.spec
    wanted = {node.metadata.name for node in nodes if runs_on(template, node)}
    by_node: dict[str, list[Pod]] = {}
    for pod in pods:
        by_node.setdefault(pod.spec.node_name, []).append(pod)
    waits = {pod.metadata.uid: available_in(pod, value.spec.min_ready_seconds, now) for pod in pods}
    create: list[str] = []
    delete: list[Pod] = []
    failed: list[Pod] = []
    if value.metadata.deletion_timestamp is None:
        for node, mine in by_node.items():
            live = [pod for pod in mine if pod.metadata.deletion_timestamp is None]
            if node not in wanted:
                delete += live
                continue
            failed += [pod for pod in live if is_finished(pod)]
            delete += _surplus([pod for pod in live if not is_finished(pod)], update, waits)
        create = [node for node in sorted(wanted) if not any(not is_finished(p) for p in by_node.get(node, ()))]
        # A finished Pod holds its place until it is deleted, so that its back-off is kept.
        create = [node for node in create if not by_node.get(node)]
        delete += _roll(value, wanted, by_node, waits, update, create)
    unique = {pod.metadata.uid: pod for pod in delete}
    later = [wait for wait in waits.values() if 0 < wait < NEVER]
    status = _status(value, wanted, by_node, waits, update)
    return Plan(tuple(create), tuple(unique.values()), tuple(failed), status, min(later, default=None))


def _surplus(live: list[Pod], update: str, waits: dict[str, float]) -> list[Pod]:
    """Of several Pods on one node: all but the oldest of each template; an old one as soon as a new one serves."""
    order = sorted(live, key=lambda pod: (pod.metadata.creation_timestamp or "", pod.metadata.name))
    new = [pod for pod in order if pod.metadata.labels.get(REVISION_HASH) == update]
    old = [pod for pod in order if pod not in new]
    if any(waits[pod.metadata.uid] == 0 for pod in new):
        return [*old, *new[1:]]
    return [*old[1:], *new[1:]]


def _roll(
    value: DaemonSet,
    wanted: set[str],
    by_node: dict[str, list[Pod]],
    waits: dict[str, float],
    update: str,
    create: list[str],
) -> list[Pod]:
    """Pods of old templates that may go now; with a surge the new one is made first, beside the old."""
    strategy = value.spec.update_strategy
    if strategy.type != "RollingUpdate":
        return []
    rolling, total = strategy.rolling_update, len(wanted)
    surge = scaled((rolling.max_surge or 0) if rolling is not None else 0, total, round_up=True)
    given = rolling.max_unavailable if rolling is not None else 1
    limit = scaled(1 if given is None else given, total, round_up=True)
    serving = {node for node in wanted if any(waits[pod.metadata.uid] == 0 for pod in by_node.get(node, ()))}
    unavailable = total - len(serving)
    doubled = sum(len([p for p in by_node.get(node, ()) if not is_finished(p)]) > 1 for node in wanted)
    found: list[Pod] = []
    for node in sorted(wanted):
        live = [p for p in by_node.get(node, ()) if p.metadata.deletion_timestamp is None and not is_finished(p)]
        old = [pod for pod in live if pod.metadata.labels.get(REVISION_HASH) != update]
        if not old or len(live) > len(old):
            continue
        if surge:
            if node not in serving:
                found += old
            elif doubled < surge:
                create.append(node)
                doubled += 1
        elif node not in serving:
            found += old
        elif unavailable < limit:
            found += old
            unavailable += 1
    return found


def _status(
    value: DaemonSet, wanted: set[str], by_node: dict[str, list[Pod]], waits: dict[str, float], update: str
) -> DaemonSetStatus:
    scheduled = ready = available = updated = misplaced = 0
    for node, mine in by_node.items():
        live = [pod for pod in mine if not is_finished(pod)]
        if node not in wanted:
            misplaced += bool(live)
            continue
        scheduled += bool(live)
        ready += any(is_ready(pod) and pod.metadata.deletion_timestamp is None for pod in live)
        available += any(waits[pod.metadata.uid] == 0 for pod in live)
        updated += any(pod.metadata.labels.get(REVISION_HASH) == update for pod in live)
    return replace(
        value.status,
        observed_generation=value.metadata.generation,
        current_number_scheduled=scheduled,
        desired_number_scheduled=len(wanted),
        number_misscheduled=misplaced,
        number_ready=ready,
        updated_number_scheduled=updated,
        number_available=available,
        number_unavailable=len(wanted) - available,
    )
