"""ReplicaSet: what is to be made and deleted. Pure functions of the set, its Pods and the time."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from podrt.controllers.pods import NEVER, count, is_active, is_ready, ready_since, restarts
from podrt.model.apps import DELETION_COST, ReplicaSet, ReplicaSetStatus, WorkloadCondition
from podrt.model.base import format_time
from podrt.model.pod import Pod

_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


class Plan(NamedTuple):
    """Of one sync: how many Pods to make, which to delete, the status, and when to look again."""

    create: int
    delete: tuple[Pod, ...]
    status: ReplicaSetStatus
    again: float | None


def deletion_cost(pod: Pod) -> int:
    text = pod.metadata.annotations.get(DELETION_COST, "0")
    try:
        return int(text)
    except ValueError:
        return 0


def deletion_rank(pod: Pod) -> tuple[int, int, bool, int, float, int, str, str]:
    """Pods of lower rank go first: unassigned; Pending, Unknown, Running; not ready; of lower cost; ready for a shorter
    time; restarted more often; newer.
    """
    since = ready_since(pod)
    return (
        bool(pod.spec.node_name),
        _PHASES.get(pod.status.phase, 0),
        is_ready(pod),
        deletion_cost(pod),
        0.0 if since == NEVER else -since,
        -restarts(pod),
        _newer_first(pod.metadata.creation_timestamp or ""),
        pod.metadata.name,
    )


def _newer_first(stamp: str) -> str:
    """A text that sorts the other way round than the time it was made from."""
    return "".join(chr(0x7F - ord(char)) if ord(char) < 0x7F else char for char in stamp)


def plan(replicas: ReplicaSet, pods: list[Pod], now: float, failure: str = "") -> Plan:
    """What one ReplicaSet needs. ``pods`` are all it controls; ``failure`` is why the last creation failed."""
    wanted = replicas.spec.replicas or 0
    active = [pod for pod in pods if is_active(pod)]
    surplus = len(active) - wanted
    victims: tuple[Pod, ...] = ()
    create = 0
    if replicas.metadata.deletion_timestamp is None:
        create = max(0, -surplus)
        if surplus > 0:
            victims = tuple(sorted(active, key=deletion_rank)[:surplus])
    gone = {pod.metadata.uid for pod in victims}
    kept = [pod for pod in active if pod.metadata.uid not in gone]
    counts = count(kept, replicas.spec.min_ready_seconds, now)
    return Plan(create, victims, _status(replicas, active, pods, now, failure), counts.again)


def _status(replicas: ReplicaSet, active: list[Pod], pods: list[Pod], now: float, failure: str) -> ReplicaSetStatus:
    counts = count(active, replicas.spec.min_ready_seconds, now)
    labels = replicas.spec.template.metadata.labels.items()
    old = next((entry for entry in replicas.status.conditions if entry.type == "ReplicaFailure"), None)
    conditions: tuple[WorkloadCondition, ...] = ()
    if failure:
        stamp = old.last_transition_time if old is not None else format_time(now)
        conditions = (
            WorkloadCondition(
                type="ReplicaFailure",
                status="True",
                reason="FailedCreate",
                message=failure,
                last_transition_time=stamp,
            ),
        )
    terminating = sum(pod.metadata.deletion_timestamp is not None for pod in pods)
    return replace(
        replicas.status,
        replicas=counts.total,
        fully_labeled_replicas=sum(labels <= pod.metadata.labels.items() for pod in active),
        ready_replicas=counts.ready,
        available_replicas=counts.available,
        terminating_replicas=terminating,
        observed_generation=replicas.metadata.generation,
        conditions=conditions,
    )
