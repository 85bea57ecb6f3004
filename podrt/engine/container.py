"""Containers: created, started, stopped and removed.

The phases and what may follow each are in :mod:`podrt.engine.transitions`. A container's kernel objects are its
cgroup and its process with its namespaces; on disk it has ``<run_dir>/containers/<id>`` (record, FIFOs) and
``<state_dir>/containers/<id>`` (upper, work, root). The record is written before the first of them and removed after
the last, so :func:`tear_down` finds everything and may be called any number of times.

How a container ends is in :mod:`podrt.engine.ending`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal as signals
import time
from pathlib import Path

from podrt.engine import command, ending, image_mounts, launch, parts, threads, undo
from podrt.engine.records import ContainerRecord, Phase, Process
from podrt.engine.records import save as save_record
from podrt.engine.signals import parse as parse_signal
from podrt.engine.specs import ContainerSpec, ContainerStatus, EventKind, NamespaceMode, Resources
from podrt.engine.state import Container, Machine, Sandbox, closing, remove_directory
from podrt.engine.undo import UndoStack
from podrt.errors import Cause, ConflictError, DeadlineError, InvalidError, LaunchError, UnsupportedError
from podrt.linux import selinux
from podrt.supervisor.protocol import LaunchSpec
from podrt.supervisor.wire import close_all

log = logging.getLogger(__name__)

_KILL_SECONDS = 30.0


async def create(machine: Machine, sandbox_id: str, spec: ContainerSpec) -> str:
    """Make a container that can be started, or leave nothing behind; returns its id.

    Raises NotFoundError (sandbox, image), ConflictError (sandbox not ready), InvalidError, OSError.
    """
    _check_ready(machine.sandbox(sandbox_id), spec)
    if _may_block(machine, spec):
        await threads.patiently(lambda: launch.check(machine, spec), f"the volumes of container {spec.name}")
    else:
        launch.check(machine, spec)
    if spec.security.mount_label:
        await undo.finish(asyncio.to_thread(_relabel, spec), f"labels of the volumes of container {spec.name}")
    # Anew, for it may have been stopped or removed meanwhile.
    sandbox = machine.sandbox(sandbox_id)
    _check_ready(sandbox, spec)
    launch.pid_mode(sandbox.record.spec, spec)
    record = _new_record(machine, sandbox, spec)
    unit = Container(record, machine.container_root / record.id, machine.storage_root / record.id)
    async with unit.lock, UndoStack(f"container {spec.name}") as stack:
        stack.step("container.record", lambda: _drop(machine, unit))
        unit.directory.mkdir(mode=0o700)
        save_record(unit.directory, record)
        machine.containers[record.id] = unit
        stack.step("container.image", lambda: _release_images(machine, record))
        hold_images(machine, record)
        stack.step("container.cgroup", lambda: _remove_cgroup(machine, record))
        await undo.finish(_make_cgroup(machine, record), f"cgroup of {record.id[:12]}")
        stack.step("container.storage", lambda: _remove_storage(unit))
        _make_storage(sandbox, unit)
        if record.mounted_images:
            looking = asyncio.to_thread(image_mounts.check, machine, unit)
            await undo.finish(looking, f"images mounted by {record.id[:12]}")
        stack.step("container.created")
        unit.change(Phase.CREATED)
    machine.bus.send(EventKind.CONTAINER_CREATED, sandbox_id, record.id)
    return record.id


async def start(machine: Machine, container_id: str) -> ContainerStatus:
    """Run its command; returns once exec(2) succeeded.

    Raises NotFoundError, ConflictError (not created, sandbox not ready), and LaunchError, InvalidError or OSError where
    it could not be run: the container is then exited with code 128 and reason StartError.
    """
    unit = machine.container(container_id)
    async with unit.lock:
        record = unit.record
        sandbox = machine.sandbox(record.sandbox_id)
        _check_ready(sandbox, record.spec)
        if record.phase is not Phase.CREATED:
            raise ConflictError(
                f"container {record.spec.name} ({record.id[:12]}) cannot go from {record.phase} to running"
            )
        try:
            await undo.finish(_launch(machine, sandbox, unit), f"start container {record.id[:12]}")
        except (LaunchError, InvalidError, OSError) as error:
            await ending.failed_to_start(machine, unit, str(error))
            raise
        return unit.record.status()


async def stop(machine: Machine, container_id: str, timeout: float, signal: str = "") -> None:
    """The stop signal, then after ``timeout`` seconds SIGKILL for all of its cgroup; returns when it has ended.

    Any caller whose time is over kills it for all, so a later call with a shorter time-out shortens an earlier one.
    The signal is sent again only if it is another one. Nothing if there is no such container or it has ended. Raises
    InvalidError for an unknown signal, DeadlineError if it outlives SIGKILL by 30 seconds (a process in an
    uninterruptible sleep)."""
    unit = machine.containers.get(container_id)
    if unit is None:
        return
    name = signal or unit.record.command.stop_signal
    number = parse_signal(name)
    async with unit.lock:
        if unit.record.phase is not Phase.RUNNING:
            return
        if timeout > 0 and unit.stop_signal_sent != name:
            unit.stop_signal_sent = name
            _send(unit, number)
    if timeout > 0:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(unit.exited.wait(), timeout)
    await kill(machine, unit)


async def kill(machine: Machine, unit: Container) -> None:
    """SIGKILL to all of its cgroup; returns when it has ended. Raises DeadlineError."""
    async with unit.lock:
        if unit.record.phase is not Phase.RUNNING:
            return
        await asyncio.to_thread(machine.cgroups.kill, unit.record.cgroup)
        _send(unit, signals.SIGKILL)  # where the cgroup is gone or was left by its process
    try:
        await asyncio.wait_for(unit.exited.wait(), _KILL_SECONDS)
    except TimeoutError:
        raise DeadlineError(
            f"container {unit.record.spec.name} ({unit.id[:12]}) still runs {_KILL_SECONDS:g} s after SIGKILL: "
            f"process {unit.record.status().pid} hangs in the kernel"
        ) from None


async def remove(machine: Machine, container_id: str) -> None:
    """Kill it if it runs, and remove all that is its own but its logs. Nothing if there is no such container."""
    unit = machine.containers.get(container_id)
    if unit is None:
        return
    await kill(machine, unit)
    async with unit.lock:
        if machine.containers.get(container_id) is not unit:
            return
        if unit.record.phase is not Phase.REMOVING:
            unit.change(Phase.REMOVING)
        await undo.finish(tear_down(machine, unit), f"remove container {container_id[:12]}")
    machine.bus.send(EventKind.CONTAINER_DELETED, unit.record.sandbox_id, container_id)


async def tear_down(machine: Machine, unit: Container) -> None:
    """Undo all of a container, whatever there is of it. Raises OSError if its cgroup can't be removed."""
    record = unit.record
    undo.checkpoint("container.remove.cgroup")
    await _remove_cgroup(machine, record)
    undo.checkpoint("container.remove.storage")
    await _remove_storage(unit)
    machine.disk.forget(record.id)
    undo.checkpoint("container.remove.image")
    _release_images(machine, record)
    undo.checkpoint("container.remove.record")
    _drop(machine, unit)


