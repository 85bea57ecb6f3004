"""What a new daemon does with what the one before it left.

Assumptions, each re-derived from the kernel before it is relied on:

- A record is written before the first kernel object of its id and removed after the last, so what has no readable
  record is nobody's and is removed. A record that is half of a set-up or removal (CREATING, REMOVING) is removed too.
- A container is running if its process is: the supervisor says so, or else pid, start time and boot agree. A process
  that only the supervisor knows as started belongs to a start whose record was not written; it counts as started.
- A sandbox is ready if every namespace it had is still pinned and its pause process, if any, runs.
- Exit codes come from the supervisor's records. If supervisor and daemon were both gone when a process ended, nobody
  waited for it: code 137, reason ContainerStatusUnknown.
- Network leases, links and nft elements belong to the sandboxes that are left: the network is told which.

One broken record is reported and treated as none; nothing here keeps the daemon from starting.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from podrt.engine import container as containers
from podrt.engine import ending, launch, parts, records
from podrt.engine import sandbox as sandboxes
from podrt.engine.records import ContainerRecord, Phase, Process, SandboxRecord
from podrt.engine.specs import NamespaceMode
from podrt.engine.state import Container, Exit, Machine, Sandbox, remove_directory
from podrt.engine.supervisor_processes import Known
from podrt.errors import PodrtError
from podrt.linux import mount_table, namespace, process
from podrt.linux.mount_table import unmount_all
from podrt.supervisor.protocol import ProcessRecord, Stdio

log = logging.getLogger(__name__)


def load(machine: Machine) -> None:
    """Read the records; call before the supervisor is asked for anything."""
    for directory in _directories(machine.sandbox_root):
        if record := _load(directory, SandboxRecord):
            machine.sandboxes[record.id] = Sandbox(record, directory, machine.files_root / record.id)
    for directory in _directories(machine.container_root):
        if found := _load(directory, ContainerRecord):
            machine.containers[found.id] = Container(found, directory, machine.storage_root / found.id)


async def recover(machine: Machine) -> None:
    """Take over what still is, finish what was half done, remove what is nobody's. Raises nothing it can go past."""
    begin = time.monotonic()
    for unit in list(machine.containers.values()):
        await _guarded(f"container {unit.id[:12]}", lambda unit=unit: _container(machine, unit))  # type: ignore[misc]
    for sandbox in list(machine.sandboxes.values()):
        await _guarded(f"sandbox {sandbox.id[:12]}", lambda sandbox=sandbox: _sandbox(machine, sandbox))  # type: ignore[misc]
    await _guarded("processes", lambda: _strangers(machine))
    await _guarded("directories", lambda: _leaked_directories(machine))
    await _guarded("cgroups", lambda: _leaked_cgroups(machine))
    await _guarded("network", lambda: _network(machine))
    if machine.sandboxes or machine.containers:
        log.info(
            "recovered %d sandboxes and %d containers in %.0f ms",
            len(machine.sandboxes),
            len(machine.containers),
            (time.monotonic() - begin) * 1000,
        )


async def _guarded(what: str, step: Callable[[], Awaitable[None]]) -> None:
    try:
        await step()
    except (PodrtError, OSError) as error:
        log.error("recovery of %s: %s", what, error)
    except Exception:
        # A defect, and no reason to leave everything else without a daemon.
        log.exception("recovery of %s", what)


def _directories(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())


def _load(directory: Path, kind: type[records.R]) -> records.R | None:
    try:
        return records.load(directory, kind)
    except FileNotFoundError:
        log.warning("%s has no record: what belongs to it is removed", directory)
    except (PodrtError, OSError) as error:
        log.error("%s: what belongs to it is removed", error)
    return None


# -- containers


async def _container(machine: Machine, unit: Container) -> None:
    record = unit.record
    known = machine.supervisor.processes.get(record.id)
    async with unit.lock:
        if record.phase in (Phase.CREATING, Phase.REMOVING) or record.sandbox_id not in machine.sandboxes:
            await _discard(machine, unit)
            return
        try:
            containers.hold_images(machine, record)
        except PodrtError as error:
            log.error("container %s: its image is gone: %s", record.id[:12], error)
        if record.phase is Phase.CREATED and known is not None:
            _started_after_all(machine, unit, known)
        elif record.phase is Phase.CREATED and machine.cgroups.pids(record.cgroup):
            # Its launch was under way when daemon and supervisor died.
            await asyncio.to_thread(machine.cgroups.kill, record.cgroup)
            await ending.failed_to_start(machine, unit, "the daemon was ended while the container was being started")
        if unit.record.phase is Phase.RUNNING:
            await _running(machine, unit)
        elif unit.record.phase is Phase.EXITED:
            unit.exited.set()
            await ending.clean_up(machine, unit)


def _started_after_all(machine: Machine, unit: Container, known: Known) -> None:
    started = Process(pid=known.record.pid, start_time=known.record.start_time, boot_id=machine.boot_id)
    unit.change(Phase.RUNNING, process=started, started_at=time.time())


async def _running(machine: Machine, unit: Container) -> None:
    record = unit.record
    started = record.process
    known = machine.supervisor.processes.get(record.id)
    if known is not None and known.record.exited:
        await ending.finish(machine, unit, exit_of(known.record))
        return
    pidfd = _open(machine, started)
    if pidfd is None or started is None:
        known = machine.supervisor.processes.get(record.id)
        lost = Exit(0, 0, time.time(), known=False)
        await ending.finish(machine, unit, exit_of(known.record) if known and known.record.exited else lost)
        return
    unit.pidfd = pidfd
    if known is None:
        identity = ProcessRecord(record.id, "container", started.pid, started.start_time)
        await machine.supervisor.adopt(identity, launch.stdio(unit), launch.log(machine, unit))
    elif record.spec.tty:
        master = await machine.supervisor.attach(record.id, stdin=True)
        unit.terminal = -1 if master is None else master


