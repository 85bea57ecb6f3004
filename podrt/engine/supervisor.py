"""The daemon's client of the supervisor: finds or starts it, launches processes, hears of their end.

While the supervisor is dead its containers live on. They become children of the daemon that was its parent (a
subreaper), so their exit codes stay true: the client waits for each by pidfd, and reaps nobody else's children. What
such a container wrote stays in its FIFOs, which the client keeps open (never reading) for just this case: a FIFO
that nobody has open loses what is in it. The same holds for terminals' masters. A daemon that isn't the parent gets
the exit code from the pidfd where the kernel tells (6.15 or newer); otherwise it is unknown (``known`` False).

Callbacks run in the event loop and must not block.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from podrt.config import Config
from podrt.engine.supervisor_keep import Keep, Known
from podrt.engine.supervisor_link import Link, Reply
from podrt.engine.supervisor_process import connect, orphan_status, spawn, strangers
from podrt.errors import LaunchError, UnavailableError
from podrt.linux import libc, process
from podrt.supervisor import wire
from podrt.supervisor.protocol import MAX_FDS, VERSION, LaunchSpec, Log, ProcessRecord, Stdio

_log = logging.getLogger(__name__)

_START_SECONDS = 20.0
_REQUEST_SECONDS = 60.0
_LAUNCH_SECONDS = 300.0
"""A launch lasts as long as the slowest of its mounts. One that lasts longer hangs: on a dead NFS server, say."""
_REAP_TRIES = 50
_REAP_SECONDS = 0.5


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
        self.processes: dict[str, Known] = {}
        """What the supervisor had on record at the last connection, exited or not; kept up to date afterwards."""
        self._keeps: dict[str, Keep] = {}
        self._link = Link(self._on_event, self._on_lost_connection)
        self._child_pidfd = -1
        self._closing = False
        self._recovery: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._reaping: asyncio.Task[None] | None = None

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
            sock = self._start_process()
        self._link.use(sock)
        await self._hello()

    async def close(self) -> None:
        """Disconnect; the supervisor and its processes go on."""
        self._closing = True
        if self._recovery is not None:
            self._recovery.cancel()
            with contextlib.suppress(asyncio.CancelledError, UnavailableError):
                await self._recovery
        for task in list(self._background):
            task.cancel()
        self._link.close()
        loop = asyncio.get_running_loop()
        for keep in self._keeps.values():
            if keep.waiting:
                loop.remove_reader(keep.pidfd)
            keep.close()
        self._keeps.clear()
        if self._child_pidfd >= 0:
            loop.remove_reader(self._child_pidfd)
            os.close(self._child_pidfd)
            self._child_pidfd = -1

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
            self._remember(Known(record, spec.stdio, spec.log), os.dup(pidfd), received[1] if terminal else None)
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
        known = Known(record, stdio, log)
        try:
            pidfd = process.pidfd_open(record.pid, record.start_time)
        except ProcessLookupError:
            self._finished(known.record._replace(exited=True, at=time.time(), known=False))
            return
        self._remember(known, pidfd, None)
        await self._adopt(self._keeps[record.id])

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
        self.processes.pop(identity, None)
        self._release(identity)

    async def reexec(self) -> None:
        """Upgrade the supervisor in place: the same process goes on with the code on disk."""
        await self._request({"op": "reexec"})

    async def shutdown(self) -> None:
        """End the supervisor. Raises LaunchError EBUSY while a process of it runs."""
        self._closing = True
        try:
            with process.ProcessHandle.open(self.pid) as handle:
                await self._request({"op": "shutdown"})
                while handle.alive() or self._child_pidfd >= 0:
                    await asyncio.sleep(0.002)
        except BaseException:
            self._closing = False
            raise
        await self.close()

    # -- the connection

    def _start_process(self) -> socket.socket:
        sock, self._child_pidfd = spawn(self._config)
        asyncio.get_running_loop().add_reader(self._child_pidfd, self._on_child_gone)
        return sock

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
        self.processes = {}
        for value in reply["processes"]:
            record, stdio, log = value
            known = Known(wire.record_from_wire(record), Stdio(*stdio), None if log is None else Log(*log))
            self.processes[known.record.id] = known
        running = [known for known in self.processes.values() if not known.record.exited]
        masters = dict(zip(reply["terminals"], reply["masters"], strict=True))
        for known, pidfd in zip(running, fds, strict=True):
            identity = known.record.id
            if identity in self._keeps:
                os.close(pidfd)
                if identity in masters:
                    os.close(masters[identity])
            else:
                self._keeps[identity] = Keep(known, pidfd, masters.get(identity))

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

    # -- ends of processes

    def _remember(self, known: Known, pidfd: int, master: int | None) -> None:
        identity = known.record.id
        ended = self.processes.get(identity)
        if ended is not None and ended.record.exited:
            # Its exit came with the reply.
            os.close(pidfd)
            return
        self.processes[identity] = known
        keeps_output = known.record.kind != "exec"
        self._keeps[identity] = Keep(
            known if keeps_output else known._replace(stdio=Stdio("null")),
            pidfd,
            os.dup(master) if master is not None and keeps_output else None,
        )

    def _release(self, identity: str) -> None:
        keep = self._keeps.pop(identity, None)
        if keep is not None:
            if keep.waiting:
                asyncio.get_running_loop().remove_reader(keep.pidfd)
            keep.close()

    def _on_event(self, message: dict[str, Any]) -> None:
        if message["event"] == "exit":
            # Not before the task that awaits this process's launch has run: the two may arrive together.
            asyncio.get_running_loop().call_soon(self._on_exit_event, message)
        elif self.on_warning is not None:
            self.on_warning(message["id"], message["message"])
        else:
            _log.warning("%s: %s", message["id"], message["message"])

    def _on_exit_event(self, message: dict[str, Any]) -> None:
        if self._closing:
            # The next daemon gets it with hello.
            return
        identity = message["id"]
        keep = self._keeps.get(identity)
        if keep is not None and keep.waiting:
            # The daemon is the parent and knows better; it tells itself.
            return
        known = self.processes.get(identity)
        record = ProcessRecord(
            identity,
            known.record.kind if known is not None else "",
            message["pid"],
            known.record.start_time if known is not None else 0,
            True,
            message["code"],
            message["signal"],
            message["at"],
            message["known"],
        )
        self._finished(record)

    def _finished(self, record: ProcessRecord) -> None:
        known = self.processes.get(record.id)
        if known is not None:
            if known.record.exited:
                return
            self.processes[record.id] = known._replace(record=record)
        else:
            self.processes[record.id] = Known(record, Stdio("null"), None)
        self._release(record.id)
        if self.on_exit is not None:
            self.on_exit(record)

    # -- a dead supervisor

    def _on_child_gone(self) -> None:
        """The supervisor that this daemon has started is dead: reap it."""
        asyncio.get_running_loop().remove_reader(self._child_pidfd)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self._child_pidfd, os.WEXITED)
        os.close(self._child_pidfd)
        self._child_pidfd = -1

    async def _child_gone(self) -> None:
        deadline = time.monotonic() + 10
        while self._child_pidfd >= 0 and time.monotonic() < deadline:
            await asyncio.sleep(0.005)

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
        if self._child_pidfd >= 0:
            # Our child: is it dead, or has it just dropped us?
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._child_gone(), 0.5)
        before = dict(self.processes)
        sock = connect(self._config)
        if sock is not None:
            self._link.use(sock)
            await self._hello()
        else:
            _log.error("the supervisor has died; starting a new one")
            self._link.use(self._start_process())
            await self._hello()
            self._start_reaping()
        found = self.processes
        self.processes = before | found
        for identity, known in found.items():
            was = before.get(identity)
            if known.record.exited and was is not None and not was.record.exited:
                self.processes[identity] = was
                self._finished(known.record)
        for identity, keep in list(self._keeps.items()):
            # It may have ended, and been let go of, while another one was being adopted.
            if identity not in found and identity in self._keeps:
                try:
                    await self._adopt(keep)
                except LaunchError as error:
                    _log.error("%s: its output can't be taken over: %s", identity, error)
        return sock is None

    def _start_reaping(self) -> None:
        if self._reaping is None or self._reaping.done():
            self._reaping = asyncio.get_running_loop().create_task(self._reap_strangers())
            self._background.add(self._reaping)
            self._reaping.add_done_callback(self._background.discard)

    async def _reap_strangers(self) -> None:
        """After a supervisor's death its children are ours. Those on record are waited for by pidfd; the rest, which it
        was just launching or had inherited itself, would stay zombies for as long as the daemon lives."""
        while True:
            left = strangers({self.pid, *(keep.known.record.pid for keep in self._keeps.values())})
            for pid in left:
                with contextlib.suppress(ChildProcessError):
                    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
            if not left and not any(keep.waiting for keep in self._keeps.values()):
                return
            await asyncio.sleep(_REAP_SECONDS)

    async def _adopt(self, keep: Keep) -> None:
        known = keep.known
        self._wait_for(keep)
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

    def _wait_for(self, keep: Keep) -> None:
        if not keep.waiting:
            keep.waiting = True
            asyncio.get_running_loop().add_reader(keep.pidfd, self._on_orphan_gone, keep)

    def _on_orphan_gone(self, keep: Keep) -> None:
        asyncio.get_running_loop().remove_reader(keep.pidfd)
        task = asyncio.get_running_loop().create_task(self._finish_orphan(keep))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _finish_orphan(self, keep: Keep) -> None:
        record = keep.known.record
        code: int | None = None
        for _ in range(_REAP_TRIES):
            code = orphan_status(keep.pidfd)
            if code is not None:
                break
            # Someone else's child: the kernel tells its code only once it is reaped.
            await asyncio.sleep(0.02)
        status = code or 0
        record = record._replace(
            exited=True, code=max(status, 0), signal=max(-status, 0), at=time.time(), known=code is not None
        )
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
            break
        keep.waiting = False
        self._finished(record)
