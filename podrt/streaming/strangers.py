"""Connections that have not yet shown that they may be here: bounded in number and in time.

A loopback port is open to every user of the machine, and to containers on the host's network. Who has only connected
holds a descriptor and some memory of the daemon, so there is room for few of them: where another comes, the oldest
goes. Whoever means it sends its request at once, and is gone from here before that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp.web_protocol import RequestHandler

MOST = 256
PATIENCE = 10.0
"""Seconds that one has to send a request that is let in."""


class Strangers:
    """Makes the protocol of each connection of a listener, by ``make``, and cuts off those that are not let in."""

    def __init__(self, make: Callable[[], RequestHandler]) -> None:
        self._make = make
        self._waiting: dict[RequestHandler, tuple[asyncio.TimerHandle, asyncio.Task[None] | None]] = {}
        """Until when, and who is still at the TLS handshake for it."""

    def __call__(self) -> RequestHandler:
        """For ``loop.create_server``."""
        if len(self._waiting) >= MOST:
            self._cut(next(iter(self._waiting)))
        protocol = self._make()
        timer = asyncio.get_running_loop().call_later(PATIENCE, self._cut, protocol)
        # asyncio makes the protocol in the task that sees to the handshake next: there is no transport before that.
        self._waiting[protocol] = timer, asyncio.current_task()
        return protocol

    def let_in(self, protocol: RequestHandler) -> None:
        """From now on it may stay. It may have been let in before."""
        if (waiting := self._waiting.pop(protocol, None)) is not None:
            waiting[0].cancel()

    def close(self) -> None:
        """Cut off all that wait."""
        for protocol in tuple(self._waiting):
            self._cut(protocol)

    def _cut(self, protocol: RequestHandler) -> None:
        timer, task = self._waiting.pop(protocol)
        timer.cancel()
        if isinstance(protocol.transport, asyncio.WriteTransport):
            protocol.transport.abort()
        elif task is not None:
            task.cancel()
