"""What the client of the supervisor keeps of each process, so that nothing is lost when the supervisor dies."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from podrt.supervisor import wire
from podrt.supervisor.protocol import Log, ProcessRecord, Stdio


class Known(NamedTuple):
    """A process that the supervisor has on record, as hello tells it."""

    record: ProcessRecord
    stdio: Stdio
    log: Log | None


class Keep:
    """What holds a container's output together while there is no supervisor, and the process itself."""

    __slots__ = ("fds", "known", "master", "pidfd", "waiting")

    def __init__(self, known: Known, pidfd: int, master: int | None) -> None:
        self.known = known
        self.pidfd = pidfd
        self.master = master
        self.waiting = False
        """The daemon watches its end itself: it is a process of a dead supervisor."""
        self.fds: list[int] = []
        if known.stdio.kind == "fifo":
            for path in (known.stdio.stdin, known.stdio.stdout, known.stdio.stderr):
                if path is not None:
                    with contextlib.suppress(OSError):
                        self.fds.append(os.open(str(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))

    def close(self) -> None:
        wire.close_all(self.fds)
        self.fds = []
        for fd in (self.pidfd, self.master):
            if fd is not None and fd >= 0:
                os.close(fd)
        self.pidfd, self.master = -1, None
