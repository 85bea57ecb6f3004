"""The supervisor as a process: found, started, and what it leaves behind when it dies.

Whatever a dead supervisor has launched becomes a child of the daemon that was its parent; the client
(:mod:`podrt.engine.supervisor`) waits for those it knows and reaps the others.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import Any

from podrt.config import Config
from podrt.errors import UnavailableError
from podrt.linux import libc
from podrt.supervisor import interpreter, wire


def connect(config: Config) -> socket.socket | None:
    """A connection to the supervisor that runs; None if there is none."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    path = config.supervisor_socket
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # sun_path holds 107 bytes; by descriptor of the directory a longer path works too.
            sock.connect(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)
    except OSError:
        sock.close()
        return None
    return sock


def spawn(config: Config) -> tuple[socket.socket, int]:
    """Start a supervisor as a child of this process, in a session of its own: the connection to it, and its pidfd.

    posix_spawn and not fork: the daemon has threads. Raises UnavailableError.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    image = interpreter.sealed_copy()
    log = os.open(
        config.run_dir / "supervisor.log",
        os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW,
        0o600,
    )
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    # Numbers that no dup2 below overwrites before it is used.
    arguments = [str(config.run_dir), str(config.netns_dir), "connection=3"]
    try:
        pid = os.posix_spawn(
            f"/proc/self/fd/{image}",
            interpreter.command_line(arguments),
            interpreter.environment(),
            file_actions=_redirections({0: null, 1: log, 2: log, 3: theirs.fileno()}),
            setsid=True,
            setsigmask=(),
            setsigdef=(
                signal.SIGPIPE,
                signal.SIGXFSZ,
                signal.SIGINT,
                signal.SIGHUP,
                signal.SIGTERM,
                signal.SIGCHLD,
            ),
        )
    except OSError as error:
        ours.close()
        raise UnavailableError(f"the supervisor can't be started: {error}") from error
    finally:
        theirs.close()
        wire.close_all([image, log, null])
    return ours, os.pidfd_open(pid)


def strangers(known: set[int]) -> list[int]:
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


def orphan_status(pidfd: int) -> int | None:
    """The status of an ended process, -N for signal N, reaping it if it is our child; None if nobody can tell (yet)."""
    try:
        info = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return libc.pidfd_exit_info(pidfd)
    if info is None:
        return None
    return info.si_status if info.si_code == os.CLD_EXITED else -info.si_status


def _redirections(wanted: dict[int, int]) -> list[Any]:
    """dup2 actions for posix_spawn that are right even where a source has one of the target numbers."""
    actions: list[tuple[int, ...]] = []
    moved = {}
    for offset, (target, source) in enumerate(sorted(wanted.items())):
        high = 900 + offset
        actions.append((os.POSIX_SPAWN_DUP2, source, high))
        moved[target] = high
    for target, high in moved.items():
        actions.append((os.POSIX_SPAWN_DUP2, high, target))
    return [*actions, *((os.POSIX_SPAWN_CLOSE, high) for high in moved.values())]
