"""A Pod's status from the facts: a pure function. Phase, conditions and container states are the kubelet's.

Times of conditions are kept from the old status while their value stands, so that an unchanged Pod gives an equal
status and nothing is written.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from podrt.engine.specs import ContainerState as RunState
from podrt.engine.specs import NamespaceMode
from podrt.model.base import Time, format_time, parse_time
from podrt.model.container import Container as ContainerSpec
from podrt.model.pod import Pod
from podrt.model.resources import qos_class
from podrt.model.status import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    ContainerUser,
    HostIP,
    LinuxContainerUser,
    PodCondition,
    PodIP,
    PodStatus,
)
from podrt.node import backoff
from podrt.node.facts import Container, Facts, ready
from podrt.node.plan import restart_due_at


class NodeFacts(NamedTuple):
    host_ips: tuple[str, ...]
    """The node's addresses, IPv4 first."""


def pod_status(pod: Pod, facts: Facts, node: NodeFacts, now: float) -> PodStatus:
    """The whole status at ``now`` (Unix time)."""
    old = pod.status
    statuses = tuple(container_status(pod, spec, facts, now) for spec in pod.spec.containers)
    phase, reason, message = _phase(pod, facts, statuses, now)
    ips = _pod_ips(facts, node) or tuple(ip.ip for ip in old.pod_ips)
    return msgspec.structs.replace(
        old,
        observed_generation=pod.metadata.generation,
        phase=phase,
        reason=reason,
        message=message,
        conditions=_conditions(pod, facts, statuses, phase, now),
        host_ip=node.host_ips[0] if node.host_ips else "",
        host_ips=tuple(HostIP(ip=ip) for ip in node.host_ips),
        pod_ip=ips[0] if ips else "",
        pod_ips=tuple(PodIP(ip=ip) for ip in ips),
        start_time=old.start_time or format_time(now),
        container_statuses=statuses,
        qos_class=old.qos_class or qos_class(pod.spec),
    )


def _pod_ips(facts: Facts, node: NodeFacts) -> tuple[str, ...]:
    if facts.sandbox is None:
        return ()
    if facts.sandbox.spec.network is NamespaceMode.NODE:
        return node.host_ips
    return facts.sandbox.ips


def container_status(pod: Pod, spec: ContainerSpec, facts: Facts, now: float) -> ContainerStatus:
    """The status of one container from its newest runs."""
    runs = facts.containers.get(spec.name, ())
    run = runs[0] if runs else None
    state, last = _states(pod, spec, facts, now)
    running = state.running is not None
    return ContainerStatus(
        name=spec.name,
        state=state,
        last_state=last,
        ready=running,
        started=running,
        restart_count=run.attempt if run else 0,
        image=run.image_ref if run and run.image_ref else spec.image,
        image_id=run.image_id if run else "",
        container_id=f"podrt://{run.id}" if run and run.id else "",
        user=_user(run) if run and running else None,
        resources=spec.resources if running and (spec.resources.limits or spec.resources.requests) else None,
    )


def _user(run: Container) -> ContainerUser | None:
    if run.uid is None or run.gid is None:
        return None
    return ContainerUser(linux=LinuxContainerUser(uid=run.uid, gid=run.gid, supplemental_groups=run.groups))


def _states(pod: Pod, spec: ContainerSpec, facts: Facts, now: float) -> tuple[ContainerState, ContainerState]:
    """(state, lastState)."""
    runs = facts.containers.get(spec.name, ())
    run = runs[0] if runs else None
    before = next((one for one in runs[1:] if one.state is RunState.EXITED), None)
    last = _ended(before) if before else ContainerState()
    failure = facts.failures.get(spec.name)
    if run is None or run.state is RunState.CREATED:
        return _waiting(failure.reason, failure.message) if failure else _waiting("ContainerCreating"), last
    if run.state is RunState.RUNNING:
        return ContainerState(running=ContainerStateRunning(started_at=_time(run.started_at))), last
    due = restart_due_at(pod, spec, run)
    if due is None:
        return _ended(run), last
    if failure is not None:
        return _waiting(failure.reason, failure.message), _ended(run)
    if due > now:
        delay = backoff.restart_delay(backoff.level_after(run.level, run.started_at, run.finished_at))
        text = f"back-off {_duration(delay)} restarting failed container={spec.name} pod={_pod_name(pod)}"
        return _waiting("CrashLoopBackOff", text), _ended(run)
    if not ready(facts):
        return _waiting("ContainerCreating"), _ended(run)
    return _ended(run), last


