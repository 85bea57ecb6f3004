"""The supervisor proper: requests of the daemon on one side, children and their output on the other.

A request is answered at once, but for ``launch``, which is answered when exec has succeeded or the failed child is
reaped: a failed launch leaves no process behind.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from podrt.linux import libc, process
from podrt.supervisor import reexec, server, wire
from podrt.supervisor.launch import Launch, failure, fork
from podrt.supervisor.output import Scratch
from podrt.supervisor.poll import IN, Loop
from podrt.supervisor.processes import Process, Readers, describe
from podrt.supervisor.protocol import VERSION, Log, ProcessRecord, Stdio
from podrt.supervisor.quick import Run, Runs

_PAGE = 100
_EXIT_INFO_TRIES = 50
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
        self.scratch = Scratch()
        self.connection = server.Connection(self.loop, self._on_request)
        self.processes: dict[str, Process] = {}
        self.by_pid: dict[int, Process] = {}
        self.launches: dict[int, tuple[Launch, Readers]] = {}
        self.listener: _socket.socket | None = None
        self.own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self.runs = Runs()
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
        self._reap()

    def run(self) -> None:
        while not self.ended:
            self.loop.turn()
            if self._reexec_seq is not None and not self.launches:
                self._reexec()

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
        self.runs.kill_abandoned(self.connection.generation)
        everything = list(self.processes.values())
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
            pidfds = [_pidfd(one) for one in page if one.running()]
            self.connection.send(reply, pidfds + [one.terminal for one in page if one.terminal is not None])
            wire.close_all(pidfds)

    def _op_launch(self, request: Request, fds: list[int]) -> None:
        spec = wire.spec_from_wire(request["spec"])
        if spec.id in self.processes or any(launch.spec.id == spec.id for launch, _ in self.launches.values()):
            raise OSError(errno.EEXIST, f"a process {spec.id} exists already")
        readers = Readers(spec.stdio)
        try:
            launch = fork(request["seq"], spec, fds, self.own_pid_namespace, self.nofile)
        except BaseException:
            readers.close()
            raise
        self.launches[launch.pid] = (launch, readers)
        self.loop.watch(launch.channel.fileno(), IN, lambda _: self._on_report(launch))

    def _op_run(self, request: Request, fds: list[int]) -> None:
        self.runs.start(request["id"], (self.connection.generation, request["seq"]), fds)

    def _op_handle(self, request: Request, fds: list[int]) -> None:
        pid = self.runs.pid_of(request["id"])
        # It can't have been reaped: only the loop does that.
        pidfd = os.pidfd_open(pid)
        try:
            self.connection.send({"seq": request["seq"], "pid": pid, "start_time": process.start_time(pid)}, [pidfd])
        finally:
            os.close(pidfd)

    def _op_adopt(self, request: Request, fds: list[int]) -> None:
        record = wire.record_from_wire(request["record"])
        if record.id in self.processes:
            raise OSError(errno.EEXIST, f"a process {record.id} exists already")
        log = None if request["log"] is None else Log(*request["log"])
        adopted = Process(record, Stdio(*request["stdio"]), log)
        readers = Readers(adopted.stdio)
        readers.release_holder()
        outputs = readers.outputs
        if adopted.stdio.kind == "terminal" and fds:
            outputs = {"stdout": fds.pop(0)}
        self.processes[record.id] = adopted
        if outputs:
            adopted.open_log(self.warn_about(record.id))
        adopted.start_output(self.loop, self.scratch, outputs, readers.stdin)
        adopted.adopted = True
        if not record.exited:
            self.watch_adopted(adopted)
        else:
            adopted.ended(record.code, record.signal, record.at)
        self.connection.send({"seq": request["seq"]})

    def _op_ended(self, request: Request, fds: list[int]) -> None:
        """The daemon, its parent, tells how an adopted process ended; that is not told back."""
        record = wire.record_from_wire(request["record"])
        target = self._process({"id": record.id})
        if target.running():
            self._unwatch_adopted(target)
            target.ended(record.code, record.signal, record.at, record.known)
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
        del self.processes[target.record.id]
        self.connection.send({"seq": request["seq"]})

    def _op_reexec(self, request: Request, fds: list[int]) -> None:
        self._reexec_seq = request["seq"]

    def _op_shutdown(self, request: Request, fds: list[int]) -> None:
        running = sum(one.running() for one in self.processes.values()) + len(self.launches) + len(self.runs.by_pid)
        if running:
            raise OSError(errno.EBUSY, f"{running} processes still run")
        self.connection.send({"seq": request["seq"]})
        self.connection.flush_blocking()
        self.ended = True

    def _process(self, request: Request) -> Process:
        found = self.processes.get(request["id"])
        if found is None:
            raise OSError(errno.ESRCH, f"no process {request['id']}")
        return found

    def warn_about(self, identity: str) -> Callable[[str], None]:
        def warn(message: str) -> None:
            _say(f"{identity}: {message}")
            self.connection.send({"event": "warning", "id": identity, "message": message})

        return warn

    # -- children

    def _on_report(self, launch: Launch) -> None:
        closed = launch.on_report()
        if launch.ready and launch.spec.kind == "namespaces" and not launch.answered:
            # Nothing can fail any more, and nobody has to wait until the child is gone.
            launch.answered = True
            self._answer_launch(launch)
        if closed:
            self.loop.unwatch(launch.channel.fileno())
            if launch.ready and launch.error is None and launch.spec.kind != "namespaces":
                self._started(launch)
            # Else the answer waits until the child is reaped.

    def _started(self, launch: Launch) -> None:
        readers = self.launches.pop(launch.pid)[1]
        spec = launch.spec
        record = ProcessRecord(spec.id, spec.kind, launch.pid, launch.start_time)
        started = Process(record, spec.stdio, spec.log)
        self.processes[spec.id] = self.by_pid[launch.pid] = started
        outputs = readers.outputs
        if launch.terminal and spec.kind != "exec":
            outputs = {"stdout": os.dup(launch.fds[0])}
        if outputs:
            started.open_log(self.warn_about(spec.id))
        self._answer_launch(launch)
        readers.release_holder()
        started.start_output(self.loop, self.scratch, outputs, readers.stdin)
        launch.close()

    def _answer_launch(self, launch: Launch) -> None:
        reply = {
            "seq": launch.seq,
            "pid": launch.pid,
            "start_time": launch.start_time,
            "terminal": launch.terminal,
            "warnings": launch.warnings,
            "user": launch.user,
        }
        self.connection.send(reply, [launch.pidfd, *launch.fds])

    def _on_signal(self) -> None:
        while True:
            try:
                if not os.read(self._wakeup, 4096):
                    break
            except BlockingIOError:
                break
        self._reap()

    def _reap(self) -> None:
        """Every child that has ended: launched ones, failed launches, and orphans of containers that share the
        host's PIDs."""
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                return
            if info is None:
                return
            killed = info.si_code != os.CLD_EXITED
            code, number = (0, info.si_status) if killed else (info.si_status, 0)
            run = self.runs.end(info.si_pid, code, number)
            if run is not None:
                self._on_run_end(*run)
                continue
            pending = self.launches.get(info.si_pid)
            if pending is not None:
                self._on_child_gone(*pending, code, number)
            ended = self.by_pid.pop(info.si_pid, None)
            if ended is not None:
                self._on_exit(ended, code, number)

    def _on_run_end(self, run: Run, answer: dict[str, Any]) -> None:
        if run.asked is not None and run.asked[0] == self.connection.generation:
            self.connection.send({"seq": run.asked[1], **answer})

    def _on_child_gone(self, launch: Launch, readers: Readers, code: int, number: int) -> None:
        self._on_report(launch)
        if launch.pid not in self.launches:
            # Reaped before its report was read; it has been started all the same, and its exit follows.
            return
        self.loop.unwatch(launch.channel.fileno())
        del self.launches[launch.pid]
        if launch.answered:
            pass
        elif launch.error is not None:
            self.connection.send({"seq": launch.seq, "error": launch.error})
        else:
            how = f"killed by signal {number}" if number else f"exit code {code}"
            text = f"the process ended during its set-up ({how}); a memory limit that is too small does that"
            self.connection.send({"seq": launch.seq, "error": failure("start", 0, "", text)})
        readers.close()
        launch.close()

    def _on_exit(self, ended: Process, code: int, number: int, known: bool = True) -> None:
        ended.ended(code, number, time.time(), known)
        record = ended.record
        self.connection.send(
            {
                "event": "exit",
                "id": record.id,
                "pid": record.pid,
                "code": code,
                "signal": number,
                "at": record.at,
                "known": known,
            }
        )

    # -- processes of a supervisor that has died

    def watch_adopted(self, adopted: Process) -> None:
        """Learn of the end of a process that is no child, by its pidfd."""
        record = adopted.record
        try:
            pidfd = process.pidfd_open(record.pid, record.start_time)
        except ProcessLookupError:
            self._on_exit(adopted, 0, 0, known=False)
            return
        adopted.pidfd = pidfd
        self.loop.watch(pidfd, IN, lambda _: self._on_adopted_end(adopted, _EXIT_INFO_TRIES))

    def _unwatch_adopted(self, adopted: Process) -> None:
        if adopted.pidfd is not None:
            self.loop.unwatch(adopted.pidfd)
            os.close(adopted.pidfd)
            adopted.pidfd = None

    def _on_adopted_end(self, adopted: Process, tries: int) -> None:
        pidfd = adopted.pidfd
        if pidfd is None:
            return
        self.loop.unwatch(pidfd)
        status = libc.pidfd_exit_info(pidfd)
        if status is None and tries > 0:
            # The kernel tells it only once the process is reaped, by the daemon or init.
            self.loop.later(0.1, lambda: self._on_adopted_end(adopted, tries - 1))
            return
        self._unwatch_adopted(adopted)
        if status is None:
            self._on_exit(adopted, 0, 0, known=False)
        else:
            self._on_exit(adopted, max(status, 0), max(-status, 0))

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


def _pidfd(one: Process) -> int:
    """Of a running process. The pid of an adopted one may be another's already: someone else reaps it."""
    return os.dup(one.pidfd) if one.pidfd is not None else os.pidfd_open(one.record.pid)
