"""The server's side of a SPDY/3.1 connection: the streams that the client opens, over any :class:`Wire`.

One task reads. It hands bytes to the pipe of their stream and waits while that is full: a stream that nobody takes
from holds the whole connection back, as with ``moby/spdystream``, and nothing grows. What breaks the protocol ends the
connection with GOAWAY.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Self

from podrt.streaming import spdy
from podrt.streaming.pipe import Pipe
from podrt.streaming.tasks import stop
from podrt.streaming.wire import Wire

MAX_STREAMS = 1024
"""Streams that may be open at once."""
_PING = 30.0
"""Seconds between two pings, that keep what lies between from giving an idle connection up."""


class Stream:
    """One stream that was accepted: what the client sends is in ``input``."""

    def __init__(self, connection: Connection, number: int, headers: dict[str, str]) -> None:
        self.number = number
        self.headers = headers
        self.input = Pipe(connection.wire.transport)
        self.on_reset: Callable[[], object] | None = None
        """Called when the client resets the stream."""
        self.ended = False
        """Nothing more may be sent."""
        self.finished = False
        """The client sends no more."""
        self._connection = connection

    async def send(self, content: bytes) -> None:
        """Returns when more may be sent; what comes after the end is dropped. Raises ConnectionError."""
        if not self.ended:
            await self._connection.wire.write(spdy.data(self.number, content))

    async def end(self) -> None:
        """Nothing more will be sent."""
        if not self.ended:
            self.ended = True
            self._connection.forget(self)
            await self._connection.wire.write(spdy.data(self.number, b"", last=True))

    async def reset(self, status: int = spdy.CANCEL) -> None:
        if not self.ended:
            self.was_reset()
            self._connection.forget(self)
            await self._connection.wire.write(spdy.reset(self.number, status))

    def was_reset(self) -> None:
        self.ended = True
        self.input.drop()
        self.input.end()
        self.finished = True


class Connection:
    """The streams of one client, as long as :meth:`serving` runs."""

    def __init__(self, wire: Wire, accept: Callable[[Stream], bool]) -> None:
        """``accept`` is asked for each stream that the client opens, and may keep it."""
        self.wire = wire
        self.gone: asyncio.Task[None]
        """Done when the client has closed, or the connection is broken."""
        self._accept = accept
        self._decoder = spdy.Decoder()
        self._encoder = spdy.Encoder()
        self._streams: dict[int, Stream] = {}
        self._last = 0
        self._status = spdy.GOAWAY_OK

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        """Reads while the block runs, says GOAWAY and closes the wire after it; an error cuts the wire."""
        try:
            self.gone = asyncio.create_task(self._run(), name="SPDY input")
            try:
                yield self
            finally:
                await stop(self.gone)
        except BaseException:
            self.wire.abort()
            raise
        with contextlib.suppress(ConnectionError):
            await self.wire.write(spdy.go_away(self._last, self._status))
        await self.wire.close()

    def forget(self, stream: Stream) -> None:
        """A stream that has ended on this side; it goes once the client has ended it, too."""
        if stream.ended and stream.finished:
            self._streams.pop(stream.number, None)

    async def _run(self) -> None:
        pinging = asyncio.create_task(self._ping(), name="SPDY ping")
        try:
            while content := await self.wire.read():
                for frame in self._decoder.feed(content):
                    await self._handle(frame)
        except spdy.ProtocolError:
            self._status = spdy.GOAWAY_PROTOCOL_ERROR
        except ConnectionError:
            pass
        finally:
            await stop(pinging)
            for stream in tuple(self._streams.values()):
                stream.input.end()

    async def _ping(self) -> None:
        with contextlib.suppress(ConnectionError):
            for number in itertools.count(2, 2):
                await asyncio.sleep(_PING)
                await self.wire.write(spdy.ping(number & spdy.MAX_NUMBER))

    async def _handle(self, frame: spdy.Frame) -> None:
        if isinstance(frame, spdy.Data):
            if (stream := self._streams.get(frame.stream)) is not None and not stream.finished:
                await stream.input.put(frame.data)
                if frame.last:
                    self._finished(stream)
        elif isinstance(frame, spdy.Opened):
            await self._open(frame)
        elif isinstance(frame, spdy.Ping):
            if frame.number % 2:  # an even one is the answer to ours
                await self.wire.write(spdy.ping(frame.number))
        elif isinstance(frame, spdy.Reset) and (stream := self._streams.pop(frame.stream, None)) is not None:
            stream.was_reset()
            if stream.on_reset is not None:
                stream.on_reset()

    async def _open(self, frame: spdy.Opened) -> None:
        if not frame.stream % 2 or frame.stream <= self._last:
            await self.wire.write(spdy.reset(frame.stream, spdy.PROTOCOL_ERROR))
            return
        self._last = frame.stream
        stream = Stream(self, frame.stream, frame.headers)
        if len(self._streams) >= MAX_STREAMS or not self._accept(stream):
            await self.wire.write(spdy.reset(frame.stream, spdy.REFUSED_STREAM))
            return
        self._streams[frame.stream] = stream
        await self.wire.write(self._encoder.reply(frame.stream))
        if frame.last:
            self._finished(stream)

    def _finished(self, stream: Stream) -> None:
        stream.finished = True
        stream.input.end()
        self.forget(stream)
