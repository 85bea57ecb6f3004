"""Sandboxes: the shared part of a Pod, made, stopped and removed.

Set-up, and what runs at the same time::

    record -> +- namespaces and pins, in a thread ---+-> network, in a thread -> files -> pause -> ready
              +- cgroup, in a thread; /dev/shm ------+

Everything is found again through the record, which is written first and removed last: :func:`tear_down` undoes
whatever part of a sandbox there is and may be called any number of times. Each of its steps is a checkpoint for fault
injection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from podrt.engine import command, launch, namespaces, parts, sandbox_files, threads, undo
from podrt.engine import container as containers
from podrt.engine.records import Phase, Process, SandboxRecord
from podrt.engine.records import save as save_record
from podrt.engine.specs import EventKind, NamespaceMode, Resources, SandboxSpec, SandboxStatus
from podrt.engine.state import Machine, Sandbox, closing, remove_directory
from podrt.engine.undo import UndoStack
from podrt.errors import Cause, InvalidError, UnavailableError
from podrt.linux import mount_table
from podrt.network.types import Attachment

log = logging.getLogger(__name__)


async def run(machine: Machine, spec: SandboxSpec) -> SandboxStatus:
    """Make a sandbox and return it ready, or leave nothing behind.

    Raises InvalidError, ConflictError and ExhaustedError (host ports, addresses), LaunchError, OSError.
    """
    sysctls = _check(machine, spec)
    record = _new_record(machine, spec)
    sandbox = Sandbox(record, machine.sandbox_root / record.id, machine.files_root / record.id)
    async with UndoStack(f"sandbox {spec.namespace}/{spec.name}") as stack:
        stack.step("sandbox.record", lambda: _drop(machine, sandbox))
        sandbox.directory.mkdir(mode=0o700)
        save_record(sandbox.directory, record)
        machine.sandboxes[record.id] = sandbox
        stack.step("sandbox.namespaces", lambda: _unpin(machine, sandbox.record))
        namespaces_made = asyncio.create_task(_make_namespaces(machine, sandbox, sysctls))
        cgroup_made: asyncio.Task[None] | None = None
        try:
            await asyncio.sleep(0)  # it begins before the work here does
            stack.step("sandbox.cgroup", lambda: _remove_cgroup(machine, sandbox))
            cgroup_made = asyncio.create_task(asyncio.to_thread(_make_cgroup, machine, sandbox))
            stack.step("sandbox.shm", lambda: sandbox_files.unmount_shm(sandbox))
            if spec.ipc != NamespaceMode.NODE:
                sandbox_files.mount_shm(sandbox)
            # Shielded: a caller that gives up must not end the tasks, for their threads go on.
            await asyncio.shield(cgroup_made)
            pinned = await asyncio.shield(namespaces_made)
        except BaseException:
            # What has to be undone is only known when they have ended.
            await _end(namespaces_made, cgroup_made)
            raise
        stack.step("sandbox.network", lambda: parts.detach(machine, record.id))
        connected: Attachment | None = None
        if "net" in pinned:
            attaching = parts.attach(machine, record, pinned["net"])
            connected = await undo.finish(attaching, f"attach {record.id[:12]}")
        stack.step("sandbox.files")
        sandbox_files.write(sandbox, connected)
        sandbox.record = _with(sandbox.record, namespaces=pinned, ips=connected.ips if connected else ())
        if spec.pid == NamespaceMode.POD:
            stack.step("sandbox.pause", lambda: kill_pause(machine, sandbox))
            await undo.finish(_start_pause(machine, sandbox), f"pause process of {record.id[:12]}")
        stack.step("sandbox.ready")
        sandbox.change(Phase.CREATED)
    machine.bus.send(EventKind.SANDBOX_READY, record.id)
    return sandbox.record.status()


async def stop(machine: Machine, sandbox_id: str) -> None:
    """Kill what runs in it and take its network down. Nothing if there is no such sandbox or it is stopped."""
    sandbox = machine.sandboxes.get(sandbox_id)
    if sandbox is None:
        return
    async with sandbox.lock:
        was_ready = sandbox.record.phase is Phase.CREATED
        if was_ready:
            sandbox.change(Phase.EXITED)
        await undo.finish(_stop(machine, sandbox), f"stop sandbox {sandbox_id[:12]}")
    if was_ready:
        machine.bus.send(EventKind.SANDBOX_STOPPED, sandbox_id)


async def remove(machine: Machine, sandbox_id: str) -> None:
    """Stop it, remove its containers and all that is its own. Nothing if there is no such sandbox."""
    sandbox = machine.sandboxes.get(sandbox_id)
    if sandbox is None:
        return
    async with sandbox.lock:
        if machine.sandboxes.get(sandbox_id) is not sandbox:
            return
        # A set-up that is under way undoes itself; its cancellation is the caller's business.
        if sandbox.record.phase is not Phase.REMOVING:
            sandbox.change(Phase.REMOVING)
        await undo.finish(tear_down(machine, sandbox), f"remove sandbox {sandbox_id[:12]}")
    machine.bus.send(EventKind.SANDBOX_DELETED, sandbox_id)


async def tear_down(machine: Machine, sandbox: Sandbox) -> None:
    """Undo all of a sandbox, whatever there is of it. Raises the last error after trying every step.

    The kernel takes 10 ms and more to unregister a link, most of it waiting, so that goes on beside the other steps.
    """
    undo.checkpoint("sandbox.remove.stop")
    error: Exception | None = None
    network = asyncio.create_task(_detach(machine, sandbox))
    steps: tuple[tuple[str, Callable[[], Awaitable[None] | None]], ...] = (
        ("processes", lambda: _kill(machine, sandbox)),
        ("containers", lambda: _remove_containers(machine, sandbox)),
        ("shm", lambda: sandbox_files.unmount_shm(sandbox)),
        ("cgroup", lambda: _remove_cgroup(machine, sandbox)),
        ("network", lambda: network),
        ("namespaces", lambda: _unpin(machine, sandbox.record)),
    )
    for name, step in steps:
        undo.checkpoint(f"sandbox.remove.{name}")
        try:
            result = step()
            if result is not None:
                await result
        except Exception as failure:
            log.warning("sandbox %s: removing: %s: %s", sandbox.id[:12], name, failure)
            error = failure
    if error is not None:
        raise error
    undo.checkpoint("sandbox.remove.record")
    _drop(machine, sandbox)


async def update(machine: Machine, sandbox_id: str, resources: Resources) -> None:
    """New limits for the Pod's cgroup. Raises NotFoundError, OSError (EBUSY: memory below what is in use)."""
    sandbox = machine.sandbox(sandbox_id)
    async with sandbox.lock:
        if not _limited_by_owner(sandbox.record.spec):
            machine.cgroups.apply(sandbox.record.cgroup, resources, pod=True)
        spec = parts.replaced(sandbox.record.spec, resources=resources)
        sandbox.change(spec=spec)


