"""Further processes in running containers, and attaching to the first one.

The caller of :func:`run` and :func:`attach` gets the daemon's ends of pipes, or of a terminal, and pumps them itself:
what a client types or reads never passes through the engine. An exec that is closed before its end is killed, with
those of its descendants that still hang below it (one that was orphaned has the container's init as its parent, and
stays)."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Sequence

from podrt.engine import ending, exec_sync, launch
from podrt.engine.exec_sync import Collector, Result
from podrt.engine.kill import kill_tree
from podrt.engine.records import Phase
from podrt.engine.state import Container, Exit, Machine, closing
from podrt.engine.undo import finish
from podrt.errors import ConflictError, DeadlineError
from podrt.linux.process import ProcessHandle
from podrt.supervisor.protocol import Stdio


class Streams:
    """The caller's descriptors, closed once each."""

    def __init__(self) -> None:
        self.stdin: int | None = None
        self.stdout: int | None = None
        self.stderr: int | None = None

    def close_one(self, name: str) -> None:
        fd = getattr(self, name)
        setattr(self, name, None)
        if fd is not None:
            os.close(fd)

    def close_all(self) -> None:
        for name in ("stdin", "stdout", "stderr"):
            self.close_one(name)


class ExecSession(Streams):
    """A command in a container; see :class:`podrt.engine.api.Session`."""

    def __init__(self, machine: Machine, identity: str, ended: asyncio.Future[Exit]) -> None:
        super().__init__()
        self._machine = machine
        self._id = identity
        self._ended = ended
        self._process: ProcessHandle | None = None
        self._terminal = False

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def started(self, process: ProcessHandle, master: int | None) -> None:
        self._process = process
        if master is not None:
            self._terminal = True
            os.set_blocking(master, False)
            self.stdin = master
            self.stdout = fcntl.fcntl(master, fcntl.F_DUPFD_CLOEXEC, 3)

    def resize(self, columns: int, rows: int) -> None:
        if self._terminal and self.stdout is not None:
            set_window(self.stdout, columns, rows)

    async def wait(self) -> int:
        how = await asyncio.shield(self._ended)
        return ending.outcome(how, False)[0]

    async def close_stdin(self) -> None:
        if not self._terminal:
            self.close_one("stdin")

    async def close(self) -> None:
        self.close_all()
        process, self._process = self._process, None
        if process is None:
            return
        with process:
            if not self._ended.done():
                kill_tree(process)
        await finish(self._forget(), f"close {self._id}")

    async def _forget(self) -> None:
        """A process that was killed is gone soon; the supervisor keeps its exit until it is told to forget it."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._ended), 10)
            await self._machine.supervisor.forget(self._id)
        self._machine.waiting.pop(self._id, None)


class AttachSession(Streams):
    """The streams of a container's first process; see :class:`podrt.engine.api.Session`."""

    def __init__(self, machine: Machine, unit: Container) -> None:
        super().__init__()
        self._machine = machine
        self._unit = unit

    def resize(self, columns: int, rows: int) -> None:
        if self._unit.terminal >= 0:
            set_window(self._unit.terminal, columns, rows)

    async def wait(self) -> int:
        await self._unit.exited.wait()
        return self._unit.record.exit_code

    async def close_stdin(self) -> None:
        spec = self._unit.record.spec
        self.close_one("stdin")
        if spec.stdin_once and not spec.tty and self._unit.record.phase is Phase.RUNNING:
            await self._machine.supervisor.close_stdin(self._unit.id)

    async def close(self) -> None:
        self.close_all()


