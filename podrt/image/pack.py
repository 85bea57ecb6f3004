"""Packs a directory into a layer: a tar archive in which equal trees give equal bytes.

Names are sorted, owners are numbers, times can be clamped (SOURCE_DATE_EPOCH, reproducible-builds.org). Extended
attributes go into ``SCHILY.xattr.*`` headers as GNU tar writes them; overlayfs's own are left out. Sockets are left
out, as in any tar archive. Holes are not looked for: they are packed as the zeros they read as, which compression
takes care of.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from podrt.image.blobs import CHUNK, Progress
from podrt.image.manifest import OCI_LAYER

_LEVEL = 2
"""Of isal: 0 to 3. Level 2 is half again as small as 1 and still near the speed of a disk."""


class PackedLayer(NamedTuple):
    """What :func:`pack` wrote; ``size`` is that of the compressed archive."""

    diff_id: str
    digest: str
    size: int
    media_type: str


def pack(root: Path, out: BinaryIO, *, clamp: int | None = None, progress: Progress | None = None) -> PackedLayer:
    """Write the tree below ``root`` to ``out`` as a gzip-compressed layer.

    ``clamp`` is the latest time, in seconds since 1970, that an entry may have.
    """
    from isal import igzip

    blob = _Hashing(out)
    with igzip.IGzipFile(  # type: ignore[no-untyped-call]
        filename="", fileobj=cast(BinaryIO, blob), mode="wb", compresslevel=_LEVEL, mtime=0
    ) as compressed:
        plain = _Hashing(cast(BinaryIO, compressed))
        writer = _Writer(cast(BinaryIO, plain), clamp, progress)
        for path, name in _walk(root):
            writer.add(path, name)
        writer.close()
    return PackedLayer(plain.digest, blob.digest, blob.length, OCI_LAYER + "+gzip")


class _Hashing:
    """A writer that passes bytes on and hashes them."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._hasher = hashlib.sha256()
        self.length = 0

    def write(self, data: bytes) -> int:
        self._hasher.update(data)
        self.length += len(data)
        self._out.write(data)
        return len(data)

    def tell(self) -> int:
        return self.length

    def flush(self) -> None:
        self._out.flush()

    @property
    def digest(self) -> str:
        return f"sha256:{self._hasher.hexdigest()}"


class _Writer:
    def __init__(self, out: BinaryIO, clamp: int | None, progress: Progress | None) -> None:
        self._tar = tarfile.TarFile(
            fileobj=out,
            mode="w",
            format=tarfile.PAX_FORMAT,
            encoding="utf-8",
            errors="surrogateescape",
            copybufsize=CHUNK,
        )
        self._clamp = clamp
        self._progress = progress
        self._done = 0
        self._seen: dict[tuple[int, int], str] = {}

    def add(self, path: str, name: str) -> None:
        found = os.lstat(path)
        if stat.S_ISSOCK(found.st_mode):
            return
        member = tarfile.TarInfo(name)
        member.mode = stat.S_IMODE(found.st_mode)
        member.uid, member.gid = found.st_uid, found.st_gid
        seconds = found.st_mtime_ns // 10**9
        member.mtime = seconds if self._clamp is None else min(seconds, self._clamp)
        inode = (found.st_dev, found.st_ino)
        if stat.S_ISREG(found.st_mode) and found.st_nlink > 1 and inode in self._seen:
            member.type, member.linkname = tarfile.LNKTYPE, self._seen[inode]
            self._tar.addfile(member)
            return
        self._seen[inode] = name
        self._set_type(member, path, found)
        if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
            member.pax_headers = _xattrs(path)
        if not stat.S_ISREG(found.st_mode):
            self._tar.addfile(member)
            return
        with open(path, "rb", buffering=0) as file:
            self._tar.addfile(member, file)
        self._done += member.size
        if self._progress is not None:
            self._progress("packing", self._done, 0)

    def _set_type(self, member: tarfile.TarInfo, path: str, found: os.stat_result) -> None:
        if stat.S_ISDIR(found.st_mode):
            member.type = tarfile.DIRTYPE
        elif stat.S_ISLNK(found.st_mode):
            member.type, member.linkname = tarfile.SYMTYPE, os.readlink(path)
        elif stat.S_ISFIFO(found.st_mode):
            member.type = tarfile.FIFOTYPE
        elif stat.S_ISREG(found.st_mode):
            member.size = found.st_size
        else:
            member.type = tarfile.CHRTYPE if stat.S_ISCHR(found.st_mode) else tarfile.BLKTYPE
            member.devmajor, member.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)

    def close(self) -> None:
        self._tar.close()


def _walk(root: Path) -> Iterator[tuple[str, str]]:
    """Path and archive name of everything below ``root``, directories before what they hold, in the order of names."""
    pending = [(os.fspath(root), "")]
    while pending:
        directory, prefix = pending.pop()
        below = []
        for name in sorted(os.listdir(directory)):
            path = f"{directory}/{name}"
            yield path, prefix + name
            if stat.S_ISDIR(os.lstat(path).st_mode):
                below.append((path, f"{prefix}{name}/"))
        pending += reversed(below)


def _xattrs(path: str) -> dict[str, str]:
    names = [
        name
        for name in sorted(os.listxattr(path, follow_symlinks=False))
        if not name.startswith(("trusted.", "user.overlay."))
    ]
    return {
        f"SCHILY.xattr.{name}": os.getxattr(path, name, follow_symlinks=False).decode("utf-8", "surrogateescape")
        for name in names
    }
