"""What accompanies a Pod's running containers: their probes, hooks and stops, each a task beside the worker's loop.

It carries out what the plan asks for and tells the next round of facts how far things are (:class:`Live`); it decides
nothing. What it knows dies with the daemon: :meth:`Attendant.attend` then begins anew from the stored status.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from podrt.engine.specs import ContainerState
from podrt.errors import PodrtError
from podrt.model.container import Container as ContainerSpec
from podrt.model.pod import Pod
from podrt.node.actions import RunPreStop, StopContainer
from podrt.node.context import Context
from podrt.node.facts import NOTHING, Container, Facts, Hook, Live
from podrt.node.handlers import Target
from podrt.node.hooks import HookError, run_hook
from podrt.node.order import containers
from podrt.node.probes import Prober

logger = logging.getLogger(__name__)

RETRY_AFTER_ERROR = 5.0
"""Seconds until the next try after a stop that failed."""


@dataclass
class _Attended:
    """One run of a container."""

    live: Live = NOTHING
    prober: Prober | None = None
    hook: asyncio.Task[None] | None = None
    hook_limit: asyncio.Timeout | None = None
    stop: asyncio.Task[None] | None = None
    told: bool = field(default=False)
    """The Killing event has been recorded."""

    def close(self) -> None:
        if self.prober is not None:
            self.prober.close()
            self.prober = None
        for task in (self.hook, self.stop):
            if task is not None:
                task.cancel()


class Attendant:
    """Of one Pod; ``poke`` wakes its worker."""

    def __init__(self, context: Context, poke: Callable[[], None]) -> None:
        self._context = context
        self._poke = poke
        self._runs: dict[str, _Attended] = {}

    def live(self) -> Mapping[str, Live]:
        """By container id."""
        return {ident: one.prober.report(one.live) if one.prober else one.live for ident, one in self._runs.items()}

    def attend(self, pod: Pod, facts: Facts) -> None:
        """Begin the probes of what runs, end those of what does not, forget runs that are gone."""
        specs = {spec.name: spec for _, spec in containers(pod)}
        known = {run.id for runs in facts.containers.values() for run in runs}
        for ident in [ident for ident in self._runs if ident not in known]:
            self._runs.pop(ident).close()
        for runs in facts.containers.values():
            for run in runs:
                if not run.id or run.name not in specs:
                    continue
                if run.state is ContainerState.RUNNING:
                    self._attend_running(pod, specs[run.name], run, facts)
                elif (ended := self._runs.get(run.id)) is not None:
                    self._end(ended)

    def _attend_running(self, pod: Pod, spec: ContainerSpec, run: Container, facts: Facts) -> None:
        one = self._runs.get(run.id)
        restored = one is None
        if one is None:
            one = self._runs[run.id] = _Attended()
        deleting = pod.metadata.deletion_timestamp is not None
        probed = spec.startup_probe or spec.liveness_probe or spec.readiness_probe
        if one.prober is None and probed and one.live.post_start in (Hook.NONE, Hook.DONE):
            known = _stored(pod, run) if restored else (None, None)
            one.prober = Prober(
                self._target(spec, run.id, facts),
                run.started_at,
                lambda type_, reason, text: self._context.event(pod, type_, reason, text, spec.name),
                self._poke,
                known=known,
            )
        if one.prober is not None and deleting:
            one.prober.deleting()

    def _end(self, one: _Attended) -> None:
        """The run is over: its status stands, nothing is asked or awaited any more."""
        if one.prober is not None:
            one.live = one.prober.report(one.live)
            one.prober.close()
            one.prober = None
        if one.hook is not None and not one.hook.done():
            one.hook.cancel()

    def _target(self, spec: ContainerSpec, container_id: str, facts: Facts) -> Target:
        ips = facts.sandbox.ips if facts.sandbox is not None else ()
        address = next(iter(ips or self._context.node_facts().host_ips), "127.0.0.1")
        return Target(self._context.engine, spec, container_id, address)

    # Hooks

    def started(self, pod: Pod, spec: ContainerSpec, container_id: str, facts: Facts) -> None:
        """A container was just started: run its postStart hook."""
        one = self._runs[container_id] = _Attended()
        handler = spec.lifecycle.post_start if spec.lifecycle is not None else None
        if handler is None:
            return
        one.live = one.live._replace(post_start=Hook.RUNNING)

        async def hook() -> None:
            try:
                await run_hook(handler, self._target(spec, container_id, facts))
            except HookError as error:
                logger.info("container %s: its postStart hook failed: %s", container_id[:12], error)
                self._context.event(pod, "Warning", "FailedPostStartHook", "PostStartHook failed", spec.name)
                one.live = one.live._replace(post_start=Hook.FAILED)
            else:
                one.live = one.live._replace(post_start=Hook.DONE)
            self._poke()

        one.hook = asyncio.get_running_loop().create_task(hook(), name=f"postStart of {container_id[:12]}")

    def run_pre_stop(self, pod: Pod, action: RunPreStop, facts: Facts) -> None:
        """Begin the preStop hook, or give the running one less time."""
        one = self._runs.setdefault(action.container_id, _Attended())
        self._tell_once(pod, one, action)
        one.live = one.live._replace(deadline=action.deadline, again=action.again)
        loop = asyncio.get_running_loop()
        until = loop.time() + max(action.deadline - time.time(), 0)
        if one.live.pre_stop is Hook.RUNNING:
            if one.hook_limit is not None:
                one.hook_limit.reschedule(until)
            return
        if one.hook is not None:
            one.hook.cancel()
        one.live = one.live._replace(pre_stop=Hook.RUNNING)
        spec = next(spec for _, spec in containers(pod) if spec.name == action.name)
        target = self._target(spec, action.container_id, facts)
        one.hook = loop.create_task(
            self._pre_stop(pod, one, target, until), name=f"preStop of {target.container_id[:12]}"
        )

    async def _pre_stop(self, pod: Pod, one: _Attended, target: Target, until: float) -> None:
        handler = target.spec.lifecycle.pre_stop if target.spec.lifecycle is not None else None
        assert handler is not None
        state = Hook.DONE
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until) as one.hook_limit:
                    await run_hook(handler, target)
        except HookError as error:
            logger.info("container %s: its preStop hook failed: %s", target.container_id[:12], error)
            self._context.event(pod, "Warning", "FailedPreStopHook", "PreStopHook failed", target.spec.name)
            state = Hook.FAILED
        one.live = one.live._replace(pre_stop=state)
        self._poke()

    # Stops

    def stop(self, pod: Pod, action: StopContainer) -> None:
        """Send the stop signal, and SIGKILL at the deadline; a second call may only be earlier."""
        one = self._runs.setdefault(action.container_id, _Attended())
        self._tell_once(pod, one, action)
        for task in (one.hook, one.stop):
            if task is not None:
                task.cancel()
        deadline = action.deadline if one.live.deadline is None else min(one.live.deadline, action.deadline)
        one.live = one.live._replace(deadline=deadline, kill_at=action.deadline, again=one.live.again or action.again)

        async def stop() -> None:
            try:
                await self._context.engine.stop_container(action.container_id, max(action.deadline - time.time(), 0))
            except (PodrtError, OSError):
                logger.exception("container %s can't be stopped", action.container_id)
                await asyncio.sleep(RETRY_AFTER_ERROR)
                one.live = one.live._replace(kill_at=None)
            self._poke()

        one.stop = asyncio.get_running_loop().create_task(stop(), name=f"stop of {action.container_id[:12]}")

    def _tell_once(self, pod: Pod, one: _Attended, action: RunPreStop | StopContainer) -> None:
        if not one.told:
            one.told = True
            self._context.event(pod, "Normal", "Killing", action.reason, action.name)

    def close(self) -> None:
        """End all tasks; containers run on."""
        for one in self._runs.values():
            one.close()
        self._runs.clear()


def _stored(pod: Pod, run: Container) -> tuple[bool | None, bool | None]:
    """(started, ready) of the stored status, if it is of this run."""
    status = pod.status
    for one in (*status.init_container_statuses, *status.container_statuses):
        if one.name == run.name and one.container_id == f"podrt://{run.id}":
            return one.started, one.ready
    return None, None
