"""The two kinds of clients of exec and attach: SPDY streams named by ``streamType``, and channels of a websocket.

Versions of the protocol differ little. SPDY: v2 ends streams properly, v3 has sizes of the terminal, v4 tells the end
as a Status where those before have a line of text, for failures only. Websockets: v4 as there, v5 lets the client end
its stdin. Source: client-go ``remotecommand``, the kubelet's ``streaming/remotecommand``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Self

from podrt.streaming.channels import CLOSE, Channels
from podrt.streaming.connection import Connection, Stream
from podrt.streaming.pipe import Pipe
from podrt.streaming.session import Wanted
from podrt.streaming.status import Status
from podrt.streaming.tasks import stop
from podrt.streaming.wire import Wire

SPDY_PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
V5 = "v5.channel.k8s.io"
SOCKET_PROTOCOLS = (
    V5,
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)
_STATUS = ("v5.", "v4.")
"""Protocols whose last word is a Status begin so."""
_OUTPUTS = {"stdout": 1, "stderr": 2}
_STDIN, _ERROR, _RESIZE = 0, 3, 4
_OPENING = 30.0
"""Seconds in which the client must open its streams."""


def _last_word(protocol: str, ending: Status) -> bytes:
    if protocol.startswith(_STATUS):
        return ending.document
    return b"" if ending.success else ending.message.encode()


class SpdyClient:
    """A client of SPDY streams."""

    def __init__(self, wire: Wire, protocol: str, wanted: Wanted) -> None:
        self._protocol = protocol
        self._connection = Connection(wire, self._accept)
        sizes = wanted.tty and protocol.startswith(("v3.", "v4."))
        flags = {
            "error": True,
            "stdin": wanted.stdin,
            "stdout": wanted.stdout,
            "stderr": wanted.stderr and not wanted.tty,
            "resize": sizes,
        }
        self._missing = {name for name, flag in flags.items() if flag}
        self._streams: dict[str, Stream] = {}
        self._complete = asyncio.Event()
        self.stdin = _ended()
        self.sizes = _ended()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        """Waits until the client has opened its streams, and closes the connection after the block.

        Raises ConnectionResetError if the streams don't come.
        """
        async with self._connection.serving():
            self.gone = self._connection.gone
            opening = asyncio.create_task(self._complete.wait(), name="SPDY streams")
            try:
                await asyncio.wait({opening, self.gone}, timeout=_OPENING, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await stop(opening)
            if not self._complete.is_set():
                raise ConnectionResetError("the client did not open its streams")
            yield self

    def _accept(self, stream: Stream) -> bool:
        kind = stream.headers.get("streamtype", "")
        if kind not in self._missing:
            return False
        self._missing.remove(kind)
        self._streams[kind] = stream
        if kind == "stdin":
            self.stdin = stream.input
        elif kind == "resize":
            self.sizes = stream.input
        else:
            stream.input.drop()
        if not self._missing:
            self._complete.set()
        return True

    async def send(self, name: str, data: bytes) -> None:
        if (stream := self._streams.get(name)) is not None:
            await stream.send(data)

    async def end(self, name: str) -> None:
        if (stream := self._streams.get(name)) is not None:
            await stream.end()

    async def finish(self, ending: Status) -> None:
        for name in ("stdout", "stderr", "stdin", "resize"):
            await self.end(name)
        if word := _last_word(self._protocol, ending):
            await self.send("error", word)
        await self.end("error")


class SocketClient:
    """A client of channels."""

    def __init__(self, channels: Channels, protocol: str, wanted: Wanted) -> None:
        self._channels = channels
        self._protocol = protocol
        self._outputs = {name: number for name, number in _OUTPUTS.items() if getattr(wanted, name)}
        self.stdin = Pipe(channels.transport)
        self.sizes = Pipe(channels.transport)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        """Reads while the block runs and closes the websocket after it."""
        async with self._channels.serving():
            self.gone = asyncio.create_task(self._run(), name="websocket input")
            try:
                yield self
            finally:
                await stop(self.gone)

    async def _run(self) -> None:
        try:
            async for channel, data in self._channels.receive():
                if channel == _STDIN:
                    await self.stdin.put(data)
                elif channel == _RESIZE:
                    await self.sizes.put(data)
                elif channel == CLOSE and self._protocol == V5 and data[:1] == bytes([_STDIN]):
                    self.stdin.end()
        except ConnectionError:
            pass
        finally:
            self.stdin.end()
            self.sizes.end()

    async def send(self, name: str, data: bytes) -> None:
        if (channel := self._outputs.get(name)) is not None:
            await self._channels.send(channel, data)

    async def end(self, name: str) -> None:
        pass  # a server's channel ends with the websocket

    async def finish(self, ending: Status) -> None:
        if word := _last_word(self._protocol, ending):
            await self._channels.send(_ERROR, word)


def _ended() -> Pipe:
    pipe = Pipe()
    pipe.end()
    return pipe
