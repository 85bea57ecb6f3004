"""A Pod's conditions: pure. Reasons and messages are the kubelet's; conditions of others are left as they are."""

from __future__ import annotations

from collections.abc import Iterable

from podrt.model.base import Time, format_time
from podrt.model.pod import Pod
from podrt.model.status import ContainerStatus, PodCondition
from podrt.node.facts import Facts, ready
from podrt.node.order import incomplete, initialized, is_sidecar

Wanted = tuple[str, bool, str, str]
"""(type, value, reason, message)."""


def conditions(
    pod: Pod,
    facts: Facts,
    inits: Iterable[ContainerStatus],
    mains: Iterable[ContainerStatus],
    phase: str,
    now: float,
) -> tuple[PodCondition, ...]:
    """All conditions at ``now``; a time of transition is kept while its condition's value stands."""
    ended = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "")
    sidecars = {spec.name for spec in pod.spec.init_containers if is_sidecar(spec)}
    counted = [*(status for status in inits if status.name in sidecars), *mains]
    unready = [status.name for status in counted if not status.ready]
    reason, text = "", ""
    if ended:
        reason = ended
    elif unready:
        reason, text = "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    given = {condition.type: condition for condition in pod.status.conditions}
    wanted = [
        ("PodReadyToStartContainers", ready(facts), "", ""),
        _initialized(pod, facts, given, ended),
        _ready(pod, given, not unready and not ended, reason, text),
        ("ContainersReady", not unready and not ended, reason, text),
        ("PodScheduled", True, "", ""),
    ]
    stamp = format_time(now)
    ours = tuple(_condition(pod, given.get(one[0]), one, stamp) for one in wanted)
    names = {condition.type for condition in ours}
    return ours + tuple(condition for condition in pod.status.conditions if condition.type not in names)


def _initialized(pod: Pod, facts: Facts, given: dict[str, PodCondition], ended: str) -> Wanted:
    if ended == "PodCompleted":
        return "Initialized", True, "PodCompleted", ""
    if pod.status.phase in ("Succeeded", "Failed") and "Initialized" in given:
        # The sandbox of a Pod that is over is gone: how far it came is known from before.
        old = given["Initialized"]
        return "Initialized", old.status == "True", old.reason, old.message
    if initialized(pod, facts):
        return "Initialized", True, "", ""
    names = " ".join(incomplete(pod, facts))
    return "Initialized", False, "ContainersNotInitialized", f"containers with incomplete status: [{names}]"


def _ready(pod: Pod, given: dict[str, PodCondition], containers: bool, reason: str, text: str) -> Wanted:
    gates = {gate.condition_type for gate in pod.spec.readiness_gates}
    missing = sorted(gate for gate in gates if gate not in given or given[gate].status != "True")
    if containers and missing:
        text = f"corresponding condition of pod readiness gate {missing[0]!r} is not True"
        return "Ready", False, "ReadinessGatesNotReady", text
    return "Ready", containers, reason, text


def _condition(pod: Pod, old: PodCondition | None, wanted: Wanted, stamp: Time) -> PodCondition:
    kind, value, reason, message = wanted
    status = "True" if value else "False"
    kept = old.last_transition_time if old is not None and old.status == status else None
    return PodCondition(
        type=kind,
        status=status,
        observed_generation=pod.metadata.generation,
        last_transition_time=kept or stamp,
        reason=reason,
        message=message,
    )
