"""What the client of the supervisor knows of each process, and keeps of it so that nothing is lost when the supervisor
dies.

A table without a connection: the client (:mod:`podrt.engine.supervisor`) tells it what it has heard, and the table
tells every end once. What runs has a :class:`Keep`, which goes with the end of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

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
        """Let go of everything; its end is not watched any more."""
        if self.waiting:
            asyncio.get_running_loop().remove_reader(self.pidfd)
        wire.close_all(self.fds)
        self.fds = []
        for fd in (self.pidfd, self.master):
            if fd is not None and fd >= 0:
                os.close(fd)
        self.pidfd, self.master = -1, None


class Processes:
    """Every process that the supervisor knows. ``on_exit`` gets the final record of each once."""

    def __init__(self, on_exit: Callable[[ProcessRecord], None]) -> None:
        self._on_exit = on_exit
        self.known: dict[str, Known] = {}
        """By process id, exited or not, until they are forgotten."""
        self.keeps: dict[str, Keep] = {}
        """Of those that run."""

    def take(self, hello: dict[str, Any], fds: list[int]) -> None:
        """What a supervisor says at the beginning of a connection is all that is known; ``fds`` are owned from now on.

        A keep that is there already stays. See :meth:`rejoin` for what was known before.
        """
        self.known = {}
        for record, stdio, log in hello["processes"]:
            known = Known(wire.record_from_wire(record), Stdio(*stdio), None if log is None else Log(*log))
            self.known[known.record.id] = known
        running = [known for known in self.known.values() if not known.record.exited]
        masters = dict(zip(hello["terminals"], hello["masters"], strict=True))
        for known, pidfd in zip(running, fds, strict=True):
            identity = known.record.id
            if identity in self.keeps:
                os.close(pidfd)
                if identity in masters:
                    os.close(masters[identity])
            else:
                self.keeps[identity] = Keep(known, pidfd, masters.get(identity))

    def rejoin(self, before: dict[str, Known]) -> list[Keep]:
        """After :meth:`take` on a new connection: what was known ``before`` it stays known, and the ends that nobody
        was told of are told. Returns what runs and the supervisor doesn't know."""
        found = self.known
        self.known = before | found
        for identity, known in found.items():
            was = before.get(identity)
            if known.record.exited and was is not None and not was.record.exited:
                self.known[identity] = was
                self.finished(known.record)
        return [keep for identity, keep in self.keeps.items() if identity not in found]

    def add(self, known: Known, pidfd: int, master: int | None) -> None:
        """A process that has just been started or given to the supervisor; ``pidfd`` is owned from now on, ``master``
        stays the caller's."""
        identity = known.record.id
        ended = self.known.get(identity)
        if ended is not None and ended.record.exited:
            # Its exit came with the reply.
            os.close(pidfd)
            return
        self.known[identity] = known
        keeps_output = known.record.kind != "exec"
        self.keeps[identity] = Keep(
            known if keeps_output else known._replace(stdio=Stdio("null")),
            pidfd,
            os.dup(master) if master is not None and keeps_output else None,
        )

    def exited(self, message: dict[str, Any]) -> None:
        """The supervisor's event of an exit."""
        identity = message["id"]
        keep = self.keeps.get(identity)
        if keep is not None and keep.waiting:
            # The daemon is the parent and knows better; it tells itself.
            return
        known = self.known.get(identity)
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
        self.finished(record)

    def finished(self, record: ProcessRecord) -> None:
        """Tell an end, unless it was told, and let go of what was kept."""
        known = self.known.get(record.id)
        if known is not None:
            if known.record.exited:
                return
            self.known[record.id] = known._replace(record=record)
        else:
            self.known[record.id] = Known(record, Stdio("null"), None)
        self._release(record.id)
        self._on_exit(record)

    def forget(self, identity: str) -> None:
        """Nothing if it is unknown."""
        self.known.pop(identity, None)
        self._release(identity)

    def close(self) -> None:
        """Let go of everything that is kept."""
        for keep in self.keeps.values():
            keep.close()
        self.keeps.clear()

    def _release(self, identity: str) -> None:
        keep = self.keeps.pop(identity, None)
        if keep is not None:
            keep.close()
