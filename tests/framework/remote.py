"""exec and attach from a client's side, over SPDY or a websocket: one face of both for tests of the CRI."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp

from tests.framework.patience import scaled
from tests.framework.spdy import SpdyClient

SPDY, WEBSOCKET = "spdy", "websocket"
_CHANNELS = {1: "stdout", 2: "stderr", 3: "error"}


class Remote:
    """One session. It reads only in :meth:`until` and :meth:`finish`."""

    def __init__(self) -> None:
        self.output = {"stdout": bytearray(), "stderr": bytearray(), "error": bytearray()}
        self.ended = False

    @property
    def stdout(self) -> bytes:
        return bytes(self.output["stdout"])

    @property
    def stderr(self) -> bytes:
        return bytes(self.output["stderr"])

    async def send(self, data: bytes) -> None:
        """To stdin."""
        raise NotImplementedError

    async def close_stdin(self) -> None:
        raise NotImplementedError

    async def resize(self, columns: int, rows: int) -> None:
        raise NotImplementedError

    async def turn(self) -> None:
        """Read once."""
        raise NotImplementedError

    async def until(self, check: Callable[[], object], seconds: float = 30) -> None:
        """Read until ``check`` holds or all has ended."""
        async with asyncio.timeout(scaled(seconds)):
            while not check() and not self.ended:
                await self.turn()
        assert check(), f"the session ended early: {self.output}"

    async def finish(self, seconds: float = 30) -> Any:
        """Read to the end; the Status."""
        async with asyncio.timeout(scaled(seconds)):
            while not self.ended:
                await self.turn()
        return json.loads(self.output["error"])


class _Spdy(Remote):
    def __init__(self, client: SpdyClient, streams: dict[str, int]) -> None:
        super().__init__()
        self.client = client
        self.streams = streams
        for name, number in streams.items():
            if name in self.output:
                client.got[number] = self.output[name]

    async def send(self, data: bytes) -> None:
        await self.client.send(self.streams["stdin"], data)

    async def close_stdin(self) -> None:
        await self.client.send(self.streams["stdin"], last=True)

    async def resize(self, columns: int, rows: int) -> None:
        size = json.dumps({"Width": columns, "Height": rows}).encode()
        await self.client.send(self.streams["resize"], size + b"\n")

    async def turn(self) -> None:
        await self.client.turn()
        self.ended = self.client.closed or set(self.streams.values()) <= self.client.ended | set(self.client.reset)


class _Socket(Remote):
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        super().__init__()
        self.socket = socket

    async def send(self, data: bytes) -> None:
        await self.socket.send_bytes(b"\x00" + data)

    async def close_stdin(self) -> None:
        await self.socket.send_bytes(b"\xff\x00")

    async def resize(self, columns: int, rows: int) -> None:
        await self.socket.send_bytes(b"\x04" + json.dumps({"Width": columns, "Height": rows}).encode())

    async def turn(self) -> None:
        message = await self.socket.receive()
        if message.type is not aiohttp.WSMsgType.BINARY:
            self.ended = True
            return
        self.output[_CHANNELS[message.data[0]]] += message.data[1:]


@contextlib.asynccontextmanager
async def open_remote(
    protocol: str, url: str, *, stdin: bool = False, stdout: bool = True, stderr: bool = False, tty: bool = False
) -> AsyncIterator[Remote]:
    """A session at ``url``; the flags are those that it was asked for with."""
    if protocol == WEBSOCKET:
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(url, protocols=("v5.channel.k8s.io",), max_msg_size=0) as socket,
        ):
            assert socket.protocol == "v5.channel.k8s.io"
            yield _Socket(socket)
        return
    async with await SpdyClient.dial(url, "v4.channel.k8s.io", "v3.channel.k8s.io") as client:
        flags = {"error": True, "stdin": stdin, "stdout": stdout, "stderr": stderr, "resize": tty}
        yield _Spdy(client, {name: await client.open(name) for name, wanted in flags.items() if wanted})
