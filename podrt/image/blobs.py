"""Content-addressed blobs: manifests, configurations and layers as they were given, by digest.

A blob is verified while it is written, synced, and then renamed into place, so that a name in ``blobs/`` is always a
whole and true blob, after a power cut as well. Blobs are never changed; removing one is a single unlink(2). Nothing
here counts references: the service knows what is still needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from podrt import fsutil
from podrt.errors import ImageError, NotFoundError
from podrt.image.reference import check_digest

CHUNK = 1 << 20
"""Bytes moved at once; bounds the memory that a blob of any size needs."""

Progress = Callable[[str, int, int], None]
"""``progress(what, done, total)`` in bytes; ``total`` is 0 where it is not known."""


class Written(NamedTuple):
    """What :meth:`BlobStore.write` stored."""

    digest: str
    size: int


class BlobStore:
    """Blobs below ``root`` as ``<algorithm>/<hex>``; ``staging`` is a private directory on the same file system."""

    def __init__(self, root: Path, staging: Path) -> None:
        self.root = root
        self._staging = staging
        for algorithm in ("sha256", "sha512"):
            (root / algorithm).mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the blob is or would be. Raises InvalidError if ``digest`` is malformed (so no path can be forged)."""
        algorithm, _, value = check_digest(digest, "blob").partition(":")
        return self.root / algorithm / value

    def has(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def size(self, digest: str) -> int:
        """Bytes of the blob; 0 if it is absent."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def open(self, digest: str) -> BinaryIO:
        """Open for reading. Raises NotFoundError."""
        try:
            return self.path(digest).open("rb", buffering=0)
        except FileNotFoundError:
            raise NotFoundError(f"blob {digest} is not in the image store; load the image again") from None

    def read(self, digest: str) -> bytes:
        """The whole blob; for manifests and configurations only. Verified again, as these decide what is run."""
        with self.open(digest) as file:
            data = file.read()
        if hash_bytes(data, digest.partition(":")[0]) != digest:
            raise ImageError(f"blob {digest} was changed on disk; remove the image and load it again")
        return data

    def write(
        self,
        source: BinaryIO,
        digest: str = "",
        size: int = -1,
        *,
        what: str = "blob",
        progress: Progress | None = None,
        limit: int = 0,
    ) -> Written:
        """Store what ``source`` yields and return its digest and size.

        ``digest`` and ``size`` are checked where given (a descriptor of a manifest), ``limit`` is the most bytes
        taken (0: no limit). A blob that is there already is read to its end and verified all the same. Raises
        ImageError on any mismatch.
        """
        algorithm = check_digest(digest, what).partition(":")[0] if digest else "sha256"
        hasher = hashlib.new(algorithm)
        done = 0
        temporary = self._staging / f"blob-{uuid.uuid4().hex}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb", buffering=0) as file:
                while chunk := source.read(CHUNK):
                    done += len(chunk)
                    if (0 <= size < done) or (0 < limit < done):
                        raise ImageError(f"{what}: longer than the {size if size >= 0 else limit} bytes it may have")
                    hasher.update(chunk)
                    write_all(file.fileno(), chunk)
                    if progress is not None:
                        progress(what, done, max(size, 0))
                actual = f"{algorithm}:{hasher.hexdigest()}"
                if size >= 0 and done != size:
                    raise ImageError(
                        f"{what}: has {done} bytes where its descriptor says {size}; the source is incomplete"
                    )
                if digest and actual != digest:
                    raise ImageError(f"{what}: content is {actual}, not {digest}; the source is corrupt")
                os.fsync(fd)
            target = self.path(actual)
            os.rename(temporary, target)
            fsutil.sync_dir(target.parent)
        except BaseException:
            fsutil.unlink_missing_ok(temporary)
            raise
        return Written(actual, done)

    def adopt(self, temporary: Path, digest: str) -> None:
        """Take a file that is known to have ``digest`` and lies in the staging directory."""
        fd = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        target = self.path(digest)
        os.rename(temporary, target)
        fsutil.sync_dir(target.parent)

    def remove(self, digest: str) -> int:
        """Remove the blob if it is there; returns the bytes freed."""
        size = self.size(digest)
        fsutil.unlink_missing_ok(self.path(digest))
        return size

    def digests(self) -> Iterator[str]:
        """All blobs, in no order. Names that are not digests are passed over."""
        for algorithm, length in (("sha256", 64), ("sha512", 128)):
            with contextlib.suppress(FileNotFoundError):
                for entry in os.scandir(self.root / algorithm):
                    if len(entry.name) == length:
                        yield f"{algorithm}:{entry.name}"


def hash_bytes(data: bytes, algorithm: str = "sha256") -> str:
    """Digest of ``data`` as ``<algorithm>:<hex>``."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def write_all(fd: int, data: bytes | memoryview) -> None:
    """write(2) until all of ``data`` is written."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
