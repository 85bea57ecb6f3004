"""Bytes on their way from a connection that carries several streams to one receiver, bounded.

The reading task of the connection puts, the receiver gets. A full pipe holds the reading task, and with it the whole
connection: SPDY as Kubernetes speaks it has no flow control of single streams, websockets have none at all. While it
waits nothing is read, so it is the kernel that is asked whether the peer has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Iterator

LIMIT = 256 * 1024
"""Bytes that wait for the receiver, before the last chunk."""
_PATIENCE = 1.0
"""Seconds that a reading task is held before the peer is watched."""


class Pipe:
    """One writer, one reader, one end."""

    def __init__(self, transport: asyncio.BaseTransport | None = None) -> None:
        """``transport`` is the connection that the writer reads."""
        self._transport = transport
        self._chunks: list[bytes] = []
        self._size = 0
        self._ended = False
        self._dropping = False
        self._room: asyncio.Future[None] | None = None
        self._filled: asyncio.Future[None] | None = None

    async def put(self, data: bytes) -> None:
        """Add bytes; returns when there is room for more. What comes after the end is dropped.

        Raises ConnectionResetError if the peer goes while this waits.
        """
        if self._ended or self._dropping or not data:
            return
        self._chunks.append(data)
        self._size += len(data)
        _wake(self._filled)
        while self._size > LIMIT and not self._dropping:
            self._room = asyncio.get_running_loop().create_future()
            with _watched(self._transport, self._room):
                await self._room

    def end(self) -> None:
        """No more will be put."""
        self._ended = True
        _wake(self._filled)

    async def get(self) -> bytes:
        """All that is there, or the next bytes; empty at the end."""
        while not self._chunks:
            if self._ended:
                return b""
            self._filled = asyncio.get_running_loop().create_future()
            await self._filled
        data = b"".join(self._chunks) if len(self._chunks) > 1 else self._chunks[0]
        self._chunks.clear()
        self._size = 0
        _wake(self._room)
        return data

    def drop(self) -> None:
        """The receiver takes no more: what there is and what will come is thrown away."""
        self._dropping = True
        self._chunks.clear()
        self._size = 0
        _wake(self._room)


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


@contextlib.contextmanager
def _watched(transport: asyncio.BaseTransport | None, waiting: asyncio.Future[None]) -> Iterator[None]:
    """Let ``waiting`` fail once the peer has closed the connection, which is seen although nothing is read.

    An epoll(7) of its own asks for EPOLLRDHUP alone: the loop's would report the bytes that wait to be read. TCP keeps
    the end of a connection behind bytes for which there is no room, but answers our next ping with a reset.
    """
    loop = asyncio.get_running_loop()
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is None:
        yield
        return
    with contextlib.ExitStack() as stack:

        def gone() -> None:
            if not waiting.done():
                waiting.set_exception(ConnectionResetError("the client closed the connection"))

        def watch() -> None:
            if connection.fileno() < 0:
                return gone()
            poll = stack.enter_context(select.epoll())
            poll.register(connection.fileno(), select.EPOLLRDHUP | select.EPOLLONESHOT)
            loop.add_reader(poll.fileno(), gone)
            stack.callback(loop.remove_reader, poll.fileno())

        timer = loop.call_later(_PATIENCE, watch)
        stack.callback(timer.cancel)
        yield
