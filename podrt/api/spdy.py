"""SPDY/3.1 frames, without input or output: bytes in, frames out; what to send as bytes.

Only what Kubernetes' streaming makes of the protocol (with ``moby/spdystream``): streams that the client opens, their
headers, data and ends, resets and pings. No flow control (the peers have none) and no pushed streams.
Source: draft-mbelshe-httpbis-spdy-00.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

MAX_FRAME = 1 << 20
"""Payload of the largest frame that is taken, in bytes. spdystream sends 32 KiB."""
MAX_HEADERS = 64 * 1024

FIN = 1
REFUSED_STREAM = 3

_VERSION = 0x8003
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING = 1, 2, 3, 6

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


class Data(NamedTuple):
    stream: int
    data: bytes
    last: bool


class Reset(NamedTuple):
    stream: int


class Ping(NamedTuple):
    """To be answered with the same number; we send none ourselves."""

    number: int


Frame = Opened | Data | Reset | Ping


class Decoder:
    """The peer's bytes to frames. Those that tell nothing of streams (SETTINGS, WINDOW_UPDATE, GOAWAY) are left out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole with ``data``. Raises ProtocolError."""
        self._buffer += data
        while len(self._buffer) >= 8:
            word, rest = struct.unpack_from(">II", self._buffer)
            flags, size = rest >> 24, rest & 0xFFFFFF
            if size > MAX_FRAME:
                raise ProtocolError(f"a frame of {size} bytes is too large")
            if len(self._buffer) < 8 + size:
                return
            payload = bytes(self._buffer[8 : 8 + size])
            del self._buffer[: 8 + size]
            if not word >> 31:
                yield Data(word, payload, bool(flags & FIN))
            elif word >> 16 != _VERSION:
                raise ProtocolError(f"version {word >> 16 & 0x7FFF} is not 3")
            elif (frame := self._control(word & 0xFFFF, flags, payload)) is not None:
                yield frame

    def _control(self, kind: int, flags: int, payload: bytes) -> Frame | None:
        try:
            if kind == _SYN_STREAM:
                (stream,) = struct.unpack_from(">I", payload)
                return Opened(stream & 0x7FFFFFFF, self._headers(payload[10:]), bool(flags & FIN))
            if kind == _RST_STREAM:
                return Reset(struct.unpack_from(">I", payload)[0] & 0x7FFFFFFF)
            if kind == _PING:
                return Ping(struct.unpack_from(">I", payload)[0])
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


class Encoder:
    """What to send, as bytes. Replies must be sent in the order in which they were made: they share a compressor."""

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


def pong(ping: Ping) -> bytes:
    return _control(_PING, struct.pack(">I", ping.number))


def _control(kind: int, payload: bytes) -> bytes:
    return struct.pack(">HHI", _VERSION, kind, len(payload)) + payload