async def update(machine: Machine, container_id: str, resources: Resources) -> None:
    """New limits, of a created or running container. Raises ConflictError, OSError."""
    unit = machine.container(container_id)
    async with unit.lock:
        if unit.record.phase not in (Phase.CREATED, Phase.RUNNING):
            raise ConflictError(
                f"container {unit.record.spec.name} is {unit.record.phase}: its limits can't be changed"
            )
        machine.cgroups.apply(unit.record.cgroup, resources)
        unit.change(spec=parts.replaced(unit.record.spec, resources=resources))


# -- steps


def _relabel(spec: ContainerSpec) -> None:
    """The files of the mounts that ask for it. Raises OSError."""
    for mount in spec.mounts:
        if mount.relabel and mount.source:
            selinux.relabel(mount.source, spec.security.mount_label)


def _check_ready(sandbox: Sandbox, spec: ContainerSpec) -> None:
    if sandbox.record.phase is not Phase.CREATED:
        raise ConflictError(
            f"container {spec.name}: sandbox {sandbox.record.spec.name} ({sandbox.id[:12]}) is "
            f"{sandbox.record.status().state}, not ready"
        )


def _new_record(machine: Machine, sandbox: Sandbox, spec: ContainerSpec) -> ContainerRecord:
    image = machine.images.resolve(spec.image)
    shared = sandbox.record.spec
    hostname = shared.hostname if shared.network != NamespaceMode.NODE and shared.hostname else os.uname().nodename
    resolved = command.resolve(spec, image.config, hostname)
    if spec.resources.unified and machine.cgroups.hierarchies.mode != "v2":
        names = ", ".join(spec.resources.unified)
        raise UnsupportedError(f"container {spec.name}: resources.unified ({names}) needs a machine with cgroup v2")
    if not spec.resources.pids_limit and machine.config.pids_limit and not shared.owner:
        spec = parts.replaced(spec, resources=parts.replaced(spec.resources, pids_limit=machine.config.pids_limit))
    identity = secrets.token_hex(32)
    return ContainerRecord(
        id=identity,
        sandbox_id=sandbox.id,
        spec=spec,
        phase=Phase.CREATING,
        created_at=time.time(),
        cgroup=f"{sandbox.record.cgroup}/{identity}",
        image_id=image.id,
        image_ref=image.digest_for(spec.user_image, spec.image),
        layers=tuple(str(path) for path in machine.images.layers(image)),
        mounted_images={one.destination: machine.images.resolve(one.image).id for one in spec.mounts if one.image},
        command=resolved,
        log_path=_log_path(sandbox, spec),
    )