async def on_pause_exit(machine: Machine, sandbox: Sandbox) -> None:
    """PID 1 of a shared PID namespace has ended, and the kernel has killed everything in it."""
    await machine.supervisor.forget(f"{sandbox.id}/pause")
    async with sandbox.lock:
        sandbox.close()
        if sandbox.record.phase is not Phase.CREATED:
            return
        sandbox.change(Phase.EXITED, pause=None)
    log.warning("sandbox %s: the pause process has ended", sandbox.id[:12])
    machine.bus.send(EventKind.SANDBOX_STOPPED, sandbox.id, message="the pause process has ended")


async def stop_rest(machine: Machine, sandbox: Sandbox) -> None:
    """What a stopped sandbox must not have; for recovery, the caller holds the lock."""
    await _stop(machine, sandbox)


# -- steps


def _check(machine: Machine, spec: SandboxSpec) -> tuple[tuple[str, str], ...]:
    if bool(spec.uid_maps) != bool(spec.gid_maps):
        raise InvalidError(f"sandbox {spec.name}: give uid_maps and gid_maps both, or neither")
    if len(spec.hostname) > 64:
        raise InvalidError(
            f"sandbox {spec.name}: hostname {spec.hostname!r} has over 64 characters",
            (Cause("hostname", "at most 64 characters"),),
        )
    if spec.cgroup_parent and not parts.is_cgroup(spec.cgroup_parent):
        raise InvalidError(
            f"sandbox {spec.name}: cgroup_parent must be an absolute path without . and .., not {spec.cgroup_parent!r}"
        )
    if spec.log_directory and not spec.log_directory.startswith("/"):
        raise InvalidError(f"sandbox {spec.name}: log_directory must be absolute, not {spec.log_directory!r}")
    if spec.pid == NamespaceMode.POD and not (machine.pause_root / "pause").exists():
        raise UnavailableError(
            f"sandbox {spec.name}: the pause binary that a shared PID namespace needs was not built: run `make setup`, "
            "then restart the daemon"
        )
    if spec.network == NamespaceMode.NODE and any(port.host_port != port.container_port for port in spec.port_mappings):
        raise InvalidError(f"sandbox {spec.name}: with the host's network a host port is the container's own")
    if spec.uid_maps:
        launch.outside(spec.uid_maps, 0)
        launch.outside(spec.gid_maps, 0)
    return command.sysctls(
        spec.sysctls,
        own_net=spec.network != NamespaceMode.NODE,
        own_ipc=spec.ipc != NamespaceMode.NODE,
        user_namespace=bool(spec.uid_maps),
    )


