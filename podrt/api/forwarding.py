"""Port forwarding over a websocket: subprotocols ``v4.channel.k8s.io`` and ``portforward.k8s.io``.

Port number i of the request has channel 2i for its data and 2i+1 for errors. The server first sends the port as two
bytes, little endian, on both. One websocket carries one connection to each port; it ends when all of them have ended.
A client that has no more to send may say so with the two bytes 255 and the channel, as in v5.channel.k8s.io: the Pod
reads the end of the stream and can still answer.
Source: the kubelet's ``portforward/websocket.go``. kubectl speaks another protocol, which is in ``tunnel``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import WSMsgType, web

from podrt.errors import MalformedError, PodrtError

PROTOCOLS = ("v4.channel.k8s.io", "portforward.k8s.io")
_CHUNK = 32 * 1024
_MAX_PORTS = 100
_CLOSE = 255

Connect = Callable[[int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


def parse_ports(values: Sequence[str]) -> list[int]:
    """Ports of the query, in order. Raises MalformedError."""
    texts = [text for value in values for text in value.split(",") if text]
    if not texts:
        raise MalformedError("query parameter ports: at least one port must be given")
    if len(texts) > _MAX_PORTS:
        raise MalformedError(f"query parameter ports: at most {_MAX_PORTS} ports, not {len(texts)}")
    for text in texts:
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
            raise MalformedError(f"query parameter ports: {text!r} is no port between 1 and 65535")
    return [int(text) for text in texts]


def failure(port: int, error: OSError | PodrtError) -> str:
    """What a client is told of a connection that can't be made."""
    reason = error.strerror if isinstance(error, OSError) else None
    return f"error forwarding port {port}: {reason or error}"


class _Channel:
    """One port: the connection and the two channels."""

    def __init__(self, socket: web.WebSocketResponse, index: int, port: int) -> None:
        self.socket = socket
        self.port = port
        self.data = bytes([2 * index])
        self.error = bytes([2 * index + 1])
        self.writer: asyncio.StreamWriter | None = None
        self.connected = asyncio.Event()
        self.ended = False
        """The client has said that it sends no more."""

    async def announce(self) -> None:
        number = self.port.to_bytes(2, "little")
        await self.socket.send_bytes(self.data + number)
        await self.socket.send_bytes(self.error + number)

    async def run(self, connect: Connect) -> None:
        """Connect, then copy what the Pod sends until it ends."""
        try:
            reader, self.writer = await connect(self.port)
        except (OSError, PodrtError) as error:
            self.connected.set()
            await self.socket.send_bytes(self.error + failure(self.port, error).encode())
            return
        self.connected.set()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while data := await reader.read(_CHUNK):
                await self.socket.send_bytes(self.data + data)

    async def send(self, data: bytes) -> None:
        """Copy what the client sends, at the speed of the Pod; dropped once the connection is gone."""
        await self.connected.wait()
        if self.writer is None or self.writer.is_closing() or self.ended:
            return
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def end(self) -> None:
        """Pass on that the client sends no more; what the Pod still says is copied to its end."""
        await self.connected.wait()
        self.ended = True
        if self.writer is not None and not self.writer.is_closing() and self.writer.can_write_eof():
            with contextlib.suppress(OSError):
                self.writer.write_eof()

    async def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            with contextlib.suppress(OSError):
                await self.writer.wait_closed()


async def serve(socket: web.WebSocketResponse, ports: Sequence[int], connect: Connect) -> None:
    """Forward until all connections have ended or the client goes."""
    ends = [_Channel(socket, index, port) for index, port in enumerate(ports)]
    tasks: list[asyncio.Task[None]] = []
    try:
        for end in ends:
            await end.announce()
        copies = [asyncio.create_task(end.run(connect), name=f"port-forward {end.port}") for end in ends]
        incoming = asyncio.create_task(_receive(socket, ends), name="port-forward input")
        tasks = [*copies, incoming]
        finished = asyncio.create_task(_all(copies), name="port-forward output")
        tasks.append(finished)
        await asyncio.wait({incoming, finished}, return_when=asyncio.FIRST_COMPLETED)
    except ConnectionError:
        pass
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            await end.close()
        await socket.close()


async def _all(copies: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.wait(copies)


async def _receive(socket: web.WebSocketResponse, ends: Sequence[_Channel]) -> None:
    async for message in socket:
        if message.type is not WSMsgType.BINARY or len(message.data) < 2:
            continue
        channel, data = message.data[0], message.data[1:]
        ending = channel == _CLOSE
        if ending:
            channel = data[0]
        if channel % 2 or channel // 2 >= len(ends):
            continue
        end = ends[channel // 2]
        await (end.end() if ending else end.send(data))
