"""The HTTP server: routes, the middleware that maps every error, and the unix socket.

The socket is the door to root on this machine: mode 0660, owned by root and the configured group. A stale socket (of a
daemon that was killed) is replaced; a live one is an error that says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import platform
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from podrt import __version__
from podrt.api import discovery, logs, negotiate, openapi, query, status, streaming, usage
from podrt.api.access import Access
from podrt.api.agent import AgentApi
from podrt.api.call import CALL, routed, subject_of
from podrt.api.image_transfer import Transfer, TransferHandlers
from podrt.api.images import ImageHandlers, Info
from podrt.api.metrics import Metrics
from podrt.api.rest import RestHandlers
from podrt.api.tokens import TokenHandlers
from podrt.config import Config
from podrt.errors import InvalidError, UnavailableError
from podrt.image.service import ImageStore
from podrt.model.codec import MAX_BYTES
from podrt.model.kinds import BY_NAME, Resource
from podrt.model.node import Node
from podrt.model.pod import Pod
from podrt.store.objects import Registry
from podrt.streaming import httplog

logger = logging.getLogger(__name__)

KUBERNETES_VERSION = "1.36"
"""The API version whose fields the model has; clients compare their own with it."""
_SHUTDOWN = 2.0
"""Seconds that open streams get to end when the daemon stops."""
_PLACE = 0o117
"""umask of the socket: 0660 from its first moment."""
_BACKLOG = 1024
_IDLE = 90.0
"""Seconds that a connection may be without a request, as with kube-apiserver; one that is being answered is not."""

Next = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiServer:
    """Serves the Kubernetes dialect on ``config.socket``. ``await start()``, ``await close()``."""

    def __init__(
        self,
        config: Config,
        registry: Registry,
        agent: AgentApi,
        images: ImageStore,
        info: Info,
        *,
        metrics: Metrics | None = None,
        transfer: Transfer | None = None,
    ) -> None:
        """``info`` gives the document of ``system info``; it is called in a thread."""
        self._config = config
        self._registry = registry
        self._store = registry.store
        self._agent = agent
        self._metrics = metrics or Metrics(registry.store)
        self._sampler = usage.Sampler(agent)
        self._rest = RestHandlers(registry)
        self._images = ImageHandlers(images, registry.store, config.state_dir / "spool", info, agent.images_changed)
        self._transfer = TransferHandlers(images, transfer, self._images, agent.images_changed)
        self._tokens = TokenHandlers(agent)
        self._access = Access(config.state_dir / "access", config.listen)
        self._runner: web.AppRunner | None = None
        self._inode = 0
        self._open: dict[asyncio.Task[Any], web.Request] = {}
        """Requests that are being handled."""
        self.ready = True

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._middleware], client_max_size=MAX_BYTES)
        # The most frequent first: aiohttp tries routes with variables in order.
        app.router.add_routes(self._pod_routes())
        app.router.add_routes(self._rest.routes())
        app.router.add_routes(self._tokens.routes())
        app.router.add_routes(self._usage_routes())
        app.router.add_routes(self._transfer.routes())
        app.router.add_routes(self._images.routes())
        app.router.add_routes(self._general_routes())
        return app

    # Life

    async def start(self) -> None:
        """Listen. Raises UnavailableError if another daemon listens on the socket, OSError."""
        path = self._config.socket
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _clear_stale(path)
        # Cancelled when the client goes, so that a watch or a follow does not outlive its reader.
        self._runner = web.AppRunner(
            self.application(),
            access_log=None,
            logger=httplog.server_logger(),
            handler_cancellation=True,
            shutdown_timeout=_SHUTDOWN,
            keepalive_timeout=_IDLE,
        )
        await self._runner.setup()
        listener = _listen(path, self._config.socket_group)
        self._inode = os.stat(path).st_ino
        await web.SockSite(self._runner, listener, backlog=_BACKLOG).start()
        assert self._runner.server is not None
        if await self._access.start(self._runner.server, _BACKLOG):
            self._registry.publish_certificate(self._access.certificate())
            logger.info("serving on %s", self._access.document()["server"])
        logger.info("serving on %s", path)

    async def close(self) -> None:
        """Stop listening, end streams, remove the socket if it is still ours."""
        if self._runner is None:
            return
        for site in tuple(self._runner.sites):
            await site.stop()
        self._access.stop()
        # Before aiohttp closes their connections, so that each can end its session first.
        streams = {task for task, request in self._open.items() if (call := request.get(CALL)) and call.streaming}
        for task in streams:
            task.cancel()
        if streams:
            await asyncio.wait(streams, timeout=_SHUTDOWN)
        await self._runner.cleanup()
        self._runner = None
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._config.socket).st_ino == self._inode:
                os.unlink(self._config.socket)

    # The middleware

    @property
    def _middleware(self) -> Any:
        @web.middleware
        async def handle(request: web.Request, handler: Next) -> web.StreamResponse:
            started = time.perf_counter()
            task = asyncio.current_task()
            assert task is not None
            self._open[task] = request
            try:
                self._access.check(request)
                response = await handler(request)
            except Exception as error:
                response = self._failed(request, error)
            finally:
                del self._open[task]
            call = request.get(CALL)
            if call is not None and not call.streaming:
                seconds = time.perf_counter() - started
                self._metrics.request(call.verb, call.resource.qualified, response.status, seconds)
            return response

        return handle

    def _failed(self, request: web.Request, error: Exception) -> web.Response:
        """The Status of an error; where the answer has begun already, the connection is cut instead."""
        begun = request.writer.output_size > 0
        if isinstance(error, ConnectionError) and (begun or request.transport is None):
            return _gone()
        mapped = status.status_of(error, subject_of(request, invalid=isinstance(error, InvalidError)))
        if mapped.code == 500:
            logger.error("%s %s failed", request.method, request.path_qs, exc_info=error)
        if begun:
            logger.warning("%s %s: cut off: %s", request.method, request.path, error)
            if request.transport is not None:
                request.transport.abort()
            return _gone()
        allow = {"Allow": error.headers["Allow"]} if isinstance(error, web.HTTPMethodNotAllowed) else None
        return status.response(mapped, allow)

    # Pods: what streams

    def _pod_routes(self) -> list[web.RouteDef]:
        pods = BY_NAME["pods"]
        item = "/api/v1/namespaces/{namespace}/pods/{name}"

        def add(method: str, name: str, handler: Callable[[web.Request, Resource], Awaitable[Any]]) -> web.RouteDef:
            return web.route(method, f"{item}/{name}", routed("connect", pods, handler))

        return [
            add("GET", "log", self._logs),
            *(add(method, "exec", self._exec) for method in ("GET", "POST")),
            *(add(method, "attach", self._attach) for method in ("GET", "POST")),
            *(add(method, "portforward", self._port_forward) for method in ("GET", "POST")),
        ]

    def _pod(self, request: web.Request) -> Pod:
        request[CALL].streaming = True
        return self._store.get(Pod, request.match_info["namespace"], request.match_info["name"])

    async def _logs(self, request: web.Request, resource: Resource) -> web.StreamResponse:
        return await logs.serve(request, self._agent, self._pod(request))

    async def _exec(self, request: web.Request, resource: Resource) -> web.StreamResponse:
        return await streaming.serve_exec(request, self._agent, self._pod(request))

    async def _attach(self, request: web.Request, resource: Resource) -> web.StreamResponse:
        return await streaming.serve_attach(request, self._agent, self._pod(request))

    async def _port_forward(self, request: web.Request, resource: Resource) -> web.StreamResponse:
        return await streaming.serve_port_forward(request, self._agent, self._pod(request))

    # Usage

    def _usage_routes(self) -> list[web.RouteDef]:
        base = f"/apis/{usage.API_VERSION}"
        return [
            web.get(f"{base}/nodes", self._node_metrics),
            web.get(f"{base}/nodes/{{name}}", self._node_metrics),
            web.get(f"{base}/pods", self._pod_metrics),
            web.get(f"{base}/namespaces/{{namespace}}/pods", self._pod_metrics),
            web.get(f"{base}/namespaces/{{namespace}}/pods/{{name}}", self._one_pod_metrics),
        ]

    async def _node_metrics(self, request: web.Request) -> web.Response:
        if name := request.match_info.get("name"):
            return _json(await self._sampler.node(self._store.get(Node, "", name)))
        nodes = self._store.list(Node, None, request.query.get("labelSelector", "")).items
        return _json(usage.metrics_list("NodeMetrics", [await self._sampler.node(node) for node in nodes]))

    async def _pod_metrics(self, request: web.Request) -> web.Response:
        namespace, labels = request.match_info.get("namespace"), request.query.get("labelSelector", "")
        pods = self._store.list(Pod, namespace, labels, request.query.get("fieldSelector", "")).items
        self._sampler.forget({pod.metadata.uid for pod in self._store.list(Pod).items})
        return _json(usage.metrics_list("PodMetrics", await self._sampler.pods(pods)))

    async def _one_pod_metrics(self, request: web.Request) -> web.Response:
        pod = self._store.get(Pod, request.match_info["namespace"], request.match_info["name"])
        return _json(usage.require(await self._sampler.pods([pod]), pod))

    # Everything else

    def _general_routes(self) -> list[web.RouteDef]:
        return [
            web.get("/version", self._version),
            *(web.get(path, self._healthz) for path in ("/healthz", "/livez", "/readyz")),
            web.get("/metrics", self._prometheus),
            web.get(f"/apis/{discovery.PODRT_GROUP}/{discovery.PODRT_VERSION}/access", self._how_to_access),
            web.get("/api", self._api),
            web.get("/apis", self._apis),
            *(web.get(f"/{group.path}", _constant(discovery.resource_list(group))) for group in discovery.groups()),
            *(
                web.get(f"/apis/{group.name}", _constant(discovery.api_group(group)))
                for group in discovery.groups()
                if group.name
            ),
            web.get("/openapi/v3", self._openapi_index),
            web.get("/openapi/v3/{path:.+}", self._openapi),
        ]

    async def _version(self, request: web.Request) -> web.Response:
        major, _, minor = KUBERNETES_VERSION.partition(".")
        return _json(
            {
                "major": major,
                "minor": minor,
                "gitVersion": f"v{KUBERNETES_VERSION}.0+podrt-{__version__}",
                "gitCommit": "",
                "gitTreeState": "",
                "buildDate": "1970-01-01T00:00:00Z",
                "goVersion": "",
                "compiler": f"python{sys.version_info.major}.{sys.version_info.minor}",
                "platform": f"linux/{platform.machine()}",
            }
        )

    async def _healthz(self, request: web.Request) -> web.Response:
        if not self.ready and request.path == "/readyz":
            raise UnavailableError("podrtd is starting or stopping")
        if query.flag(request, "verbose"):
            return web.Response(text=f"[+]ping ok\n{request.path[1:]} check passed\n")
        return web.Response(text="ok")

    async def _how_to_access(self, request: web.Request) -> web.Response:
        return _json(self._access.document())

    async def _prometheus(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": self._metrics.content_type})

    async def _api(self, request: web.Request) -> web.Response:
        return _discovery(request, core=True)

    async def _apis(self, request: web.Request) -> web.Response:
        return _discovery(request, core=False)

    async def _openapi_index(self, request: web.Request) -> web.Response:
        return _json(openapi.index())

    async def _openapi(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        versions = {openapi.document_path(resource.api_version): resource.api_version for resource in BY_NAME.values()}
        if path not in versions:
            raise web.HTTPNotFound
        return web.Response(body=openapi.document(versions[path]), content_type="application/json")


def _gone() -> web.Response:
    """For a client that can't be answered any more: aiohttp drops it without a line in the log."""
    return web.Response(status=499, reason="Client Closed Request")


def _discovery(request: web.Request, *, core: bool) -> web.Response:
    version = negotiate.aggregated_version(request)
    if not version:
        return _json(discovery.api_versions() if core else discovery.api_group_list())
    kind = f"application/json;g=apidiscovery.k8s.io;v={version};as={discovery.AGGREGATED}"
    document = discovery.aggregated(version, core=core)
    return web.Response(body=msgspec.json.encode(document), headers={"Content-Type": kind})


def _constant(document: dict[str, Any]) -> Next:
    data = msgspec.json.encode(document)

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(body=data, content_type="application/json")

    return handle


def _json(document: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), content_type="application/json")


def _clear_stale(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises UnavailableError where somebody does, or it is no socket."""
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_socket():
        raise UnavailableError(f"{path} is in the way and is no socket: move it, or set another `socket`")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise UnavailableError(f"{path}: can't tell whether another daemon listens: {error.strerror}") from error
    raise UnavailableError(f"{path}: another daemon is serving here")


def _listen(path: Path, group: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(_PLACE)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(before)
        try:
            gid = grp.getgrnam(group).gr_gid
        except KeyError:
            logger.warning("there is no group %r: only root can use %s (groupadd --system %s)", group, path, group)
        else:
            os.chown(path, -1, gid)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
