"""Startup, liveness and readiness probes: what a row of results means (pure), and the tasks that ask.

:class:`ProbeState` is the decision: begun with :func:`begin`, moved by :func:`after`, without clock or kernel, so its
tables are tested in virtual time. :class:`Prober` asks for one running container: a task for each probe, no thread, no
session.
"""

from __future__ import annotations

import asyncio
import enum
import math
import random
import time
from collections.abc import Callable
from typing import NamedTuple

from podrt.model.container import Probe
from podrt.node.facts import Live
from podrt.node.handlers import HandlerError, Outcome, Result, Target, run_probe

MAX_TRIES = 3
"""How often a handler that could not be run is tried in one period."""

TOGETHER = 0.05
"""Seconds; probes that are due within one such step are asked one right after the other. A daemon that wakes up for
each of 300 a second takes a third more, for nothing that it has used before is still in the caches."""

Tell = Callable[[str, str, str], None]
"""Records an event: type, reason, message."""


class Kind(enum.StrEnum):
    STARTUP = "startup"
    LIVENESS = "liveness"
    READINESS = "readiness"


class ProbeState(NamedTuple):
    """One probe of one run of a container. Times are seconds of any clock."""

    kind: Kind
    passed: bool | None
    """What the probe says now: a readiness probe failed and a liveness probe passed before their first result, a
    startup probe unknown (None)."""
    due: float
    last: bool | None = None
    streak: int = 0
    """How often ``last`` came in a row."""
    held: bool = False
    """It has said its last word on this run: a startup probe that passed, a startup or liveness probe that failed."""


def begin(kind: Kind, probe: Probe, now: float, age: float, known: bool | None = None) -> ProbeState:
    """The state before the first result, of a container that has run for ``age`` seconds.

    ``known``: what was known before the daemon was started again.
    """
    passed = {Kind.STARTUP: None, Kind.LIVENESS: True, Kind.READINESS: False}[kind] if known is None else known
    due = now + max(probe.initial_delay_seconds - age, 0.0)
    return ProbeState(kind, passed, due, held=kind is Kind.STARTUP and passed is True)


def runs(state: ProbeState, *, started: bool, deleting: bool) -> bool:
    """Is this probe to be asked? A startup probe until it passes, the others from then on; only readiness while the Pod
    is being deleted.
    """
    if state.held or (deleting and state.kind is not Kind.READINESS):
        return False
    return state.kind is Kind.STARTUP or started


def after(state: ProbeState, probe: Probe, success: bool | None, now: float) -> ProbeState:
    """The state after a result; None: the handler could not be run, which says nothing."""
    state = state._replace(due=max(state.due + max(probe.period_seconds, 1), now))
    if success is None:
        return state
    streak = state.streak + 1 if state.last is success else 1
    state = state._replace(last=success, streak=streak)
    if streak < max(probe.success_threshold if success else probe.failure_threshold, 1):
        return state
    if state.kind is Kind.READINESS:
        return state._replace(passed=success)
    # Without success a new container comes; with it the startup probe is done.
    return state._replace(passed=success, held=not success or state.kind is Kind.STARTUP)


def asked_at(due: float) -> float:
    """The end of the step in which a probe is due: when it is asked."""
    return math.ceil(due / TOGETHER) * TOGETHER


class Prober:
    """Asks the probes of one running container; ``on_change`` is called when what they say has changed."""

    def __init__(
        self,
        target: Target,
        started_at: float,
        tell: Tell,
        on_change: Callable[[], None],
        *,
        known: tuple[bool | None, bool | None] = (None, None),
    ) -> None:
        """``known``: (started, ready) as of before the daemon was started again."""
        self._target = target
        self._started_at = started_at
        self._tell = tell
        self._on_change = on_change
        spec = target.spec
        self._probes = {
            kind: probe
            for kind, probe in (
                (Kind.STARTUP, spec.startup_probe),
                (Kind.LIVENESS, spec.liveness_probe),
                (Kind.READINESS, spec.readiness_probe),
            )
            if probe is not None
        }
        self._states: dict[Kind, ProbeState] = {}
        self._tasks: dict[Kind, asyncio.Task[None]] = {}
        again = known != (None, None)
        self._begin(Kind.STARTUP, known[0] or None, jitter=again)
        self._begin(Kind.READINESS, known[1], jitter=again)
        self._begin(Kind.LIVENESS, None, jitter=again)
        self._go()

    def _begin(self, kind: Kind, known: bool | None, *, jitter: bool) -> None:
        probe = self._probes.get(kind)
        if probe is not None:
            # The probes of all Pods begin at once after a restart of the daemon; they shall not stay in step.
            wait = random.random() * probe.period_seconds if jitter else 0.0
            now = asyncio.get_running_loop().time()
            age = time.time() - self._started_at
            self._states[kind] = begin(kind, probe, now + wait, age + wait, known)

    def report(self, live: Live) -> Live:
        """``live`` with what the probes say now."""
        startup, liveness = self._states.get(Kind.STARTUP), self._states.get(Kind.LIVENESS)
        readiness = self._states.get(Kind.READINESS)
        unhealthy = ""
        if startup is not None and startup.passed is False:
            unhealthy = "startup"
        elif liveness is not None and liveness.passed is False:
            unhealthy = "liveness"
        return live._replace(
            started=self._started(),
            ready=readiness.passed if readiness is not None else None,
            unhealthy=unhealthy,
        )

    def deleting(self) -> None:
        """The Pod is being deleted: only readiness goes on."""
        for kind in (Kind.STARTUP, Kind.LIVENESS):
            if (task := self._tasks.pop(kind, None)) is not None:
                task.cancel()

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    def _started(self) -> bool:
        startup = self._states.get(Kind.STARTUP)
        return startup is None or startup.passed is True

    def _go(self) -> None:
        """Start the tasks whose probes may run now and have none."""
        for kind, state in self._states.items():
            if kind not in self._tasks and runs(state, started=self._started(), deleting=False):
                name = f"{kind} probe of {self._target.container_id[:12]}"
                self._tasks[kind] = asyncio.get_running_loop().create_task(self._ask_on(kind), name=name)

    async def _ask_on(self, kind: Kind) -> None:
        loop = asyncio.get_running_loop()
        probe = self._probes[kind]
        while not self._states[kind].held:
            due = self._states[kind].due
            if due > (now := loop.time()):
                await asyncio.sleep(asked_at(due) - now)
            outcome = await self._ask(kind, probe)
            before = self._states[kind]
            success = None if outcome is None else outcome.result is not Result.FAILURE
            self._states[kind] = after(before, probe, success, loop.time())
            if self._states[kind].passed != before.passed:
                self._go()
                self._on_change()

    async def _ask(self, kind: Kind, probe: Probe) -> Outcome | None:
        word = kind.capitalize()
        for left in reversed(range(MAX_TRIES)):
            try:
                outcome = await run_probe(probe, self._target)
            except HandlerError as error:
                if not left:
                    self._tell("Warning", "Unhealthy", f"{word} probe errored and resulted in unknown state: {error}")
                continue
            if outcome.result is Result.FAILURE:
                self._tell("Warning", "Unhealthy", f"{word} probe failed: {outcome.text}")
            elif outcome.result is Result.WARNING:
                self._tell("Warning", "ProbeWarning", f"{word} probe warning: {outcome.text}")
            return outcome
        return None
