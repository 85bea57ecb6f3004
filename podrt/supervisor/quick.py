"""Commands in running containers without a fork of the supervisor: a small program carries out a list of system calls.

The list is the daemon's (``engine/quick.py``), finished and sealed; the supervisor only spawns. posix_spawn(3) shares
the supervisor's memory until the program is executed, so nothing is copied, and no Python runs in the child. But until
then the supervisor stands still, so nobody in the container may see the child: the program itself makes a copy that is
in the container's PID namespace and the supervisor's child, and ends. The program is run from a sealed memfd, as the
supervisor is (CVE-2019-5736).

One message asks, one answers when the command has ended; no record is kept and no daemon but the one that asked hears
of it; the next one's hello ends it. With the supervisor the command dies too: nobody could tell its exit to the one who
waits.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed has only signal
import contextlib
import errno
import fcntl
import itertools
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from podrt.linux import steps
from podrt.supervisor import interpreter
from podrt.supervisor.child import HANDLED_SIGNALS

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "steps", "steps")
_LOWEST = 10
"""Descriptors from here on can't be hit by the numbers that the program gets."""


class Run(NamedTuple):
    """One command. ``asked``: (generation of the connection, seq) to answer, None if nobody waits any more."""

    id: str
    token: str
    asked: tuple[int, int] | None


class Runs:
    """The commands under way, by pid."""

    def __init__(self) -> None:
        self.by_pid: dict[int, Run] = {}
        self._tokens = itertools.count(1)
        self._program = _sealed_program()
        self._null = _above(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._reports, self._writer = reader, _above(writer)
        self._failed: dict[str, int] = {}
        self._started: dict[str, int] = {}

    def start(self, identity: str, asked: tuple[int, int], fds: Sequence[int]) -> None:
        """Spawn; ``fds``: standard output, standard error, pidfd of the container's process, directory of its
        cgroup in cgroup2, list. Raises OSError;
        ESRCH, ENOMEM: the container is gone."""
        if self._program < 0:
            raise OSError(errno.ENOENT, "not built: run make setup", PROGRAM)
        if len(fds) != 5:
            raise OSError(errno.EINVAL, "run needs two streams, a pidfd, a cgroup and a list")
        copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST) if fd < _LOWEST else fd for fd in fds]
        try:
            output, error, pidfd, group, listed = copies
            sources = (self._null, output, error, self._writer, pidfd, group, listed)
            actions = [(os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate(sources)]
            token = f"{next(self._tokens):0{steps.TOKEN_BYTES}x}"
            starter = os.posix_spawn(
                f"/proc/self/fd/{self._program}",
                ("podrt-steps", token),
                {},
                file_actions=actions,
                setsigmask=(),
                setsigdef=HANDLED_SIGNALS,
            )
            # Three system calls, in no cgroup and PID namespace of the container, which could hold it up.
            os.waitid(os.P_PID, starter, os.WEXITED)
            self._read_reports()
            if (pid := self._started.pop(token, None)) is None:
                number = self._failed.pop(token, errno.ECHILD)
                raise OSError(number, f"entering the container: {os.strerror(number)}")
        finally:
            for copy, fd in zip(copies, fds, strict=True):
                if copy != fd:
                    os.close(copy)
        self.by_pid[pid] = Run(identity, token, asked)

    def end(self, pid: int, code: int, number: int) -> tuple[Run, dict[str, Any]] | None:
        """What the end of a child means, if it is one of these: the command, and the answer without its ``seq``."""
        run = self.by_pid.pop(pid, None)
        if run is None:
            return None
        if code == steps.FAILED:
            self._read_reports()
        failed = self._failed.pop(run.token, None)
        if failed is not None:
            message = f"a step before exec failed: {os.strerror(failed)}"
            return run, {"error": {"step": "steps", "errno": failed, "path": "", "message": message}}
        return run, {"code": code, "signal": number}

    def kill_abandoned(self, generation: int) -> None:
        """SIGKILL to what another connection than that of ``generation`` has asked for: nobody waits for it."""
        for pid, run in self.by_pid.items():
            if run.asked is None or run.asked[0] != generation:
                # Not reaped yet, so the pid is still its own.
                os.kill(pid, _signal.SIGKILL)

    def pid_of(self, identity: str) -> int:
        """Raises OSError ESRCH."""
        for pid, run in self.by_pid.items():
            if run.id == identity:
                return pid
        raise OSError(errno.ESRCH, f"no command {identity}")

    def save(self, generation: int, kept: list[int]) -> dict[str, Any]:
        """For a re-exec: the state as JSON, its descriptors added to ``kept``. What was asked over another connection
        than that of ``generation`` is never answered."""
        kept += [self._reports, self._writer]
        runs = [
            [pid, run.id, run.token, run.asked[1] if run.asked is not None and run.asked[0] == generation else None]
            for pid, run in self.by_pid.items()
        ]
        return {"runs": runs, "reports": self._reports, "writer": self._writer, "next": next(self._tokens)}

    def restore(self, saved: dict[str, Any], generation: int) -> None:
        """After a re-exec."""
        os.close(self._reports)
        os.close(self._writer)
        self._reports, self._writer = saved["reports"], saved["writer"]
        for fd in (self._reports, self._writer):
            os.set_inheritable(fd, False)
        self._tokens = itertools.count(saved["next"])
        for pid, identity, token, seq in saved["runs"]:
            self.by_pid[pid] = Run(identity, token, None if seq is None else (generation, seq))

    def _read_reports(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._reports, steps.REPORT.size):
                token, step, number = steps.REPORT.unpack(data)
                told = self._started if step == steps.STARTED else self._failed
                told[token.decode("ascii", "replace")] = number


def _sealed_program() -> int:
    """-1 if it was not built."""
    try:
        return _above(interpreter.sealed_copy(PROGRAM)) if steps.supported() else -1
    except FileNotFoundError:
        print(f"{PROGRAM} is not built: a probe costs a fork each time; run make setup", file=sys.stderr, flush=True)
        return -1


def _above(fd: int) -> int:
    """The same descriptor with a number of :data:`_LOWEST` or more, close-on-exec."""
    if fd >= _LOWEST:
        return fd
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST)
    os.close(fd)
    return copy
