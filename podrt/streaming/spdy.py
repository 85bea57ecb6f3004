"""SPDY/3.1 frames, without input or output: bytes in, frames out; what to send as bytes.

Only what Kubernetes' streaming makes of the protocol (with ``moby/spdystream``): streams that the client opens, their
headers, data and ends, resets and pings. No pushed streams. No flow control: that library neither sends nor obeys
WINDOW_UPDATE, so that a window of ours would stand still for ever; TCP alone holds back. Data goes through in the
pieces in which it comes, so that no frame is ever held in memory whole but control frames, which are small.
Source: draft-mbelshe-httpbis-spdy-00.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

MAX_CONTROL = 64 * 1024
"""Payload of the largest control frame that is taken, in bytes."""
MAX_HEADERS = 64 * 1024
"""The largest header block that is taken, in bytes, uncompressed."""
MAX_NUMBER = 0x7FFFFFFF

FIN = 1
PROTOCOL_ERROR, REFUSED_STREAM, CANCEL = 1, 3, 5
"""Statuses of RST_STREAM."""
GOAWAY_OK, GOAWAY_PROTOCOL_ERROR = 0, 1

_VERSION = 0x8003
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY, _HEADERS = 1, 2, 3, 6, 7, 8

_NAMES = (
    "options,head,post,put,delete,trace,accept,accept-charset,accept-encoding,accept-language,accept-ranges,age,"
    "allow,authorization,cache-control,connection,content-base,content-encoding,content-language,content-length,"
    "content-location,content-md5,content-range,content-type,date,etag,expect,expires,from,host,if-match,"
    "if-modified-since,if-none-match,if-range,if-unmodified-since,last-modified,location,max-forwards,pragma,"
    "proxy-authenticate,proxy-authorization,range,referer,retry-after,server,te,trailer,transfer-encoding,"
    "upgrade,user-agent,vary,via,warning,www-authenticate,method,get,status,200 OK,version,HTTP/1.1,url,public,"
    "set-cookie,keep-alive,origin"
)
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(struct.pack(">I", len(name)) + name.encode() for name in _NAMES.split(",")) + _TEXT.encode()
"""The preset dictionary of header blocks (2.6.10.1), known to zlib by its checksum 0xe3c6a7c2."""


class ProtocolError(Exception):
    """The peer broke the protocol: nothing that follows can be understood."""


class Opened(NamedTuple):
    """The peer opened a stream; header names are in lower case."""

    stream: int
    headers: dict[str, str]
    last: bool


class Replied(NamedTuple):
    """The peer accepted a stream."""

    stream: int


class Data(NamedTuple):
    """A frame of data or a piece of one; ``last`` with the last piece of the stream."""

    stream: int
    data: bytes
    last: bool


class Reset(NamedTuple):
    stream: int
    status: int


class Ping(NamedTuple):
    """To be answered with the same number if the peer made it: clients' are odd, servers' even."""

    number: int


class GoAway(NamedTuple):
    """The peer takes no more streams."""

    last: int


Frame = Opened | Replied | Data | Reset | Ping | GoAway


class Decoder:
    """The peer's bytes to frames. Those that mean nothing here (SETTINGS, HEADERS, WINDOW_UPDATE) are left out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._stream = 0
        self._missing = 0
        """Bytes of the data frame that has begun."""
        self._last = False

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames of ``data``. Raises ProtocolError."""
        at = 0
        while at < len(data):
            if self._missing:
                piece = data[at : at + self._missing]
                at += len(piece)
                self._missing -= len(piece)
                yield Data(self._stream, piece, self._last and not self._missing)
                continue
            wanted = 8 if len(self._buffer) < 8 else 8 + self._control_size()
            piece = data[at : at + wanted - len(self._buffer)]
            at += len(piece)
            self._buffer += piece
            if len(self._buffer) >= 8 and (frame := self._whole()) is not None:
                yield frame

    def _control_size(self) -> int:
        return int.from_bytes(self._buffer[5:8], "big")

    def _whole(self) -> Frame | None:
        """What begins with the head in the buffer, as far as it is whole."""
        word, rest = struct.unpack_from(">II", self._buffer)
        flags, size = rest >> 24, rest & 0xFFFFFF
        if not word >> 31:
            if not word:
                raise ProtocolError("there is no stream 0")
            self._buffer.clear()
            self._stream, self._missing, self._last = word, size, bool(flags & FIN)
            return None if size else Data(word, b"", self._last)
        if word >> 16 != _VERSION:
            raise ProtocolError(f"version {word >> 16 & 0x7FFF} is not 3")
        if size > MAX_CONTROL:
            raise ProtocolError(f"a control frame of {size} bytes is too large")
        if len(self._buffer) < 8 + size:
            return None
        payload = bytes(self._buffer[8:])
        self._buffer.clear()
        return self._control(word & 0xFFFF, flags, payload)

    def _control(self, kind: int, flags: int, payload: bytes) -> Frame | None:
        try:
            if kind == _SYN_STREAM:
                return Opened(_number(payload), self._headers(payload[10:]), bool(flags & FIN))
            if kind == _RST_STREAM:
                return Reset(_number(payload), struct.unpack_from(">I", payload, 4)[0])
            if kind == _PING:
                return Ping(struct.unpack_from(">I", payload)[0])
            if kind == _GOAWAY:
                return GoAway(struct.unpack_from(">I", payload)[0] & MAX_NUMBER)
            if kind in (_SYN_REPLY, _HEADERS):
                stream = _number(payload)
                self._headers(payload[4:])  # all blocks share one window: none may be passed over
                return Replied(stream) if kind == _SYN_REPLY else None
        except struct.error:
            raise ProtocolError("a control frame is too short") from None
        return None

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            text = self._inflate.decompress(block, MAX_HEADERS)
        except zlib.error:
            raise ProtocolError("a header block can't be read") from None
        if self._inflate.unconsumed_tail:
            raise ProtocolError("a header block is too large")
        (count,) = struct.unpack_from(">I", text)
        at, words = 4, []
        for _ in range(2 * count):
            (size,) = struct.unpack_from(">I", text, at)
            at += 4 + size
            if at > len(text):
                raise ProtocolError("a header block is too short")
            words.append(text[at - size : at].decode("latin-1"))
        return {name.lower(): value for name, value in zip(words[::2], words[1::2], strict=True)}


def _number(payload: bytes) -> int:
    (number,) = struct.unpack_from(">I", payload)
    if not number & MAX_NUMBER:
        raise ProtocolError("there is no stream 0")
    return int(number & MAX_NUMBER)


class Encoder:
    """Frames with headers. They must be sent in the order in which they were made: they share a compressor."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def reply(self, stream: int) -> bytes:
        """The stream is accepted."""
        return _control(_SYN_REPLY, struct.pack(">I", stream) + self._block({}))

    def open(self, stream: int, headers: Mapping[str, str]) -> bytes:
        """Open a stream; clients' numbers are odd."""
        return _control(_SYN_STREAM, struct.pack(">IIH", stream, 0, 0) + self._block(headers))

    def _block(self, headers: Mapping[str, str]) -> bytes:
        words = [word.encode("latin-1") for pair in headers.items() for word in pair]
        text = struct.pack(">I", len(headers)) + b"".join(struct.pack(">I", len(word)) + word for word in words)
        return self._deflate.compress(text) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def data(stream: int, content: bytes, last: bool = False) -> bytes:
    """Up to 16 MiB of a stream; with ``last`` its end."""
    return struct.pack(">II", stream, (FIN if last else 0) << 24 | len(content)) + content


def reset(stream: int, status: int) -> bytes:
    return _control(_RST_STREAM, struct.pack(">II", stream, status))


def ping(number: int) -> bytes:
    """A ping or the answer to one."""
    return _control(_PING, struct.pack(">I", number))


def go_away(last: int, status: int) -> bytes:
    """``last`` is the peer's last stream that was taken."""
    return _control(_GOAWAY, struct.pack(">II", last, status))


def _control(kind: int, payload: bytes) -> bytes:
    return struct.pack(">HHI", _VERSION, kind, len(payload)) + payload
