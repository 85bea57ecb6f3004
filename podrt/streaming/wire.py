"""The bytes under a SPDY connection: a raw upgraded connection, or the messages of a websocket.

The raw upgrade takes the transport from aiohttp, which goes on counting the connection: it hears of its end, closes it
when the server stops, and cancels the handler then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from aiohttp import WSMsgType, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_protocol import RequestHandler

from podrt.errors import MalformedError

_READ = 64 * 1024
_LINGER = 10.0
"""Seconds in which the peer may close after it was told that all is said."""


class Wire(Protocol):
    """Both directions of a connection."""

    transport: asyncio.BaseTransport | None

    async def read(self) -> bytes:
        """The next bytes; empty at the end, also where the peer broke off."""

    async def write(self, data: bytes) -> None:
        """Send; returns when more may be sent. Raises ConnectionError."""

    async def close(self) -> None:
        """Send what is left, wait a little for the peer to close, close."""

    def abort(self) -> None:
        """Close without waiting for anything."""


class Upgraded(web.StreamResponse):
    """The answer of a handler that has taken over the connection: nothing is left to be sent for it."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        pass


class _Protocol(asyncio.StreamReaderProtocol):
    """asyncio's streams on aiohttp's transport."""

    def __init__(self, reader: asyncio.StreamReader, before: RequestHandler) -> None:
        super().__init__(reader)
        self._before = before

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._before.connection_lost(exc)


class RawWire:
    """An upgraded connection."""

    def __init__(self, request: web.Request, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        self.transport: asyncio.BaseTransport | None = transport
        self._reader = asyncio.StreamReader(limit=_READ)
        protocol = _Protocol(self._reader, request.protocol)
        protocol.connection_made(transport)
        transport.set_protocol(protocol)
        transport.resume_reading()
        self._writer = asyncio.StreamWriter(transport, protocol, self._reader, loop)

    @classmethod
    async def upgrade(cls, request: web.Request, headers: Mapping[str, str]) -> RawWire:
        """Answer 101 with ``headers`` and take the connection over; the handler must return :class:`Upgraded`.

        Raises MalformedError for a request with a body, ConnectionResetError.
        """
        if request.can_read_body and await request.content.read(1):  # proxies send empty ones in chunks
            raise MalformedError("a request to upgrade the connection can't have a body")
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client closed the connection")
        wire = cls(request, transport)
        lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        await wire.write("\r\n".join([*lines, "", ""]).encode("ascii"))
        return wire

    async def read(self) -> bytes:
        try:
            return await self._reader.read(_READ)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        # A connection that is closed with unread bytes is reset, and what the peer has not read yet is lost to it.
        try:
            self._writer.transport.set_write_buffer_limits(0)
            await self._writer.drain()
            if self._writer.can_write_eof():
                self._writer.write_eof()
            async with asyncio.timeout(_LINGER):
                while await self.read():
                    pass
        except (OSError, TimeoutError):
            pass
        except asyncio.CancelledError:
            self.abort()
            raise
        self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()


class SocketWire:
    """Bytes in the binary messages of a websocket, whose limits are nobody's business."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.BaseTransport | None) -> None:
        self.transport = transport
        self._socket = socket

    async def read(self) -> bytes:
        while True:
            message = await self._socket.receive()
            if message.type is not WSMsgType.BINARY:
                return b""
            if message.data:
                return bytes(message.data)

    async def write(self, data: bytes) -> None:
        await self._socket.send_bytes(data)

    async def close(self) -> None:
        await self._socket.close()

    def abort(self) -> None:
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()
