"""The records on disk: all that a later daemon must know of a sandbox or container that it did not make itself.

One JSON file each, ``<run_dir>/sandboxes/<id>/state.json`` and ``<run_dir>/containers/<id>/state.json``, with a
version, written to a temporary name and renamed. The record is written *before* the first kernel object is made
(phase CREATING) and removed after the last one is gone, so whatever belongs to an id is found through its directory.
A process is known by pid, start time and the boot it belongs to: after a reboot the same pair may name another
process."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TypeVar

import msgspec

from podrt.engine.specs import (
    ContainerSpec,
    ContainerState,
    ContainerStatus,
    SandboxSpec,
    SandboxState,
    SandboxStatus,
    Struct,
)
from podrt.errors import InvalidError
from podrt.fsutil import write_atomic

VERSION = 1
FILE_NAME = "state.json"


class Phase(enum.StrEnum):
    """Where an object is in its life; more than its public state."""

    CREATING = "creating"
    CREATED = "created"
    """Sandbox: ready. Container: made, not started."""
    RUNNING = "running"
    EXITED = "exited"
    """Container: its process has ended. Sandbox: stopped or broken, not ready."""
    REMOVING = "removing"


class Process(Struct, frozen=True, kw_only=True):
    """A process that outlives the daemon."""

    pid: int
    start_time: int
    boot_id: str


class Command(Struct, frozen=True, kw_only=True):
    """What image and spec together say about the processes of a container; exec uses it again."""

    argv: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    stop_signal: str


class SandboxRecord(Struct, frozen=True, kw_only=True):
    id: str
    spec: SandboxSpec
    phase: Phase
    created_at: float
    cgroup: str
    """Path below each hierarchy."""
    own_cgroup: bool = True
    """The engine made the cgroup, so it sets its limits and removes it; False where a kubelet did."""
    namespaces: dict[str, str] = msgspec.field(default_factory=dict)
    """Kind (net, uts, ipc, pid, user) -> path where it is pinned."""
    ips: tuple[str, ...] = ()
    pause: Process | None = None

    def status(self) -> SandboxStatus:
        states = {Phase.CREATING: SandboxState.CREATING, Phase.CREATED: SandboxState.READY}
        return SandboxStatus(
            id=self.id,
            spec=self.spec,
            state=states.get(self.phase, SandboxState.NOT_READY),
            created_at=self.created_at,
            ips=self.ips,
            netns=self.namespaces.get("net", ""),
            pause_pid=self.pause.pid if self.pause is not None and self.phase is Phase.CREATED else 0,
            cgroup=self.cgroup,
        )


class ContainerRecord(Struct, frozen=True, kw_only=True):
    id: str
    sandbox_id: str
    spec: ContainerSpec
    phase: Phase
    created_at: float
    cgroup: str
    image_id: str
    image_ref: str
    layers: tuple[str, ...]
    """Directories of the unpacked layers, top first."""
    mounted_images: dict[str, str] = msgspec.field(default_factory=dict)
    """Destination of a mount -> id of the image that is mounted there."""
    command: Command
    log_path: str = ""
    process: Process | None = None
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()

    def status(self) -> ContainerStatus:
        states = {
            Phase.CREATING: ContainerState.CREATED,
            Phase.CREATED: ContainerState.CREATED,
            Phase.RUNNING: ContainerState.RUNNING,
            Phase.EXITED: ContainerState.EXITED,
            Phase.REMOVING: ContainerState.EXITED,
        }
        return ContainerStatus(
            id=self.id,
            sandbox_id=self.sandbox_id,
            spec=self.spec,
            state=states[self.phase],
            image_id=self.image_id,
            image_ref=self.image_ref,
            created_at=self.created_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            pid=self.process.pid if self.process is not None and self.phase is Phase.RUNNING else 0,
            exit_code=self.exit_code,
            reason=self.reason,
            message=self.message,
            log_path=self.log_path,
            uid=self.uid,
            gid=self.gid,
            groups=self.groups,
            stop_signal=self.command.stop_signal,
            cgroup=self.cgroup,
        )


R = TypeVar("R", SandboxRecord, ContainerRecord)

_encoder = msgspec.json.Encoder()


def save(directory: Path, record: SandboxRecord | ContainerRecord) -> None:
    """Write ``record`` to ``directory``, which must exist. Raises OSError."""
    data = b'{"version":%d,"record":%s}\n' % (VERSION, _encoder.encode(record))
    write_atomic(directory / FILE_NAME, data)


def load(directory: Path, kind: type[R]) -> R:
    """Read the record of ``directory``.

    Raises FileNotFoundError where there is none, InvalidError (naming file and field) if it is broken, of another
    version or of another id than the directory's name says."""
    path = directory / FILE_NAME
    data = path.read_bytes()
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
        if envelope.version != VERSION:
            raise InvalidError(f"{path}: record of version {envelope.version}, this daemon reads version {VERSION}")
        record = msgspec.json.decode(envelope.record, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidError(f"{path}: broken record: {error}") from error
    if record.id != directory.name:
        raise InvalidError(f"{path}: record of {record.id} in the directory of {directory.name}")
    return record


class _Envelope(msgspec.Struct, frozen=True):
    version: int
    record: msgspec.Raw


def boot_id() -> str:
    """The kernel's id of this boot, see random(4)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
