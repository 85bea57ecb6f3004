"""The order in which a Pod's containers start, and which of them start again: pure functions, the kubelet's rules.

Ephemeral containers start as soon as there is a sandbox, once. Init containers run one after another; a sidecar (an
init container with ``restartPolicy: Always``) holds the next one back until it has started. Main containers follow in
their order, each waiting for the postStart hook of the one before it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple

from podrt.engine.specs import ContainerState
from podrt.model.container import Container as ContainerSpec
from podrt.model.container import ContainerRestartRule
from podrt.model.pod import Pod
from podrt.node import backoff
from podrt.node.actions import StartContainer, earliest
from podrt.node.facts import Container, Facts, Hook, ready
from podrt.node.resources import needs_restart


class Role(enum.Enum):
    """The sorts of containers."""

    INIT = "init"
    SIDECAR = "sidecar"
    MAIN = "main"
    EPHEMERAL = "ephemeral"

    @property
    def field(self) -> str:
        """Where in the spec such containers are."""
        return _FIELDS[self]


_FIELDS = {
    Role.INIT: "initContainers",
    Role.SIDECAR: "initContainers",
    Role.MAIN: "containers",
    Role.EPHEMERAL: "ephemeralContainers",
}


def containers(pod: Pod) -> Iterator[tuple[Role, ContainerSpec]]:
    """Every container of a Pod: the init containers in their order, then the main and the ephemeral ones."""
    for spec in pod.spec.init_containers:
        yield (Role.SIDECAR if is_sidecar(spec) else Role.INIT), spec
    for spec in pod.spec.containers:
        yield Role.MAIN, spec
    for ephemeral in pod.spec.ephemeral_containers:
        yield Role.EPHEMERAL, ephemeral


def is_sidecar(spec: ContainerSpec) -> bool:
    """Of an init container: does it go on beside the main containers?"""
    return spec.restart_policy == "Always"


def role_of(pod: Pod, name: str) -> Role:
    """Raises StopIteration for a container that is not the Pod's."""
    return next(role for role, spec in containers(pod) if spec.name == name)


# Which start again


def should_restart(pod: Pod, spec: ContainerSpec, exit_code: int) -> bool:
    """Whether a container that ended with ``exit_code`` is to run again: the first of its rules that matches, else its
    own policy, else the Pod's. Never once the Pod is being deleted.
    """
    if pod.metadata.deletion_timestamp is not None:
        return False
    if any(_matches(rule, exit_code) for rule in spec.restart_policy_rules):
        return True
    policy = restart_policy(pod, spec)
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def restart_policy(pod: Pod, spec: ContainerSpec) -> str:
    return spec.restart_policy or pod.spec.restart_policy


def _matches(rule: ContainerRestartRule, exit_code: int) -> bool:
    codes = rule.exit_codes
    if codes is None or rule.action != "Restart":
        return False
    return (exit_code in codes.values) is (codes.operator == "In")


def _runs_again(pod: Pod, spec: ContainerSpec, run: Container, facts: Facts) -> bool:
    role = role_of(pod, spec.name)
    if role is Role.EPHEMERAL or pod.metadata.deletion_timestamp is not None:
        return False
    if pod.status.phase in ("Succeeded", "Failed"):
        return False
    if role is Role.SIDECAR:
        return over_since(pod, facts) is None
    if facts.of(run).again:
        return True
    if role is Role.INIT and run.exit_code == 0:
        return False
    return should_restart(pod, spec, run.exit_code)


def restart_due_at(pod: Pod, spec: ContainerSpec, run: Container, facts: Facts) -> float | None:
    """When an ended container is to be started again (Unix time, 0: at once); None if it is not."""
    if not run.ended or not _runs_again(pod, spec, run, facts):
        return None
    if changed(spec, run):
        return 0.0
    return run.finished_at + backoff.restart_delay(backoff.level_after(run.level, run.started_at, run.finished_at))


def next_start(pod: Pod, spec: ContainerSpec, facts: Facts, *, afresh: bool = False) -> tuple[StartContainer, float]:
    """The next start of a container that does not run, and when it is due.

    ``afresh``: whatever came of its last run, it has to run in the Pod's new sandbox.
    """
    run = facts.newest(spec.name)
    if run is None:
        return StartContainer(spec.name, 0, 0), 0.0
    if run.state is ContainerState.CREATED:
        return StartContainer(spec.name, run.attempt, run.level), 0.0
    due = 0.0 if afresh else restart_due_at(pod, spec, run, facts) or 0.0
    level = 0 if changed(spec, run) else backoff.level_after(run.level, run.started_at, run.finished_at)
    return StartContainer(spec.name, run.attempt + 1, level + 1), due


def changed(spec: ContainerSpec, run: Container) -> bool:
    """Was the run made from another image than the spec has now, or has it limits that only a restart can change?"""
    return (bool(run.made_from) and run.made_from != spec.image) or resized(spec, run)


def resized(spec: ContainerSpec, run: Container) -> bool:
    """Does a resize ask for a restart?"""
    return run.resources is not None and needs_restart(spec, run.resources)


# How far the Pod is


def has_started(spec: ContainerSpec, run: Container | None, facts: Facts) -> bool:
    """It runs, its postStart hook is over, and its startup probe has passed."""
    if run is None or run.state is not ContainerState.RUNNING:
        return False
    live = facts.of(run)
    return live.post_start not in (Hook.RUNNING, Hook.FAILED) and (spec.startup_probe is None or live.started is True)


def is_ready(spec: ContainerSpec, run: Container | None, facts: Facts) -> bool:
    """It has started, and its readiness probe passes."""
    if run is None or not has_started(spec, run, facts):
        return False
    return spec.readiness_probe is None or facts.of(run).ready is True


