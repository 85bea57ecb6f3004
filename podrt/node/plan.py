"""What to do next for a Pod: a pure function of the Pod and the facts. No kernel, no clock, no state.

The worker carries the actions out in their order, gathers the facts again and asks again, until there is nothing to do
before ``wake_at``. Restart rules and numbers are the kubelet's.
"""

from __future__ import annotations

from typing import NamedTuple

from podrt.engine.specs import ContainerState
from podrt.model.base import parse_time
from podrt.model.container import Container as ContainerSpec
from podrt.model.pod import Pod
from podrt.node import backoff
from podrt.node.facts import Container, Facts, ready


class SetUpSandbox(NamedTuple):
    attempt: int


class StopSandbox(NamedTuple):
    """Ends what runs in it and frees its network; records and logs stay."""

    sandbox_id: str


class RemoveSandbox(NamedTuple):
    """With all its containers."""

    sandbox_id: str


class StartContainer(NamedTuple):
    name: str
    attempt: int
    level: int
    """Back-off level that the new container carries."""


class StopContainer(NamedTuple):
    container_id: str
    name: str
    deadline: float
    """Unix time at which SIGKILL follows the stop signal."""
    reason: str


class RemoveContainer(NamedTuple):
    container_id: str


class Finish(NamedTuple):
    """Nothing is left of a Pod that is being deleted: volumes can go, and the object."""


Action = SetUpSandbox | StopSandbox | RemoveSandbox | StartContainer | StopContainer | RemoveContainer | Finish


class Plan(NamedTuple):
    actions: tuple[Action, ...]
    wake_at: float | None = None
    """Unix time at which something will be due though no fact has changed; None: never."""


def should_restart(pod: Pod, spec: ContainerSpec, exit_code: int) -> bool:
    """Whether a container that ended with ``exit_code`` is to run again, by the Pod's restart policy."""
    if pod.metadata.deletion_timestamp is not None:
        return False
    policy = spec.restart_policy or pod.spec.restart_policy
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def finished_for_good(pod: Pod) -> bool:
    """Succeeded and Failed are final."""
    return pod.status.phase in ("Succeeded", "Failed")


def plan(pod: Pod, facts: Facts, now: float) -> Plan:
    """The actions due at ``now`` (Unix time)."""
    if pod.metadata.deletion_timestamp is not None:
        return _deletion(pod, facts)
    if finished_for_good(pod):
        return _terminal(facts)
    deadline = _active_deadline(pod)
    if deadline is not None and now >= deadline:
        return _overdue(facts, now, pod.spec.termination_grace_period_seconds)
    todo = _running(pod, facts, now)
    wakes = [time for time in (todo.wake_at, deadline) if time is not None]
    return Plan(todo.actions, min(wakes) if wakes else None)


def _deletion(pod: Pod, facts: Facts) -> Plan:
    """Stop signal and grace, then everything away, then the object. ``deletionTimestamp`` is the end of the grace."""
    assert pod.metadata.deletion_timestamp is not None
    deadline = parse_time(pod.metadata.deletion_timestamp).timestamp()
    if pod.metadata.deletion_grace_period_seconds:
        # The API's times have no fractions: what was cut off is given back, so the grace is never shorter than asked.
        deadline += 1
    stops = _stops(facts, deadline, "the Pod is being deleted")
    if stops:
        return Plan(stops)
    boxes = ([facts.sandbox.id] if facts.sandbox else []) + list(facts.old_sandboxes)
    if boxes:
        return Plan(tuple(RemoveSandbox(box) for box in boxes))
    return Plan((Finish(),))


def _terminal(facts: Facts) -> Plan:
    """A finished Pod keeps its records and logs until it is deleted, and gives its address back."""
    return Plan((StopSandbox(facts.sandbox.id),) if facts.sandbox is not None and ready(facts) else ())


def _overdue(facts: Facts, now: float, grace: int | None) -> Plan:
    """activeDeadlineSeconds is over: everything ends, with the Pod's grace period."""
    return Plan(_stops(facts, now + (30 if grace is None else grace), "the Pod's activeDeadlineSeconds are over"))


def _active_deadline(pod: Pod) -> float | None:
    if pod.spec.active_deadline_seconds is None or not pod.status.start_time:
        return None
    return parse_time(pod.status.start_time).timestamp() + pod.spec.active_deadline_seconds


def _stops(facts: Facts, deadline: float, reason: str) -> tuple[Action, ...]:
    return tuple(
        StopContainer(run.id, run.name, deadline, reason)
        for runs in facts.containers.values()
        for run in runs
        if run.state is ContainerState.RUNNING
    )


def _running(pod: Pod, facts: Facts, now: float) -> Plan:
    wanted, wake_at = _due(pod, facts, now)
    if not ready(facts):
        return _sandbox_first(facts, bool(wanted), wake_at, now)
    actions: list[Action] = []
    for start in wanted:
        actions += (RemoveContainer(run.id) for run in _superseded(facts, start))
        actions.append(start)
    return Plan((*actions, *_old_sandboxes(facts)), wake_at)


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


def _due(pod: Pod, facts: Facts, now: float) -> tuple[list[StartContainer], float | None]:
    """Containers to be started now, and when the next one is due."""
    due: list[StartContainer] = []
    later: list[float] = []
    for spec in pod.spec.containers:
        run = facts.newest(spec.name)
        start, at = _next_start(pod, spec, run)
        failure = facts.failures.get(spec.name)
        if start is not None and failure is not None:
            at = max(at, failure.retry_at)
        if start is None:
            continue
        if now >= at:
            due.append(start)
        else:
            later.append(at)
    return due, min(later) if later else None


def _next_start(pod: Pod, spec: ContainerSpec, run: Container | None) -> tuple[StartContainer | None, float]:
    """The next start of a container and when (Unix time); None if it runs or is done."""
    if run is None:
        return StartContainer(spec.name, 0, 0), 0.0
    if run.state is ContainerState.CREATED:
        return StartContainer(spec.name, run.attempt, run.level), 0.0
    if run.state is ContainerState.RUNNING or not should_restart(pod, spec, run.exit_code):
        return None, 0.0
    level = backoff.level_after(run.level, run.started_at, run.finished_at)
    return StartContainer(spec.name, run.attempt + 1, level + 1), run.finished_at + backoff.restart_delay(level)


def restart_due_at(pod: Pod, spec: ContainerSpec, run: Container) -> float | None:
    """When an ended container is to be restarted (Unix time); None if it is not."""
    start, at = _next_start(pod, spec, run)
    return at if start is not None else None


def _superseded(facts: Facts, start: StartContainer) -> list[Container]:
    """Older runs to drop before a start: one dead run is kept, for ``logs --previous`` and ``lastState``."""
    runs = [run for run in facts.containers.get(start.name, ()) if run.id]
    if runs and runs[0].state is ContainerState.CREATED:
        return [runs[0], *runs[2:]]
    return runs[1:]


def _old_sandboxes(facts: Facts) -> tuple[Action, ...]:
    """Dead sandboxes go once none of their containers is the newest run of its name."""
    needed = {runs[0].sandbox_id for runs in facts.containers.values() if runs}
    return tuple(RemoveSandbox(box) for box in facts.old_sandboxes if box not in needed)
