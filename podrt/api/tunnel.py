"""Port forwarding as kubectl does it: SPDY/3.1 inside a websocket, subprotocol ``SPDY/3.1+portforward.k8s.io``.

One websocket carries any number of connections. Each has two streams of one ``requestID``: an error stream, on which
only a message of failure is sent, and a data stream, whose ends are those of the connection. Source: the apiserver's
``tunneling`` handler and the kubelet's ``portforward/httpstream.go``.
"""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import WSMsgType, web

from podrt.api import spdy
from podrt.api.forwarding import Connect, failure
from podrt.errors import PodrtError

PROTOCOL = "SPDY/3.1+portforward.k8s.io"
MAX_CONNECTIONS = 500
_CHUNK = 32 * 1024
_QUEUED = 32
"""Messages of the client that wait for a slow Pod; then the whole tunnel waits, being one connection to the client."""


class _Connection:
    """One connection to the Pod: copies both ways until the Pod's side ends or the client resets it."""

    def __init__(self, tunnel: Tunnel, port: int, error: int, stream: int) -> None:
        self.tunnel = tunnel
        self.port = port
        self.error = error
        self.stream = stream
        self.input: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUED)

    async def run(self, connect: Connect) -> None:
        try:
            reader, writer = await connect(self.port)
        except (OSError, PodrtError) as error:
            text = failure(self.port, error)
            await self.tunnel.send(spdy.data(self.error, text.encode(), last=True))
            await self.tunnel.send(spdy.data(self.stream, b"", last=True))
            return
        feeding = asyncio.create_task(self._feed(writer), name=f"port-forward {self.port} input")
        try:
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                while content := await reader.read(_CHUNK):
                    await self.tunnel.send(spdy.data(self.stream, content))
            await self.tunnel.send(spdy.data(self.stream, b"", last=True))
            await self.tunnel.send(spdy.data(self.error, b"", last=True))
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _feed(self, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while (content := await self.input.get()) is not None:
                writer.write(content)
                await writer.drain()
            writer.write_eof()
        while await self.input.get() is not None:
            pass  # the Pod takes no more, and the tunnel must not wait for it


class Tunnel:
    """The server's side of one websocket."""

    def __init__(self, socket: web.WebSocketResponse, connect: Connect) -> None:
        self._socket = socket
        self._connect = connect
        self._decoder = spdy.Decoder()
        self._encoder = spdy.Encoder()
        self._errors: dict[tuple[str, str], int] = {}
        """Error streams whose data stream has not come, by (requestID, port)."""
        self._connections: dict[int, _Connection] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def send(self, frame: bytes) -> None:
        await self._socket.send_bytes(frame)

    async def run(self) -> None:
        """Serve until the client goes or breaks the protocol."""
        try:
            async for message in self._socket:
                if message.type is WSMsgType.BINARY:
                    for frame in self._decoder.feed(message.data):
                        await self._handle(frame)
        except (spdy.ProtocolError, ConnectionError):
            pass
        finally:
            tasks = tuple(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._socket.close()

    async def _handle(self, frame: spdy.Frame) -> None:
        if isinstance(frame, spdy.Ping):
            await self.send(spdy.pong(frame))
        elif isinstance(frame, spdy.Opened):
            await self._open(frame)
        elif isinstance(frame, spdy.Reset):
            if (task := self._tasks.get(frame.stream)) is not None:
                task.cancel()
        elif (connection := self._connections.get(frame.stream)) is not None:
            if frame.data:
                await connection.input.put(frame.data)
            if frame.last:
                await connection.input.put(None)

    async def _open(self, frame: spdy.Opened) -> None:
        headers = frame.headers
        kind, port = headers.get("streamtype"), headers.get("port", "")
        pair = (headers.get("requestid", ""), port)
        known = kind == "error" or (kind == "data" and pair in self._errors)
        valid = port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535
        if not known or not valid or len(self._tasks) + len(self._errors) >= MAX_CONNECTIONS:
            await self.send(spdy.reset(frame.stream, spdy.REFUSED_STREAM))
            return
        await self.send(self._encoder.reply(frame.stream))
        if kind == "error":
            self._errors[pair] = frame.stream
            return
        connection = _Connection(self, int(port), self._errors.pop(pair), frame.stream)
        self._connections[frame.stream] = connection
        task = asyncio.create_task(connection.run(self._connect), name=f"port-forward {port}")
        self._tasks[frame.stream] = task
        task.add_done_callback(lambda _: self._ended(frame.stream))

    def _ended(self, stream: int) -> None:
        self._connections.pop(stream, None)
        task = self._tasks.pop(stream, None)
        if task is not None and not task.cancelled():
            task.exception()  # the client went while it was sent to: the tunnel's own end
