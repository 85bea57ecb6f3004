"""The handlers of probes and hooks: exec, httpGet, tcpSocket, grpc, run from the host against the Pod's address.

An :class:`Outcome` is what the handler found out; an error of the handler itself (no such port name, the container is
gone) is raised as :class:`HandlerError`, and is no verdict on the container.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import shlex
from typing import NamedTuple

from podrt.engine.api import EngineApi
from podrt.errors import DeadlineError, PodrtError
from podrt.model.base import IntOrString
from podrt.model.container import Container as ContainerSpec
from podrt.model.container import ExecAction, GRPCAction, HTTPGetAction, Probe, TCPSocketAction
from podrt.node import grpc_health, http_client
from podrt.node.http_client import Answer, HttpError

OUTPUT_BYTES = 10 * 1024


class Result(enum.Enum):
    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


class Outcome(NamedTuple):
    result: Result
    text: str = ""


class HandlerError(Exception):
    """The handler could not be run: nothing is known about the container."""


class Target(NamedTuple):
    """Whom to ask: a running container and the address of its Pod."""

    engine: EngineApi
    spec: ContainerSpec
    container_id: str
    address: str


SUCCESS = Outcome(Result.SUCCESS)


async def run_probe(probe: Probe, target: Target) -> Outcome:
    """One look at the container, within ``timeoutSeconds``. Raises HandlerError."""
    timeout = float(probe.timeout_seconds or 1)
    if probe.exec is not None:
        return await _exec(probe.exec, target, timeout)
    if probe.http_get is not None:
        return await _http(probe.http_get, target, timeout)
    if probe.tcp_socket is not None:
        return await _tcp(probe.tcp_socket, target, timeout)
    if probe.grpc is not None:
        return await _grpc(probe.grpc, target, timeout)
    raise HandlerError("missing probe handler")


async def _exec(action: ExecAction, target: Target, timeout: float) -> Outcome:
    try:
        found = await target.engine.exec_sync(target.container_id, action.command, timeout, OUTPUT_BYTES)
    except DeadlineError:
        return Outcome(
            Result.FAILURE, f'command timed out: "{shlex.join(action.command)}" timed out after {timeout:g}s'
        )
    except (PodrtError, OSError) as error:
        # Also a command that does not exist: under a kubelet that is no verdict either.
        raise HandlerError(str(error)) from error
    text = (found.stdout + found.stderr)[:OUTPUT_BYTES].decode(errors="replace")
    return Outcome(Result.SUCCESS if found.code == 0 else Result.FAILURE, text)


async def http_get(action: HTTPGetAction, target: Target, timeout: float, scheme: str = "") -> Answer:
    """The request of an httpGet handler. Raises HttpError, HandlerError."""
    return await http_client.get(
        scheme or action.scheme or "HTTP",
        action.host or target.address,
        port_number(action.port, target.spec),
        action.path or "/",
        [(header.name, header.value) for header in action.http_headers],
        timeout,
    )


async def _http(action: HTTPGetAction, target: Target, timeout: float) -> Outcome:
    try:
        answer = await http_get(action, target, timeout)
    except HttpError as error:
        return Outcome(Result.FAILURE, str(error))
    if not 200 <= answer.code < 400:
        return Outcome(Result.FAILURE, f"HTTP probe failed with statuscode: {answer.code}")
    if answer.elsewhere:
        body = answer.body.decode(errors="replace")
        return Outcome(Result.WARNING, f"Probe terminated redirects, Response body: {body}")
    return SUCCESS


async def _tcp(action: TCPSocketAction, target: Target, timeout: float) -> Outcome:
    host, port = action.host or target.address, port_number(action.port, target.spec)
    try:
        async with asyncio.timeout(timeout):
            (await http_client.connect(host, port)).close()
    except TimeoutError:
        return Outcome(Result.FAILURE, f"dial tcp {http_client.authority(host, port)}: i/o timeout")
    except OSError as error:
        return Outcome(Result.FAILURE, http_client.dial_text(host, port, error))
    return SUCCESS


async def _grpc(action: GRPCAction, target: Target, timeout: float) -> Outcome:
    service = action.service or ""
    try:
        async with asyncio.timeout(timeout):
            health = await grpc_health.check(target.address, action.port, service)
    except (TimeoutError, OSError) as error:
        why = "context deadline exceeded" if isinstance(error, TimeoutError) else str(error)
        where = http_client.authority(target.address, action.port)
        return Outcome(Result.FAILURE, f'timeout: failed to connect service "{where}" within {timeout:g}s: {why}')
    except grpc_health.GrpcError as error:
        return Outcome(Result.FAILURE, f"error: health rpc probe failed: {error}")
    if health.code == grpc_health.UNIMPLEMENTED:
        text = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
        return Outcome(Result.FAILURE, f"{text}: {health.message}")
    if health.code == grpc_health.NOT_FOUND:
        return Outcome(Result.FAILURE, f'error: health rpc probe failed: unknown service "{service}"')
    if health.code:
        text = f"error: health rpc probe failed: code = {health.code} desc = {health.message}"
        return Outcome(Result.FAILURE, text)
    if health.status != grpc_health.SERVING:
        word = grpc_health.STATUSES.get(health.status or 0, str(health.status))
        return Outcome(Result.FAILURE, f'service unhealthy (responded with "{word}")')
    return SUCCESS


def port_number(port: IntOrString, spec: ContainerSpec) -> int:
    """A port by number, or by the name of one of the container's ports. Raises HandlerError."""
    if isinstance(port, int):
        return port
    for one in spec.ports:
        if one.name == port:
            return one.container_port
    with contextlib.suppress(ValueError):
        return int(port)
    raise HandlerError(f"couldn't find port {port!r} in container {spec.name}: name it in spec.containers[].ports")
