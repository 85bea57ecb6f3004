"""Numbered channels in the messages of a websocket: ``channel.k8s.io`` and its relatives.

The first byte of a binary message is the channel. In the ``base64`` protocols messages are text: the channel's digit,
then the data in base64. Source: Kubernetes' ``httpstream/wsstream``.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import AsyncIterator
from typing import Self

from aiohttp import WSMsgType, web

from podrt.streaming.tasks import stop

MAX_MESSAGE = 1024 * 1024
"""Bytes of the largest message that is taken."""
CLOSE = 255
"""The channel whose data names a channel that the client has ended, in v5."""
_KEEP = 20.0
"""Seconds between two pongs. kubectl gives a connection up that has not answered its pings for a minute, and its pings
lie behind what a slow process has not read yet: pongs that nobody asked for (RFC 6455, 5.5.3) say that we are here."""


class Channels:
    """The channels of one websocket."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.BaseTransport | None) -> None:
        self.socket = socket
        self.transport = transport
        self._text = "base64." in (socket.ws_protocol or "")

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        """Keeps the client waiting for us while the block runs, and closes the websocket after it; an error leaves the
        connection to be cut.
        """
        keeping = asyncio.create_task(self._keep(), name="websocket pong")
        try:
            yield self
        finally:
            await stop(keeping)
        await self.socket.close()

    async def _keep(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await asyncio.sleep(_KEEP)
                await self.socket.pong()

    async def send(self, channel: int, data: bytes) -> None:
        """Returns when more may be sent. Raises ConnectionError."""
        if self._text:
            await self.socket.send_str(str(channel) + base64.b64encode(data).decode("ascii"))
        else:
            await self.socket.send_bytes(bytes([channel]) + data)

    async def receive(self) -> AsyncIterator[tuple[int, bytes]]:
        """Channel and data of each message until the client goes, or sends what can't be read."""
        with contextlib.suppress(ValueError, binascii.Error):
            async for message in self.socket:
                if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                    continue
                data = message.data if isinstance(message.data, bytes) else message.data.encode()
                if not data:
                    continue
                if self._text:
                    yield data[0] - ord("0"), base64.b64decode(data[1:], validate=True)
                else:
                    yield data[0], data[1:]
