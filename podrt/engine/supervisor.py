"""The daemon's client of the supervisor: finds or starts it, launches processes, hears of their end, and puts a new
one in the place of a dead one.

While the supervisor is dead its containers live on. They become children of the daemon that was its parent (a
subreaper), so their exit codes stay true: ``supervisor_orphans`` waits for each by pidfd, and reaps nobody else's
children. What such a container wrote stays in its FIFOs, which ``supervisor_processes`` keeps open (never reading) for
just this case: a FIFO that nobody has open loses what is in it. The same holds for terminals' masters. A daemon that
isn't the parent gets the exit code from the pidfd where the kernel tells (6.15 or newer); otherwise it is unknown
(``known`` False).

Callbacks run in the event loop and must not block.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from podrt.config import Config
from podrt.engine.supervisor_child import Child, connect
from podrt.engine.supervisor_link import Link, Reply
from podrt.engine.supervisor_orphans import Orphans
from podrt.engine.supervisor_processes import Keep, Known, Processes
from podrt.errors import LaunchError, UnavailableError
from podrt.linux import libc, process
from podrt.supervisor import wire
from podrt.supervisor.protocol import MAX_FDS, VERSION, LaunchSpec, Log, ProcessRecord, Stdio

_log = logging.getLogger(__name__)

_START_SECONDS = 20.0
_REQUEST_SECONDS = 60.0
_LAUNCH_SECONDS = 300.0
"""A launch lasts as long as the slowest of its mounts. One that lasts longer hangs: on a dead NFS server, say."""


class Launched(NamedTuple):
    """A started process. The caller owns ``pidfd`` and ``fds``: the terminal's master if there is one, then the
    namespaces of ``report_namespaces``, in order."""

    pid: int
    start_time: int
    pidfd: int
    fds: list[int]
    warnings: list[str]
    terminal: bool
    uid: int | None
    gid: int | None
    groups: tuple[int, ...]
    home: str
    """The user's home directory by the image's passwd file; empty where there is no user."""


OnExit = Callable[[ProcessRecord], None]
OnWarning = Callable[[str, str], None]
OnLost = Callable[[], Awaitable[None]]


class SupervisorClient:
    """One connection to the supervisor of ``config.run_dir``.

    Set the callbacks before :meth:`start`. ``on_exit`` gets the final record of every process once (exec too); its
    output is in the log by then, as far as the process itself wrote it. ``on_warning`` gets (process id, message).
    ``on_lost`` is awaited after a dead supervisor was replaced and every running container of the old one given to
    the new one.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.on_exit: OnExit | None = None
        self.on_warning: OnWarning | None = None
        self.on_lost: OnLost | None = None
        self.pid = 0
        """Process id of the supervisor."""
        self.nofile = (0, 0)
        """RLIMIT_NOFILE, soft and hard, that processes get."""
        self._processes = Processes(self._tell_exit)
        self._orphans = Orphans(self._processes, self._tell_end)
        self._link = Link(self._on_event, self._on_lost_connection)
        self._child = Child()
        self._closing = False
        self._recovery: asyncio.Task[None] | None = None

    @property
    def processes(self) -> dict[str, Known]:
        """What the supervisor had on record at the last connection, exited or not; kept up to date afterwards."""
        return self._processes.known

    @property
    def connected(self) -> bool:
        """False between a supervisor's death and its successor."""
        return self._link.connected

    # -- life

    async def start(self) -> None:
        """Connect to a live supervisor or start one; then :attr:`processes` holds what it knows.

        Raises UnavailableError if it can't be started. ``config.run_dir`` must exist.
        """
        # Orphans of a dead supervisor then become this process's children.
        libc.set_subreaper()
        sock = connect(self._config)
        if sock is None:
            sock = self._child.start(self._config)
        self._link.use(sock)
        await self._hello()

    async def close(self) -> None:
        """Disconnect; the supervisor and its processes go on."""
        self._closing = True
        if self._recovery is not None:
            self._recovery.cancel()
            with contextlib.suppress(asyncio.CancelledError, UnavailableError):
                await self._recovery
        self._orphans.close()
        self._link.close()
        self._processes.close()
        self._child.close()

    # -- requests

    async def launch(self, spec: LaunchSpec, fds: Sequence[int] = ()) -> Launched:
        """Start a process; ``fds`` stay the caller's. Returns when exec has succeeded.

        Raises LaunchError (nothing is left of the process then), UnavailableError also if it takes over 5 minutes (and
        should it start after all it is killed).
        """
        if len(fds) > MAX_FDS:
            raise LaunchError("start", errno.E2BIG, "", f"{len(fds)} mounts and namespaces; {MAX_FDS} is the most")
        message = {"op": "launch", "spec": wire.spec_to_wire(spec)}
        reply, received = await self._request(message, fds, timeout=_LAUNCH_SECONDS)
        terminal = bool(reply["terminal"])
        uid, gid, groups, home = reply["user"] or (None, None, (), "")
        pid, start_time, pidfd = reply["pid"], reply["start_time"], received[0]
        if spec.kind != "namespaces":
            record = ProcessRecord(spec.id, spec.kind, pid, start_time)
            self._processes.add(Known(record, spec.stdio, spec.log), os.dup(pidfd), received[1] if terminal else None)
        return Launched(
            pid, start_time, pidfd, received[1:], list(reply["warnings"]), terminal, uid, gid, tuple(groups), home
        )

    def run(self, identity: str, fds: Sequence[int]) -> asyncio.Future[Reply]:
        """Have a list of steps carried out in a running container. ``fds``: its standard output and error, a pidfd of
        the container's process, the directory of its cgroup in cgroup2, the list; they stay the caller's.

        The answer has ``code`` and ``signal`` of the command's end, or ``error`` if it was not executed. A cancelled
        future is the caller's to follow with :meth:`handle`: the command goes on. Raises UnavailableError.
        """
        return self._link.begin({"op": "run", "id": identity}, fds)

    async def handle(self, identity: str) -> process.ProcessHandle:
        """The process of a :meth:`run` under way. Raises LaunchError ESRCH if it has ended."""
        reply, received = await self._request({"op": "handle", "id": identity})
        return process.ProcessHandle(received[0], reply["pid"], reply["start_time"])

    async def adopt(self, record: ProcessRecord, stdio: Stdio, log: Log | None) -> None:
        """Have the supervisor go on with the output of a process that another supervisor launched.

        ``on_exit`` is called when it ends; at once with ``known`` False if it is gone already. Needed by the engine
        only where both the daemon and the supervisor had died.
        """
        if record.id in self.processes:
            return
        try:
            pidfd = process.pidfd_open(record.pid, record.start_time)
        except ProcessLookupError:
            self._processes.finished(record._replace(exited=True, at=time.time(), known=False))
            return
        self._processes.add(Known(record, stdio, log), pidfd, None)
        await self._adopt(self._processes.keeps[record.id])

    async def attach(
        self, identity: str, *, stdin: bool, stdout: int | None = None, stderr: int | None = None
    ) -> int | None:
        """Send the output of a container to pipes, given by their writing ends (closed here).

        Returns the writing end of its standard input, or its terminal's master, if ``stdin``; non-blocking, the
        caller's. Raises LaunchError EPIPE where a stream has ended, ESRCH for an unknown process.
        """
        pipes = [fd for fd in (stdout, stderr) if fd is not None]
        message = {
            "op": "attach",
            "id": identity,
            "stdin": stdin,
            "stdout": stdout is not None,
            "stderr": stderr is not None,
        }
        try:
            _, fds = await self._request(message, pipes)
        finally:
            wire.close_all(pipes)
        return fds[0] if fds else None

    async def close_stdin(self, identity: str) -> None:
        """End of file on the container's standard input, once the caller's descriptors of it are closed too."""
        await self._request({"op": "close_stdin", "id": identity})

    async def reopen_log(self, identity: str) -> None:
        """Go on in a new log file, for the old one was renamed."""
        await self._request({"op": "reopen_log", "id": identity})

    async def drain(self, identity: str) -> None:
        """Returns when what the process has written until now is in its log."""
        await self._request({"op": "drain", "id": identity})

    async def forget(self, identity: str) -> None:
        """Drop the record of a process that has ended; nothing if there is none. Raises LaunchError EBUSY while it
        runs."""
        try:
            await self._request({"op": "forget", "id": identity})
        except LaunchError as error:
            if error.errno != errno.ESRCH:
                raise
        self._processes.forget(identity)

    async def reexec(self) -> None:
        """Upgrade the supervisor in place: the same process goes on with the code on disk."""
        await self._request({"op": "reexec"})

    async def shutdown(self) -> None:
        """End the supervisor. Raises LaunchError EBUSY while a process of it runs."""
        self._closing = True
        try:
            with process.ProcessHandle.open(self.pid) as handle:
                await self._request({"op": "shutdown"})
                while handle.alive() or self._child.alive:
                    await asyncio.sleep(0.002)
        except BaseException:
            self._closing = False
            raise
        await self.close()

    # -- the connection

    async def _hello(self) -> None:
        try:
            reply, fds = await self._say_hello()
        except LaunchError as error:
            if error.errno != errno.EPROTO:
                raise UnavailableError(f"the supervisor refuses this daemon: {error}") from error
            _log.warning("%s; upgrading it in place", error)
            try:
                await self.reexec()
                reply, fds = await self._say_hello()
            except LaunchError as again:
                raise UnavailableError(f"the supervisor can't be upgraded: {again}") from again
        self.pid = reply["pid"]
        self.nofile = tuple(reply["nofile"])
        self._processes.take(reply, fds)

    async def _say_hello(self) -> tuple[dict[str, Any], list[int]]:
        return await self._request({"op": "hello", "version": VERSION}, timeout=_START_SECONDS)

    async def _request(
        self, message: dict[str, Any], fds: Sequence[int] = (), timeout: float = _REQUEST_SECONDS
    ) -> tuple[dict[str, Any], list[int]]:
        if not self._link.connected:
            if self._recovery is None or self._closing or self._recovery is asyncio.current_task():
                raise UnavailableError("not connected to the supervisor")
            await asyncio.shield(self._recovery)
        reply, received = await self._link.request(message, fds, timeout)
        error = reply.get("error")
        if error is not None:
            raise LaunchError(error["step"], error["errno"], error["path"], error["message"])
        return reply, received

    # -- events

    def _on_event(self, message: dict[str, Any]) -> None:
        if message["event"] == "exit":
            # Not before the task that awaits this process's launch has run: the two may arrive together.
            asyncio.get_running_loop().call_soon(self._on_exit_event, message)
        elif self.on_warning is not None:
            self.on_warning(message["id"], message["message"])
        else:
            _log.warning("%s: %s", message["id"], message["message"])

    def _on_exit_event(self, message: dict[str, Any]) -> None:
        # The next daemon gets it with hello.
        if not self._closing:
            self._processes.exited(message)

    def _tell_exit(self, record: ProcessRecord) -> None:
        if self.on_exit is not None:
            self.on_exit(record)

    # -- a dead supervisor

    def _on_lost_connection(self) -> None:
        if self._closing or (self._recovery is not None and not self._recovery.done()):
            return
        self._recovery = asyncio.get_running_loop().create_task(self._recover())

    async def _recover(self) -> None:
        """Until there is a connection again: to the supervisor if it only cut us off, else to a new one."""
        pause = 0.05
        while not self._link.connected and not self._closing:
            try:
                replaced = await self._reconnect()
                if replaced and self.on_lost is not None:
                    await self.on_lost()
            except Exception:
                # Whatever it was: without a supervisor there is no output, no exec and no new container.
                _log.exception("the supervisor can't be reached; trying again in %s s", pause)
                self._link.close()
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)

    async def _reconnect(self) -> bool:
        """True if the supervisor was dead: a new one has then adopted all that still runs."""
        if self._child.alive:
            # Is it dead, or has it just dropped us?
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._child.ended(), 0.5)
        before = dict(self.processes)
        sock = connect(self._config)
        if sock is not None:
            self._link.use(sock)
            await self._hello()
        else:
            _log.error("the supervisor has died; starting a new one")
            self._link.use(self._child.start(self._config))
            await self._hello()
            self._orphans.start_reaping(lambda: self.pid)
        for keep in self._processes.rejoin(before):
            identity = keep.known.record.id
            # It may have ended, and been let go of, while another one was being adopted.
            if identity in self._processes.keeps:
                try:
                    await self._adopt(keep)
                except LaunchError as error:
                    _log.error("%s: its output can't be taken over: %s", identity, error)
        return sock is None

    async def _adopt(self, keep: Keep) -> None:
        known = keep.known
        self._orphans.wait_for(keep)
        if known.record.kind == "exec" or known.stdio.kind == "null":
            return
        fds = [] if keep.master is None else [keep.master]
        message = {
            "op": "adopt",
            "record": list(known.record),
            "stdio": list(known.stdio),
            "log": None if known.log is None else list(known.log),
        }
        await self._request(message, fds)

    async def _tell_end(self, record: ProcessRecord) -> None:
        """To the supervisor, which has the process's output, that it has ended; to its successor if it is dead."""
        while not self._closing:
            try:
                await self._request({"op": "ended", "record": list(record)})
            except UnavailableError:
                # Dead again. The keep stays, and with it what is in the FIFOs, until the next supervisor has it.
                await asyncio.sleep(0.05)
                continue
            except LaunchError as error:
                if error.errno == errno.ESRCH and self._recovery is not None and not self._recovery.done():
                    # A new supervisor is there, but this process's turn to be given to it has not come.
                    await asyncio.sleep(0.01)
                    continue
                if record.kind == "container":
                    _log.warning("%s: its last output may be missing: %s", record.id, error)
            return
