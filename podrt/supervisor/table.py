"""The processes that the supervisor has on record, and what it does with every one of them, however it came by it.

A process is here from its start (or its adoption) until the daemon says forget.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

from podrt.supervisor.output import Scratch
from podrt.supervisor.poll import Loop
from podrt.supervisor.processes import Process
from podrt.supervisor.server import Connection


class Table:
    """``warn`` gets (process id, message) where something is wrong with a process's log."""

    def __init__(self, loop: Loop, connection: Connection, warn: Callable[[str, str], None]) -> None:
        self.by_id: dict[str, Process] = {}
        self._loop = loop
        self._connection = connection
        self._warn = warn
        self._scratch = Scratch()

    def find(self, identity: str) -> Process:
        """Raises OSError ESRCH."""
        found = self.by_id.get(identity)
        if found is None:
            raise OSError(errno.ESRCH, f"no process {identity}")
        return found

    def running(self) -> int:
        """How many have not ended."""
        return sum(one.running() for one in self.by_id.values())

    def open_log(self, one: Process) -> None:
        identity = one.record.id
        one.open_log(lambda message: self._warn(identity, message))

    def start_output(self, one: Process, outputs: dict[str, int], stdin: int | None) -> None:
        """See :meth:`Process.start_output`."""
        one.start_output(self._loop, self._scratch, outputs, stdin)

    def end(self, ended: Process, code: int, number: int, known: bool = True) -> None:
        """Note the exit, with the output until then in the log, and tell the daemon."""
        ended.ended(code, number, time.time(), known)
        record = ended.record
        self._connection.send(
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
