"""exec, attach and port-forward of the CRI: the URLs that the RPCs answer, and the server behind them.

A kubelet, or crictl, asks by gRPC what it wants to do and gets a URL; who comes with the URL may do that one thing, so
its path is a secret that is good for one use within a minute. Only loopback is served, without TLS: the kubelet is on
this machine and passes streams on. Both peers speak SPDY unless told otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from aiohttp import web
from cri_api.v1 import api_pb2 as api

from podrt.config import Config, parse_loopback
from podrt.cri.errors import message_of
from podrt.cri.own import Own
from podrt.engine.api import EngineApi, Session
from podrt.engine.specs import ContainerState, ContainerStatus, SandboxState
from podrt.errors import (
    ConflictError,
    ExhaustedError,
    ForbiddenError,
    InvalidError,
    MalformedError,
    NotFoundError,
    PodrtError,
    UnavailableError,
    UnsupportedError,
)
from podrt.streaming import forward, httplog, serve
from podrt.streaming.session import Wanted
from podrt.streaming.status import Status, internal_error
from podrt.streaming.strangers import Strangers

logger = logging.getLogger(__name__)

LIFE = 60.0
"""Seconds that a URL is good for."""
MAX_WAITING = 1000
"""URLs that may wait for their use, as at other runtimes."""
_SECRET = 32
"""Bytes of randomness in a path."""
_SHUTDOWN = 2.0
"""Seconds that streams get to end when the daemon stops."""
_CODES: tuple[tuple[type[PodrtError], int], ...] = (
    (MalformedError, 400),
    (InvalidError, 400),
    (ForbiddenError, 403),
    (NotFoundError, 404),
    (UnsupportedError, 501),
)


class _Ticket(NamedTuple):
    """What a URL stands for: one of the handlers' requests, with the full id."""

    request: Any
    until: float
    """Of time.monotonic()."""


