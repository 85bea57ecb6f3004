"""A Pod's status from the facts: a pure function. Phase, conditions and container states are the kubelet's.

Times of conditions are kept from the old status while their value stands, so that an unchanged Pod gives an equal
status and nothing is written.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from podrt.engine.specs import ContainerState as RunState
from podrt.engine.specs import NamespaceMode
from podrt.model.base import Time, format_time
from podrt.model.container import Container as ContainerSpec
from podrt.model.container import ResourceRequirements, VolumeMount
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
    PodIP,
    PodStatus,
    VolumeMountStatus,
)
from podrt.node import backoff, resize
from podrt.node.conditions import conditions
from podrt.node.facts import Container, Facts, Hook, ready
from podrt.node.order import (
    Role,
    has_started,
    init_failed,
    initialized,
    is_ready,
    is_sidecar,
    last_runs,
    restart_due_at,
    role_of,
)
from podrt.node.plan import active_deadline
from podrt.node.resources import differing

MESSAGES_BYTES = 12 * 1024


class NodeFacts(NamedTuple):
    host_ips: tuple[str, ...]
    """The node's addresses, IPv4 first."""


def pod_status(pod: Pod, facts: Facts, node: NodeFacts, now: float) -> PodStatus:
    """The whole status at ``now`` (Unix time)."""
    old, spec = pod.status, pod.spec
    facts = _with_bounded_messages(pod, facts)
    inits = tuple(container_status(pod, one, facts, now) for one in spec.init_containers)
    mains = tuple(container_status(pod, one, facts, now) for one in spec.containers)
    ephemerals = tuple(container_status(pod, one, facts, now) for one in spec.ephemeral_containers)
    phase, reason, message = _phase(pod, facts, inits, mains, ephemerals, now)
    ips = _pod_ips(facts, node) or tuple(ip.ip for ip in old.pod_ips)
    return msgspec.structs.replace(
        old,
        observed_generation=pod.metadata.generation,
        phase=phase,
        reason=reason,
        message=message,
        conditions=conditions(pod, facts, inits, mains, phase, now),
        host_ip=node.host_ips[0] if node.host_ips else "",
        host_ips=tuple(HostIP(ip=ip) for ip in node.host_ips),
        pod_ip=ips[0] if ips else "",
        pod_ips=tuple(PodIP(ip=ip) for ip in ips),
        start_time=old.start_time or format_time(now),
        init_container_statuses=inits,
        container_statuses=mains,
        ephemeral_container_statuses=ephemerals,
        qos_class=old.qos_class or qos_class(spec),
        nominated_node_name="",
        allocated_resources=dict(spec.resources.requests) if spec.resources is not None else {},
        resources=spec.resources,
    )


def _with_bounded_messages(pod: Pod, facts: Facts) -> Facts:
    """All termination messages of a Pod together have :data:`MESSAGES_BYTES`: each container an equal share of them."""
    spec = pod.spec
    limit = MESSAGES_BYTES // (len(spec.init_containers) + len(spec.containers) + len(spec.ephemeral_containers))
    if all(len(run.message) * 4 <= limit for runs in facts.containers.values() for run in runs):
        return facts
    return facts._replace(
        containers={
            name: [run._replace(message=run.message.encode()[:limit].decode(errors="ignore")) for run in runs]
            for name, runs in facts.containers.items()
        }
    )


def _pod_ips(facts: Facts, node: NodeFacts) -> tuple[str, ...]:
    if facts.sandbox is None:
        return ()
    if facts.sandbox.spec.network is NamespaceMode.NODE:
        return node.host_ips
    return facts.sandbox.ips


def container_status(pod: Pod, spec: ContainerSpec, facts: Facts, now: float) -> ContainerStatus:
    """The status of one container from its newest runs."""
    run = facts.newest(spec.name)
    state, last = _states(pod, spec, facts, now)
    running = state.running is not None
    fine = is_ready(spec, run, facts)
    if role_of(pod, spec.name) is Role.INIT:
        # A plain init container is ready when it is through.
        fine = state.terminated is not None and state.terminated.exit_code == 0
    signal = spec.lifecycle.stop_signal if spec.lifecycle else None
    return ContainerStatus(
        name=spec.name,
        state=state,
        last_state=last,
        ready=fine,
        started=running and has_started(spec, run, facts),
        restart_count=run.attempt if run else 0,
        image=run.image_ref if run and run.image_ref else spec.image,
        image_id=run.image_id if run else "",
        container_id=f"podrt://{run.id}" if run and run.id else "",
        user=_user(run) if run and running else None,
        allocated_resources=dict(spec.resources.requests),
        resources=_resources(spec, run) if role_of(pod, spec.name) is not Role.EPHEMERAL else None,
        volume_mounts=tuple(map(_volume_mount, spec.volume_mounts)),
        stop_signal=signal or None,
    )