def _new_record(machine: Machine, spec: SandboxSpec) -> SandboxRecord:
    identity = secrets.token_hex(32)
    cgroup = _cgroup(machine, spec, identity)
    known = any(other.record.cgroup == cgroup and other.record.own_cgroup for other in machine.sandboxes.values())
    below = cgroup.startswith(parts.cgroup_path(machine, ""))
    return SandboxRecord(
        id=identity,
        spec=spec,
        phase=Phase.CREATING,
        created_at=time.time(),
        cgroup=cgroup,
        own_cgroup=below or known or not machine.cgroups.exists(cgroup),
    )


def _cgroup(machine: Machine, spec: SandboxSpec, identity: str) -> str:
    """Two of one uid may be there at once where the uid is not ours, so those are told apart by their ids."""
    if not spec.owner:
        return spec.cgroup_parent or parts.cgroup_path(machine, f"pod{spec.uid}")
    if spec.cgroup_parent:
        return f"{spec.cgroup_parent}/{identity}"
    return parts.cgroup_path(machine, f"pod{identity}")


def _limited_by_owner(spec: SandboxSpec) -> bool:
    """A kubelet gives the cgroup of the Pod its limits itself; here they are only noted."""
    return bool(spec.owner and spec.cgroup_parent)


def _with(record: SandboxRecord, **fields: object) -> SandboxRecord:
    return parts.replaced(record, **fields)


