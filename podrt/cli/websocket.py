"""The client's side of RFC 6455 over a connected stream: handshake, masking, fragments, ping, close.

Made for loops over poll(2): :meth:`WebSocket.queue` never blocks, :meth:`flush` sends what the socket takes and
:meth:`receive` reads once. A client that blocked in send while the server blocks in send would hang both
(``exec -i cat``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from podrt.cli.errors import CliError, from_response

if TYPE_CHECKING:
    from podrt.cli.client import Client, Stream

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
MAX_MESSAGE = 64 * 1024 * 1024


class ProtocolError(CliError):
    """The peer broke RFC 6455 or went away without a close frame."""


def mask(data: bytes, key: bytes) -> bytes:
    """XOR with the repeated 4-byte ``key`` (RFC 6455, 5.3); it is its own inverse."""
    size = len(data)
    if not size:
        return b""
    keys = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(size, "little")


def frame(opcode: int, payload: bytes, key: bytes | None, fin: bool = True) -> bytes:
    """One frame; masked where there is a ``key``."""
    head = bytearray([(0x80 if fin else 0) | opcode])
    bit = 0x80 if key is not None else 0
    size = len(payload)
    if size < 126:
        head.append(bit | size)
    elif size < 1 << 16:
        head.append(bit | 126)
        head += size.to_bytes(2, "big")
    else:
        head.append(bit | 127)
        head += size.to_bytes(8, "big")
    if key is not None:
        head += key
        payload = mask(payload, key)
    return bytes(head) + payload


def parse_frame(buffer: bytearray) -> tuple[bool, int, bytes] | None:
    """Take one whole frame (fin, opcode, payload, unmasked) off the front of ``buffer``; None if it isn't all there."""
    if len(buffer) < 2:
        return None
    fin, opcode, masked, size = bool(buffer[0] & 0x80), buffer[0] & 0x0F, bool(buffer[1] & 0x80), buffer[1] & 0x7F
    if buffer[0] & 0x70:
        raise ProtocolError("websocket: reserved bits are set")
    at = 2
    if size >= 126:
        width = 2 if size == 126 else 8
        if len(buffer) < at + width:
            return None
        size = int.from_bytes(buffer[at : at + width], "big")
        at += width
    if size > MAX_MESSAGE:
        raise ProtocolError(f"websocket: a frame of {size} bytes is too large")
    key = b""
    if masked:
        key = bytes(buffer[at : at + 4])
        at += 4
    if len(buffer) < at + size:
        return None
    payload = bytes(buffer[at : at + size])
    del buffer[: at + size]
    return fin, opcode, mask(payload, key) if masked else payload


class WebSocket:
    """An open websocket."""

    def __init__(self, stream: Stream, protocol: str) -> None:
        self.stream = stream
        self.protocol = protocol
        self.out = bytearray()
        self.closed = False
        self._close_sent = False
        self._parts: list[bytes] = []
        self._size = 0
        stream.sock.setblocking(False)

    def fileno(self) -> int:
        return self.stream.sock.fileno()

    def queue(self, payload: bytes) -> None:
        """Put a binary message into the outgoing buffer."""
        if not self._close_sent:
            self.out += frame(_BINARY, payload, os.urandom(4))

    def queue_close(self, code: int = 1000) -> None:
        if not self._close_sent:
            self.out += frame(_CLOSE, code.to_bytes(2, "big"), os.urandom(4))
            self._close_sent = True

    def flush(self) -> None:
        """Send as much of the outgoing buffer as the socket takes; dropped if the peer is gone (reading tells)."""
        while self.out:
            try:
                sent = self.stream.sock.send(self.out)
            except BlockingIOError:
                return
            except OSError:
                # The peer reads no more; what it has sent before, a final Status perhaps, is still to be read.
                self.out.clear()
                self._close_sent = True
                return
            del self.out[:sent]

    def receive(self) -> list[bytes]:
        """Read once without blocking; the messages that are whole by now. Sets ``closed`` at the end."""
        try:
            self.stream.fill()
        except BlockingIOError:
            pass
        except OSError as error:
            raise ProtocolError(f"lost the connection to the daemon: {error.strerror}") from None
        messages: list[bytes] = []
        while not self.closed and (parsed := parse_frame(self.stream.buffer)) is not None:
            message = self._accept(*parsed)
            if message is not None:
                messages.append(message)
        self.closed = self.closed or self.stream.eof
        return messages

    def _accept(self, fin: bool, opcode: int, payload: bytes) -> bytes | None:
        if opcode >= _CLOSE:
            if not fin or len(payload) > 125:
                raise ProtocolError("websocket: a control frame must be short and whole")
            if opcode == _PING:
                if not self._close_sent:
                    self.out += frame(_PONG, payload, os.urandom(4))
            elif opcode == _CLOSE:
                self.queue_close()
                self.closed = True
            elif opcode != _PONG:
                raise ProtocolError(f"websocket: unknown opcode {opcode}")
            return None
        if opcode > _BINARY or (opcode == _CONTINUATION) != bool(self._parts):
            raise ProtocolError("websocket: a fragment is out of order")
        self._size += len(payload)
        if self._size > MAX_MESSAGE:
            raise ProtocolError("websocket: a message is too large")
        # A first empty fragment must still mark that a message is under way.
        self._parts.append(payload)
        if not fin:
            return None
        message = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return message

    def close(self) -> None:
        """Say goodbye if the socket takes it at once, and close."""
        self.queue_close()
        self.flush()
        self.stream.close()


def connect(client: Client, target: str, protocols: Sequence[str]) -> WebSocket:
    """Open ``target`` as a websocket. Raises ApiError if it is refused, ProtocolError if the answer is no websocket."""
    from base64 import b64encode
    from hashlib import sha1

    from podrt.cli.client import Response

    key = b64encode(os.urandom(16))
    stream = client.connect()
    try:
        lines = [
            f"GET {target} HTTP/1.1",
            "Host: podrt",
            "User-Agent: podrt",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key.decode()}",
            f"Sec-WebSocket-Protocol: {', '.join(protocols)}",
        ]
        stream.send("\r\n".join([*lines, "", ""]).encode("latin-1", "replace"))
        response = Response(stream, "GET")
        if response.code != 101:
            body = response.read()
            if response.code >= 400:
                raise from_response(response.code, body)
            raise ProtocolError(f"the daemon did not open a websocket: HTTP status {response.code}")
        expected = b64encode(sha1(key + _GUID, usedforsecurity=False).digest()).decode()
        if response.headers.get("sec-websocket-accept") != expected:
            raise ProtocolError("the daemon did not open a websocket: wrong Sec-WebSocket-Accept")
        protocol = response.headers.get("sec-websocket-protocol", "")
        if protocol not in protocols:
            raise ProtocolError(f"the daemon chose subprotocol {protocol!r}, which was not offered")
    except OSError as error:
        stream.close()
        raise ProtocolError(f"lost the connection to the daemon: {error.strerror or error}") from None
    except BaseException:
        stream.close()
        raise
    return WebSocket(stream, protocol)