def set_window(fd: int, columns: int, rows: int) -> None:
    """TIOCSWINSZ of ioctl_tty(2)."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", rows & 0xFFFF, columns & 0xFFFF, 0, 0))


async def run(
    machine: Machine,
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
    """Start ``argv`` in a running container. Raises NotFoundError, ConflictError (not running), LaunchError."""
    unit = running(machine, container_id, "exec into")
    sandbox = machine.sandbox(unit.record.sandbox_id)
    unit.execs += 1
    identity = f"{unit.id}/exec/{machine.session}-{unit.execs}"
    session = ExecSession(machine, identity, machine.wait_for(identity))
    try:
        with closing([]) as fds:
            try:
                spec = launch.exec_(machine, sandbox, unit, argv, fds)._replace(id=identity)
            except (ProcessLookupError, FileNotFoundError) as error:
                raise _not_running(unit, "exec into") from error
            if tty:
                stdio = Stdio("terminal", columns=columns, rows=rows)
            else:
                stdio = _pipes(session, fds, stdin=stdin, stdout=stdout, stderr=stderr)
            launched = await machine.supervisor.launch(spec._replace(stdio=stdio, terminal=tty), fds)
    except BaseException:
        session.close_all()
        machine.waiting.pop(identity, None)
        raise
    unit.home = launched.home
    process = ProcessHandle(launched.pidfd, launched.pid, launched.start_time)
    session.started(process, launched.fds[0] if launched.terminal else None)
    return session


def _pipes(session: ExecSession, fds: list[int], *, stdin: bool, stdout: bool, stderr: bool) -> Stdio:
    """A pipe for each stream asked for: the child's end goes to ``fds``, ours to the session."""
    indexes: dict[str, int | None] = {"stdin": None, "stdout": None, "stderr": None}
    for name, wanted in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
        if not wanted:
            continue
        reader, writer = os.pipe2(os.O_CLOEXEC)
        ours, theirs = (writer, reader) if name == "stdin" else (reader, writer)
        fds.append(theirs)
        setattr(session, name, ours)
        os.set_blocking(ours, False)
        indexes[name] = len(fds) - 1
    return Stdio("fds", stdin=indexes["stdin"], stdout=indexes["stdout"], stderr=indexes["stderr"])


async def run_sync(
    machine: Machine, container_id: str, argv: Sequence[str], timeout: float = 0, max_bytes: int = 16 * 1024 * 1024
) -> Result:
    """Run ``argv`` to its end. Raises what :func:`run` raises, and DeadlineError after ``timeout`` seconds (0:
    never).
    """
    unit = running(machine, container_id, "exec into")
    try:
        async with asyncio.timeout(timeout or None):
            found = await exec_sync.run_list(machine, unit, argv, max_bytes)
            return found if found is not None else await _run_session(machine, unit, argv, max_bytes)
    except TimeoutError:
        raise DeadlineError(f"command {argv[0]!r} did not end in {timeout:g} s") from None


async def _run_session(machine: Machine, unit: Container, argv: Sequence[str], max_bytes: int) -> Result:
    session = await run(machine, unit.id, argv)
    assert session.stdout is not None and session.stderr is not None
    try:
        with Collector(session.stdout, max_bytes) as first, Collector(session.stderr, max_bytes) as second:
            first.start()
            second.start()
            code = await session.wait()
            await exec_sync.rest((first, second))
            return Result(bytes(first.data), bytes(second.data), code)
    finally:
        await session.close()


async def attach(machine: Machine, container_id: str, *, stdin: bool, stdout: bool, stderr: bool) -> AttachSession:
    """Join the streams of a running container. Raises NotFoundError, ConflictError."""
    unit = running(machine, container_id, "attach to")
    spec = unit.record.spec
    session = AttachSession(machine, unit)
    ends: dict[str, int | None] = {"stdout": None, "stderr": None}
    try:
        # A terminal has one output only.
        for name, wanted in (("stdout", stdout), ("stderr", stderr and not spec.tty)):
            if wanted:
                reader, ends[name] = os.pipe2(os.O_CLOEXEC)
                setattr(session, name, reader)
                os.set_blocking(reader, False)
        session.stdin = await machine.supervisor.attach(
            unit.id, stdin=stdin and spec.stdin, stdout=ends["stdout"], stderr=ends["stderr"]
        )
    except BaseException:
        session.close_all()
        raise
    return session


def running(machine: Machine, container_id: str, verb: str) -> Container:
    """Raises NotFoundError, ConflictError."""
    unit = machine.container(container_id)
    if unit.record.phase is not Phase.RUNNING:
        raise _not_running(unit, verb)
    return unit


def _not_running(unit: Container, verb: str) -> ConflictError:
    record = unit.record
    return ConflictError(
        f"cannot {verb} container {record.spec.name} ({record.id[:12]}): it is {record.status().state}, not running"
    )