async def _make_namespaces(machine: Machine, sandbox: Sandbox, sysctls: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Make and pin the namespaces; kind -> path."""
    spec = launch.namespaces(sandbox.record, sysctls)
    if not spec.unshare:
        return {}
    paths = {kind: str(_pin_path(machine, sandbox.record, kind)) for kind in spec.unshare}

    def pin(fds: list[int]) -> None:
        with closing(fds):
            for path, fd in zip(paths.values(), fds, strict=True):
                mount_table.pin_namespace(fd, path)

    if "user" in spec.unshare:
        launched = await machine.supervisor.launch(spec, [])
        os.close(launched.pidfd)
        pin(launched.fds)
    else:
        await threads.in_own_thread(lambda: pin(namespaces.make(spec.unshare, spec.hostname, sysctls)))
    return paths


async def _end(*tasks: asyncio.Task[Any] | None) -> None:
    """Wait until work that can't be stopped has ended, at most 10 seconds; its result or failure no longer matters."""
    started = [task for task in tasks if task is not None]

    async def wait() -> None:
        await asyncio.wait(started, timeout=10)

    with contextlib.suppress(asyncio.CancelledError):
        await undo.finish(wait(), "abandoned set-up")
    for task in started:
        if task.done() and not task.cancelled():
            task.exception()


def _pin_path(machine: Machine, record: SandboxRecord, kind: str) -> Path:
    if kind == "net":
        return machine.config.netns_dir / f"podrt-{record.id[:12]}"
    return machine.sandbox_root / record.id / f"{kind}.ns"


def _unpin(machine: Machine, record: SandboxRecord) -> None:
    for kind in ("pid", "ipc", "uts", "net", "user"):
        mount_table.unpin(_pin_path(machine, record, kind))


def _make_cgroup(machine: Machine, sandbox: Sandbox) -> None:
    record = sandbox.record
    if not record.own_cgroup:
        return
    limits = Resources() if _limited_by_owner(record.spec) else record.spec.resources
    machine.cgroups.create(record.cgroup, limits, pod=True)


async def _remove_cgroup(machine: Machine, sandbox: Sandbox) -> None:
    record = sandbox.record
    shared = any(other.record.cgroup == record.cgroup and other.id != record.id for other in machine.sandboxes.values())
    if record.own_cgroup and not shared:
        paths = [record.cgroup]
    else:
        paths = [pause_cgroup(record)] if record.spec.pid == NamespaceMode.POD else []
    for path in paths:
        await asyncio.to_thread(machine.cgroups.remove, path)


def pause_cgroup(record: SandboxRecord) -> str:
    """Beside the containers': on cgroup v2 a cgroup with children holds no process itself."""
    return f"{record.cgroup}/{record.id}"


async def _start_pause(machine: Machine, sandbox: Sandbox) -> None:
    record = sandbox.record
    path = pause_cgroup(record)
    machine.cgroups.create(path)
    with closing([]) as fds:
        launched = await machine.supervisor.launch(launch.pause(machine, sandbox, path, fds), fds)
    sandbox.pause_fd = launched.pidfd
    pin = _pin_path(machine, record, "pid")
    with closing(launched.fds):
        mount_table.pin_namespace(launched.fds[0], pin)
    process = Process(pid=launched.pid, start_time=launched.start_time, boot_id=machine.boot_id)
    sandbox.record = _with(record, pause=process, namespaces=record.namespaces | {"pid": str(pin)})


async def kill_pause(machine: Machine, sandbox: Sandbox) -> None:
    """End the pause process and wait until it has; with it ends all that is in its PID namespace."""
    record = sandbox.record
    if record.spec.pid != NamespaceMode.POD:
        return
    if sandbox.pause_fd >= 0:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(sandbox.pause_fd, signal.SIGKILL)
        await parts.wait_pidfd(sandbox.pause_fd, 10)
        sandbox.close()
    await asyncio.to_thread(machine.cgroups.remove, pause_cgroup(record))


async def _stop(machine: Machine, sandbox: Sandbox) -> None:
    await asyncio.gather(_kill(machine, sandbox), _detach(machine, sandbox))
    if sandbox.record.spec.owner:
        # A kubelet removes what it has stopped much later, or when it runs short of disk; and before that the cgroup
        # that it gave, which must be empty then.
        sandbox_files.unmount_shm(sandbox)
        await _remove_cgroup(machine, sandbox)
        _unpin(machine, sandbox.record)


async def _kill(machine: Machine, sandbox: Sandbox) -> None:
    """All at once: in a shared PID namespace one container may hold up the start of another, whose end would wait for
    that. With the pause process all of them end."""
    units = machine.containers_of(sandbox.id)
    await asyncio.gather(kill_pause(machine, sandbox), *(containers.kill(machine, unit) for unit in units))


async def _detach(machine: Machine, sandbox: Sandbox) -> None:
    if sandbox.record.spec.network != NamespaceMode.NODE:
        await parts.detach(machine, sandbox.id)


async def _remove_containers(machine: Machine, sandbox: Sandbox) -> None:
    await asyncio.gather(*(containers.remove(machine, unit.id) for unit in machine.containers_of(sandbox.id)))


def _drop(machine: Machine, sandbox: Sandbox) -> None:
    sandbox.close()
    remove_directory(sandbox.files)
    remove_directory(sandbox.directory)
    machine.sandboxes.pop(sandbox.id, None)