def exit_of(record: ProcessRecord) -> Exit:
    return Exit(record.code, record.signal, record.at, record.known)


def _open(machine: Machine, started: Process | None) -> int | None:
    """A pidfd, if the process of a record still runs."""
    if started is None or started.boot_id != machine.boot_id:
        return None
    try:
        return process.pidfd_open(started.pid, started.start_time)
    except ProcessLookupError:
        return None


async def _discard(machine: Machine, unit: Container) -> None:
    """A container that is half made or half removed, or whose sandbox is gone."""
    log.info("container %s was left half done (%s): removing it", unit.id[:12], unit.record.phase)
    await asyncio.to_thread(machine.cgroups.kill, unit.record.cgroup)
    await containers.tear_down(machine, unit)


# -- sandboxes


async def _sandbox(machine: Machine, sandbox: Sandbox) -> None:
    record = sandbox.record
    async with sandbox.lock:
        if record.phase in (Phase.CREATING, Phase.REMOVING):
            log.info("sandbox %s was left half done (%s): removing it", record.id[:12], record.phase)
            await sandboxes.tear_down(machine, sandbox)
            return
        if record.phase is not Phase.CREATED:
            await sandboxes.stop_rest(machine, sandbox)
            return
        missing = _unpinned(record)
        if record.spec.pid == NamespaceMode.POD and not missing:
            sandbox.pause_fd = await _pause(machine, record)
            if sandbox.pause_fd < 0:
                missing = "pid"
        if missing:
            log.error("sandbox %s: its %s namespace is gone: it is not ready any more", record.id[:12], missing)
            sandbox.change(Phase.EXITED, pause=None)


def _unpinned(record: SandboxRecord) -> str:
    """The kind of a namespace that is no longer pinned, "" if all are."""
    for kind, path in record.namespaces.items():
        try:
            os.close(namespace.open_pinned(path))
        except OSError:
            return kind
    return ""


async def _pause(machine: Machine, record: SandboxRecord) -> int:
    pidfd = _open(machine, record.pause)
    if pidfd is None or record.pause is None:
        return -1
    identity = ProcessRecord(f"{record.id}/pause", "pause", record.pause.pid, record.pause.start_time)
    await machine.supervisor.adopt(identity, Stdio("null"), None)
    return pidfd


# -- what is nobody's


async def _strangers(machine: Machine) -> None:
    """Processes of the supervisor that no record knows, and execs of the daemon before."""
    for identity, known in list(machine.supervisor.processes.items()):
        owner, _, rest = identity.partition("/")
        if not rest and owner in machine.containers:
            continue
        if known.record.exited:
            await machine.supervisor.forget(identity)
            continue
        if rest == "pause" and owner in machine.sandboxes:
            continue
        log.warning("process %s (%d) is nobody's: killing it", identity, known.record.pid)
        with (
            contextlib.suppress(ProcessLookupError),
            process.ProcessHandle.open(known.record.pid, known.record.start_time) as handle,
        ):
            handle.signal(signal.SIGKILL)


async def _leaked_directories(machine: Machine) -> None:
    for directory in _directories(machine.container_root):
        if directory.name not in machine.containers:
            _unmount_below(directory)
            remove_directory(directory)
    for directory in _directories(machine.storage_root):
        if directory.name not in machine.containers:
            await asyncio.to_thread(remove_directory, directory)
    for directory in _directories(machine.files_root):
        if directory.name not in machine.sandboxes:
            remove_directory(directory)
    known = {machine.sandbox_root / sandbox_id for sandbox_id in machine.sandboxes}
    leaked = [directory for directory in _directories(machine.sandbox_root) if directory not in known]
    for directory in leaked:
        await parts.detach(machine, directory.name)
        mount_table.unpin(machine.config.netns_dir / f"podrt-{directory.name[:12]}")
        _unmount_below(directory)
        remove_directory(directory)


def _unmount_below(directory: Path) -> None:
    for point in reversed(mount_table.mount_points(directory)):
        unmount_all(point.path)


async def _leaked_cgroups(machine: Machine) -> None:
    """Below the engine's own root; a kubelet's cgroups are found through records alone."""
    used = {sandbox.record.cgroup for sandbox in machine.sandboxes.values()}
    known = {unit.record.cgroup for unit in machine.containers.values()}
    known |= {sandboxes.pause_cgroup(sandbox.record) for sandbox in machine.sandboxes.values()}
    for name in machine.cgroups.children(machine.cgroups.root):
        pod = parts.cgroup_path(machine, name)
        if not name.startswith("pod"):
            continue
        if pod not in used:
            await asyncio.to_thread(machine.cgroups.remove, pod)
            continue
        for child in machine.cgroups.children(pod):
            if f"{pod}/{child}" not in known:
                await asyncio.to_thread(machine.cgroups.remove, f"{pod}/{child}")


async def _network(machine: Machine) -> None:
    live = {
        sandbox.id
        for sandbox in machine.sandboxes.values()
        if sandbox.record.phase is Phase.CREATED and sandbox.record.spec.network != NamespaceMode.NODE
    }
    await parts.recover_network(machine, live)
