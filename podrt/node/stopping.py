"""How containers are stopped: preStop, the stop signal, SIGKILL; sidecars last. Pure functions, the kubelet's rules.

One container goes through: its preStop hook (while the grace period runs), its turn (sidecars wait for the main
containers, and for the sidecars after them), the stop signal, SIGKILL when the grace period is over. A hook or a turn
that has used up the grace period leaves the container :data:`MINIMUM` seconds between signal and kill.
"""

from __future__ import annotations

from podrt.engine.specs import ContainerState
from podrt.model.container import Container as ContainerSpec
from podrt.model.container import Probe
from podrt.model.pod import Pod
from podrt.node.actions import Action, Plan, RunPreStop, StopContainer, earliest
from podrt.node.facts import Container, Facts, Hook
from podrt.node.order import Role, changed, containers, resized, restart_policy, role_of

MINIMUM = 1.0
"""Seconds between the stop signal and SIGKILL at least, unless the deletion is forced."""
DEFAULT_GRACE = 30.0


def grace_period(pod: Pod) -> float:
    """``terminationGracePeriodSeconds`` of the spec."""
    grace = pod.spec.termination_grace_period_seconds
    return DEFAULT_GRACE if grace is None else float(grace)


def stop_all(pod: Pod, facts: Facts, deadline: float, now: float, *, forced: bool = False) -> Plan:
    """Stop whatever runs, in order; ``deadline`` is the end of the grace period. No action and no wake: all is over.

    ``forced``: SIGKILL at once, without hook or turn.
    """
    plans = [
        _stop(pod, facts, run, deadline, now, f"Stopping container {run.name}", forced=forced)
        for runs in facts.containers.values()
        for run in runs
        if run.state is ContainerState.RUNNING
    ]
    return Plan(tuple(action for one in plans for action in one.actions), earliest(*(one.wake_at for one in plans)))


def stop_unfit(pod: Pod, facts: Facts, now: float) -> Plan:
    """Stop the containers of a Pod that goes on whose probe or hook has failed, or whose image was changed."""
    actions: list[Action] = []
    wake_at = None
    for role, spec in containers(pod):
        run = facts.newest(spec.name)
        if run is None or run.state is not ContainerState.RUNNING:
            continue
        reason, probe, again = _unfit(pod, role, spec, run, facts)
        if not reason:
            continue
        grace = probe.termination_grace_period_seconds if probe is not None else None
        deadline = now + (grace_period(pod) if grace is None else grace)
        one = _stop(pod, facts, run, deadline, now, reason, again=again, in_turn=True)
        actions += one.actions
        wake_at = earliest(wake_at, one.wake_at)
    return Plan(tuple(actions), wake_at)


def _unfit(pod: Pod, role: Role, spec: ContainerSpec, run: Container, facts: Facts) -> tuple[str, Probe | None, bool]:
    """Why a running container has to end ("": it has not), the probe that says so, and whether it starts again."""
    live = facts.of(run)
    if role in (Role.MAIN, Role.SIDECAR) and changed(spec, run):
        why = "resize requires restart" if resized(spec, run) else "definition changed, will be restarted"
        return f"Container {spec.name} {why}", None, True
    if live.post_start is Hook.FAILED:
        return "FailedPostStartHook", None, False
    if live.unhealthy:
        again = restart_policy(pod, spec) != "Never"
        probe = spec.startup_probe if live.unhealthy == "startup" else spec.liveness_probe
        text = f"Container {spec.name} failed {live.unhealthy} probe"
        return f"{text}, will be restarted" if again else text, probe, again
    return "", None, False


def _stop(
    pod: Pod,
    facts: Facts,
    run: Container,
    deadline: float,
    now: float,
    reason: str,
    *,
    forced: bool = False,
    again: bool = False,
    in_turn: bool = False,
) -> Plan:
    """The next step of stopping one running container. ``in_turn``: it waits for no other one."""
    live = facts.of(run)
    if live.deadline is not None:
        deadline = min(deadline, live.deadline)
    at_once = forced or deadline <= now
    kill_at = now if forced else max(deadline, now + MINIMUM)
    if live.kill_at is not None:
        if live.kill_at <= kill_at:
            return Plan(())
        return Plan((StopContainer(run.id, run.name, kill_at, reason, again),))
    if not at_once:
        if _pre_stop(pod, run) and live.pre_stop in (Hook.NONE, Hook.RUNNING):
            shorter = live.deadline is None or deadline < live.deadline
            if live.pre_stop is Hook.NONE or shorter:
                return Plan((RunPreStop(run.id, run.name, deadline, reason, again),), deadline)
            return Plan((), deadline)
        if not in_turn and not _is_its_turn(pod, facts, run):
            return Plan((), deadline)
    return Plan((StopContainer(run.id, run.name, kill_at, reason, again),))


def _pre_stop(pod: Pod, run: Container) -> bool:
    for _, spec in containers(pod):
        if spec.name == run.name:
            return spec.lifecycle is not None and spec.lifecycle.pre_stop is not None
    return False


def _is_its_turn(pod: Pod, facts: Facts, run: Container) -> bool:
    """A sidecar goes after the main and plain init containers and after the sidecars behind it; all others at once."""
    if role_of(pod, run.name) is not Role.SIDECAR:
        return True
    behind = False
    for role, spec in containers(pod):
        if spec.name == run.name:
            behind = True
            continue
        newest = facts.newest(spec.name)
        if newest is None or newest.state is not ContainerState.RUNNING or role is Role.EPHEMERAL:
            continue
        if role is not Role.SIDECAR or behind:
            return False
    return True
