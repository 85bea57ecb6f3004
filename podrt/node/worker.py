"""One Pod's worker: gather the facts, write the status, ask the plan, act, and sleep until something changes.

One task per Pod, sequential inside, so a container is never started twice; Pods run in parallel. Stops take as long as
the grace period and run beside the loop, so that a shorter deadline can overtake a longer one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path

import msgspec

from podrt.engine.specs import ContainerState, EngineEvent, SandboxStatus
from podrt.model.container import Container as ContainerField
from podrt.model.kinds import Object
from podrt.model.pod import Pod
from podrt.node import convert, volumes
from podrt.node.actions import (
    Action,
    Finish,
    RemoveContainer,
    RemoveSandbox,
    RunPreStop,
    SetUpSandbox,
    StartContainer,
    StopContainer,
    StopSandbox,
)
from podrt.node.attendant import Attendant
from podrt.node.context import Context
from podrt.node.facts import POD_UID_LABEL, Facts, gather
from podrt.node.failures import PULLING, Failures
from podrt.node.images import PodImages
from podrt.node.order import containers, restart_due_at
from podrt.node.plan import plan
from podrt.node.resizing import Resizer
from podrt.node.starting import Starter
from podrt.node.status import pod_status
from podrt.node.termination import read_message

logger = logging.getLogger(__name__)

RETRY_AFTER_ERROR = 5.0
"""Seconds until the next try after an error that no rule foresees."""
MAX_NAP = 60.0


class PodWorker:
    """Runs the Pod ``namespace``/``name`` of ``uid`` until it is deleted."""

    def __init__(self, context: Context, pod: Pod) -> None:
        self._context = context
        self._namespace, self._name, self.uid = pod.metadata.namespace, pod.metadata.name, pod.metadata.uid
        self._last = pod
        self._directory = volumes.PodDirectory(context.config.state_dir, self.uid)
        self._wake = asyncio.Event()
        self._failures = Failures(context, self.poke)
        self._attendant = Attendant(context, self.poke)
        self._images = PodImages(context, lambda: self._failures.retry(PULLING))
        self._volumes = volumes.PodVolumes(context, self._directory)
        self._starter = Starter(
            context,
            self._directory,
            self._volumes,
            self._images,
            self._failures,
            self._attendant.started,
            self._unless_deleted,
        )
        self._resizer = Resizer(context, self.poke)
        self._messages: dict[str, str] = {}

    def poke(self) -> None:
        """Something about the Pod may have changed."""
        self._wake.set()

    def room_made(self) -> None:
        """Another Pod has ended: a resize may fit now."""
        if self._resizer.waits:
            self.poke()

    def warn(self, event: EngineEvent) -> None:
        """The engine did something less well than asked for (an rlimit, an OOM score): tell the user."""
        self._context.event(self._last, "Warning", "Degraded", event.message)

    def image_loaded(self) -> None:
        """An image came into the store: try again what waits for one."""
        self._failures.retry("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull")

    def source_changed(self, obj: Object) -> None:
        """A ConfigMap, Secret, account or claim is not what it was: renew files, and try again what waits for it."""
        if not self._volumes.waits_for(self._last, obj):
            return
        asyncio.get_running_loop().call_soon(self._volumes.changed, self._last, obj)
        self._failures.retry("FailedMount", "CreateContainerConfigError")

    def relabeled(self, pod: Object) -> None:
        """The Pod's labels or annotations have changed: renew the files that tell them."""
        if isinstance(pod, Pod):
            asyncio.get_running_loop().call_soon(self._volumes.changed, pod, pod)

    async def run(self) -> None:
        """The worker's task; returns when the Pod is gone."""
        self._volumes.resume(self._last)
        try:
            while True:
                self._wake.clear()
                try:
                    nap = await self._step()
                except Exception:
                    # Defects too: what one Pod brings about must not end the daemon for all, again after each start.
                    logger.exception("pod %s/%s: will try again", self._namespace, self._name)
                    nap = RETRY_AFTER_ERROR
                if nap is None:
                    return
                if nap > 0:
                    await self._sleep(nap)
        finally:
            self._attendant.close()
            self._resizer.close()
            self._volumes.close()
            self._images.close()

    async def _unless_deleted(self, work: Coroutine[None, None, object]) -> bool:
        """Do ``work``, but not beyond the time when the Pod is to be deleted; whether it was done. Raises what it does.

        A file server or driver that hangs must not hold up the Pod's end, too.
        """
        doing = asyncio.get_running_loop().create_task(work)
        try:
            while not doing.done():
                self._wake.clear()
                pod = self._context.store.find(Pod, self._namespace, self._name)
                if pod is None or pod.metadata.uid != self.uid or pod.metadata.deletion_timestamp is not None:
                    return False
                woken = asyncio.get_running_loop().create_task(self._wake.wait())
                try:
                    await asyncio.wait((doing, woken), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    woken.cancel()
            doing.result()
            return True
        finally:
            doing.cancel()
            await asyncio.wait((doing,))

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(min(seconds, MAX_NAP)):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _step(self) -> float | None:
        """One round. Seconds to sleep (0: go on at once), None when the Pod is gone."""
        pod = self._context.store.find(Pod, self._namespace, self._name)
        if pod is None or pod.metadata.uid != self.uid:
            await self._forced_out()
            return None
        await self._resizer.run(pod)
        if (pod := self._context.store.find(Pod, self._namespace, self._name)) is None:
            return 0
        pod = self._resizer.allowed(pod)
        facts = self._facts(pod)
        now = time.time()
        self._last = pod = self._resizer.allowed(self._write_status(pod, facts, now))
        todo = plan(pod, facts, now)
        if not todo.actions:
            return MAX_NAP if todo.wake_at is None else max(todo.wake_at - now, 0.001)
        if isinstance(todo.actions[0], Finish):
            return await self._finish(pod)
        await self._act(pod, todo.actions, facts)
        return 0

    def _sandboxes(self) -> list[SandboxStatus]:
        return self._context.sandboxes_of(self.uid)

    def _facts(self, pod: Pod) -> Facts:
        boxes = self._sandboxes()
        found = [one for box in boxes for one in self._context.engine.list_containers(box.id)]
        specs = {spec.name: spec for _, spec in containers(pod)}
        facts = gather(pod, boxes, found, self._failures.of(specs))
        self._attendant.attend(pod, facts)
        runs = {
            name: [
                run._replace(message=run.message or self._message(pod, specs[name], run.id, run.attempt, run.exit_code))
                if run.state is ContainerState.EXITED and run.id
                else run
                for run in found
            ]
            for name, found in facts.containers.items()
            if name in specs
        }
        return facts._replace(containers=runs, live=self._attendant.live())

    def _message(self, pod: Pod, spec: ContainerField, container_id: str, attempt: int, code: int) -> str:
        if container_id not in self._messages:
            log = Path(convert.log_directory(self._context.config, pod)) / spec.name / f"{attempt}.log"
            file = self._directory.termination_log(spec.name, attempt)
            self._messages[container_id] = read_message(spec, file, log, code)
        return self._messages[container_id]

    def _write_status(self, pod: Pod, facts: Facts, now: float) -> Pod:
        context = self._context
        status = pod_status(pod, facts, context.node_facts(), now)
        if status == pod.status and pod.spec.node_name:
            return pod
        self._tell_back_off(pod, facts, now)

        def change(current: Pod) -> Pod:
            spec = current.spec
            if not spec.node_name:
                spec = msgspec.structs.replace(spec, node_name=context.node_name)
            return msgspec.structs.replace(current, spec=spec, status=status)

        if not pod.spec.node_name:
            where = f"{pod.metadata.namespace}/{pod.metadata.name}"
            context.event(pod, "Normal", "Scheduled", f"Successfully assigned {where} to {context.node_name}")
        return context.store.modify(Pod, self._namespace, self._name, change)

    def _tell_back_off(self, pod: Pod, facts: Facts, now: float) -> None:
        before = {one.name: one for one in (*pod.status.init_container_statuses, *pod.status.container_statuses)}
        for _, spec in containers(pod):
            run, old = facts.newest(spec.name), before.get(spec.name)
            waits = old is not None and old.state.waiting is not None and old.state.waiting.reason == "CrashLoopBackOff"
            if run is None or run.state is not ContainerState.EXITED or waits:
                continue
            if (restart_due_at(pod, spec, run, facts) or 0) > now:
                where = f"{pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})"
                text = f"Back-off restarting failed container {spec.name} in pod {where}"
                self._context.event(pod, "Warning", "BackOff", text, spec.name)

    # Acting

    async def _act(self, pod: Pod, actions: Sequence[Action], facts: Facts) -> None:
        starts: list[StartContainer] = []
        for action in actions:
            match action:
                case SetUpSandbox():
                    await self._starter.set_up(pod, action)
                case StopSandbox():
                    await self._context.engine.stop_sandbox(action.sandbox_id)
                case RemoveSandbox():
                    await self._context.engine.remove_sandbox(action.sandbox_id)
                case RemoveContainer():
                    self._messages.pop(action.container_id, None)
                    await self._context.engine.remove_container(action.container_id)
                case RunPreStop():
                    self._attendant.run_pre_stop(pod, action, facts)
                case StopContainer():
                    self._attendant.stop(pod, action)
                case StartContainer():
                    starts.append(action)
        if starts:
            # What the plan starts in one round has no order; each start is mostly waiting for the kernel.
            try:
                await asyncio.gather(*(self._starter.start(pod, start, facts) for start in starts))
            finally:
                for start in starts:
                    self._volumes.release(start.name)

    # The end

    async def _finish(self, pod: Pod) -> float | None:
        try:
            await self._volumes.detach(pod)
        except volumes.Unavailable as error:
            self._context.event(pod, "Warning", "FailedUnmount", f"UnmountVolume.TearDown failed: {error}")
            return RETRY_AFTER_ERROR
        self._volumes.close()
        await asyncio.to_thread(self._remove_files, pod)
        if self._context.remove_pod(pod):
            return None
        return MAX_NAP

    def _remove_files(self, pod: Pod) -> None:
        self._directory.remove()
        self._volumes.removed(pod)
        volumes.remove_tree(Path(convert.log_directory(self._context.config, pod)))

    async def _forced_out(self) -> None:
        """The object is gone already: end everything without grace."""
        for box in self._sandboxes():
            await self._context.engine.remove_sandbox(box.id)
        await self._volumes.detach(self._last)
        self._volumes.close()
        await asyncio.to_thread(self._remove_files, self._last)


def uid_of(box: SandboxStatus) -> str:
    """The Pod that a sandbox of ours belongs to."""
    return box.spec.labels.get(POD_UID_LABEL, box.spec.uid)
