"""The engine's interface, for those who call it (node, cri, api through node) and for their tests' fakes.

:class:`podrt.engine.engine.Engine` is the implementation. Errors: NotFoundError (no such id), ConflictError (the
state does not allow it; the message names both ends), InvalidError, ImageError, LaunchError, ExhaustedError, OSError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from podrt.engine.disk import Measured
from podrt.engine.specs import (
    ContainerSpec,
    ContainerStatus,
    EngineEvent,
    Resources,
    SandboxSpec,
    SandboxStatus,
    Stats,
)
from podrt.network.driver import Readiness


class Session(Protocol):
    """A running exec or attach: descriptors that the caller owns and pumps, all non-blocking.

    With a terminal ``stdin`` and ``stdout`` are the same master (two descriptors) and ``stderr`` is None. A stream
    that was not asked for is None."""

    stdin: int | None
    stdout: int | None
    stderr: int | None

    def resize(self, columns: int, rows: int) -> None:
        """Set the terminal's size; nothing without a terminal."""

    async def wait(self) -> int:
        """The exit code of the command (exec) or container (attach); 128 + signal where it was killed."""

    async def close_stdin(self) -> None:
        """End of file to the process (for an attach with stdinOnce to the container)."""

    async def close(self) -> None:
        """Close the descriptors; an exec that still runs is killed, an attached container goes on."""


class ExecResult(Protocol):
    """What a finished command wrote, and its exit code."""

    @property
    def stdout(self) -> bytes: ...
    @property
    def stderr(self) -> bytes: ...
    @property
    def code(self) -> int: ...


class EngineApi(Protocol):
    """CRI verbs. Stop and remove of what is gone succeed; every verb may be called again after any failure."""

    async def run_sandbox(self, spec: SandboxSpec) -> SandboxStatus: ...
    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Kill what still runs in it, take the network down; the record stays until remove."""

    async def remove_sandbox(self, sandbox_id: str) -> None: ...
    def sandbox_status(self, sandbox_id: str) -> SandboxStatus: ...
    def list_sandboxes(self, uid: str = "") -> list[SandboxStatus]:
        """All of them, or those of one Pod by ``spec.uid``."""

    async def create_container(self, sandbox_id: str, spec: ContainerSpec) -> str:
        """Returns the container id. Raises NotFoundError for an unknown image."""

    async def start_container(self, container_id: str) -> ContainerStatus:
        """Returns once exec(2) of the command succeeded. Raises LaunchError; the container is then exited."""

    async def stop_container(self, container_id: str, timeout: float, signal: str = "") -> None:
        """The stop signal, then after ``timeout`` seconds SIGKILL to its whole cgroup; returns when it has ended.

        A second call with a shorter time-out shortens the first."""

    async def remove_container(self, container_id: str) -> None:
        """Kills it if it runs. Its log files are left."""

    def container_status(self, container_id: str) -> ContainerStatus: ...
    def list_containers(self, sandbox_id: str = "") -> list[ContainerStatus]: ...
    async def wait_container(self, container_id: str) -> ContainerStatus:
        """Until it has exited and its output is in the log."""

    async def update_container(self, container_id: str, resources: Resources) -> None: ...
    async def update_sandbox(self, sandbox_id: str, resources: Resources) -> None: ...
    async def set_group(self, path: str, resources: Resources) -> None:
        """Make a cgroup that Pods' cgroups can be in, or give it new limits. It stays. Raises OSError."""

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
    ) -> Session: ...
    async def exec_sync(
        self, container_id: str, argv: Sequence[str], timeout: float = 0, max_bytes: int = 16 * 1024 * 1024
    ) -> ExecResult:
        """Raises DeadlineError after ``timeout`` seconds (0: none), the command and its children then killed."""

    async def attach(self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool) -> Session: ...
    async def connect_port(self, sandbox_id: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A TCP connection to localhost:``port`` inside the sandbox's network namespace (IPv4, then IPv6).

        Raises OSError ECONNREFUSED."""

    async def reopen_log(self, container_id: str) -> None: ...
    async def container_stats(self, container_id: str) -> Stats: ...
    async def sandbox_stats(self, sandbox_id: str) -> Stats: ...
    async def all_stats(
        self, container_ids: Sequence[str], sandbox_ids: Sequence[str], *, detailed: bool = False
    ) -> dict[str, Stats]:
        """Of many at once, by id; those that are gone are left out. ``detailed``: with all that metrics ask for."""

    async def writable_layers(self) -> Measured:
        """What all writable layers take of the disk, as far as it is known."""

    def problem(self) -> str:
        """Why no container can be started right now; empty if one can."""

    async def cri_network(self) -> Readiness:
        """Whether a sandbox made through the CRI can be connected: NetworkReady of its Status."""

    def cni_info(self) -> Mapping[str, object]:
        """What is known of the CNI configuration, for the CRI's verbose Status; empty on the built-in bridge."""

    def subscribe(self) -> asyncio.Queue[EngineEvent]:
        """A new queue that gets every event from now on."""

    def unsubscribe(self, queue: asyncio.Queue[EngineEvent]) -> None: ...
