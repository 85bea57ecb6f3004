"""Processes that another supervisor has launched: this one has their output, but is not their parent.

No SIGCHLD tells their end, so each is watched by its pidfd. How it ended the kernel tells once the parent has reaped
it: the daemon, which then mostly says so itself first (``ended``), or init.
"""

from __future__ import annotations

import os

from podrt.linux import process
from podrt.supervisor.poll import IN, Loop
from podrt.supervisor.processes import Process, Readers
from podrt.supervisor.protocol import Log, ProcessRecord, Stdio
from podrt.supervisor.table import Table

_EXIT_INFO_TRIES = 50
_EXIT_INFO_SECONDS = 0.1


class Adopted:
    """The part of ``table`` that is not this supervisor's children."""

    def __init__(self, loop: Loop, table: Table) -> None:
        self._loop = loop
        self._table = table

    def take(self, record: ProcessRecord, stdio: Stdio, log: Log | None, fds: list[int]) -> None:
        """Go on with the output of a process. ``fds``: its terminal's master, if there is one; it is taken out of the
        list."""
        adopted = Process(record, stdio, log)
        readers = Readers(stdio)
        readers.release_holder()
        outputs = readers.outputs
        if stdio.kind == "terminal" and fds:
            outputs = {"stdout": fds.pop(0)}
        self._table.by_id[record.id] = adopted
        if outputs:
            self._table.open_log(adopted)
        self._table.start_output(adopted, outputs, readers.stdin)
        adopted.adopted = True
        if not record.exited:
            self.watch(adopted)
        else:
            adopted.ended(record.code, record.signal, record.at)

    def watch(self, adopted: Process) -> None:
        """Learn of its end; told at once, as unknown, if it is gone."""
        record = adopted.record
        try:
            pidfd = process.pidfd_open(record.pid, record.start_time)
        except ProcessLookupError:
            self._table.end(adopted, 0, 0, known=False)
            return
        adopted.pidfd = pidfd
        self._loop.watch(pidfd, IN, lambda _: self._on_end(adopted, _EXIT_INFO_TRIES))

    def ended(self, record: ProcessRecord) -> None:
        """The daemon, its parent, tells how it ended; that is not told back. Raises OSError ESRCH."""
        target = self._table.find(record.id)
        if target.running():
            self._unwatch(target)
            target.ended(record.code, record.signal, record.at, record.known)

    def _unwatch(self, adopted: Process) -> None:
        if adopted.pidfd is not None:
            self._loop.unwatch(adopted.pidfd)
            os.close(adopted.pidfd)
            adopted.pidfd = None

    def _on_end(self, adopted: Process, tries: int) -> None:
        pidfd = adopted.pidfd
        if pidfd is None:
            return
        self._loop.unwatch(pidfd)
        status = process.pidfd_exit_info(pidfd)
        if status is None and tries > 0:
            # The kernel tells it only once the process is reaped, by the daemon or init.
            self._loop.later(_EXIT_INFO_SECONDS, lambda: self._on_end(adopted, tries - 1))
            return
        self._unwatch(adopted)
        if status is None:
            self._table.end(adopted, 0, 0, known=False)
        else:
            self._table.end(adopted, max(status, 0), max(-status, 0))