def _duration(seconds: float) -> str:
    """As Go prints a duration: 10s, 1m20s, 5m0s."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _pod_name(pod: Pod) -> str:
    return f"{pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})"


def _waiting(reason: str, message: str = "") -> ContainerState:
    return ContainerState(waiting=ContainerStateWaiting(reason=reason, message=message))


def _ended(run: Container) -> ContainerState:
    signal = run.exit_code - 128 if run.exit_code > 128 and run.reason != "OOMKilled" else 0
    return ContainerState(
        terminated=ContainerStateTerminated(
            exit_code=run.exit_code,
            signal=signal if 0 < signal < 65 else 0,
            reason=run.reason or ("Completed" if run.exit_code == 0 else "Error"),
            message=run.message,
            started_at=_time(run.started_at),
            finished_at=_time(run.finished_at),
            container_id=f"podrt://{run.id}" if run.id else "",
        )
    )


def _time(moment: float) -> Time | None:
    return format_time(moment) if moment else None


def _phase(pod: Pod, facts: Facts, statuses: tuple[ContainerStatus, ...], now: float) -> tuple[str, str, str]:
    """(phase, reason, message). Succeeded and Failed are final."""
    old = pod.status
    if old.phase in ("Succeeded", "Failed"):
        return old.phase, old.reason, old.message
    running = [status for status in statuses if status.state.running is not None]
    if _overdue(pod, now):
        text = "Pod was active on the node longer than the specified deadline"
        return "Running" if running else "Failed", "DeadlineExceeded", text
    ended = [run for spec in pod.spec.containers if (run := _for_good(pod, spec, facts)) is not None]
    if len(ended) == len(statuses):
        return ("Succeeded" if all(run.exit_code == 0 for run in ended) else "Failed"), "", ""
    first_start = any(status.state.waiting is not None and status.last_state.terminated is None for status in statuses)
    if first_start:
        return "Pending", "", ""
    return "Running", "", ""


def _overdue(pod: Pod, now: float) -> bool:
    limit, start = pod.spec.active_deadline_seconds, pod.status.start_time
    return limit is not None and bool(start) and now >= parse_time(start or "").timestamp() + limit


def _for_good(pod: Pod, spec: ContainerSpec, facts: Facts) -> Container | None:
    """The last run of a container that will not run again, also while its Pod is being deleted."""
    run = facts.newest(spec.name)
    if run is None or run.state not in (RunState.EXITED, RunState.UNKNOWN):
        return None
    return run if restart_due_at(pod, spec, run) is None else None


def _conditions(
    pod: Pod, facts: Facts, statuses: tuple[ContainerStatus, ...], phase: str, now: float
) -> tuple[PodCondition, ...]:
    ended = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "")
    unready = sorted(status.name for status in statuses if not status.ready)
    reason, text = "", ""
    if ended:
        reason = ended
    elif unready:
        reason, text = "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    containers_ready = not unready and not ended
    gates = {gate.condition_type for gate in pod.spec.readiness_gates}
    given = {condition.type: condition for condition in pod.status.conditions}
    missing = sorted(gate for gate in gates if gate not in given or given[gate].status != "True")
    is_ready, ready_reason, ready_text = containers_ready, reason, text
    if containers_ready and missing:
        is_ready, ready_reason = False, "ReadinessGatesNotReady"
        ready_text = f"corresponding condition of pod readiness gate {missing[0]!r} is not True"
    wanted = [
        ("PodReadyToStartContainers", ready(facts), "", ""),
        ("Initialized", True, ended if ended == "PodCompleted" else "", ""),
        ("Ready", is_ready, ready_reason, ready_text),
        ("ContainersReady", containers_ready, reason, text),
        ("PodScheduled", True, "", ""),
    ]
    stamp = format_time(now)
    ours = tuple(_condition(pod, given.get(one[0]), one, stamp) for one in wanted)
    names = {condition.type for condition in ours}
    return ours + tuple(condition for condition in pod.status.conditions if condition.type not in names)


def _condition(pod: Pod, old: PodCondition | None, wanted: tuple[str, bool, str, str], stamp: Time) -> PodCondition:
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