def in_sandbox(facts: Facts, run: Container | None) -> bool:
    """Was this run in the sandbox that the Pod has now?"""
    return run is not None and facts.sandbox is not None and run.sandbox_id == facts.sandbox.id


def initialized(pod: Pod, facts: Facts) -> bool:
    """All init containers are through, in this sandbox; true at once when a main container was made in it."""
    if any(in_sandbox(facts, facts.newest(spec.name)) for spec in pod.spec.containers):
        return True
    return not pod.spec.init_containers or not incomplete(pod, facts)


def incomplete(pod: Pod, facts: Facts) -> list[str]:
    """The init containers that are not through, by name."""
    return [spec.name for spec in pod.spec.init_containers if not _is_through(spec, facts)]


def _is_through(spec: ContainerSpec, facts: Facts) -> bool:
    run = facts.newest(spec.name)
    if is_sidecar(spec):
        return in_sandbox(facts, run) and has_started(spec, run, facts)
    return run is not None and in_sandbox(facts, run) and run.ended and run.exit_code == 0


def init_failed(pod: Pod, facts: Facts) -> Container | None:
    """The plain init container that failed for good."""
    for spec in pod.spec.init_containers:
        run = facts.newest(spec.name)
        if is_sidecar(spec) or run is None or not run.ended or run.exit_code == 0:
            continue
        if restart_due_at(pod, spec, run, facts) is None:
            return run
    return None


def last_runs(pod: Pod, facts: Facts) -> list[Container] | None:
    """The last run of each main container, if all have ended for good; else None."""
    found = []
    for spec in pod.spec.containers:
        run = facts.newest(spec.name)
        if run is None or not run.ended or restart_due_at(pod, spec, run, facts) is not None:
            return None
        found.append(run)
    return found


def over_since(pod: Pod, facts: Facts) -> float | None:
    """Unix time since which nothing of the Pod is to run any more; None: it goes on."""
    failed = init_failed(pod, facts)
    if failed is not None and not initialized(pod, facts):
        return failed.finished_at
    ended = last_runs(pod, facts)
    return max(run.finished_at for run in ended) if ended else None


# What starts now


class Due(NamedTuple):
    starts: tuple[StartContainer, ...]
    wake_at: float | None
    """When the next start is due (Unix time)."""
    wants_sandbox: bool
    """Is there anything to start that is a reason to have a sandbox?"""


def due(pod: Pod, facts: Facts, now: float) -> Due:
    """The containers to start now, and when the next one is due."""
    queue = _Queue(facts, now)
    if _walk_init(pod, facts, queue):
        for spec in pod.spec.containers:
            if not _walk_main(pod, spec, facts, queue):
                break
    wants = bool(queue.starts)
    if ready(facts):
        for ephemeral in pod.spec.ephemeral_containers:
            run = facts.newest(ephemeral.name)
            if run is None or run.state is ContainerState.CREATED:
                queue.add(*next_start(pod, ephemeral, facts))
    return Due(tuple(queue.starts), queue.wake_at, wants)


class _Queue:
    """Collects starts, by whether they are due."""

    def __init__(self, facts: Facts, now: float) -> None:
        self._facts = facts
        self._now = now
        self.starts: list[StartContainer] = []
        self.wake_at: float | None = None

    def add(self, start: StartContainer, at: float) -> bool:
        """Whether it is due."""
        failure = self._facts.failures.get(start.name)
        if failure is not None:
            at = max(at, failure.retry_at)
        if self._now >= at:
            self.starts.append(start)
            return True
        self.wake_at = earliest(self.wake_at, at)
        return False


def _walk_main(pod: Pod, spec: ContainerSpec, facts: Facts, queue: _Queue) -> bool:
    """Queue one main container if it is to start. Whether the next one may follow now."""
    run = facts.newest(spec.name)
    if run is not None and run.state is ContainerState.RUNNING:
        return facts.of(run).post_start is not Hook.RUNNING
    if run is not None and run.ended and restart_due_at(pod, spec, run, facts) is None:
        return True
    hook = spec.lifecycle is not None and spec.lifecycle.post_start is not None
    return not (queue.add(*next_start(pod, spec, facts)) and hook)


def _walk_init(pod: Pod, facts: Facts, queue: _Queue) -> bool:
    """Queue the init containers that are to start. Whether the main containers may follow."""
    specs = pod.spec.init_containers
    begun = initialized(pod, facts)
    last_made = max(
        (index for index, spec in enumerate(specs) if in_sandbox(facts, facts.newest(spec.name))), default=0
    )
    for index, spec in enumerate(specs):
        run = facts.newest(spec.name)
        here = in_sandbox(facts, run)
        if is_sidecar(spec):
            if run is None or not here or run.state is not ContainerState.RUNNING:
                queue.add(*next_start(pod, spec, facts, afresh=not here))
            # One that had started and ended since is only started again: what came after it goes on.
            if not begun and (not here or index >= last_made) and not has_started(spec, run if here else None, facts):
                return False
        elif not begun and not _is_through(spec, facts):
            _walk_plain(pod, spec, facts, queue)
            return False
    return True


def _walk_plain(pod: Pod, spec: ContainerSpec, facts: Facts, queue: _Queue) -> None:
    """Queue the plain init container whose turn it is, unless it runs or has failed for good."""
    run = facts.newest(spec.name)
    here = in_sandbox(facts, run)
    if run is not None and here and run.state is ContainerState.RUNNING:
        return
    if run is None or run.state is ContainerState.CREATED or not here:
        queue.add(*next_start(pod, spec, facts, afresh=not here))
    elif restart_due_at(pod, spec, run, facts) is not None:
        queue.add(*next_start(pod, spec, facts))
