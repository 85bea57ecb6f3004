"""Carries out in-place resizes of one Pod: decides by ``resize`` (pure), writes cgroups, tells conditions and events.

Containers whose resizePolicy asks for a restart are left to the plan, which finds that their limits are not what the
spec says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from podrt.engine.specs import ContainerState, ContainerStatus, Resources
from podrt.errors import PodrtError
from podrt.model.base import format_time
from podrt.model.pod import Pod, PodSpec
from podrt.node import resize, resources
from podrt.node.resize import IN_PROGRESS, PENDING, Problem

if TYPE_CHECKING:
    from podrt.node.context import Context

RETRY = 3.0
"""Seconds until a limit that could not be written is tried again."""


class Resizer:
    """Of the Pod of one worker. ``poke`` wakes that worker."""

    def __init__(self, context: Context, poke: Callable[[], None]) -> None:
        self._context = context
        self._poke = poke
        self._timer: asyncio.TimerHandle | None = None
        self.waits = False
        """It waits for other Pods to make room."""
        self._refused = False
        self._decided: PodSpec | None = None
        self._settled: PodSpec | None = None
        """The spec by which everything was found in order: it is not looked at again."""

    async def run(self, pod: Pod) -> None:
        """Bring the Pod as near to its spec as it may be."""
        self.waits, self._refused, self._decided = False, False, pod.spec
        if not pod.spec.node_name or pod.metadata.deletion_timestamp is not None:
            return
        if pod.status.phase in ("Succeeded", "Failed"):
            return
        if resize.given(pod) is pod and self._settled is pod.spec:
            return
        self._settled = None
        if resize.given(pod) is not pod:
            others = self._context.store.list(Pod).items
            refused = resize.refusal(pod, others, self._context.allocatable())
            if refused is not None:
                self._refused, self.waits = True, refused.reason == "Deferred"
                self._tell(pod, Problem(PENDING, refused.reason, refused.message))
                return
        text = await self._write(pod)
        if text is None:
            self._settled = pod.spec
        self._tell(pod, None if text is None else Problem(IN_PROGRESS, "Error" if text else "", text))

    def allowed(self, pod: Pod) -> Pod:
        """The Pod with the resources that it may have now. Right after :meth:`run`."""
        # Another spec than the one that was decided about came in between.
        return resize.given(pod) if self._refused or pod.spec is not self._decided else pod

    async def _write(self, pod: Pod) -> str | None:
        """Write the limits of what runs. None: all is as it should be; "": a restart is to come; else what failed."""
        engine = self._context.engine
        boxes = self._context.sandboxes_of(pod.metadata.uid)
        if not boxes:
            return None
        box = max(boxes, key=lambda one: one.spec.attempt)
        specs = resize.resizable(pod)
        runs = [
            (run, resources.container_resources(specs[run.spec.name], 0), specs[run.spec.name])
            for run in engine.list_containers(box.id)
            if run.state is ContainerState.RUNNING and run.spec.name in specs
        ]
        differing = [one for one in runs if resources.differing(one[2], one[0].spec.resources)]
        wanted = resize.with_limits(box.spec.resources, resources.pod_resources(pod.spec))
        if not differing and wanted == box.spec.resources:
            return None
        try:
            larger = resize.between(box.spec.resources, wanted)
            if larger != box.spec.resources:
                await engine.update_sandbox(box.id, larger)
            waiting = False
            for run, limits, spec in differing:
                if resources.needs_restart(spec, run.spec.resources):
                    waiting = True
                else:
                    await self._update(run, limits)
            if waiting:
                return ""
            if wanted != larger:
                await engine.update_sandbox(box.id, wanted)
        except (PodrtError, OSError) as error:
            self._retry()
            return str(error)
        return None

    async def _update(self, run: ContainerStatus, limits: Resources) -> None:
        """Raises OSError: memory would be below what is in use, which would kill the container."""
        new = resize.with_limits(run.spec.resources, limits)
        old = run.spec.resources.memory_limit
        if new.memory_limit and (not old or new.memory_limit < old):
            used = (await self._context.engine.container_stats(run.id)).memory_working_set
            if used >= new.memory_limit:
                raise OSError(
                    f"cannot decrease memory limits: attempting to set memory limit ({new.memory_limit}) below current "
                    f"usage ({used}) for container {run.spec.name}"
                )
        await self._context.engine.update_container(run.id, new)

    def _retry(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(RETRY, self._poke)

    def _tell(self, pod: Pod, problem: Problem | None) -> None:
        """Write the conditions and tell an event when they have changed."""
        wanted = resize.conditions(pod, problem, format_time(time.time()))
        if wanted == pod.status.conditions:
            return

        def change(current: Pod) -> Pod:
            found = resize.conditions(current, problem, format_time(time.time()))
            return replace(current, status=replace(current.status, conditions=found))

        self._context.store.modify(Pod, pod.metadata.namespace, pod.metadata.name, change)
        before = {one.type: one.reason for one in pod.status.conditions if one.type in (PENDING, IN_PROGRESS)}
        if problem is None:
            self._context.event(pod, "Normal", "ResizeCompleted", "Pod resize completed")
        elif before.get(problem.type) != problem.reason:
            kind = "Warning" if problem.reason else "Normal"
            reason = f"Resize{problem.reason or 'Started'}"
            self._context.event(pod, kind, reason, problem.message or "Pod resize started")

    def close(self) -> None:
        """End the timer."""
        if self._timer is not None:
            self._timer.cancel()