def hold_images(machine: Machine, record: ContainerRecord) -> None:
    """Raises NotFoundError."""
    for image_id in (record.image_id, *record.mounted_images.values()):
        machine.images.hold(image_id, record.id)


def _release_images(machine: Machine, record: ContainerRecord) -> None:
    for image_id in (record.image_id, *record.mounted_images.values()):
        machine.images.release(image_id, record.id)


def _log_path(sandbox: Sandbox, spec: ContainerSpec) -> str:
    directory = sandbox.record.spec.log_directory
    if not directory or not spec.log_path:
        return ""
    path = Path(directory, spec.log_path)
    if ".." in path.parts or Path(spec.log_path).is_absolute():
        raise InvalidError(
            f"container {spec.name}: log_path must lie below the sandbox's log_directory, not {spec.log_path!r}",
            (Cause("logPath", "must be relative and without .."),),
        )
    return str(path)


async def _make_cgroup(machine: Machine, record: ContainerRecord) -> None:
    rules = parts.device_rules(record.spec)
    await asyncio.to_thread(machine.cgroups.create, record.cgroup, record.spec.resources, rules=rules)


def _make_storage(sandbox: Sandbox, unit: Container) -> None:
    """The upper directory lends the container's / its mode and owner."""
    shared = sandbox.record.spec
    unit.storage.mkdir(mode=0o711)
    for name in ("upper", "work", "root"):
        (unit.storage / name).mkdir(mode=0o755)
    if shared.uid_maps:
        os.chown(unit.storage / "upper", launch.outside(shared.uid_maps, 0), launch.outside(shared.gid_maps, 0))
    if unit.record.log_path:
        Path(unit.record.log_path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)


async def _launch(machine: Machine, sandbox: Sandbox, unit: Container) -> None:
    spec, opened = await _prepare(machine, sandbox, unit)
    with closing(opened) as fds:
        launched = await machine.supervisor.launch(spec, fds)
    unit.pidfd = launched.pidfd
    unit.home = launched.home
    if launched.terminal:
        unit.terminal = launched.fds[0]
    undo.checkpoint("container.started")
    unit.change(
        Phase.RUNNING,
        process=Process(pid=launched.pid, start_time=launched.start_time, boot_id=machine.boot_id),
        started_at=time.time(),
        uid=launched.uid,
        gid=launched.gid,
        groups=launched.groups,
    )
    for warning in launched.warnings:
        machine.bus.send(EventKind.WARNING, sandbox.id, unit.id, warning)
    machine.bus.send(EventKind.CONTAINER_STARTED, sandbox.id, unit.id, at=unit.record.started_at)


async def _prepare(machine: Machine, sandbox: Sandbox, unit: Container) -> tuple[LaunchSpec, list[int]]:
    """The launch and the descriptors that go with it. Raises what launch.container raises, and TimeoutError."""

    def prepared() -> tuple[LaunchSpec, list[int]]:
        fds: list[int] = []
        try:
            return launch.container(machine, sandbox, unit, fds), fds
        except BaseException:
            close_all(fds)
            raise

    if not _may_block(machine, unit.record.spec):
        return prepared()
    what = f"the volumes of container {unit.record.spec.name}"
    return await threads.patiently(prepared, what, discard=lambda result: close_all(result[1]))


def _may_block(machine: Machine, spec: ContainerSpec) -> bool:
    """Whether a look at the sources of its mounts may wait for another machine: at all that isn't podrt's own file."""
    own = (f"{machine.config.state_dir}/", f"{machine.config.run_dir}/")
    return any(not one.source.startswith(own) or "/volumes/" in one.source for one in spec.mounts)


def _send(unit: Container, number: int) -> None:
    if unit.pidfd >= 0:
        with contextlib.suppress(ProcessLookupError):
            signals.pidfd_send_signal(unit.pidfd, number)


async def _remove_cgroup(machine: Machine, record: ContainerRecord) -> None:
    await asyncio.to_thread(machine.cgroups.remove, record.cgroup)


async def _remove_storage(unit: Container) -> None:
    await asyncio.to_thread(remove_directory, unit.storage)


def _drop(machine: Machine, unit: Container) -> None:
    unit.close()
    if unit.record.mounted_images:
        image_mounts.clean(unit)
    remove_directory(unit.directory)
    machine.containers.pop(unit.id, None)
