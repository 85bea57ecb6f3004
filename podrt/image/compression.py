"""Decompression of layers and archives, told apart by magic numbers and never by name or media type.

gzip goes through isal and zstd through zstandard; both are imported on first use. Every fault of compressed data comes
out as ImageError, so that callers know one error only.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from typing import BinaryIO, Protocol, cast

from podrt.errors import ImageError

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_MAX_WINDOW = 128 << 20
"""Memory that one zstd frame may ask for: what ``zstd --ultra`` writes needs no more (zstd(1))."""
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x04\x22\x4d\x18": "lz4"}


class Readable(Protocol):
    """The one method that a source of bytes needs here."""

    def read(self, size: int = -1, /) -> bytes: ...


class _Guarded:
    """Turns what a decompressor raises on bad data into ImageError."""

    def __init__(self, inner: Readable, kind: str, errors: tuple[type[Exception], ...]) -> None:
        self._inner = inner
        self._kind = kind
        self._errors = errors

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._inner.read(size)
        except self._errors as error:
            raise ImageError(f"{self._kind} data is corrupt or cut short: {error}") from error


class _Joined(io.RawIOBase):
    """A few bytes that were read to look at them, and then the rest of the source."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1, /) -> bytes:
        if self._head:
            data = self._head if size < 0 else self._head[:size]
            self._head = self._head[len(data) :]
            return data + self._rest.read() if size < 0 else data
        return self._rest.read(size)


def detect(head: bytes) -> str:
    """``gzip``, ``zstd`` or ``plain`` from the first bytes.

    Raises ImageError for a compression that images don't use.
    """
    if head.startswith(_GZIP):
        return "gzip"
    if head.startswith(_ZSTD) or (len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return "zstd"  # the second form is a skippable frame, with which zstd:chunked blobs may begin
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise ImageError(f"data is compressed with {name}; images use gzip, zstd or none: unpack it first")
    return "plain"


def detect_file(file: BinaryIO) -> str:
    """:func:`detect` for a file that is at its beginning and is left there."""
    kind = detect(file.read(6))
    file.seek(0)
    return kind


def decompress(source: Readable) -> tuple[str, Readable]:
    """The kind of compression of ``source`` and a reader of its plain bytes. ``source`` need not be seekable."""
    head = b""
    while len(head) < 6 and (more := source.read(6 - len(head))):
        head += more
    joined = _Joined(head, source)
    kind = detect(head)
    if kind == "plain":
        return kind, joined
    opener: dict[str, Callable[[BinaryIO], Readable]] = {"gzip": _open_gzip, "zstd": _open_zstd}
    return kind, opener[kind](cast(BinaryIO, joined))


def _open_gzip(source: BinaryIO) -> Readable:
    from isal import igzip, isal_zlib

    reader = igzip.IGzipFile(  # type: ignore[no-untyped-call]
        fileobj=source, mode="rb"
    )
    return _Guarded(reader, "gzip", (EOFError, gzip.BadGzipFile, cast(type[Exception], isal_zlib.error)))


def _open_zstd(source: BinaryIO) -> Readable:
    import zstandard

    context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW)
    reader = context.stream_reader(source, read_across_frames=True, closefd=False)
    return _Guarded(cast(Readable, reader), "zstd", (EOFError, zstandard.ZstdError))