def _volume_mount(one: VolumeMount) -> VolumeMountStatus:
    deep = None
    if one.read_only:
        deep = "Enabled" if one.recursive_read_only in ("Enabled", "IfPossible") else "Disabled"
    return VolumeMountStatus(
        name=one.name, mount_path=one.mount_path, read_only=one.read_only, recursive_read_only=deep
    )


def _resources(spec: ContainerSpec, run: Container | None) -> ResourceRequirements:
    if run is None or run.resources is None or run.state is not RunState.RUNNING:
        return spec.resources
    return resize.has(spec.resources, run.resources, differing(spec, run.resources))


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
        return _waiting(failure.reason, failure.message) if failure else _coming(pod, spec, facts), last
    if run.state is RunState.RUNNING:
        hook = facts.of(run).post_start
        if hook is Hook.RUNNING:
            # As under a kubelet: a container is not told to run before its postStart hook is over.
            return _coming(pod, spec, facts), last
        if hook is Hook.FAILED:
            return _waiting("PostStartHookError", "PostStartHook failed"), last
        return ContainerState(running=ContainerStateRunning(started_at=_time(run.started_at))), last
    due = restart_due_at(pod, spec, run, facts)
    if due is None:
        return _ended(run), last
    if due > now:
        delay = backoff.restart_delay(backoff.level_after(run.level, run.started_at, run.finished_at))
        text = f"back-off {_duration(delay)} restarting failed container={spec.name} pod={_pod_name(pod)}"
        return _waiting("CrashLoopBackOff", text), _ended(run)
    if failure is not None:
        return _waiting(failure.reason, failure.message), _ended(run)
    if not ready(facts):
        return _coming(pod, spec, facts), _ended(run)
    return _ended(run), last


def _coming(pod: Pod, spec: ContainerSpec, facts: Facts) -> ContainerState:
    """Waiting for its first start."""
    held_back = pod.spec.init_containers and role_of(pod, spec.name) is not Role.EPHEMERAL
    if held_back and not (role_of(pod, spec.name) is Role.MAIN and initialized(pod, facts)):
        return _waiting("PodInitializing")
    return _waiting("ContainerCreating")


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


def _phase(
    pod: Pod,
    facts: Facts,
    inits: tuple[ContainerStatus, ...],
    mains: tuple[ContainerStatus, ...],
    ephemerals: tuple[ContainerStatus, ...],
    now: float,
) -> tuple[str, str, str]:
    """(phase, reason, message). Succeeded and Failed are final, and come when nothing runs any more."""
    old = pod.status
    if old.phase in ("Succeeded", "Failed"):
        return old.phase, old.reason, old.message
    running = any(status.state.running is not None for status in (*inits, *mains, *ephemerals))
    deadline = active_deadline(pod)
    if deadline is not None and now >= deadline:
        text = "Pod was active on the node longer than the specified deadline"
        return "Running" if running else "Failed", "DeadlineExceeded", text
    through = initialized(pod, facts)
    if not through and init_failed(pod, facts) is not None:
        return "Failed" if not running else old.phase or "Pending", "", ""
    ended = last_runs(pod, facts)
    if ended is not None and not running:
        return ("Succeeded" if all(run.exit_code == 0 for run in ended) else "Failed"), "", ""
    if old.phase == "Running" or ended is not None:
        return "Running", "", ""
    first_start = any(status.state.waiting is not None and status.last_state.terminated is None for status in mains)
    sidecars = {spec.name for spec in pod.spec.init_containers if is_sidecar(spec)}
    held_back = any(
        not status.started and not status.last_state.terminated for status in inits if status.name in sidecars
    )
    if not through or first_start or held_back:
        return "Pending", "", ""
    return "Running", "", ""
