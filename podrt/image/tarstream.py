"""A forward-only stream of tar data for :class:`tarfile.TarFile`, which hashes what passes and bounds what is
believed.

tarfile reads headers through :meth:`TarStream.read`; file contents go by :meth:`TarStream.copy` straight from the
buffer to a descriptor. The whole stream is hashed in large pieces, whatever tarfile asks for, as the diff id covers
every byte, the padding too. A thread of its own reads, decompresses and hashes a few pieces ahead: that work releases
the GIL and so overlaps with the writing.
"""

from __future__ import annotations

import hashlib
import queue
import tarfile
import threading
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

from podrt.errors import ImageError
from podrt.image.blobs import CHUNK, write_all
from podrt.image.compression import Readable

_MAX_HEADER = 4 << 20
"""Most bytes of one extended header.

tarfile reads it into memory; a real one holds names and xattrs of at most 64 KiB each.
"""
_AHEAD = 4
"""Pieces of CHUNK bytes that may wait between the two threads."""


class TarStream:
    """Bytes of ``source``, read once, from front to back; a context manager that ends its thread.

    ``limit`` is the most bytes taken from ``source`` before ImageError.
    """

    def __init__(self, source: Readable, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._hasher = hashlib.sha256()
        self._pieces: queue.Queue[bytes | BaseException] = queue.Queue(_AHEAD)
        self._stopping = False
        self._buffer = memoryview(b"")
        self._start = 0
        self._offset = 0
        self._ended = False
        self.header = b""
        """What tarfile read last: after the end of the archive, its end mark or whatever stands in its place."""
        self._thread = threading.Thread(target=self._read_ahead, name="podrt-unpack", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        while self._thread.is_alive():
            try:
                self._pieces.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def _read_ahead(self) -> None:
        taken = 0
        try:
            while not self._stopping:
                piece = self._source.read(CHUNK)
                taken += len(piece)
                if taken > self._limit:
                    raise ImageError(
                        f"layer unpacks to more than the {self._limit} bytes allowed; it may be a decompression bomb"
                    )
                self._hasher.update(piece)
                self._pieces.put(piece)
                if not piece:
                    return
        except BaseException as error:  # handed over and raised in the reading thread
            self._pieces.put(error)

    def _fill(self) -> bool:
        """Make the next piece current; False at the end."""
        if self._ended:
            return False
        piece = self._pieces.get()
        if isinstance(piece, BaseException):
            self._ended = True
            raise piece
        self._start += len(self._buffer)
        self._buffer = memoryview(piece)
        self._offset = 0
        self._ended = not piece
        return not self._ended

    def tell(self) -> int:
        return self._start + self._offset

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes (fewer at the end only), for tarfile's headers."""
        if not 0 <= size <= _MAX_HEADER:
            raise ImageError(f"a header in the archive says it has {size} bytes; at most {_MAX_HEADER} are believed")
        data = bytes(self._buffer[self._offset : self._offset + size])
        self._offset += len(data)
        while len(data) < size and self._fill():
            part = bytes(self._buffer[: size - len(data)])
            self._offset = len(part)
            data += part
        self.header = data
        return data

    def seek(self, position: int) -> None:
        """Forward only: a header that points back would be read for ever."""
        if position < self.tell():
            raise ImageError("a header in the archive points backwards; it is corrupt")
        while position > self._start + len(self._buffer):
            self._offset = len(self._buffer)
            if not self._fill():
                return
        self._offset = position - self._start

    def copy(self, fd: int, size: int) -> None:
        """Write the next ``size`` bytes to ``fd``. Raises ImageError if the archive ends before."""
        while size:
            if self._offset == len(self._buffer) and not self._fill():
                raise ImageError("archive is cut short in the middle of a file")
            part = self._buffer[self._offset : self._offset + size]
            write_all(fd, part)
            self._offset += len(part)
            size -= len(part)

    def finish(self) -> tuple[str, int]:
        """Read on to the end; returns the digest and the length of everything that passed."""
        while True:
            self._offset = len(self._buffer)
            if not self._fill():
                return f"sha256:{self._hasher.hexdigest()}", self._start


class TarEntries:
    """The entries of a tar archive in order, holding one at a time.

    Iterate; each is to be consumed before the next. Raises ImageError on a damaged archive, also where tarfile would
    take a damaged header for the end.
    """

    def __init__(self, stream: TarStream, limit: int) -> None:
        self._stream = stream
        self._limit = limit

    def __iter__(self) -> TarEntries:
        try:
            self._tar = tarfile.TarFile(
                fileobj=cast(BinaryIO, self._stream), mode="r", encoding="utf-8", errors="surrogateescape"
            )
        except tarfile.ReadError as error:
            raise ImageError(f"not a tar archive: {error}") from error
        except (ValueError, OverflowError, IndexError, RecursionError) as error:
            raise ImageError(f"tar header is corrupt: {error}") from error
        self.count = 0
        return self

    def __next__(self) -> tarfile.TarInfo:
        try:
            member = self._tar.next()
        except tarfile.TarError as error:
            raise ImageError(f"tar archive is corrupt: {error}") from error
        except (ValueError, OverflowError, IndexError, RecursionError) as error:
            raise ImageError(f"tar header is corrupt: {error}") from error
        cast(Any, self._tar).members.clear()  # tarfile keeps every entry for random access
        if member is None:
            if self._stream.header.strip(b"\0"):
                raise ImageError("tar archive is corrupt: a header is damaged or cut short")
            raise StopIteration
        if member.size < 0:
            raise ImageError(f"entry {member.name!r} says it has {member.size} bytes; the archive is corrupt")
        self.count += 1
        if self.count > self._limit:
            raise ImageError(f"archive has more than the {self._limit} entries allowed")
        return member
