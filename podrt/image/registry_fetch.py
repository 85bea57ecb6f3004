"""Fetches one layer into a file that can be read while it grows.

The bytes are hashed and written as they come. A connection that breaks off is taken up again where it ended (Range); a
server that can't do that is read from the beginning and what is there already is skipped, as the digest decides at the
end anyway. A reader gets what has arrived and waits for more; it sees the end only after size and digest were found
right and the blob lies in the store, so nothing is ever made of bytes that weren't verified.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import re
import threading
import uuid
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, BinaryIO, cast

from podrt import fsutil
from podrt.errors import ImageError, PodrtError
from podrt.image.blobs import CHUNK, BlobStore, Progress, write_all
from podrt.image.manifest import Descriptor
from podrt.image.registry_repository import Repository, first_that_works
from podrt.image.registry_transport import TransientError

_PROGRESS = 64 << 10
"""Bytes that a connection must bring for the count of failures to start anew."""
_MAX_BREAKS = 1000
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Download:
    """One blob on its way. ``await run(...)`` once; ``open`` any number of times, from any thread; ``close`` last."""

    def __init__(self, layer: Descriptor, blobs: BlobStore, staging: Path, executor: Executor) -> None:
        self.layer = layer
        self.what = f"layer {layer.digest[7:19]}"
        self._blobs = blobs
        self._executor = executor
        self._path = staging / f"fetch-{uuid.uuid4().hex}"
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._hasher = hashlib.new(layer.digest.partition(":")[0])
        self._changed = threading.Condition()
        self._written = 0
        self._ended = False
        self._error: BaseException | None = None
        self._pending: asyncio.Future[None] | None = None

    async def run(self, repositories: Sequence[Repository], progress: Progress | None = None) -> None:
        """Fetch, verify and store. Raises ImageError, NotFoundError, UnavailableError, OSError; readers are told."""
        try:
            await first_that_works(repositories, lambda one: self._fetch_from(one, progress))
            self._pending = asyncio.get_running_loop().run_in_executor(self._executor, self._finish)
            await asyncio.shield(self._pending)
        except BaseException as error:
            # A thread can't be cancelled: nobody may close its file or think that nothing is stored any more.
            if self._pending is not None:
                await outlive(self._pending)
            self._end(error)
            raise
        self._end(None)

    def open(self) -> contextlib.AbstractContextManager[BinaryIO]:
        """A reader from the beginning, for a thread that may wait."""
        return contextlib.nullcontext(cast(BinaryIO, _Reader(self)))

    def fail(self, error: BaseException) -> None:
        """It will never be run: tell readers."""
        self._end(error)

    def close(self) -> None:
        """No more readers; the file goes unless it became a blob."""
        os.close(self._fd)
        fsutil.unlink_missing_ok(self._path)

    def read_at(self, position: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``position``; waits for them. Raises what ended the download."""
        with self._changed:
            while position >= self._written and not self._ended:
                self._changed.wait()
            if self._error is not None:
                raise _told_again(self._error) from self._error
            end = self._written
        return os.pread(self._fd, min(size, end - position), position)

    # Inside

    async def _fetch_from(self, repository: Repository, progress: Progress | None) -> None:
        failures = breaks = 0
        while True:
            before = self._written
            try:
                await self._stream(repository, progress)
                return
            except TransientError as error:
                await self._settle()
                failures = 1 if self._written - before >= _PROGRESS else failures + 1
                breaks += 1
                if failures >= repository.server.transport.settings.tries or breaks > _MAX_BREAKS:
                    raise
                await repository.server.transport.back_off(failures, error.wait)

    async def _stream(self, repository: Repository, progress: Progress | None) -> None:
        headers = {"Accept": "*/*"}
        if self._written:
            headers["Range"] = f"bytes={self._written}-"
        async with repository.request("GET", repository.url(f"blobs/{self.layer.digest}"), headers=headers) as response:
            if response.status == 416 and self._written == self.layer.size:
                return
            await repository.server.check(response, self.what, (200, 206))
            skip = self._written
            if response.status == 206:
                found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
                if found is None or int(found[1]) != self._written:
                    raise ImageError(
                        f"{self.what}: {repository.server.where} answers with another range than it was asked"
                    )
                skip = 0
            length = response.content_length
            missing = self.layer.size - self._written + skip
            if length is not None and length != missing:
                raise ImageError(
                    f"{self.what}: {repository.server.where} has {length} bytes where the manifest says {missing};"
                    " the layer is truncated or another one"
                )
            await self._take(response.content.iter_any(), repository, skip, progress)

    async def _take(
        self, chunks: AsyncIterator[bytes], repository: Repository, skip: int, progress: Progress | None
    ) -> None:
        piece = bytearray()
        got = self._written
        try:
            with repository.server.errors():
                async for chunk in chunks:
                    if skip:
                        rest = chunk[skip:]
                        skip -= len(chunk) - len(rest)
                        chunk = rest
                    piece += chunk
                    got += len(chunk)
                    if got > self.layer.size:
                        raise ImageError(f"{self.what}: longer than the {self.layer.size} bytes it may have")
                    if len(piece) >= CHUNK:
                        await self._write(piece)
                        piece = bytearray()
                        if progress is not None:
                            progress(self.what, got, self.layer.size)
        finally:
            await self._write(piece)  # before a break, too: the next connection goes on behind it
        await self._settle()
        if self._written < self.layer.size:
            raise ImageError(
                f"{self.what}: has {self._written} bytes where the manifest says {self.layer.size}; it is truncated"
            )
        if progress is not None:
            progress(self.what, self._written, self.layer.size)

    async def _write(self, piece: bytearray) -> None:
        """Hand a piece to a writing thread; at most one is on its way, so that reading and writing overlap."""
        await self._settle()
        if piece:
            self._pending = asyncio.get_running_loop().run_in_executor(self._executor, self._append, piece)

    async def _settle(self) -> None:
        if self._pending is not None:
            await asyncio.shield(self._pending)
            self._pending = None

    def _append(self, piece: bytearray) -> None:
        self._hasher.update(piece)
        write_all(self._fd, memoryview(piece))
        with self._changed:
            self._written += len(piece)
            self._changed.notify_all()

    def _finish(self) -> None:
        actual = f"{self._hasher.name}:{self._hasher.hexdigest()}"
        if actual != self.layer.digest:
            raise ImageError(
                f"{self.what}: content is {actual}, not {self.layer.digest}; the registry's copy is corrupt"
            )
        self._blobs.adopt(self._path, self.layer.digest)

    def _end(self, error: BaseException | None) -> None:
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
                self._changed.notify_all()


class _Reader(io.RawIOBase):
    def __init__(self, download: Download) -> None:
        self._download = download
        self._position = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._download.read_at(self._position, CHUNK if size < 0 else size)
        self._position += len(data)
        return data


async def outlive(future: asyncio.Future[Any]) -> None:
    """Wait for work in a thread, whatever becomes of it and of this task."""
    cancelled = False
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            cancelled = True
    if not future.cancelled():
        future.exception()
    if cancelled:
        raise asyncio.CancelledError


def _told_again(error: BaseException) -> Exception:
    """An exception of the reader's own for what ended the download in another thread."""
    if isinstance(error, PodrtError) and not isinstance(error, TransientError):
        return type(error)(str(error))
    if isinstance(error, OSError):
        return OSError(error.errno, error.strerror, error.filename)
    return TransientError(str(error) or "the download was ended")
