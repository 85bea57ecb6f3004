"""One exec or attach session: the channels of ``v5.channel.k8s.io`` joined to file descriptors.

Channels (first byte of a binary message): 0 stdin, 1 stdout, 2 stderr, 3 the final v1.Status, 4 resize, 255 closes the
channel named by its second byte.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
from typing import Any

from podrt.cli import terminal
from podrt.cli.errors import ApiError, CliError
from podrt.cli.websocket import WebSocket

PROTOCOL = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
_CHUNK = 32 * 1024
_HIGH_WATER = 1024 * 1024


class Detached(Exception):
    """The user typed the detach keys."""


class Session:
    """Pumps until the remote side sends its Status or closes.

    ``stdin`` None: nothing is sent. ``stdout``, ``stderr``: where the channels go; a closed reader of stdout ends the
    session with BrokenPipeError. ``tty``: send the size of terminal ``stdin``, and again at each SIGWINCH.
    """

    def __init__(
        self,
        ws: WebSocket,
        stdin: int | None,
        stdout: int,
        stderr: int,
        tty: bool = False,
        keys: terminal.DetachKeys | None = None,
    ) -> None:
        self.ws = ws
        self.stdin = stdin
        self.outputs = {STDOUT: stdout, STDERR: stderr}
        self.tty = tty
        self.keys = keys
        self.status: dict[str, Any] | None = None

    def run(self) -> int:
        """The exit code. Raises CliError if the session was refused or lost, Detached after the detach keys."""
        try:
            with _WindowChanges(self.tty) as changes:
                if self.tty:
                    self._resize()
                while self.status is None and not self.ws.closed:
                    self._turn(changes)
        finally:
            self.ws.close()
        if self.status is None:
            raise CliError("lost the connection to the container: the daemon closed it without a result; see its log")
        return exit_code(self.status)

    def _turn(self, changes: _WindowChanges) -> None:
        poller = select.poll()
        poller.register(self.ws.fileno(), select.POLLIN | (select.POLLOUT if self.ws.out else 0))
        if self.stdin is not None and len(self.ws.out) < _HIGH_WATER:
            poller.register(self.stdin, select.POLLIN)
        if changes.fd >= 0:
            poller.register(changes.fd, select.POLLIN)
        if not self.ws.stream.buffer or not self._receive():
            for fd, event in poller.poll():
                if fd == self.ws.fileno():
                    if event & ~select.POLLOUT:
                        self._receive()
                elif fd == changes.fd:
                    changes.drain()
                    self._resize()
                else:
                    self._read_stdin()
        self.ws.flush()

    def _receive(self) -> bool:
        messages = self.ws.receive()
        for message in messages:
            self._message(message)
        return bool(messages)

    def _message(self, message: bytes) -> None:
        if not message:
            return
        channel, data = message[0], message[1:]
        if channel in self.outputs:
            write_all(self.outputs[channel], data)
        elif channel == ERROR and data:
            try:
                self.status = dict(json.loads(data))
            except (ValueError, TypeError):
                raise CliError(f"the daemon's result is not a Status: {data[:200]!r}") from None

    def _read_stdin(self) -> None:
        assert self.stdin is not None
        try:
            data = os.read(self.stdin, _CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the terminal was hung up
                raise
            data = b""
        if not data:
            self.stdin = None
            self.ws.queue(bytes([CLOSE, STDIN]))
            return
        detached = False
        if self.keys is not None:
            data, detached = self.keys.feed(data)
        if data:
            self.ws.queue(bytes([STDIN]) + data)
        if detached:
            self.ws.flush()
            raise Detached

    def _resize(self) -> None:
        found = terminal.size(self.stdin if self.stdin is not None else 0) or terminal.size(self.outputs[STDOUT])
        if found:
            self.ws.queue(bytes([RESIZE]) + json.dumps({"Width": found[0], "Height": found[1]}).encode())


class _WindowChanges:
    """SIGWINCH as a readable descriptor (-1 where it isn't wanted)."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self.fd = -1
        self._write = -1
        self._old_fd = -1
        self._old_handler: Any = None

    def __enter__(self) -> _WindowChanges:
        if self._wanted:
            self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._old_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
            self._old_handler = signal.signal(signal.SIGWINCH, lambda *_: None)
        return self

    def drain(self) -> None:
        try:
            while os.read(self.fd, 512):
                pass
        except BlockingIOError:
            pass

    def __exit__(self, *_: object) -> None:
        if self._wanted:
            signal.signal(signal.SIGWINCH, self._old_handler)
            signal.set_wakeup_fd(self._old_fd)
            os.close(self.fd)
            os.close(self._write)


def write_all(fd: int, data: bytes) -> None:
    """Write everything, also to a descriptor that someone made non-blocking (a shared terminal may be)."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            poller = select.poll()
            poller.register(fd, select.POLLOUT)
            poller.poll()


def exit_code(status: dict[str, Any]) -> int:
    """The remote exit code that a final Status holds. Raises ApiError if it tells of something else."""
    if status.get("status") == "Success":
        return 0
    if status.get("reason") == "NonZeroExitCode":
        for cause in (status.get("details") or {}).get("causes") or ():
            if cause.get("reason") == "ExitCode":
                try:
                    return int(cause["message"])
                except (KeyError, ValueError):
                    break
    raise ApiError(status)
