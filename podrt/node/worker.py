"""One Pod's worker: gather the facts, write the status, ask the plan, act, and sleep until something changes.

One task per Pod, sequential inside, so a container is never started twice; Pods run in parallel. Stops take as long as
the grace period and run beside the loop, so that a shorter deadline can overtake a longer one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from podrt.engine.specs import ContainerSpec, ContainerState, EngineEvent, Mount, SandboxStatus
from podrt.errors import InvalidError, LaunchError, PodrtError
from podrt.model.container import Container as ContainerField
from podrt.model.kinds import Object
from podrt.model.pod import Pod
from podrt.network import files
from podrt.node import backoff, convert, sysctls, volumes
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
from podrt.node.env import environment
from podrt.node.facts import POD_UID_LABEL, Facts, Failure, gather
from podrt.node.images import PULL_FAILURES, ImageFailure, ImagePending, PodImages
from podrt.node.order import containers, restart_due_at
from podrt.node.plan import plan
from podrt.node.resizing import Resizer
from podrt.node.status import pod_status
from podrt.node.termination import read_message

logger = logging.getLogger(__name__)

RETRY_AFTER_ERROR = 5.0
"""Seconds until the next try after an error that no rule foresees."""
MAX_NAP = 60.0
PULLING = "ContainerCreating"
"""The waiting reason of a container whose image is being pulled."""
PULL_FAILURE_SHOWN = 2.0
"""Seconds that ErrImagePull is shown before ImagePullBackOff."""


class PodWorker:
    """Runs the Pod ``namespace``/``name`` of ``uid`` until it is deleted."""

    def __init__(self, context: Context, pod: Pod) -> None:
        self._context = context
        self._namespace, self._name, self.uid = pod.metadata.namespace, pod.metadata.name, pod.metadata.uid
        self._last = pod
        self._directory = volumes.PodDirectory(context.config.state_dir, self.uid)
        self._wake = asyncio.Event()
        self._failures: dict[str, Failure] = {}
        self._attendant = Attendant(context, self.poke)
        self._images = PodImages(context, self._image_ended)
        self._volumes = volumes.PodVolumes(context, self._directory, self._images.ensure)
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
        for name, failure in self._failures.items():
            if failure.reason in ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"):
                self._failures[name] = failure._replace(retry_at=0.0)
        self.poke()

    def _image_ended(self, name: str) -> None:
        """The pull for a container is over."""
        if (failure := self._failures.get(name)) is not None and failure.reason == PULLING:
            self._failures[name] = failure._replace(retry_at=0.0)
        self.poke()

    def _tell_pull_back_off(self, pod: Pod, name: str) -> None:
        """A failed pull is shown as such for a moment, and then that it waits for its next try."""
        failure = self._failures.get(name)
        if failure is None or failure.reason != "ErrImagePull":
            return
        text = f'Back-off pulling image "{failure.image}"'
        self._context.event(pod, "Normal", "BackOff", text, name)
        self._context.event(pod, "Warning", "Failed", "Error: ImagePullBackOff", name)
        message = f"{text}: ErrImagePull: {failure.message}"
        self._failures[name] = failure._replace(reason="ImagePullBackOff", message=message)
        self.poke()

    def source_changed(self, obj: Object) -> None:
        """A ConfigMap, Secret, account or claim is not what it was: renew files, and try again what waits for it."""
        if not self._volumes.waits_for(self._last, obj):
            return
        asyncio.get_running_loop().call_soon(self._volumes.changed, self._last, obj)
        for name, failure in self._failures.items():
            if failure.reason in ("FailedMount", "CreateContainerConfigError"):
                self._failures[name] = failure._replace(retry_at=0.0)
        self.poke()

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
        failures = {
            name: failure
            for name, failure in self._failures.items()
            if name not in specs or failure.image == specs[name].image
        }
        facts = gather(pod, boxes, found, failures)
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
                    await self._set_up(pod, action)
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
                await asyncio.gather(*(self._start(pod, start, facts) for start in starts))
            finally:
                for start in starts:
                    self._volumes.release(start.name)

    async def _set_up(self, pod: Pod, action: SetUpSandbox) -> None:
        context = self._context
        if text := sysctls.refusal(pod, context.config.allowed_unsafe_sysctls.split(",")):
            context.fail(pod, sysctls.REASON, f"Pod was rejected: {text}", told=text)
            return
        try:
            await self._volumes.set_up(pod, again=True)
            # Chosen and taken without a pause between: nobody else can have it meanwhile.
            slot = context.id_slot(self.uid) if pod.spec.host_users is False else 0
            sizes = context.page_sizes()
            spec = convert.sandbox_spec(pod, context.config, action.attempt, context.node_name, slot, sizes)
            status = await context.engine.run_sandbox(spec)
            self._write_hosts(pod, status)
        except volumes.VolumeError as error:
            self._failed(pod, "", "FailedMount", str(error))
        except (PodrtError, OSError) as error:
            self._failed(pod, "", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
        else:
            self._failures.pop("", None)

    def _write_hosts(self, pod: Pod, status: SandboxStatus) -> None:
        if pod.spec.host_network:
            return
        aliases = tuple((alias.ip, tuple(alias.hostnames)) for alias in pod.spec.host_aliases)
        name = convert.hostname(pod, self._context.node_name)
        domain = convert.domain(pod, self._context.config)
        text = files.hosts(status.ips, name, f"{name}.{domain}" if domain else "", aliases)
        # In place: running containers have this file mounted, and a rename would leave them with the old one.
        self._directory.hosts.write_text(text)
        self._directory.hosts.chmod(0o644)

    async def _start(self, pod: Pod, start: StartContainer, facts: Facts) -> None:
        """Image, create, start. What fails before there is a container is remembered; a failed exec is its end."""
        spec = next(spec for _, spec in containers(pod) if spec.name == start.name)
        engine = self._context.engine
        try:
            image_id = await self._images.ensure(pod, spec)
            await self._volumes.set_up(pod)
            sandbox_id, engine_spec = self._engine_spec(pod, spec, start, image_id)
        except ImagePending:
            count = self._failures[spec.name].failures if spec.name in self._failures else 0
            self._failures[spec.name] = Failure(PULLING, "", time.time(), count, math.inf, spec.image)
            return
        except ImageFailure as error:
            self._failed(pod, spec.name, error.reason, str(error))
            if error.reason == "ErrImagePull":
                asyncio.get_running_loop().call_later(PULL_FAILURE_SHOWN, self._tell_pull_back_off, pod, spec.name)
            return
        except (InvalidError, OSError) as error:
            self._failed(pod, spec.name, "CreateContainerConfigError", str(error))
            return
        try:
            engine_spec = convert.targeted(spec, engine_spec, facts)
            container_id = await engine.create_container(sandbox_id, engine_spec)
        except (PodrtError, OSError) as error:
            self._failed(pod, spec.name, "CreateContainerError", str(error))
            return
        self._context.event(pod, "Normal", "Created", f"Container created: {spec.name}", spec.name)
        try:
            await engine.start_container(container_id)
        except LaunchError as error:
            self._context.event(pod, "Warning", "Failed", f"Error: {error}", spec.name)
        except (PodrtError, OSError) as error:
            await engine.remove_container(container_id)
            self._failed(pod, spec.name, "RunContainerError", str(error))
        else:
            self._failures.pop(spec.name, None)
            self._attendant.started(pod, spec, container_id, facts)
            self._context.event(pod, "Normal", "Started", f"Container started: {spec.name}", spec.name)

    def _engine_spec(
        self, pod: Pod, spec: ContainerField, start: StartContainer, image_id: str
    ) -> tuple[str, ContainerSpec]:
        """(sandbox id, what the engine is to create)."""
        context = self._context
        convert.refuse_root(convert.security(pod, spec), context.images.resolve(image_id).config.user)
        newest = max(self._sandboxes(), key=lambda box: box.spec.attempt)
        host_ips = context.node_facts().host_ips
        values = environment(
            pod,
            spec,
            host_ips=host_ips,
            pod_ips=newest.ips or host_ips,
            allocatable=context.allocatable(),
            objects=context.store,
            volumes=self._volumes,
        )
        return newest.id, convert.container_spec(
            pod,
            spec,
            start,
            image_id=image_id,
            environment=values,
            mounts=self._volumes.mounts(spec, values, self._extra_mounts(pod, spec, start.attempt)),
            config=context.config,
            node_memory=context.node_memory,
            page_sizes=context.page_sizes(),
        )

    def _extra_mounts(self, pod: Pod, spec: ContainerField, attempt: int) -> list[Mount]:
        message = self._directory.termination_log(spec.name, attempt)
        message.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        message.touch()
        message.chmod(0o666)
        found = [Mount(source=str(message), destination=spec.termination_message_path or "/dev/termination-log")]
        if not pod.spec.host_network:
            found.append(Mount(source=str(self._directory.hosts), destination="/etc/hosts"))
        return found

    def _failed(self, pod: Pod, name: str, reason: str, text: str) -> None:
        """Remember a failed step of container ``name`` ("": the sandbox): status tells it, and the next try waits."""
        now, before = time.time(), self._failures.get(name)
        count = before.failures + 1 if before else 1
        if name:
            delay = backoff.retry_delay(count)
            self._context.event(pod, "Warning", "Failed", f"Error: {reason if reason in PULL_FAILURES else text}", name)
        else:
            delay = backoff.retry_delay(count, backoff.SANDBOX_INITIAL, backoff.SANDBOX_MAXIMUM)
            self._context.event(pod, "Warning", reason, text)
        image = next((spec.image for _, spec in containers(pod) if spec.name == name), "")
        self._failures[name] = Failure(reason, text, now, count, now + delay, image)

    # The end

    async def _finish(self, pod: Pod) -> float | None:
        await asyncio.to_thread(self._remove_files, pod)
        if self._context.remove_pod(pod):
            return None
        return MAX_NAP

    def _remove_files(self, pod: Pod) -> None:
        self._volumes.close()
        self._directory.remove()
        self._volumes.removed(pod)
        volumes.remove_tree(Path(convert.log_directory(self._context.config, pod)))

    async def _forced_out(self) -> None:
        """The object is gone already: end everything without grace."""
        for box in self._sandboxes():
            await self._context.engine.remove_sandbox(box.id)
        await asyncio.to_thread(self._remove_files, self._last)


def uid_of(box: SandboxStatus) -> str:
    """The Pod that a sandbox of ours belongs to."""
    return box.spec.labels.get(POD_UID_LABEL, box.spec.uid)
