"""What to do next for a Pod: a pure function of the Pod and the facts. No kernel, no clock, no state.

The worker carries the actions out in their order, gathers the facts again and asks again, until there is nothing to do
before ``wake_at``. Start order and restarts are in ``order``, ends in ``stopping``; rules and numbers are a kubelet's.
"""

from __future__ import annotations

from podrt.engine.specs import ContainerState
from podrt.model.base import parse_time
from podrt.model.pod import Pod
from podrt.node.actions import (
    Action,
    Finish,
    Plan,
    RemoveContainer,
    RemoveSandbox,
    SetUpSandbox,
    StartContainer,
    StopSandbox,
    earliest,
)
from podrt.node.facts import Container, Facts, ready
from podrt.node.order import due, over_since
from podrt.node.stopping import grace_period, stop_all, stop_unfit

EVICTION_GRACE = 1.0
"""Seconds that the containers of an evicted Pod have to end."""


def finished_for_good(pod: Pod) -> bool:
    """Succeeded and Failed are final."""
    return pod.status.phase in ("Succeeded", "Failed")


def plan(pod: Pod, facts: Facts, now: float) -> Plan:
    """The actions due at ``now`` (Unix time)."""
    if pod.metadata.deletion_timestamp is not None:
        return _deletion(pod, facts, now)
    if finished_for_good(pod):
        return _terminal(pod, facts, now)
    deadline = active_deadline(pod)
    if deadline is not None and now >= deadline:
        # Everything ends, with the Pod's grace period.
        return stop_all(pod, facts, deadline + grace_period(pod), now)
    over = over_since(pod, facts)
    todo = _running(pod, facts, now) if over is None else stop_all(pod, facts, over + grace_period(pod), now)
    return todo._replace(wake_at=earliest(todo.wake_at, deadline))


def active_deadline(pod: Pod) -> float | None:
    """Unix time at which activeDeadlineSeconds are over; None: they are not set or don't count yet."""
    if pod.spec.active_deadline_seconds is None or not pod.status.start_time:
        return None
    return parse_time(pod.status.start_time).timestamp() + pod.spec.active_deadline_seconds


def _deletion(pod: Pod, facts: Facts, now: float) -> Plan:
    """Stop signal and grace, then everything away, then the object. ``deletionTimestamp`` is the end of the grace."""
    assert pod.metadata.deletion_timestamp is not None
    deadline = parse_time(pod.metadata.deletion_timestamp).timestamp()
    forced = not pod.metadata.deletion_grace_period_seconds
    if not forced:
        # The API's times have no fractions: what was cut off is given back, so the grace is never shorter than asked.
        deadline += 1
    if _any_running(facts):
        return stop_all(pod, facts, deadline, now, forced=forced)
    boxes = ([facts.sandbox.id] if facts.sandbox else []) + list(facts.old_sandboxes)
    if boxes:
        return Plan(tuple(RemoveSandbox(box) for box in boxes))
    return Plan((Finish(),))


def _terminal(pod: Pod, facts: Facts, now: float) -> Plan:
    """A finished Pod keeps its records and logs until it is deleted, and gives its address back."""
    if _any_running(facts):
        ends = [run.finished_at for runs in facts.containers.values() for run in runs]
        grace = EVICTION_GRACE if pod.status.reason == "Evicted" else grace_period(pod)
        return stop_all(pod, facts, max(ends, default=now) + grace, now)
    return Plan((StopSandbox(facts.sandbox.id),) if facts.sandbox is not None and ready(facts) else ())


def _any_running(facts: Facts) -> bool:
    return any(run.state is ContainerState.RUNNING for runs in facts.containers.values() for run in runs)


def _running(pod: Pod, facts: Facts, now: float) -> Plan:
    wanted = due(pod, facts, now)
    if not ready(facts):
        return _sandbox_first(facts, wanted.wants_sandbox, wanted.wake_at, now)
    stops = stop_unfit(pod, facts, now)
    actions: list[Action] = list(stops.actions)
    for start in wanted.starts:
        actions += (RemoveContainer(run.id) for run in _superseded(facts, start))
        actions.append(start)
    return Plan((*actions, *_old_sandboxes(pod, facts)), earliest(wanted.wake_at, stops.wake_at))


def _sandbox_first(facts: Facts, wanted: bool, wake_at: float | None, now: float) -> Plan:
    """No sandbox, or one that lost its namespaces: end what is left in it, then make another if anything is to run."""
    box = facts.sandbox
    if box is not None and any(
        run.state is ContainerState.RUNNING and run.sandbox_id == box.id
        for runs in facts.containers.values()
        for run in runs
    ):
        return Plan((StopSandbox(box.id),))
    if not wanted:
        return Plan((), wake_at)
    failure = facts.failures.get("")
    if failure is not None and now < failure.retry_at:
        return Plan((), failure.retry_at)
    return Plan((SetUpSandbox(box.spec.attempt + 1 if box else 0),))


def _superseded(facts: Facts, start: StartContainer) -> list[Container]:
    """Older runs to drop before a start: one dead run is kept, for ``logs --previous`` and ``lastState``."""
    runs = [run for run in facts.containers.get(start.name, ()) if run.id]
    if runs and runs[0].state is ContainerState.CREATED:
        return [runs[0], *runs[2:]]
    return runs[1:]


def _old_sandboxes(pod: Pod, facts: Facts) -> tuple[Action, ...]:
    """Dead sandboxes go once none of their containers is the newest run of its name.

    A debugging container is never started again, so it keeps no sandbox; the Pod's status remembers its end.
    """
    names = {spec.name for spec in (*pod.spec.init_containers, *pod.spec.containers)}
    needed = {runs[0].sandbox_id for name, runs in facts.containers.items() if runs and name in names}
    return tuple(RemoveSandbox(box) for box in facts.old_sandboxes if box not in needed)
