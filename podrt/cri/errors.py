"""The one place where podrt's errors become gRPC status codes, and where calls are logged.

What a kubelet looks at: NOT_FOUND (the object is gone, go on), DEADLINE_EXCEEDED (a probe's command took too long) and
UNIMPLEMENTED. The other codes tell people.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from podrt.errors import (
    AlreadyExistsError,
    ConflictError,
    DeadlineError,
    ExhaustedError,
    ForbiddenError,
    InvalidError,
    MalformedError,
    NotFoundError,
    PodrtError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)

log = logging.getLogger(__name__)

_CODES = {
    InvalidError: grpc.StatusCode.INVALID_ARGUMENT,
    MalformedError: grpc.StatusCode.INVALID_ARGUMENT,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    ConflictError: grpc.StatusCode.FAILED_PRECONDITION,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    ForbiddenError: grpc.StatusCode.PERMISSION_DENIED,
    UnsupportedError: grpc.StatusCode.UNIMPLEMENTED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    DeadlineError: grpc.StatusCode.DEADLINE_EXCEEDED,
    ExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_MAX_MESSAGE = 2000
"""Characters of a status message: it travels in a header, and headers are limited."""


def code_of(error: Exception) -> grpc.StatusCode:
    """The status code of an error: by its class, UNKNOWN for system calls and the rest of PodrtError."""
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code
    return grpc.StatusCode.UNKNOWN if isinstance(error, PodrtError | OSError) else grpc.StatusCode.INTERNAL


def message_of(error: Exception) -> str:
    """The text for the client; that of a defect says no more than that it is one."""
    if isinstance(error, PodrtError | OSError):
        text = str(error) or type(error).__name__
        return text if len(text) <= _MAX_MESSAGE else f"{text[: _MAX_MESSAGE - 4]} ..."
    return f"internal error: {type(error).__name__}; the daemon's log says more"


class Edge(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Around every call: its failure becomes a status, and debug logs tell what was called, how long, how it ended."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> grpc.RpcMethodHandler | None:
        handler = await continuation(handler_call_details)
        if handler is not None and handler.unary_stream is not None:
            return _stream(handler)
        if handler is None or handler.unary_unary is None:
            return handler  # an unknown method
        name = handler_call_details.method.rpartition("/")[2]
        method = handler.unary_unary

        async def call(request: Any, context: Any) -> Any:
            begin = time.perf_counter()
            outcome = "ok"
            try:
                return await method(request, context)
            except asyncio.CancelledError:
                outcome = "cancelled"
                raise
            except grpc.aio.AbortError:
                outcome = "aborted"
                raise
            except Exception as error:
                code = code_of(error)
                outcome = f"{code.name}: {error}"
                if code is grpc.StatusCode.INTERNAL:
                    log.exception("%s", name)
                await context.abort(code, message_of(error))
            finally:
                log.debug("%s: %s (%.1f ms)", name, outcome, (time.perf_counter() - begin) * 1000)

        return grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
        )


def _stream(handler: Any) -> grpc.RpcMethodHandler:
    """A method that answers with many messages: its failure becomes a status, too."""

    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for message in handler.unary_stream(request, context):
                yield message
        except PodrtError as error:
            await context.abort(code_of(error), message_of(error))

    return grpc.unary_stream_rpc_method_handler(
        call, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
    )
