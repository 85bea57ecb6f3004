"""One unary call of gRPC over plaintext HTTP/2, for health probes and CSI drivers.

It is made with h2 (the HTTP/2 state machine, 1.2 MB on disk, 2 MiB of memory, imported when the first call is made):
grpcio would cost 19 MB and its own threads for requests of some bytes. What the messages mean is the callers' matter.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any, NamedTuple
from urllib.parse import unquote

_CHUNK = 16 * 1024
_MAX_BYTES = 1024 * 1024
_CODE_DIGITS = 10
"""Of a status code, which is 32 bits."""


class Answer(NamedTuple):
    """``code`` (0: good) and ``message`` of gRPC, and the response's bytes ("" unless it is good)."""

    code: int
    message: str
    body: bytes


class GrpcError(Exception):
    """There was no answer in gRPC."""


async def unary(connected: socket.socket, authority: str, path: str, request: bytes) -> Answer:
    """Call ``path`` (``/package.Service/Method``) over a connected socket, which is closed.

    Raises OSError, GrpcError.
    """
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.exceptions import ProtocolError

    logging.getLogger("hpack").setLevel(logging.INFO)  # it writes a line for each header at DEBUG
    reader, writer = await asyncio.open_connection(sock=connected)
    try:
        connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        connection.initiate_connection()
        stream = connection.get_next_available_stream_id()
        connection.send_headers(stream, _headers(authority, path))
        # Not compressed, so long.
        connection.send_data(stream, b"\0" + len(request).to_bytes(4) + request, end_stream=True)
        writer.write(connection.data_to_send())
        return await _receive(connection, reader, writer)
    except (ProtocolError, UnicodeDecodeError) as error:
        raise GrpcError(f"the server does not speak HTTP/2: {error}") from error
    finally:
        writer.transport.abort()


def _headers(authority: str, path: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", authority),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "kube-probe/1.36"),
    ]


async def _receive(connection: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Answer:
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
                return _answer(bytes(data), fields)
            elif isinstance(event, events.StreamReset | events.ConnectionTerminated):
                raise GrpcError(f"the server ended the call: error {int(event.error_code or 0)}")
        writer.write(connection.data_to_send())
    raise GrpcError("the answer is too long")


def _answer(data: bytes, fields: dict[str, str]) -> Answer:
    if fields.get(":status") != "200":
        raise GrpcError(f"unexpected HTTP status code received from server: {fields.get(':status')}")
    code = fields.get("grpc-status", "")
    if not (code.isascii() and code.isdigit() and len(code) <= _CODE_DIGITS):
        raise GrpcError("the answer has no grpc-status")
    return Answer(int(code), unquote(fields.get("grpc-message", "")), data[5:] if code == "0" else b"")


# The wire of protobuf: what these few messages need of it.


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def number(field: int, value: int) -> bytes:
    """A number or flag; zero is not sent."""
    return varint(field << 3) + varint(value) if value else b""


def block(field: int, value: bytes) -> bytes:
    """A message, empty or not."""
    return varint(field << 3 | 2) + varint(len(value)) + value


def text(field: int, value: str) -> bytes:
    """A text; an empty one is not sent."""
    return block(field, value.encode()) if value else b""


def mapping(field: int, value: dict[str, str]) -> bytes:
    """A map of texts."""
    return b"".join(block(field, text(1, key) + text(2, one)) for key, one in value.items())


def parse(data: bytes) -> list[tuple[int, int | bytes]]:
    """(field, value) of a message; fields of fixed length are passed over. Raises GrpcError."""
    found: list[tuple[int, int | bytes]] = []
    position = 0
    try:
        while position < len(data):
            key, position = _read(data, position)
            kind = key & 7
            if kind in (1, 5):
                position += 8 if kind == 1 else 4
                continue
            value, position = _read(data, position)
            if kind == 0:
                found.append((key >> 3, value))
            elif kind == 2 and position + value <= len(data):
                found.append((key >> 3, data[position : position + value]))
                position += value
            else:
                raise GrpcError("the answer is no protobuf")
    except IndexError:
        raise GrpcError("the answer is cut short") from None
    return found


def _read(data: bytes, position: int) -> tuple[int, int]:
    """(number, where the next field begins). Of 64 bits: one without an end would keep the event loop for minutes."""
    value = shift = 0
    while shift < 64:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return value, position
    raise GrpcError("the answer is no protobuf")
