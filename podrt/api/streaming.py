"""``/exec``, ``/attach`` and ``/portforward`` of a Pod: choose the protocol, then hand over to ``channels`` or
``forwarding``.

What the Pod's spec can decide is refused with a Status before the upgrade; what only the start of the command shows is
told on the error channel, as Kubernetes does. Plain SPDY/3.1, to which kubectl falls back, is refused by name (501);
inside a websocket, as kubectl forwards ports, ``tunnel`` speaks it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from podrt.api import channels, forwarding, query, tunnel
from podrt.api.agent import AgentApi
from podrt.api.containers import find_container
from podrt.api.status import ExpectationError, status_of
from podrt.engine.api import Session
from podrt.errors import LaunchError, MalformedError, PodrtError, UnsupportedError
from podrt.model.pod import Pod

logger = logging.getLogger(__name__)

_MAX_MESSAGE = 1024 * 1024
_NOT_FOUND = (errno.ENOENT, errno.ENOTDIR)


async def serve_exec(request: web.Request, agent: AgentApi, pod: Pod) -> web.StreamResponse:
    """PodExecOptions: ``command`` (repeated), ``container``, ``stdin``, ``stdout``, ``stderr``, ``tty``."""
    container = find_container(pod, request.query.get("container", "")).name
    argv = request.query.getall("command", [])
    if not argv or not argv[0]:
        raise MalformedError("query parameter command: you must specify at least one command for the container")
    stdin, stdout, stderr, tty = _streams(request)
    _refuse_ended(pod)

    def start() -> Awaitable[Session]:
        return agent.exec(pod, container, argv, tty=tty, stdin=stdin, stdout=stdout, stderr=stderr and not tty)

    return await _run(request, start, stdin=stdin, stderr=stderr)


async def serve_attach(request: web.Request, agent: AgentApi, pod: Pod) -> web.StreamResponse:
    """PodAttachOptions: as exec, without a command; whether there is a terminal is the container's to say."""
    container = find_container(pod, request.query.get("container", ""))
    stdin, stdout, stderr, tty = _streams(request)
    if tty and not container.tty:
        raise MalformedError(f"container {container.name} of pod {pod.metadata.name} has no terminal: leave out tty")
    if stdin and not container.stdin:
        raise MalformedError(
            f"container {container.name} of pod {pod.metadata.name} has no stdin: set stdin: true in its spec"
        )
    _refuse_ended(pod)

    def start() -> Awaitable[Session]:
        return agent.attach(pod, container.name, stdin=stdin, stdout=stdout, stderr=stderr and not container.tty)

    return await _run(request, start, stdin=stdin, stderr=stderr)


async def serve_port_forward(request: web.Request, agent: AgentApi, pod: Pod) -> web.StreamResponse:
    """PodPortForwardOptions: ``ports``, repeated or separated by commas; a tunnel names its ports inside."""
    protocols = (*forwarding.PROTOCOLS, tunnel.PROTOCOL)
    tunnelled = _refuse_protocol(request, protocols) == {tunnel.PROTOCOL}
    ports = [] if tunnelled else forwarding.parse_ports(request.query.getall("ports", []))
    _refuse_ended(pod)
    socket = await _accept(request, (tunnel.PROTOCOL,) if tunnelled else forwarding.PROTOCOLS)

    def connect(port: int) -> Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        return agent.port_forward(pod, port)

    if tunnelled:
        await tunnel.Tunnel(socket, connect).run()
    else:
        await forwarding.serve(socket, ports, connect)
    return socket


def _streams(request: web.Request) -> tuple[bool, bool, bool, bool]:
    stdin, stdout, stderr, tty = (query.flag(request, name) for name in ("stdin", "stdout", "stderr", "tty"))
    if not (stdin or stdout or stderr):
        raise MalformedError("you must specify at least 1 of stdin, stdout, stderr")
    return stdin, stdout, stderr, tty


def _refuse_ended(pod: Pod) -> None:
    if pod.status.phase in ("Succeeded", "Failed"):
        raise MalformedError(f"cannot exec into a container in a completed pod; current phase is {pod.status.phase}")


async def _run(
    request: web.Request, start: Callable[[], Awaitable[Session]], *, stdin: bool, stderr: bool
) -> web.StreamResponse:
    socket = await _accept(request, channels.PROTOCOLS)
    text = ""
    try:
        status = await channels.serve(socket, start)
    except ConnectionError:
        return socket
    except LaunchError as error:
        # The shell's codes, so that a script can tell "no such command" from a command that failed.
        text = str(error)
        status = channels.failed_command(127 if error.errno in _NOT_FOUND else 126, text)
    except PodrtError as error:
        status = status_of(error)
    except Exception:
        logger.exception("%s %s failed", request.method, request.path)
        status = status_of(RuntimeError())
    await channels.finish(socket, status, text=text, stderr=stderr)
    return socket


async def _accept(request: web.Request, protocols: Sequence[str]) -> web.WebSocketResponse:
    """Upgrade to a websocket. Raises what :func:`_refuse_protocol` raises."""
    _refuse_protocol(request, protocols)
    socket = web.WebSocketResponse(protocols=protocols, compress=False, max_msg_size=_MAX_MESSAGE, decode_text=False)
    await socket.prepare(request)
    return socket


def _refuse_protocol(request: web.Request, protocols: Sequence[str]) -> set[str]:
    """Those of ``protocols`` that the client offers.

    Raises ExpectationError or UnsupportedError that say what the client must ask for.
    """
    upgrade = request.headers.get("Upgrade", "").lower()
    if upgrade.startswith("spdy/"):
        raise UnsupportedError("SPDY/3.1 streams are not supported yet: use a client that speaks websockets")
    if upgrade != "websocket":
        raise ExpectationError("Upgrade request required")
    offered = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    if not (common := set(offered) & set(protocols)):
        raise UnsupportedError(
            f"none of the websocket subprotocols {', '.join(filter(None, offered)) or '(none)'} is supported: "
            f"use {' or '.join(protocols)}, as podrt's own commands do"
        )
    return common
