"""``GET /pods/<name>/log``: a container's output as a chunked text stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from podrt.api import query
from podrt.api.agent import AgentApi
from podrt.api.containers import find_container
from podrt.engine.logs import LogOptions
from podrt.errors import Cause, ConflictError, InvalidError, MalformedError
from podrt.model.base import parse_time
from podrt.model.pod import Pod

_FIRST_CHUNK = 0.1
"""Seconds to wait for the first chunk before the headers are sent: errors of the start still get a Status."""


def options(request: web.Request) -> LogOptions:
    """PodLogOptions of the query. Raises InvalidError, MalformedError that name the parameter."""
    since_seconds = query.integer(request, "sinceSeconds", 1)
    since_time: float | None = None
    if text := request.query.get("sinceTime"):
        if since_seconds is not None:
            message = "at most one of `sinceTime` or `sinceSeconds` may be specified"
            raise InvalidError(message, [Cause("sinceTime", message, "FieldValueForbidden")])
        try:
            since_time = parse_time(text).timestamp()
        except ValueError as error:
            raise MalformedError(f"query parameter sinceTime: {error}") from error
    return LogOptions(
        follow=query.flag(request, "follow"),
        previous=query.flag(request, "previous"),
        tail_lines=query.integer(request, "tailLines"),
        since_seconds=since_seconds,
        since_time=since_time,
        timestamps=query.flag(request, "timestamps"),
        limit_bytes=query.integer(request, "limitBytes", 1),
        stream=query.choice(request, "stream", ("All", "Stdout", "Stderr")),
    )


async def serve(request: web.Request, agent: AgentApi, pod: Pod) -> web.StreamResponse:
    wanted = options(request)
    container = find_container(pod, request.query.get("container", "")).name
    try:
        chunks = agent.logs(pod, container, wanted)
        first = asyncio.ensure_future(_next(chunks))
        try:
            await asyncio.wait({first}, timeout=_FIRST_CHUNK)
            if first.done() and first.exception() is not None:
                first.result()
            return await _stream(request, chunks, first)
        finally:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            await _close(chunks)
    except ConflictError as error:
        # "is waiting to start": Kubernetes answers 400, and kubectl logs -f --pod-running-timeout looks for it.
        raise MalformedError(str(error)) from error


async def _stream(
    request: web.Request, chunks: AsyncIterator[bytes], first: asyncio.Future[bytes | None]
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    data = await first
    while data is not None:
        if data:
            await response.write(data)
        data = await _next(chunks)
    await response.write_eof()
    return response


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    return await anext(chunks, None)


async def _close(chunks: AsyncIterator[bytes]) -> None:
    close = getattr(chunks, "aclose", None)
    if close is not None:
        with contextlib.suppress(RuntimeError):
            await close()
