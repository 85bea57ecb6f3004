"""``/exec``, ``/attach`` and ``/portforward`` of a Pod: what may be done, then :mod:`podrt.streaming.serve`.

What the Pod's spec can decide is refused with a Status before the upgrade.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

import msgspec
from aiohttp import web

from podrt.api import query
from podrt.api.agent import AgentApi
from podrt.api.containers import find_container
from podrt.api.status import status_of
from podrt.engine.api import Session
from podrt.errors import MalformedError, PodrtError
from podrt.model.pod import Pod
from podrt.streaming import forward, serve
from podrt.streaming.session import Wanted
from podrt.streaming.status import Status

logger = logging.getLogger(__name__)


async def serve_exec(request: web.Request, agent: AgentApi, pod: Pod) -> web.StreamResponse:
    """PodExecOptions: ``command`` (repeated), ``container``, ``stdin``, ``stdout``, ``stderr``, ``tty``."""
    container = find_container(pod, request.query.get("container", "")).name
    argv = request.query.getall("command", [])
    if not argv or not argv[0]:
        raise MalformedError("query parameter command: you must specify at least one command for the container")
    wanted = _wanted(request)
    _refuse_ended(pod)

    def start() -> Awaitable[Session]:
        stdin, stdout, stderr, tty = wanted
        return agent.exec(pod, container, argv, tty=tty, stdin=stdin, stdout=stdout, stderr=stderr and not tty)

    return await serve.serve_remote(request, serve.choose_remote(request), wanted, start, _explain)


async def serve_attach(request: web.Request, agent: AgentApi, pod: Pod) -> web.StreamResponse:
    """PodAttachOptions: as exec, without a command; whether there is a terminal is the container's to say."""
    container = find_container(pod, request.query.get("container", ""))
    wanted = _wanted(request)
    if wanted.tty and not container.tty:
        raise MalformedError(f"container {container.name} of pod {pod.metadata.name} has no terminal: leave out tty")
    if wanted.stdin and not container.stdin:
        raise MalformedError(
            f"container {container.name} of pod {pod.metadata.name} has no stdin: set stdin: true in its spec"
        )
    _refuse_ended(pod)

    def start() -> Awaitable[Session]:
        stdin, stdout, stderr, _ = wanted
        return agent.attach(pod, container.name, stdin=stdin, stdout=stdout, stderr=stderr and not container.tty)

    return await serve.serve_remote(request, serve.choose_remote(request), wanted, start, _explain)


async def serve_port_forward(request: web.Request, agent: AgentApi, pod: Pod) -> web.StreamResponse:
    """PodPortForwardOptions: ``ports``; where the protocol has streams for each connection, those name theirs."""
    choice = serve.choose_forward(request)
    ports = forward.parse_ports(request.query.getall("ports", [])) if serve.names_ports(choice) else []
    _refuse_ended(pod)

    def connect(port: int) -> Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        return agent.port_forward(pod, port)

    return await serve.serve_forward(request, choice, ports, connect)


def _wanted(request: web.Request) -> Wanted:
    wanted = Wanted(*(query.flag(request, name) for name in ("stdin", "stdout", "stderr", "tty")))
    if not (wanted.stdin or wanted.stdout or wanted.stderr):
        raise MalformedError("you must specify at least 1 of stdin, stdout, stderr")
    return wanted


def _refuse_ended(pod: Pod) -> None:
    if pod.status.phase in ("Succeeded", "Failed"):
        raise MalformedError(f"cannot exec into a container in a completed pod; current phase is {pod.status.phase}")


def _explain(error: Exception) -> Status:
    if not isinstance(error, PodrtError):
        logger.error("a stream failed", exc_info=error)
        error = RuntimeError()  # its text stays in the log
    found = status_of(error)
    return Status(False, found.message, msgspec.json.encode(found))
