"""The supervisor as a process: found by its socket, or started as a child of this one, and reaped when it dies.

It outlives the daemon that started it, so most daemons find one and have no child. What a dead one leaves behind is
:mod:`podrt.engine.supervisor_orphans`'.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from typing import Any

from podrt.config import Config
from podrt.errors import UnavailableError
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


class Child:
    """The supervisor, where this process has started it. It is reaped by the event loop."""

    def __init__(self) -> None:
        self._pidfd = -1

    @property
    def alive(self) -> bool:
        """False also if it was never started here."""
        return self._pidfd >= 0

    def start(self, config: Config) -> socket.socket:
        """Start one, and return the connection to it. Raises UnavailableError."""
        sock, self._pidfd = _spawn(config)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_end)
        return sock

    async def ended(self) -> None:
        """Returns when it is reaped; after 10 seconds in any case."""
        deadline = time.monotonic() + 10
        while self.alive and time.monotonic() < deadline:
            await asyncio.sleep(0.005)

    def close(self) -> None:
        """Leave it to itself."""
        if self.alive:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _on_end(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        self.close()


def _spawn(config: Config) -> tuple[socket.socket, int]:
    """The connection to a new supervisor in a session of its own, and its pidfd.

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
