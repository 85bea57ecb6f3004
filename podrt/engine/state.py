"""What the engine's verbs share: the parts it stands on, and the sandboxes and containers it knows.

Records (:mod:`podrt.engine.records`) are immutable; these objects hold the newest one, and with it what only lives as
long as this daemon: locks, pidfds, terminals. A record is changed in memory after it was written."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from podrt.config import Config
from podrt.engine import records
from podrt.engine.disk import LayerUsage
from podrt.engine.events import EventBus
from podrt.engine.records import ContainerRecord, Phase, SandboxRecord
from podrt.engine.rootfs import Hierarchy
from podrt.engine.supervisor import SupervisorClient
from podrt.engine.transitions import check
from podrt.errors import NotFoundError
from podrt.image.service import ImageStore
from podrt.linux.cgroup import Manager
from podrt.linux.removal import remove_tree
from podrt.network.driver import Networks

log = logging.getLogger(__name__)


class Exit(NamedTuple):
    """How a process ended. ``code`` is 0 if a signal ended it."""

    code: int
    signal: int
    at: float
    known: bool = True
    """False: it is gone and nobody knows how."""


@dataclass(slots=True, eq=False)
class Sandbox:
    record: SandboxRecord
    directory: Path
    """``<run_dir>/sandboxes/<id>``."""
    files: Path
    """``<state_dir>/sandboxes/<id>``: hosts and so on. Containers may write to them without end, and on the run
    directory's tmpfs that would take the machine's memory and the room for records."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by stop and remove."""
    pause_fd: int = -1
    """pidfd of the pause process."""

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def shm(self) -> Path:
        return self.directory / "shm"

    def change(self, phase: Phase | None = None, **fields: object) -> None:
        """Write the record with another phase and fields, then take it over. Raises ConflictError, OSError."""
        if phase is not None and phase is not self.record.phase:
            check(self.record, phase)
        self.record = _changed(self.directory, self.record, phase, fields)

    def close(self) -> None:
        """Let go of descriptors."""
        if self.pause_fd >= 0:
            os.close(self.pause_fd)
            self.pause_fd = -1


@dataclass(slots=True, eq=False)
class Container:
    record: ContainerRecord
    directory: Path
    """``<run_dir>/containers/<id>``: record and FIFOs."""
    storage: Path
    """``<state_dir>/containers/<id>``: upper, work, root."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by every change of phase."""
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the phase is EXITED and the output is in the log."""
    pidfd: int = -1
    terminal: int = -1
    """A master of the terminal, so that it survives the supervisor."""
    stop_signal_sent: str = ""
    execs: int = 0
    """Number of the last exec, for its id."""
    home: str | None = None
    """The user's home directory by the image's passwd file, once a launch has told it."""
    lists: dict[tuple[str, ...], int] = field(default_factory=dict)
    """Lists of steps by command, see :mod:`podrt.engine.quick`."""

    @property
    def id(self) -> str:
        return self.record.id

    def fifo(self, name: str) -> str:
        return str(self.directory / name)

    def change(self, phase: Phase | None = None, **fields: object) -> None:
        """Write the record with another phase and fields, then take it over. Raises ConflictError, OSError."""
        if phase is not None and phase is not self.record.phase:
            check(self.record, phase)
        self.record = _changed(self.directory, self.record, phase, fields)
        if self.record.phase in (Phase.EXITED, Phase.REMOVING):
            self.exited.set()

    def close(self) -> None:
        """Let go of descriptors."""
        for fd in (self.pidfd, self.terminal, *self.lists.values()):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.terminal = -1
        self.lists.clear()


def _changed(directory: Path, record: records.R, phase: Phase | None, fields: dict[str, object]) -> records.R:
    values = {name: getattr(record, name) for name in record.__struct_fields__} | fields
    if phase is not None:
        values["phase"] = phase
    changed = type(record)(**values)
    records.save(directory, changed)
    return changed


@dataclass(slots=True, eq=False)
class Machine:
    """The parts, and all that is known."""

    config: Config
    images: ImageStore
    network: Networks
    cgroups: Manager
    supervisor: SupervisorClient
    hierarchies: tuple[Hierarchy, ...] = ()
    boot_id: str = ""
    apparmor: str = ""
    """The default AppArmor profile, empty where there is none."""
    bus: EventBus = field(default_factory=EventBus)
    disk: LayerUsage = field(default_factory=LayerUsage)
    sandboxes: dict[str, Sandbox] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    waiting: dict[str, asyncio.Future[Exit]] = field(default_factory=dict)
    """Ends of execs that are waited for, by process id of the supervisor's protocol."""
    session: str = field(default_factory=lambda: secrets.token_hex(4))
    """Distinguishes the execs of this daemon from those of the one before it."""

    background: set[asyncio.Task[None]] = field(default_factory=set)

    def spawn(self, work: Coroutine[object, object, None], what: str) -> None:
        """Let ``work`` run by itself; its failure is logged."""
        task = asyncio.create_task(work, name=what)
        self.background.add(task)
        task.add_done_callback(self._spawned)

    def _spawned(self, task: asyncio.Task[None]) -> None:
        self.background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: %s", task.get_name(), error, exc_info=error)

    def wait_for(self, identity: str) -> asyncio.Future[Exit]:
        """To be called before the launch: the exit may be told before the launch's caller goes on."""
        return self.waiting.setdefault(identity, asyncio.get_running_loop().create_future())

    @property
    def sandbox_root(self) -> Path:
        return self.config.run_dir / "sandboxes"

    @property
    def files_root(self) -> Path:
        return self.config.state_dir / "sandboxes"

    @property
    def container_root(self) -> Path:
        return self.config.run_dir / "containers"

    @property
    def storage_root(self) -> Path:
        return self.config.state_dir / "containers"

    @property
    def pause_root(self) -> Path:
        """The root directory of pause processes; holds the binary alone."""
        return self.config.run_dir / "pause"

    def sandbox(self, sandbox_id: str) -> Sandbox:
        """Raises NotFoundError."""
        sandbox = self.sandboxes.get(sandbox_id)
        if sandbox is None:
            raise NotFoundError(f"sandbox {sandbox_id!r} does not exist")
        return sandbox

    def container(self, container_id: str) -> Container:
        """Raises NotFoundError."""
        container = self.containers.get(container_id)
        if container is None:
            raise NotFoundError(f"container {container_id!r} does not exist")
        return container

    def containers_of(self, sandbox_id: str) -> list[Container]:
        return [container for container in self.containers.values() if container.record.sandbox_id == sandbox_id]


def remove_directory(path: Path) -> None:
    """Remove a directory of records or of a container's files; no error if it is gone. Nothing may be mounted below."""
    remove_tree(path)


@contextlib.contextmanager
def closing(fds: list[int]) -> Iterator[list[int]]:
    """Close the descriptors that are in the list at the end."""
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)
        fds.clear()
