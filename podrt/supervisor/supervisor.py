"""The supervisor proper: the main loop, what wakes it, and the daemon's requests, one method each.

A request is answered at once, but for ``launch`` and ``run``, which :mod:`podrt.supervisor.children` answers when there
is something to tell. What a request does is done by the parts: the table of processes, children, adopted processes.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from podrt.linux import process
from podrt.supervisor import reexec, server, wire
from podrt.supervisor.adopted import Adopted
from podrt.supervisor.children import Children
from podrt.supervisor.launch import failure
from podrt.supervisor.poll import IN, Loop
from podrt.supervisor.processes import Process, describe
from podrt.supervisor.protocol import VERSION, Log, Stdio
from podrt.supervisor.table import Table

_PAGE = 100
Request = dict[str, Any]


class Supervisor:
    """All state. ``nofile`` is the RLIMIT_NOFILE that containers get."""

    def __init__(self, run_dir: str, netns_dir: str, nofile: tuple[int, int]) -> None:
        self.run_dir = run_dir
        self.netns_dir = netns_dir
        self.search_path: list[str] = []
        self.lock_fd = -1
        self.nofile = nofile
        self.loop = Loop(self._on_loop_error)
        self.connection = server.Connection(self.loop, self._on_request)
        self.table = Table(self.loop, self.connection, self._warn)
        self.children = Children(self.loop, self.connection, self.table, nofile)
        self.adopted = Adopted(self.loop, self.table)
        self.listener: _socket.socket | None = None
        self.ended = False
        self._reexec_seq: int | None = None
        self._wakeup = -1
        self._told: set[str] = set()

    # -- life

    def start(self, listener: _socket.socket, connection: _socket.socket | None) -> None:
        """Begin to serve. Signals arrive through a pipe that only wakes the loop."""
        self.listener = listener
        self.loop.watch(listener.fileno(), IN, self._on_connect)
        if connection is not None:
            self.connection.adopt(connection)
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup = reader
        signal.signal(signal.SIGCHLD, _ignore)
        signal.signal(signal.SIGTERM, _ignore)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self.loop.watch(reader, IN, lambda _: self._on_signal())
        # A child may have ended before there was a handler.
        self.children.reap()

    def run(self) -> None:
        while not self.ended:
            self.loop.turn()
            if self._reexec_seq is not None and not self.children.launches:
                self._reexec()

    def _on_signal(self) -> None:
        while True:
            try:
                if not os.read(self._wakeup, 4096):
                    break
            except BlockingIOError:
                break
        self.children.reap()

    def _warn(self, identity: str, message: str) -> None:
        _say(f"{identity}: {message}")
        self.connection.send({"event": "warning", "id": identity, "message": message})

    # -- the daemon

    def _on_connect(self, _: int) -> None:
        assert self.listener is not None
        sock = server.accept(self.listener)
        if sock is not None:
            self.connection.adopt(sock)

    def _on_request(self, request: Request, fds: list[int]) -> None:
        seq = request.get("seq")
        handler: Callable[[Request, list[int]], None] | None = getattr(self, f"_op_{request.get('op')}", None)
        try:
            if handler is None:
                raise OSError(errno.ENOSYS, f"unknown request {request.get('op')!r}")
            handler(request, fds)
        except OSError as error:
            path = error.filename if isinstance(error.filename, str) else ""
            text = f"{error.strerror}: {path}" if path else str(error.strerror)
            self._refuse(seq, str(request.get("op")), error.errno or 0, path, text)
        except Exception as error:
            # Whatever it is: a request without an answer would be waited for.
            self._refuse(seq, str(request.get("op")), errno.EINVAL, "", f"malformed request: {error!r}")
        finally:
            wire.close_all(fds)

    def _refuse(self, seq: Any, step: str, number: int, path: str, message: str) -> None:
        self.connection.send({"seq": seq, "error": failure(step, number, path, message)})

    def _op_hello(self, request: Request, fds: list[int]) -> None:
        if request["version"] != VERSION:
            raise OSError(
                errno.EPROTO, f"the supervisor speaks version {VERSION}, not {request['version']}; re-exec it"
            )
        self.children.runs.kill_abandoned(self.connection.generation)
        everything = list(self.table.by_id.values())
        for start in range(0, max(len(everything), 1), _PAGE):
            page = everything[start : start + _PAGE]
            reply = {
                "seq": request["seq"],
                "version": VERSION,
                "pid": os.getpid(),
                "nofile": self.nofile,
                "processes": [describe(one) for one in page],
                "terminals": [one.record.id for one in page if one.terminal is not None],
                "more": start + _PAGE < len(everything),
            }
            pidfds = [one.open_pidfd() for one in page if one.running()]
            self.connection.send(reply, pidfds + [one.terminal for one in page if one.terminal is not None])
            wire.close_all(pidfds)

    def _op_launch(self, request: Request, fds: list[int]) -> None:
        self.children.launch(request["seq"], wire.spec_from_wire(request["spec"]), fds)

    def _op_run(self, request: Request, fds: list[int]) -> None:
        self.children.runs.start(request["id"], (self.connection.generation, request["seq"]), fds)

    def _op_handle(self, request: Request, fds: list[int]) -> None:
        pid = self.children.runs.pid_of(request["id"])
        # It can't have been reaped: only the loop does that.
        pidfd = os.pidfd_open(pid)
        try:
            self.connection.send({"seq": request["seq"], "pid": pid, "start_time": process.start_time(pid)}, [pidfd])
        finally:
            os.close(pidfd)

    def _op_adopt(self, request: Request, fds: list[int]) -> None:
        record = wire.record_from_wire(request["record"])
        if record.id in self.table.by_id:
            raise OSError(errno.EEXIST, f"a process {record.id} exists already")
        log = None if request["log"] is None else Log(*request["log"])
        self.adopted.take(record, Stdio(*request["stdio"]), log, fds)
        self.connection.send({"seq": request["seq"]})

    def _op_ended(self, request: Request, fds: list[int]) -> None:
        self.adopted.ended(wire.record_from_wire(request["record"]))
        self.connection.send({"seq": request["seq"]})

    def _op_attach(self, request: Request, fds: list[int]) -> None:
        target = self._process(request)
        wanted = [name for name in ("stdout", "stderr") if request[name]]
        if len(fds) < len(wanted):
            raise OSError(errno.EINVAL, "attach needs a pipe for each stream")
        reply = []
        if request["stdin"]:
            source = target.terminal if target.terminal is not None else target.stdin
            if source is None:
                raise OSError(errno.EPIPE, f"the standard input of {target.record.id} is closed")
            reply.append(source)
        for name in wanted:
            target.attach(name, fds[0])
            fds.pop(0)
        self.connection.send({"seq": request["seq"]}, reply)

    def _op_close_stdin(self, request: Request, fds: list[int]) -> None:
        self._process(request).close_stdin()
        self.connection.send({"seq": request["seq"]})

    def _op_reopen_log(self, request: Request, fds: list[int]) -> None:
        target = self._process(request)
        if target.log is not None:
            target.log.reopen()
        self.connection.send({"seq": request["seq"]})

    def _op_drain(self, request: Request, fds: list[int]) -> None:
        self._process(request).drain()
        self.connection.send({"seq": request["seq"]})

    def _op_forget(self, request: Request, fds: list[int]) -> None:
        target = self._process(request)
        if target.running():
            raise OSError(errno.EBUSY, f"{target.record.id} still runs")
        target.close()
        del self.table.by_id[target.record.id]
        self.connection.send({"seq": request["seq"]})

    def _op_reexec(self, request: Request, fds: list[int]) -> None:
        self._reexec_seq = request["seq"]

    def _op_shutdown(self, request: Request, fds: list[int]) -> None:
        running = self.table.running() + len(self.children.launches) + len(self.children.runs.by_pid)
        if running:
            raise OSError(errno.EBUSY, f"{running} processes still run")
        self.connection.send({"seq": request["seq"]})
        self.connection.flush_blocking()
        self.ended = True

    def _process(self, request: Request) -> Process:
        return self.table.find(request["id"])

    # -- re-exec

    def _reexec(self) -> None:
        seq, self._reexec_seq = self._reexec_seq, None
        self.connection.flush_blocking()
        try:
            reexec.execute(self, seq)
        except OSError as error:
            self._refuse(seq, "reexec", error.errno or 0, "", f"re-exec failed, the old image goes on: {error}")

    def _on_loop_error(self, error: BaseException) -> None:
        """A defect; said once with its place, and the loop goes on: it holds every container's output."""
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = "" if place is None else f" at {place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
        # Once for each place: a container that finds a way to cause one must not fill the disk with it.
        if where not in self._told:
            self._told.add(where)
            _say(f"internal error{where}: {error!r}")


def _ignore(number: int, frame: object) -> None:
    """The wake-up pipe does the work; SIG_DFL would end the process (SIGTERM) or wake nothing (SIGCHLD)."""


def _say(text: str) -> None:
    """To supervisor.log. A full disk must not end the loop."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
