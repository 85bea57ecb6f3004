"""What a dead supervisor leaves behind: processes that are now children of the daemon, whose ends it sees itself.

Those on record are waited for by pidfd, whoever their parent is; the rest is reaped. Nothing here knows of the next
supervisor: the client (:mod:`podrt.engine.supervisor`) tells it what was seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Coroutine

from podrt.engine.supervisor_processes import Keep, Processes
from podrt.linux import process
from podrt.supervisor.protocol import ProcessRecord

_STATUS_TRIES = 50
_STATUS_SECONDS = 0.02
_REAP_SECONDS = 0.5


class Orphans:
    """The processes of dead supervisors. ``tell`` is awaited with the final record of each before it counts as
    finished."""

    def __init__(self, processes: Processes, tell: Callable[[ProcessRecord], Awaitable[None]]) -> None:
        self._processes = processes
        self._tell = tell
        self._tasks: set[asyncio.Task[None]] = set()
        self._reaping: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Stop; the pidfds are the table's."""
        for task in list(self._tasks):
            task.cancel()

    def wait_for(self, keep: Keep) -> None:
        """Watch the end of a process from now on; once more is no error."""
        if not keep.waiting:
            keep.waiting = True
            asyncio.get_running_loop().add_reader(keep.pidfd, self._on_gone, keep)

    def start_reaping(self, supervisor: Callable[[], int]) -> None:
        """Reap what nobody has on record, but ``supervisor()``, the process id of the one that is alive, until no
        orphan is left."""
        if self._reaping is None or self._reaping.done():
            self._reaping = self._start(self._reap(supervisor))

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _reap(self, supervisor: Callable[[], int]) -> None:
        """After a supervisor's death its children are ours. Those on record are waited for by pidfd; the rest, which it
        was just launching or had inherited itself, would stay zombies for as long as the daemon lives."""
        while True:
            keeps = self._processes.keeps.values()
            left = _strangers({supervisor(), *(keep.known.record.pid for keep in keeps)})
            for pid in left:
                with contextlib.suppress(ChildProcessError):
                    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
            if not left and not any(keep.waiting for keep in keeps):
                return
            await asyncio.sleep(_REAP_SECONDS)

    def _on_gone(self, keep: Keep) -> None:
        asyncio.get_running_loop().remove_reader(keep.pidfd)
        self._start(self._finish(keep))

    async def _finish(self, keep: Keep) -> None:
        code: int | None = None
        for _ in range(_STATUS_TRIES):
            code = _status(keep.pidfd)
            if code is not None:
                break
            # Someone else's child: the kernel tells its code only once it is reaped.
            await asyncio.sleep(_STATUS_SECONDS)
        status = code or 0
        record = keep.known.record._replace(
            exited=True, code=max(status, 0), signal=max(-status, 0), at=time.time(), known=code is not None
        )
        await self._tell(record)
        keep.waiting = False
        self._processes.finished(record)


def _strangers(known: set[int]) -> list[int]:
    """Children of this process that it did not start itself: they have sessions of their own, its subprocesses share
    its.

    Found in /proc, for only a look at each leaves the children of others alone.
    """
    session = os.getsid(0)
    found = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children", encoding="ascii") as file:
                pids = [int(pid) for pid in file.read().split()]
        except OSError:
            # The thread has ended, or the kernel has no such file (CONFIG_PROC_CHILDREN).
            continue
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                if pid not in known and os.getsid(pid) != session:
                    found.append(pid)
    return found


def _status(pidfd: int) -> int | None:
    """The status of an ended process, -N for signal N, reaping it if it is our child; None if nobody can tell (yet)."""
    try:
        info = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return process.pidfd_exit_info(pidfd)
    if info is None:
        return None
    return info.si_status if info.si_code == os.CLD_EXITED else -info.si_status
