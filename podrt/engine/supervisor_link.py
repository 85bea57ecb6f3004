"""The daemon's end of the supervisor's socket: requests with their replies, events, nothing of what they mean.

A reply finds its request by ``seq``. The answer to a request that nobody waits for any more (a cancelled task) is
thrown away, and a process that it has started is killed. All that is sent and received passes without blocking the
event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from podrt.errors import UnavailableError
from podrt.supervisor import wire

_log = logging.getLogger(__name__)

Reply = tuple[dict[str, Any], list[int]]


class Link:
    """One connection at a time. ``on_event`` gets each event; ``on_closed`` is called when the other end is gone."""

    def __init__(self, on_event: Callable[[dict[str, Any]], None], on_closed: Callable[[], None]) -> None:
        self._on_event = on_event
        self._on_closed = on_closed
        self._sock: socket.socket | None = None
        self._sequence = itertools.count(1)
        self._replies: dict[int, asyncio.Future[Reply]] = {}
        self._pages: dict[int, tuple[list[dict[str, Any]], list[int]]] = {}
        self._outgoing: deque[tuple[bytes, list[int]]] = deque()

    @property
    def connected(self) -> bool:
        return self._sock is not None

    def use(self, sock: socket.socket) -> None:
        """Talk over ``sock`` from now on; there must be no connection."""
        sock.setblocking(False)
        self._sock = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self._on_readable)

    def close(self) -> None:
        """Requests that wait for an answer get UnavailableError. ``on_closed`` is not called."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock.fileno())
        loop.remove_writer(sock.fileno())
        sock.close()
        for _, fds in self._outgoing:
            wire.close_all(fds)
        self._outgoing.clear()
        for _, fds in self._pages.values():
            wire.close_all(fds)
        self._pages.clear()
        replies, self._replies = self._replies, {}
        for future in replies.values():
            if not future.done():
                future.set_exception(UnavailableError("the supervisor has gone away"))

    def begin(self, message: dict[str, Any], fds: Sequence[int] = ()) -> asyncio.Future[Reply]:
        """Send a request, which gets its ``seq``, and return the future of its reply. Raises UnavailableError without a
        connection; the future does if it is lost. A reply to a cancelled future is discarded."""
        if self._sock is None:
            raise UnavailableError("not connected to the supervisor")
        seq = message["seq"] = next(self._sequence)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._replies[seq] = future
        self._send(message, fds)
        return future

    async def request(self, message: dict[str, Any], fds: Sequence[int] = (), timeout: float | None = None) -> Reply:
        """Send a request and return its reply with the descriptors that came with it, the caller's from now on.

        ``fds`` stay the caller's. Raises UnavailableError without a connection, if it is lost, or after ``timeout``
        seconds.
        """
        future = self.begin(message, fds)
        seq = message["seq"]
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            self._abandon(seq, future)
            raise UnavailableError(
                f"the supervisor did not answer {message['op']} in {timeout:g} s: it is stopped, or what it started "
                "hangs in the kernel; supervisor.log and /proc/PID/stack may tell where"
            ) from None
        except asyncio.CancelledError:
            self._abandon(seq, future)
            raise

    def _abandon(self, seq: int, future: asyncio.Future[Reply]) -> None:
        # Without its future the reply is discarded when it comes; it may also have come just before the cancellation.
        self._replies.pop(seq, None)
        if future.done() and not future.cancelled() and future.exception() is None:
            _discard(*future.result())

    def _send(self, message: dict[str, Any], fds: Sequence[int]) -> None:
        assert self._sock is not None
        data = wire.pack(message)
        if not self._outgoing:
            try:
                wire.send_packed(self._sock, data, fds)
                return
            except BlockingIOError:
                asyncio.get_running_loop().add_writer(self._sock.fileno(), self._on_writable)
            except OSError:
                self._lost()
                return
        self._outgoing.append((data, [os.dup(fd) for fd in fds]))

    def _on_writable(self) -> None:
        assert self._sock is not None
        try:
            while self._outgoing:
                data, fds = self._outgoing[0]
                wire.send_packed(self._sock, data, fds)
                self._outgoing.popleft()
                wire.close_all(fds)
        except BlockingIOError:
            return
        except OSError:
            self._lost()
            return
        asyncio.get_running_loop().remove_writer(self._sock.fileno())

    def _on_readable(self) -> None:
        for _ in range(64):
            if self._sock is None:
                return
            try:
                received = wire.receive(self._sock)
            except BlockingIOError:
                return
            except (OSError, wire.WireError) as error:
                _log.error("connection to the supervisor: %s", error)
                received = None
            if received is None:
                self._lost()
                return
            self._on_message(*received)

    def _lost(self) -> None:
        self.close()
        self._on_closed()

    def _on_message(self, message: dict[str, Any], fds: list[int]) -> None:
        if "event" in message:
            wire.close_all(fds)
            self._on_event(message)
        else:
            self._on_reply(message, fds)

    def _on_reply(self, message: dict[str, Any], fds: list[int]) -> None:
        seq = message["seq"]
        if "more" in message:
            page = self._join_pages(seq, message, fds)
            if page is None:
                return
            message, fds = page
        future = self._replies.pop(seq, None)
        if future is None or future.done():
            _discard(message, fds)
        else:
            future.set_result((message, fds))

    def _join_pages(self, seq: int, message: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]] | None:
        count = len(message["terminals"])
        message["masters"] = fds[len(fds) - count :]
        pages, pidfds = self._pages.setdefault(seq, ([], []))
        pages.append(message)
        pidfds.extend(fds[: len(fds) - count])
        if message["more"]:
            return None
        del self._pages[seq]
        whole = pages[0]
        for page in pages[1:]:
            for key in ("processes", "terminals", "masters"):
                whole[key] += page[key]
        return whole, pidfds


def _discard(reply: dict[str, Any], fds: list[int]) -> None:
    """The answer to a request that nobody waits for any more: what it started is ended."""
    if "start_time" in reply and fds:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fds[0], signal.SIGKILL)
    wire.close_all(fds)