class StreamServer:
    """``await start()`` before the first URL is asked for, ``await close()`` last; it ends the streams."""

    def __init__(self, config: Config, engine: EngineApi) -> None:
        """Raises InvalidError for a ``cri_stream_address`` that is not a loopback one."""
        self._address = parse_loopback("cri_stream_address", config.cri_stream_address)
        self._engine = engine
        self._own = Own(engine)
        self._tickets: dict[str, _Ticket] = {}
        self._open: set[asyncio.Task[Any]] = set()
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._strangers: Strangers | None = None
        self._url = ""

    async def start(self) -> None:
        """Listen. Raises UnavailableError if the address is taken."""
        app = web.Application(middlewares=[self._middleware])
        for verb, handler in (("exec", self._exec), ("attach", self._attach), ("portforward", self._port_forward)):
            for method in ("GET", "POST"):
                app.router.add_route(method, f"/{verb}/{{token}}", handler)
        runner = web.AppRunner(
            app,
            access_log=None,
            logger=httplog.server_logger(),
            handler_cancellation=True,
            shutdown_timeout=_SHUTDOWN,
        )
        await runner.setup()
        assert runner.server is not None
        self._strangers = Strangers(runner.server)
        host, port = self._address
        try:
            self._listener = await asyncio.get_running_loop().create_server(self._strangers, host, port)
        except OSError as error:
            await runner.cleanup()
            raise UnavailableError(f"cri_stream_address: can't listen on {host}:{port}: {error}") from error
        port = self._listener.sockets[0].getsockname()[1]
        self._url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._runner = runner

    async def close(self) -> None:
        if self._runner is None or self._listener is None or self._strangers is None:
            return
        self._listener.close()
        self._strangers.close()
        # Before aiohttp closes their connections, so that each can end its session first.
        tasks = tuple(self._open)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_SHUTDOWN)
        await self._runner.cleanup()
        self._runner = None
        self._tickets.clear()

    # URLs

    def exec_url(self, request: api.ExecRequest) -> str:
        """Where ExecRequest is carried out. Raises NotFoundError, ConflictError (not running), InvalidError,
        ExhaustedError.
        """
        if not request.cmd:
            raise InvalidError("cmd: required")
        _check_streams(request)
        container = self._running(request.container_id)
        return self._issue("exec", api.ExecRequest(), request, container_id=container.id)

    def attach_url(self, request: api.AttachRequest) -> str:
        """Where AttachRequest is carried out. Raises what :meth:`exec_url` raises."""
        _check_streams(request)
        container = self._running(request.container_id)
        return self._issue("attach", api.AttachRequest(), request, container_id=container.id)

    def port_forward_url(self, request: api.PortForwardRequest) -> str:
        """Where PortForwardRequest is carried out; the streams name their ports. Raises NotFoundError, ConflictError
        (not ready), InvalidError, ExhaustedError.
        """
        sandbox = self._own.sandbox(request.pod_sandbox_id)
        if sandbox.state is not SandboxState.READY:
            raise ConflictError(f"cannot forward ports of sandbox {sandbox.id[:12]}: it is {sandbox.state}, not ready")
        return self._issue("portforward", api.PortForwardRequest(), request, pod_sandbox_id=sandbox.id)

    def _running(self, identity: str) -> ContainerStatus:
        container = self._own.container(identity)
        if container.state is not ContainerState.RUNNING:
            raise ConflictError(f"container {container.id[:12]} is {container.state}, not running")
        return container

    def _issue(self, verb: str, copy: Any, request: Any, **identity: str) -> str:
        now = time.monotonic()
        for token in [token for token, ticket in self._tickets.items() if ticket.until <= now]:
            del self._tickets[token]
        if len(self._tickets) >= MAX_WAITING:
            raise ExhaustedError(f"{MAX_WAITING} streaming URLs wait for their use; try again in a minute")
        copy.CopyFrom(request)
        for name, value in identity.items():
            setattr(copy, name, value)
        token = secrets.token_urlsafe(_SECRET)
        self._tickets[token] = _Ticket(copy, now + LIFE)
        return f"{self._url}/{verb}/{token}"

    def _redeem(self, request: web.Request, kind: type[Any]) -> Any:
        """What the URL stands for. Raises NotFoundError for one that was used, is too old, or was never made."""
        ticket = self._tickets.get(request.match_info["token"])
        if ticket is None or ticket.until <= time.monotonic() or not isinstance(ticket.request, kind):
            raise NotFoundError("this URL is not known: each is good for one use within a minute")
        del self._tickets[request.match_info["token"]]
        if self._strangers is not None:
            self._strangers.let_in(request.protocol)
        return ticket.request

    # Streams

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        choice = serve.choose_remote(request)
        asked = self._redeem(request, api.ExecRequest)

        def start() -> Awaitable[Session]:
            return self._engine.exec(
                asked.container_id,
                list(asked.cmd),
                tty=asked.tty,
                stdin=asked.stdin,
                stdout=asked.stdout,
                stderr=asked.stderr,
            )

        return await serve.serve_remote(request, choice, _wanted(asked), start, _explain)

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        choice = serve.choose_remote(request)
        asked = self._redeem(request, api.AttachRequest)

        def start() -> Awaitable[Session]:
            return self._engine.attach(asked.container_id, stdin=asked.stdin, stdout=asked.stdout, stderr=asked.stderr)

        # How the container ended is told by its status.
        return await serve.serve_remote(request, choice, _wanted(asked), start, _explain, exit_code=False)

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        choice = serve.choose_forward(request)
        asked = self._redeem(request, api.PortForwardRequest)
        ports: list[int] = []
        if serve.names_ports(choice):
            ports = forward.parse_ports(request.query.getall("port", []) or [str(port) for port in asked.port])

        def connect(port: int) -> Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
            return self._engine.connect_port(asked.pod_sandbox_id, port)

        return await serve.serve_forward(request, choice, ports, connect)

    @property
    def _middleware(self) -> Any:
        @web.middleware
        async def handle(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            task = asyncio.current_task()
            assert task is not None
            self._open.add(task)
            try:
                return await handler(request)
            except PodrtError as error:
                code = next((code for kind, code in _CODES if isinstance(error, kind)), 500)
                response = web.Response(status=code, text=f"{error}\n")
                # No other request may follow: each connection is for one URL.
                response.force_close()
                return response
            finally:
                self._open.discard(task)

        return handle


def _check_streams(request: api.ExecRequest | api.AttachRequest) -> None:
    if request.tty and request.stderr:
        raise InvalidError("tty and stderr: a terminal has one output, stdout; ask for one of them")
    if not (request.stdin or request.stdout or request.stderr):
        raise InvalidError("stdin, stdout, stderr: at least one of them is required")


def _wanted(request: api.ExecRequest | api.AttachRequest) -> Wanted:
    return Wanted(request.stdin, request.stdout, request.stderr, request.tty)


def _explain(error: Exception) -> Status:
    if not isinstance(error, PodrtError | OSError):
        logger.error("a stream failed", exc_info=error)
    return internal_error(message_of(error))
