"""Port forwarding: connections into a sandbox, whatever the client speaks.

Each connection has a side of data, whose ends are those of the connection, and a word of failure. Two protocols:
SPDY, where the client opens two streams for each connection (``streamType`` ``error`` and ``data``, one ``port`` and
``requestID``), raw or inside a websocket as kubectl does from 1.31 on; and channels of a websocket, where port number
i of the request has channel 2i for its data and 2i+1 for errors, and each begins with the port as two bytes, little
endian. A client of channels that has no more to send may say so with the two bytes 255 and the channel, as in
``v5.channel.k8s.io``. Source: the kubelet's ``streaming/portforward``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from podrt.errors import MalformedError, PodrtError
from podrt.streaming.channels import CLOSE, Channels
from podrt.streaming.connection import Connection, Stream
from podrt.streaming.pipe import Pipe
from podrt.streaming.tasks import stop
from podrt.streaming.wire import Wire

SPDY_PROTOCOLS = ("portforward.k8s.io",)
TUNNEL_PROTOCOL = "SPDY/3.1+portforward.k8s.io"
CHANNEL_PROTOCOLS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io", "portforward.k8s.io")
MAX_CONNECTIONS = 500
_MAX_PORTS = 100
_CHUNK = 64 * 1024
_PAIRING = 30.0
"""Seconds in which the other stream of a connection must come."""
_LEAVING = 5.0

Connect = Callable[[int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class Side(Protocol):
    """The client's side of one connection. Sending raises ConnectionError when the client has gone."""

    @property
    def input(self) -> Pipe: ...
    async def send(self, data: bytes) -> None: ...
    async def fail(self, message: str) -> None: ...
    async def end(self) -> None:
        """All is said. May be called again."""


def parse_ports(values: Sequence[str]) -> list[int]:
    """Ports as text, repeated or separated by commas, in order. Raises MalformedError."""
    texts = [text for value in values for text in value.split(",") if text]
    if not texts:
        raise MalformedError("ports: at least one port must be given")
    if len(texts) > _MAX_PORTS:
        raise MalformedError(f"ports: at most {_MAX_PORTS} ports, not {len(texts)}")
    for text in texts:
        if not _port(text):
            raise MalformedError(f"ports: {text!r} is no port between 1 and 65535")
    return [int(text) for text in texts]


def _port(text: str) -> int:
    """0 for what is none."""
    valid = text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= 65535
    return int(text) if valid else 0


async def _join(side: Side, port: int, connect: Connect) -> None:
    """Connect, then copy both ways until the sandbox's side ends. Raises ConnectionError if the client goes."""
    try:
        reader, writer = await connect(port)
    except (OSError, PodrtError) as error:
        side.input.drop()
        reason = error.strerror if isinstance(error, OSError) else None
        await side.fail(f"error forwarding port {port}: {reason or error}")
        await side.end()
        return
    feeding = asyncio.create_task(_feed(side.input, writer), name=f"port-forward {port} input")
    try:
        while content := await _read(reader):
            await side.send(content)
    finally:
        await stop(feeding, then=lambda: _leave(side, writer))


async def _leave(side: Side, writer: asyncio.StreamWriter) -> None:
    """Neither a sandbox nor a client that reads no more is waited for long."""
    side.input.drop()
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_LEAVING):
            await side.end()
            await writer.wait_closed()
    writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """A connection that is reset has ended, too."""
    try:
        return await reader.read(_CHUNK)
    except OSError:
        return b""


