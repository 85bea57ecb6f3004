"""One call of ``grpc.health.v1.Health/Check`` over plaintext HTTP/2.

It is made with h2 (the HTTP/2 state machine, 1.2 MB on disk, 2 MiB of memory, imported when the first grpc probe runs):
grpcio would cost 19 MB and its own threads for a request of 7 bytes. Messages are those of the protocol's .proto file:
HealthCheckRequest{service=1}, HealthCheckResponse{status=1}.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, NamedTuple

from podrt.node.http_client import authority, connect

SERVING = 1
STATUSES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
NOT_FOUND = 5
UNIMPLEMENTED = 12
_CHUNK = 16 * 1024
_MAX_BYTES = 64 * 1024


class Health(NamedTuple):
    """``status`` of the response, None without one; ``code`` and ``message`` of gRPC."""

    status: int | None
    code: int
    message: str


class GrpcError(Exception):
    """There was no answer in gRPC."""


async def check(host: str, port: int, service: str) -> Health:
    """Ask for the health of ``service``. Raises OSError (no connection), GrpcError."""
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.exceptions import ProtocolError

    logging.getLogger("hpack").setLevel(logging.INFO)  # it writes a line for each header at DEBUG
    reader, writer = await asyncio.open_connection(sock=await connect(host, port))
    try:
        connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        connection.initiate_connection()
        stream = connection.get_next_available_stream_id()
        connection.send_headers(stream, _headers(authority(host, port)))
        connection.send_data(stream, _message(service), end_stream=True)
        writer.write(connection.data_to_send())
        return await _receive(connection, reader, writer)
    except ProtocolError as error:
        raise GrpcError(f"the server does not speak HTTP/2: {error}") from error
    finally:
        writer.transport.abort()


def _headers(where: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", where),
        (":path", "/grpc.health.v1.Health/Check"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "kube-probe/1.36"),
    ]


def _message(service: str) -> bytes:
    """A HealthCheckRequest behind the five bytes that say: not compressed, so long."""
    name = service.encode()
    body = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\0" + len(body).to_bytes(4) + body


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


async def _receive(connection: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Health:
    from h2 import events

    data = bytearray()
    fields: dict[str, str] = {}
    while len(data) < _MAX_BYTES:
        chunk = await reader.read(_CHUNK)
        if not chunk:
            raise GrpcError("the server closed the connection without an answer")
        for event in connection.receive_data(chunk):
            if isinstance(event, events.ResponseReceived | events.TrailersReceived):
                fields |= {str(name): str(value) for name, value in event.headers}
            elif isinstance(event, events.DataReceived):
                data += event.data
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, events.StreamEnded):
                return _health(bytes(data), fields)
            elif isinstance(event, events.StreamReset | events.ConnectionTerminated):
                raise GrpcError(f"the server ended the call: error {int(event.error_code or 0)}")
        writer.write(connection.data_to_send())
    raise GrpcError("the answer is too long")


def _health(data: bytes, fields: dict[str, str]) -> Health:
    if fields.get(":status") != "200":
        raise GrpcError(f"unexpected HTTP status code received from server: {fields.get(':status')}")
    code = fields.get("grpc-status", "")
    if not code.isdigit():
        raise GrpcError("the answer has no grpc-status")
    status = _status(data[5:]) if int(code) == 0 and len(data) >= 5 else None
    return Health(status, int(code), fields.get("grpc-message", ""))


def _status(body: bytes) -> int:
    """Field 1 of a HealthCheckResponse; a default value is not sent."""
    return body[1] if len(body) >= 2 and body[0] == 0x08 else 0
