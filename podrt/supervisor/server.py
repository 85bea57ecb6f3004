"""The daemon's connection: requests in, replies and events out, never waiting for a daemon that doesn't read.

One daemon at a time; a new connection replaces the old one. Only root may connect. What can't be sent at once is
queued, up to :data:`MAX_QUEUE` messages; a daemon that lets more pile up is cut off and gets everything again with
``hello``.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from podrt.supervisor import wire
from podrt.supervisor.poll import IN, OUT, Loop

MAX_QUEUE = 8192
_AT_ONCE = 16

Handler = Callable[[dict[str, Any], list[int]], None]


class Connection:
    """The current connection, if any. ``handler`` gets each request with its descriptors and owns them."""

    def __init__(self, loop: Loop, handler: Handler) -> None:
        self._loop = loop
        self._handler = handler
        self._sock: _socket.socket | None = None
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self.generation = 0
        """Which connection it is: an answer to an older one's request would be taken for another's."""

    @property
    def fd(self) -> int | None:
        return None if self._sock is None else self._sock.fileno()

    def adopt(self, sock: _socket.socket) -> None:
        """Serve ``sock`` from now on."""
        self.close()
        sock.setblocking(False)
        self._sock = sock
        self.generation += 1
        self._loop.watch(sock.fileno(), IN, self._on_event)

    def close(self) -> None:
        if self._sock is None:
            return
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()
        self._sock = None
        for _, fds in self._queue:
            wire.close_all(fds)
        self._queue.clear()

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send or queue; the descriptors are copied if need be. Dropped without a connection."""
        if self._sock is None:
            return
        data = wire.pack(message)
        if not self._queue:
            try:
                wire.send_packed(self._sock, data, fds)
                return
            except BlockingIOError:
                self._loop.change(self._sock.fileno(), IN | OUT)
            except OSError:
                self.close()
                return
        if len(self._queue) >= MAX_QUEUE:
            self.close()
            return
        self._queue.append((data, [os.dup(fd) for fd in fds]))

    def flush_blocking(self) -> None:
        """Send the queue however long it takes; only before a re-exec, whose new image knows no queue."""
        if self._sock is None:
            return
        self._sock.settimeout(5)
        try:
            while self._queue and self._sock is not None:
                self._send_first()
        except OSError:
            self.close()
        if self._sock is not None:
            self._sock.setblocking(False)

    def _on_event(self, mask: int) -> None:
        if mask & OUT:
            self._flush()
        if mask & ~OUT:
            for _ in range(_AT_ONCE):
                if not self._receive():
                    break

    def _flush(self) -> None:
        try:
            while self._queue and self._sock is not None:
                self._send_first()
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if self._sock is not None:
            self._loop.change(self._sock.fileno(), IN)

    def _send_first(self) -> None:
        assert self._sock is not None
        data, fds = self._queue[0]
        wire.send_packed(self._sock, data, fds)
        self._queue.popleft()
        wire.close_all(fds)

    def _receive(self) -> bool:
        if self._sock is None:
            return False
        try:
            received = wire.receive(self._sock)
        except BlockingIOError:
            return False
        except (OSError, wire.WireError):
            received = None
        if received is None:
            self.close()
            return False
        self._handler(*received)
        return True


def listen(path: str) -> _socket.socket:
    """A non-blocking listening socket at ``path``, mode 0600; an old name is replaced."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    # sun_path holds 107 bytes; by descriptor of the directory a longer path works too.
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mask = os.umask(0o177)
    try:
        sock.bind(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    finally:
        os.umask(mask)
        os.close(directory)
    sock.listen(8)
    return sock


def accept(listener: _socket.socket) -> _socket.socket | None:
    """The next connection of root; None if there is none or it was someone else's."""
    try:
        fd, _ = listener._accept()  # type: ignore[attr-defined]
    except OSError:
        return None
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
    credentials = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    if struct.unpack("3i", credentials)[1] != 0:
        sock.close()
        return None
    return sock
