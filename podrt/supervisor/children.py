"""The supervisor's children: launched, heard of while they are set up, and reaped.

A launch is answered when exec has succeeded or the failed child is reaped: a failed launch leaves no process behind.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any

from podrt.supervisor.launch import Launch, failure, fork
from podrt.supervisor.poll import IN, Loop
from podrt.supervisor.processes import Process, Readers
from podrt.supervisor.protocol import LaunchSpec, ProcessRecord
from podrt.supervisor.quick import Run, Runs
from podrt.supervisor.server import Connection
from podrt.supervisor.table import Table


class Children:
    """``nofile`` is the RLIMIT_NOFILE that containers get. Whoever is started gets into ``table``."""

    def __init__(self, loop: Loop, connection: Connection, table: Table, nofile: tuple[int, int]) -> None:
        self.launches: dict[int, tuple[Launch, Readers]] = {}
        """By pid: those that are not at their exec yet."""
        self.by_pid: dict[int, Process] = {}
        self.runs = Runs()
        self._loop = loop
        self._connection = connection
        self._table = table
        self._nofile = nofile
        self._own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def launch(self, seq: int, spec: LaunchSpec, fds: Sequence[int]) -> None:
        """Begin a launch; ``seq`` is the request to answer. Raises OSError if there is no child."""
        if spec.id in self._table.by_id or any(launch.spec.id == spec.id for launch, _ in self.launches.values()):
            raise OSError(errno.EEXIST, f"a process {spec.id} exists already")
        readers = Readers(spec.stdio)
        try:
            launch = fork(seq, spec, fds, self._own_pid_namespace, self._nofile)
        except BaseException:
            readers.close()
            raise
        self.launches[launch.pid] = (launch, readers)
        self._loop.watch(launch.channel.fileno(), IN, lambda _: self._on_report(launch))

    def reap(self) -> None:
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
                self._on_gone(*pending, code, number)
            ended = self.by_pid.pop(info.si_pid, None)
            if ended is not None:
                self._table.end(ended, code, number)

    def _on_report(self, launch: Launch) -> None:
        closed = launch.on_report()
        if launch.ready and launch.spec.kind == "namespaces" and not launch.answered:
            # Nothing can fail any more, and nobody has to wait until the child is gone.
            launch.answered = True
            self._answer(launch)
        if closed:
            self._loop.unwatch(launch.channel.fileno())
            if launch.ready and launch.error is None and launch.spec.kind != "namespaces":
                self._started(launch)
            # Else the answer waits until the child is reaped.

    def _started(self, launch: Launch) -> None:
        readers = self.launches.pop(launch.pid)[1]
        spec = launch.spec
        record = ProcessRecord(spec.id, spec.kind, launch.pid, launch.start_time)
        started = Process(record, spec.stdio, spec.log)
        self._table.by_id[spec.id] = self.by_pid[launch.pid] = started
        outputs = readers.outputs
        if launch.terminal and spec.kind != "exec":
            outputs = {"stdout": os.dup(launch.fds[0])}
        if outputs:
            self._table.open_log(started)
        self._answer(launch)
        readers.release_holder()
        self._table.start_output(started, outputs, readers.stdin)
        launch.close()

    def _answer(self, launch: Launch) -> None:
        reply = {
            "seq": launch.seq,
            "pid": launch.pid,
            "start_time": launch.start_time,
            "terminal": launch.terminal,
            "warnings": launch.warnings,
            "user": launch.user,
        }
        self._connection.send(reply, [launch.pidfd, *launch.fds])

    def _on_gone(self, launch: Launch, readers: Readers, code: int, number: int) -> None:
        self._on_report(launch)
        if launch.pid not in self.launches:
            # Reaped before its report was read; it has been started all the same, and its exit follows.
            return
        self._loop.unwatch(launch.channel.fileno())
        del self.launches[launch.pid]
        if launch.answered:
            pass
        elif launch.error is not None:
            self._connection.send({"seq": launch.seq, "error": launch.error})
        else:
            how = f"killed by signal {number}" if number else f"exit code {code}"
            text = f"the process ended during its set-up ({how}); a memory limit that is too small does that"
            self._connection.send({"seq": launch.seq, "error": failure("start", 0, "", text)})
        readers.close()
        launch.close()

    def _on_run_end(self, run: Run, answer: dict[str, Any]) -> None:
        if run.asked is not None and run.asked[0] == self._connection.generation:
            self._connection.send({"seq": run.asked[1], **answer})