async def _feed(pipe: Pipe, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while content := await pipe.get():
            writer.write(content)
            await writer.drain()
        writer.write_eof()
    pipe.drop()


# SPDY


class _Pair:
    """The two streams of a connection, of which one may be missing yet."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}
        self.complete = asyncio.Event()
        self.task: asyncio.Task[None]

    @property
    def input(self) -> Pipe:
        return self.streams["data"].input

    async def send(self, data: bytes) -> None:
        await self.streams["data"].send(data)

    async def fail(self, message: str) -> None:
        await self.streams["error"].send(message.encode())

    async def end(self) -> None:
        """The error stream ends in any case: kubectl waits for that before it forgets a connection."""
        for stream in self.streams.values():
            await stream.end()


class _Forwarder:
    """The connections of one client."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._pairs: dict[tuple[str, str], _Pair] = {}

    def accept(self, stream: Stream) -> bool:
        kind, text = stream.headers.get("streamtype", ""), stream.headers.get("port", "")
        if kind not in ("error", "data") or not (port := _port(text)):
            return False
        # Old clients send no requestID; their data stream follows its error stream.
        number = stream.number if kind == "error" else stream.number - 2
        key = (stream.headers.get("requestid") or f"stream {number}", text)
        pair = self._pairs.get(key)
        if pair is None:
            if len(self._pairs) >= MAX_CONNECTIONS:
                return False
            pair = self._pairs[key] = _Pair()
            pair.task = asyncio.create_task(self._serve(key, pair, port), name=f"port-forward {port}")
        elif kind in pair.streams:
            return False
        pair.streams[kind] = stream
        if kind == "error":
            stream.input.drop()
        else:
            # Not before its first step: then it would end without a word, and its place would never be free again.
            stream.on_reset = functools.partial(asyncio.get_running_loop().call_soon, pair.task.cancel)
        if len(pair.streams) == 2:
            pair.complete.set()
        return True

    async def _serve(self, key: tuple[str, str], pair: _Pair, port: int) -> None:
        try:
            async with asyncio.timeout(_PAIRING):
                await pair.complete.wait()
            await _join(pair, port, self._connect)
        except (ConnectionError, TimeoutError):
            pass
        finally:
            del self._pairs[key]
            with contextlib.suppress(ConnectionError):
                await pair.end()

    async def close(self) -> None:
        await stop(*(pair.task for pair in self._pairs.values()))


async def serve_spdy(wire: Wire, connect: Connect) -> None:
    """Forward until the client goes or breaks the protocol."""
    forwarder = _Forwarder(connect)
    async with Connection(wire, forwarder.accept).serving() as connection:
        try:
            await asyncio.wait({connection.gone})
        finally:
            await forwarder.close()


# Channels


class _Channel:
    """One port: the channel of its data and the one of its error."""

    def __init__(self, channels: Channels, index: int) -> None:
        self._channels = channels
        self._data, self._error = 2 * index, 2 * index + 1
        self.input = Pipe(channels.transport)

    async def announce(self, port: int) -> None:
        for channel in (self._data, self._error):
            await self._channels.send(channel, port.to_bytes(2, "little"))

    async def send(self, data: bytes) -> None:
        await self._channels.send(self._data, data)

    async def fail(self, message: str) -> None:
        await self._channels.send(self._error, message.encode())

    async def end(self) -> None:
        pass  # a server's channel ends with the websocket


async def serve_channels(channels: Channels, ports: Sequence[int], connect: Connect) -> None:
    """Forward until all connections have ended or the client goes."""
    async with channels.serving():
        sides = [_Channel(channels, index) for index in range(len(ports))]
        tasks: list[asyncio.Task[None]] = []
        try:
            for side, port in zip(sides, ports, strict=True):
                await side.announce(port)
            for side, port in zip(sides, ports, strict=True):
                tasks.append(asyncio.create_task(_join(side, port, connect), name=f"port-forward {port}"))
            all_ended = asyncio.create_task(_all(tuple(tasks)), name="port-forward output")
            incoming = asyncio.create_task(_receive(channels, sides), name="port-forward input")
            tasks += [all_ended, incoming]
            await asyncio.wait({all_ended, incoming}, return_when=asyncio.FIRST_COMPLETED)
        except ConnectionError:
            pass
        finally:
            await stop(*tasks)


async def _all(tasks: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)


async def _receive(channels: Channels, sides: Sequence[_Channel]) -> None:
    async for channel, data in channels.receive():
        ending = channel == CLOSE
        if ending and data:
            channel = data[0]
        if channel % 2 or channel // 2 >= len(sides):
            continue
        if ending:
            sides[channel // 2].input.end()
        else:
            await sides[channel // 2].input.put(data)
