"""A SPDY/3.1 client for tests: what kubectl and crictl speak, raw after an HTTP upgrade or inside a websocket.

It reads only when told to (:meth:`SpdyClient.until`), so a test decides how slow a client is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self
from urllib.parse import urlsplit

import aiohttp

from podrt.streaming import spdy
from tests.framework.patience import scaled

_CHUNK = 256 * 1024


class Refused(Exception):
    """The server answered the upgrade with something else than 101."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status}: {body!r}")
        self.status = status
        self.body = body


class Bytes(Protocol):
    async def read(self) -> bytes: ...
    async def write(self, data: bytes) -> None: ...
    async def close(self) -> None: ...


class Raw:
    """An upgraded connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def read(self) -> bytes:
        try:
            return await self.reader.read(_CHUNK)
        except ConnectionError:
            return b""

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def close(self) -> None:
        self.writer.transport.abort()  # it may have more to send than the server takes
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class Tunnel:
    """The messages of a websocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def read(self) -> bytes:
        message = await self.socket.receive()
        return bytes(message.data) if message.type is aiohttp.WSMsgType.BINARY else b""

    async def write(self, data: bytes) -> None:
        await self.socket.send_bytes(data)

    async def close(self) -> None:
        await self.socket.close()


class SpdyClient:
    """One connection and its streams, by number."""

    def __init__(self, wire: Bytes, protocol: str = "") -> None:
        self.wire = wire
        self.protocol = protocol
        """The one that the server chose."""
        self.got: dict[int, bytearray] = {}
        self.replied: set[int] = set()
        self.ended: set[int] = set()
        self.reset: dict[int, int] = {}
        """Status by stream."""
        self.pongs: set[int] = set()
        self.away = False
        self.closed = False
        self._encoder = spdy.Encoder()
        self._decoder = spdy.Decoder()
        self._next = 1

    @classmethod
    async def dial(
        cls,
        url: str,
        *protocols: str,
        socket: Path | None = None,
        method: str = "POST",
        body: tuple[str, str] = ("Content-Length: 0", ""),
    ) -> Self:
        """Connect to ``url``'s host, or to a unix socket, and upgrade; ``body``: the header of a body, and the body.

        Raises Refused.
        """
        parts = urlsplit(url)
        if socket is not None:
            reader, writer = await asyncio.open_unix_connection(str(socket))
        else:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc or 'podrt'}", body[0]]
        lines += ["Connection: Upgrade", "Upgrade: SPDY/3.1"]
        lines += [f"X-Stream-Protocol-Version: {protocol}" for protocol in protocols]
        writer.write("\r\n".join([*lines, "", body[1]]).encode())
        try:
            async with asyncio.timeout(scaled(20)):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            status = int(head.split()[1])
            found = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:] if line)
            }
            if status != 101:
                raise Refused(status, await reader.readexactly(int(found.get("content-length", "0"))))
        except BaseException:
            writer.close()
            raise
        assert found["upgrade"].upper() == "SPDY/3.1"
        return cls(Raw(reader, writer), found.get("x-stream-protocol-version", ""))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.wire.close()

    async def open(self, kind: str, **headers: str) -> int:
        """Open a stream of this ``streamType``; returns its number once it is accepted or refused."""
        number, self._next = self._next, self._next + 2
        await self.wire.write(self._encoder.open(number, {"streamType": kind, **headers}))
        await self.until(lambda: number in self.replied or number in self.reset)
        return number

    async def connect(self, port: int, request: str = "0") -> tuple[int, int]:
        """The error and the data stream of a forwarded connection."""
        headers = {"port": str(port), "requestID": request}
        error = await self.open("error", **headers)
        await self.wire.write(spdy.data(error, b"", last=True))
        return error, await self.open("data", **headers)

    async def send(self, stream: int, content: bytes = b"", *, last: bool = False) -> None:
        await self.wire.write(spdy.data(stream, content, last))

    async def turn(self) -> None:
        """Read once."""
        content = await self.wire.read()
        if not content:
            self.closed = True
            return
        for frame in self._decoder.feed(content):
            if isinstance(frame, spdy.Data):
                self.got.setdefault(frame.stream, bytearray()).extend(frame.data)
                if frame.last:
                    self.ended.add(frame.stream)
            elif isinstance(frame, spdy.Replied):
                self.replied.add(frame.stream)
            elif isinstance(frame, spdy.Reset):
                self.reset[frame.stream] = frame.status
            elif isinstance(frame, spdy.Ping):
                self.pongs.add(frame.number)
            elif isinstance(frame, spdy.GoAway):
                self.away = True

    async def until(self, check: Callable[[], object], seconds: float = 20) -> None:
        """Read until ``check`` holds. Raises TimeoutError, ConnectionError at the end of the connection."""
        async with asyncio.timeout(scaled(seconds)):
            while not check():
                if self.closed:
                    raise ConnectionResetError("the server closed the connection")
                await self.turn()

    async def finished(self, *streams: int) -> None:
        """Until all of them have ended or were reset."""
        await self.until(lambda: set(streams) <= self.ended | set(self.reset))
