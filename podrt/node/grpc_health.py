"""One call of ``grpc.health.v1.Health/Check``. Messages are those of the protocol's .proto file:
HealthCheckRequest{service=1}, HealthCheckResponse{status=1}.
"""

from __future__ import annotations

from typing import NamedTuple

from podrt.node import grpc_call
from podrt.node.grpc_call import GrpcError as GrpcError
from podrt.node.http_client import authority, connect

SERVING = 1
STATUSES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
NOT_FOUND = 5
UNIMPLEMENTED = 12


class Health(NamedTuple):
    """``status`` of the response, None without one; ``code`` and ``message`` of gRPC."""

    status: int | None
    code: int
    message: str


async def check(host: str, port: int, service: str) -> Health:
    """Ask for the health of ``service``. Raises OSError (no connection), GrpcError."""
    path, request = "/grpc.health.v1.Health/Check", grpc_call.text(1, service)
    answer = await grpc_call.unary(await connect(host, port), authority(host, port), path, request)
    if answer.code:
        return Health(None, answer.code, answer.message)
    # A default value is not sent.
    status = next((value for field, value in grpc_call.parse(answer.body) if field == 1 and isinstance(value, int)), 0)
    return Health(status, 0, answer.message)
