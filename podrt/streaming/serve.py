"""The doors' entry: which protocol a request asks for, the upgrade, and the session or the forwarding to its end.

A door checks first what may be done and lets :func:`refuse_protocol` say what is wrong with the request; both raise
before the connection is upgraded. What only the start of the command shows is told on the error stream, as Kubernetes
does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from aiohttp import web

from podrt.errors import ForbiddenError, MalformedError, UnsupportedError
from podrt.streaming import forward, remote, session
from podrt.streaming.channels import MAX_MESSAGE, Channels
from podrt.streaming.session import Explain, Open, Wanted
from podrt.streaming.wire import RawWire, SocketWire, Upgraded

_SPDY = "SPDY/3.1"
_VERSIONS = "X-Stream-Protocol-Version"
_OLDEST = "channel.k8s.io"


class Choice(NamedTuple):
    """What the client and this server both speak."""

    spdy: bool
    protocol: str


def choose_remote(request: web.Request) -> Choice:
    """The protocol of an exec or attach. Raises MalformedError, ForbiddenError or UnsupportedError that say what the
    client must ask for.
    """
    return _choose(request, remote.SPDY_PROTOCOLS, remote.SOCKET_PROTOCOLS)


def choose_forward(request: web.Request) -> Choice:
    """The protocol of a port forwarding. Raises what :func:`choose_remote` raises."""
    return _choose(request, forward.SPDY_PROTOCOLS, (*forward.CHANNEL_PROTOCOLS, forward.TUNNEL_PROTOCOL))


def names_ports(choice: Choice) -> bool:
    """Does the request name the ports (else each stream does)?"""
    return not choice.spdy and choice.protocol != forward.TUNNEL_PROTOCOL


async def serve_remote(
    request: web.Request,
    choice: Choice,
    wanted: Wanted,
    open_session: Open,
    explain: Explain,
    *,
    exit_code: bool = True,
) -> web.StreamResponse:
    """Run an exec or attach; without ``exit_code`` every end of the process is a success.

    Raises MalformedError, ConnectionError before the upgrade.
    """
    client: remote.SpdyClient | remote.SocketClient
    response: web.StreamResponse
    if choice.spdy:
        client, response = remote.SpdyClient(await _raw(request, choice), choice.protocol, wanted), Upgraded()
    else:
        response = socket = await _socket(request, choice)
        client = remote.SocketClient(Channels(socket, request.transport), choice.protocol, wanted)
    try:
        async with client.serving():
            await session.serve(client, open_session, explain, exit_code=exit_code)
    except ConnectionError:
        pass
    return response


async def serve_forward(
    request: web.Request, choice: Choice, ports: Sequence[int], connect: forward.Connect
) -> web.StreamResponse:
    """Forward ports until the client goes; ``ports`` where :func:`names_ports`. Raises as :func:`serve_remote`."""
    if choice.spdy:
        await forward.serve_spdy(await _raw(request, choice), connect)
        return Upgraded()
    socket = await _socket(request, choice)
    if choice.protocol == forward.TUNNEL_PROTOCOL:
        await forward.serve_spdy(SocketWire(socket, request.transport), connect)
    else:
        await forward.serve_channels(Channels(socket, request.transport), ports, connect)
    return socket


async def _raw(request: web.Request, choice: Choice) -> RawWire:
    return await RawWire.upgrade(request, {"Upgrade": _SPDY, _VERSIONS: choice.protocol})


async def _socket(request: web.Request, choice: Choice) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(
        protocols=(choice.protocol,), compress=False, max_msg_size=MAX_MESSAGE, decode_text=False
    )
    await socket.prepare(request)
    return socket


def _choose(request: web.Request, spdy: Sequence[str], sockets: Sequence[str]) -> Choice:
    upgrade = request.headers.get("Upgrade", "").lower()
    if upgrade == _SPDY.lower():
        offered = _names(request, _VERSIONS)
        if not offered:
            raise MalformedError(f"header {_VERSIONS} is missing: it names the stream protocols that you speak")
        for name in offered:
            if name in spdy:
                return Choice(True, name)
        raise ForbiddenError(f"none of the stream protocols {', '.join(offered)} is supported: use {' or '.join(spdy)}")
    if upgrade != "websocket":
        raise MalformedError("Upgrade request required")
    offered = _names(request, "Sec-WebSocket-Protocol")
    for name in offered or [_OLDEST]:
        if name in sockets:
            return Choice(False, name)
    raise UnsupportedError(
        f"none of the websocket subprotocols {', '.join(offered) or '(none)'} is supported: use {' or '.join(sockets)}"
    )


def _names(request: web.Request, header: str) -> list[str]:
    """All values of a header that may be repeated, and separated by commas."""
    values = ",".join(request.headers.getall(header, []))
    return [name for value in values.split(",") if (name := value.strip())]
