"""The engine: one object with the verbs of :class:`podrt.engine.api.EngineApi`. Each verb's work is in a module of
its own.

Containers outlive the engine: :meth:`Engine.close` leaves them running, and another engine on the same directories
finds them again in :meth:`Engine.start`."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from podrt.config import Config
from podrt.engine import confinement, container, disk, ending, parts, recovery, sandbox, stats, trees
from podrt.engine import exec as executing
from podrt.engine.api import EngineApi
from podrt.engine.disk import Measured
from podrt.engine.exec import AttachSession, ExecSession
from podrt.engine.exec_sync import Result
from podrt.engine.records import boot_id
from podrt.engine.specs import (
    ContainerSpec,
    ContainerStatus,
    EngineEvent,
    EventKind,
    Resources,
    SandboxSpec,
    SandboxStatus,
    Stats,
)
from podrt.engine.state import Machine
from podrt.engine.supervisor import SupervisorClient
from podrt.errors import PodrtError
from podrt.image.service import ImageStore
from podrt.linux import apparmor, mount_table
from podrt.linux.cgroup import Manager
from podrt.network.bridge import BridgeNetwork
from podrt.network.driver import Networks, Readiness
from podrt.supervisor.protocol import ProcessRecord

log = logging.getLogger(__name__)

PAUSE_BINARY = Path(__file__).parent / "pause" / "pause"


class Engine:
    """See :class:`podrt.engine.api.EngineApi` for the verbs and their errors. Call :meth:`start` first."""

    def __init__(
        self,
        config: Config,
        images: ImageStore,
        network: BridgeNetwork,
        cgroups: Manager,
        supervisor: SupervisorClient,
    ) -> None:
        self._machine = Machine(config, images, Networks(config, network), cgroups, supervisor)

    # -- life

    async def start(self) -> None:
        """Make the directories and mounts, find or start the supervisor, and recover what an earlier engine left."""
        machine = self._machine
        _make_directories(machine)
        machine.hierarchies = trees.hierarchies()
        machine.boot_id = boot_id()
        machine.cgroups.prepare()
        machine.supervisor.on_exit = self._on_exit
        machine.supervisor.on_warning = self._on_warning
        # Known before the first exit is told, which would else be an unknown process's.
        recovery.load(machine)
        await machine.supervisor.start()
        # Compiling the default filter takes 40 ms; the first container should not pay for it.
        try:
            await asyncio.to_thread(confinement.compile_default_filter)
        except PodrtError as error:
            log.error("containers can't have the default seccomp profile: %s", error)
        await self._load_apparmor()
        await recovery.recover(machine)

    async def _load_apparmor(self) -> None:
        if not apparmor.enabled():
            return
        problem = await asyncio.to_thread(apparmor.load_default)
        if problem:
            log.warning("containers run without AppArmor's confinement: %s", problem)
        else:
            self._machine.apparmor = apparmor.DEFAULT

    async def close(self) -> None:
        """Let go of everything; containers and supervisor go on."""
        tasks = list(self._machine.background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._machine.network.close()
        await self._machine.disk.close()
        await self._machine.supervisor.close()
        for unit in self._machine.containers.values():
            unit.close()
        for pod in self._machine.sandboxes.values():
            pod.close()

    # -- sandboxes

    async def run_sandbox(self, spec: SandboxSpec) -> SandboxStatus:
        return await sandbox.run(self._machine, spec)

    async def stop_sandbox(self, sandbox_id: str) -> None:
        await sandbox.stop(self._machine, sandbox_id)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await sandbox.remove(self._machine, sandbox_id)

    def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        return self._machine.sandbox(sandbox_id).record.status()

    def list_sandboxes(self, uid: str = "") -> list[SandboxStatus]:
        sandboxes = self._machine.sandboxes.values()
        return [one.record.status() for one in sandboxes if not uid or one.record.spec.uid == uid]

    async def update_sandbox(self, sandbox_id: str, resources: Resources) -> None:
        await sandbox.update(self._machine, sandbox_id, resources)

    async def set_group(self, path: str, resources: Resources) -> None:
        await asyncio.to_thread(self._machine.cgroups.create, path, resources, pod=True)

    def problem(self) -> str:
        if self._machine.supervisor.connected:
            return ""
        return "the supervisor is gone, and a new one has not started yet"

    async def cri_network(self) -> Readiness:
        return await self._machine.network.cri_readiness()

    def cni_info(self) -> Mapping[str, object]:
        return self._machine.network.cni_info()

    # -- containers

    async def create_container(self, sandbox_id: str, spec: ContainerSpec) -> str:
        return await container.create(self._machine, sandbox_id, spec)

    async def start_container(self, container_id: str) -> ContainerStatus:
        return await container.start(self._machine, container_id)

    async def stop_container(self, container_id: str, timeout: float, signal: str = "") -> None:
        await container.stop(self._machine, container_id, timeout, signal)

    async def remove_container(self, container_id: str) -> None:
        await container.remove(self._machine, container_id)

    def container_status(self, container_id: str) -> ContainerStatus:
        return self._machine.container(container_id).record.status()

    def list_containers(self, sandbox_id: str = "") -> list[ContainerStatus]:
        return [
            unit.record.status()
            for unit in self._machine.containers.values()
            if not sandbox_id or unit.record.sandbox_id == sandbox_id
        ]

    async def wait_container(self, container_id: str) -> ContainerStatus:
        unit = self._machine.container(container_id)
        await unit.exited.wait()
        return unit.record.status()

    async def update_container(self, container_id: str, resources: Resources) -> None:
        await container.update(self._machine, container_id, resources)

    async def reopen_log(self, container_id: str) -> None:
        executing.running(self._machine, container_id, "reopen the log of")
        await self._machine.supervisor.reopen_log(container_id)

    # -- streams

    async def exec(
        self,
        container_id: str,
        argv: Sequence[str],
        *,
        tty: bool = False,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        columns: int = 80,
        rows: int = 24,
    ) -> ExecSession:
        return await executing.run(
            self._machine,
            container_id,
            argv,
            tty=tty,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            columns=columns,
            rows=rows,
        )

    async def exec_sync(
        self, container_id: str, argv: Sequence[str], timeout: float = 0, max_bytes: int = 16 * 1024 * 1024
    ) -> Result:
        return await executing.run_sync(self._machine, container_id, argv, timeout, max_bytes)

    async def attach(self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool) -> AttachSession:
        return await executing.attach(self._machine, container_id, stdin=stdin, stdout=stdout, stderr=stderr)

    async def connect_port(self, sandbox_id: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await parts.connect_port(self._machine.sandbox(sandbox_id).record, port)

    # -- usage and events

    async def container_stats(self, container_id: str) -> Stats:
        return await stats.of_container(self._machine, self._machine.container(container_id))

    async def sandbox_stats(self, sandbox_id: str) -> Stats:
        return await stats.of_sandbox(self._machine, self._machine.sandbox(sandbox_id))

    async def all_stats(
        self, container_ids: Sequence[str], sandbox_ids: Sequence[str], *, detailed: bool = False
    ) -> dict[str, Stats]:
        units = [unit for one in container_ids if (unit := self._machine.containers.get(one))]
        sandboxes = [found for one in sandbox_ids if (found := self._machine.sandboxes.get(one))]
        return await stats.read(self._machine, units, sandboxes, detailed=detailed)

    async def writable_layers(self) -> Measured:
        units = list(self._machine.containers.values())
        return disk.together((await stats.layer_usage(self._machine, units)).values())

    def subscribe(self) -> asyncio.Queue[EngineEvent]:
        return self._machine.bus.subscribe()

    def unsubscribe(self, queue: asyncio.Queue[EngineEvent]) -> None:
        self._machine.bus.unsubscribe(queue)

    # -- what the supervisor tells

    def _on_exit(self, record: ProcessRecord) -> None:
        machine = self._machine
        owner, _, rest = record.id.partition("/")
        how = recovery.exit_of(record)
        waiting = machine.waiting.get(record.id)
        if waiting is not None:
            if not waiting.done():
                waiting.set_result(how)
        elif not rest and owner in machine.containers:
            machine.spawn(ending.exited(machine, machine.containers[owner], how), f"end of container {owner[:12]}")
        elif rest == "pause" and owner in machine.sandboxes:
            machine.spawn(sandbox.on_pause_exit(machine, machine.sandboxes[owner]), f"end of {record.id}")
        else:
            machine.spawn(machine.supervisor.forget(record.id), f"forgetting {record.id}")

    def _on_warning(self, identity: str, message: str) -> None:
        log.warning("%s: %s", identity[:12], message)
        unit = self._machine.containers.get(identity.partition("/")[0])
        if unit is not None:
            self._machine.bus.send(EventKind.WARNING, unit.record.sandbox_id, unit.id, message)


def _make_directories(machine: Machine) -> None:
    config = machine.config
    config.run_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    # Pins live here: they must not spread to other mount namespaces, nor another namespace's unmounting to here. And
    # it must be empty after a reboot, or dead containers would be taken for lost ones.
    mount_table.make_runtime_mount(config.run_dir)
    for path, mode in (
        (config.netns_dir, 0o755),
        (config.state_dir, 0o711),
        # For root alone: containers leave setuid files in their upper directories, and any user knows their ids
        # (CVE-2021-41091). Nothing of a container's own ever goes through them.
        (machine.sandbox_root, 0o700),
        (machine.files_root, 0o700),
        (machine.container_root, 0o700),
        (machine.storage_root, 0o700),
    ):
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        if mode == 0o700:
            path.chmod(mode)
    mount_table.make_shared_mount(config.netns_dir)
    _install_pause(machine.pause_root)


def _install_pause(root: Path) -> None:
    """The pause processes' root directory; without the binary, sandboxes that share PIDs are refused (sandbox.run)."""
    root.mkdir(mode=0o755, exist_ok=True)
    target = root / "pause"
    if not PAUSE_BINARY.exists():
        return
    data = PAUSE_BINARY.read_bytes()
    if not target.exists() or target.read_bytes() != data:
        temporary = root / "pause.new"
        shutil.copyfile(PAUSE_BINARY, temporary)
        os.chmod(temporary, 0o755)
        os.rename(temporary, target)


if TYPE_CHECKING:

    def _conforms(engine: Engine) -> EngineApi:
        return engine
