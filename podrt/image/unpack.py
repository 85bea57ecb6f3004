"""Unpacks one layer archive into a directory that overlayfs can use as a lower layer.

An archive is hostile until proven otherwise. No name of it is ever resolved by the kernel from the host's root:
parents are opened with openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV) beneath the target, so a
link in the layer leads to where it would lead in the container, and the last component is never followed. The target
is private to this process until it is renamed into place, so nobody can change it meanwhile.

What overlayfs gives a meaning is made here only, never taken over: whiteouts of the image format become 0:0 character
devices and opaque directories ``trusted.overlay.opaque`` (overlayfs.rst of the kernel); such a device or an
``overlay.*`` attribute in an archive would be a forgery. Of devices only those are made that every container has
anyway (null, zero, ...): any other is passed over with a warning, since a layer directory must not become a way to
the host's disks.

Kept: contents (holes stay holes), owners, modes with setuid, times in nanoseconds, hard links, symlinks, FIFOs,
``user.*`` attributes, file capabilities and POSIX ACLs. Image format: OCI image-spec, layer.md.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

from podrt.errors import ImageError
from podrt.image import lower
from podrt.image.compression import Readable, decompress
from podrt.image.entry import mtime, set_xattrs, split_name
from podrt.image.tarstream import TarEntries, TarStream
from podrt.linux import abi, libc
from podrt.linux.removal import remove_tree

_LOG = logging.getLogger(__name__)

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
_AUFS = ".wh..wh."
_HARMLESS = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)}
"""null, zero, full, random, urandom, tty, console, ptmx: Documentation/admin-guide/devices.txt of the kernel."""
_IN_ROOT = abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_MAGICLINKS | abi.RESOLVE_NO_XDEV
_DIR = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_ARCHIVE_FAULTS = {
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EINVAL,
    errno.EXDEV,
    errno.EISDIR,
    errno.EMLINK,
    errno.EILSEQ,
    errno.EFBIG,
}
"""errno values that are the archive's fault."""
_MAX_ID = 2**32 - 2


class Limits(NamedTuple):
    """Bounds of one layer, against archives made to fill a disk."""

    max_bytes: int = 64 << 30
    """Length of the uncompressed archive."""
    max_entries: int = 2_000_000


class Unpacked(NamedTuple):
    """What was found in a layer."""

    diff_id: str
    size: int
    """Bytes of file contents written."""
    entries: int
    tar_size: int
    """Length of the uncompressed archive."""


def unpack(
    source: Readable, target: Path, *, base: bool, limits: Limits | None = None, below: Sequence[Path] = ()
) -> Unpacked:
    """Unpack the (compressed or plain) layer archive ``source`` into the empty directory ``target``.

    ``base`` says that no layer lies below: whiteouts then mean nothing and leave nothing. ``below`` are the unpacked
    layers below, the uppermost first, from which directories without an entry take after. Raises ImageError for
    anything wrong with the archive, OSError for what is not its fault (ENOSPC). On an error ``target`` is left half
    filled for the caller to remove.
    """
    bounds = limits or Limits()
    _, plain = decompress(source)
    with TarStream(plain, bounds.max_bytes) as stream, _Extractor(target, stream, base, below) as extractor:
        entries = TarEntries(stream, bounds.max_entries)
        for member in entries:
            extractor.extract(member)
        extractor.set_times()
        diff_id, length = stream.finish()
    return Unpacked(diff_id, extractor.size, entries.count, length)


class _Extractor(contextlib.AbstractContextManager["_Extractor"]):
    """Puts entries below one directory. ``size`` counts bytes of contents."""

    def __init__(self, target: Path, stream: TarStream, base: bool, below: Sequence[Path]) -> None:
        self._below = below
        self._stream = stream
        self._base = base
        self._root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parent_name: tuple[str, ...] = ()
        self._parent = self._root
        self._times: dict[tuple[str, ...], int] = {}
        self.size = 0

    def __exit__(self, *_: object) -> None:
        self._forget_parent()
        os.close(self._root)

    def extract(self, member: tarfile.TarInfo) -> None:
        """Create one entry. Raises ImageError naming it, and OSError for what is not the archive's fault (ENOSPC)."""
        try:
            self._extract(member)
        except OSError as error:
            if error.errno in _ARCHIVE_FAULTS:
                raise ImageError(f"entry {member.name!r} can't be unpacked: {error.strerror}") from error
            raise

    def _extract(self, member: tarfile.TarInfo) -> None:
        parts = split_name(member.name, "entry")
        if member.uid < 0 or member.gid < 0 or max(member.uid, member.gid) > _MAX_ID:
            raise ImageError(
                f"entry {member.name!r} has the owner {member.uid}:{member.gid}, which is no user and group id"
            )
        if not parts:
            if not member.isdir():
                raise ImageError(f"entry {member.name!r} would replace the root of the layer")
            self._set_directory(os.dup(self._root), member, 0o555)
            self._times[()] = mtime(member)
            return
        if any(part.startswith(WHITEOUT) for part in parts):
            self._whiteout(parts, member)
            return
        parent = self._open_parent(tuple(parts[:-1]))
        name = parts[-1]
        if member.isdir():
            self._directory(parent, name, member)
            self._times[tuple(parts)] = mtime(member)
        elif member.isreg():
            self._file(parent, name, member)
        elif member.issym():
            self._clear(parent, name)
            os.symlink(member.linkname, name, dir_fd=parent)
            self._set_owner_and_time(parent, name, member)
        elif member.islnk():
            self._hard_link(parent, name, member)
        elif member.isfifo() or member.ischr() or member.isblk():
            self._special(parent, name, member)
        else:
            raise ImageError(f"entry {member.name!r} is of type {member.type!r}, which image layers don't have")

    # Where things go

    def _open_parent(self, parts: tuple[str, ...]) -> int:
        """O_PATH descriptor of a directory, made with what is missing above it; valid until the next call."""
        if parts == self._parent_name:
            return self._parent
        self._forget_parent()
        try:
            fd = self._open_directory(parts)
        except FileNotFoundError:
            fd = self._make_parents(parts)
        self._parent_name, self._parent = parts, fd
        return fd

    def _open_directory(self, parts: tuple[str, ...]) -> int:
        return libc.openat2(self._root, "/".join(parts) or ".", _DIR, 0, _IN_ROOT)

    def _make_parents(self, parts: tuple[str, ...]) -> int:
        fd = self._open_directory(())
        for count in range(1, len(parts) + 1):
            try:
                below = self._open_directory(parts[:count])
            except FileNotFoundError:
                # If a dangling link stands here, mkdirat(2) fails and nothing is followed.
                try:
                    os.mkdir(parts[count - 1], 0o755, dir_fd=fd)
                except FileExistsError as error:
                    os.close(fd)
                    raise ImageError(
                        f"entry below {'/'.join(parts)!r}: {parts[count - 1]!r} is a link that leads nowhere"
                    ) from error
                below = self._open_directory(parts[:count])
                self._take_after(parts[:count], parts[count - 1], fd)
            os.close(fd)
            fd = below
        return fd

    def _take_after(self, parts: tuple[str, ...], name: str, parent: int) -> None:
        """Make a new directory that has no entry like the one of the layers below, if there is one."""
        model = lower.open_below(self._below, parts)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            if model is None:
                os.fchmod(fd, 0o755)
            else:
                self._times[parts] = lower.copy_directory(model, fd)
        finally:
            os.close(fd)
            if model is not None:
                os.close(model)

    def _forget_parent(self) -> None:
        if self._parent != self._root:
            os.close(self._parent)
        self._parent_name, self._parent = (), self._root

    def _clear(self, parent: int, name: str) -> bool:
        """Remove what an earlier entry put under ``name``. True if that was a whiteout."""
        try:
            found = os.lstat(name, dir_fd=parent)
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(found.st_mode):
            remove_tree(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
        return _is_whiteout(found)

    # The kinds of entries

    def _directory(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        opaque = False
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
                opaque = self._clear(parent, name)
                os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        if opaque:  # the directory below was removed and this is another one of that name
            os.setxattr(fd, lower.OPAQUE_XATTR, b"y")
        self._set_directory(fd, member, 0)

    def _set_directory(self, fd: int, member: tarfile.TarInfo, at_least: int) -> None:
        """Set what a directory has but its time, and close ``fd``."""
        try:
            os.fchown(fd, member.uid, member.gid)
            os.fchmod(fd, member.mode & 0o7777 | at_least)
            set_xattrs(fd, member)
        finally:
            os.close(fd)

    def _file(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o600, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, name)
            fd = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            if member.sparse is not None:
                self._copy_sparse(fd, member)
            else:
                self._stream.copy(fd, member.size)
                self.size += member.size
            # In this order: chown(2) clears setuid and file capabilities.
            os.fchown(fd, member.uid, member.gid)
            os.fchmod(fd, member.mode & 0o7777)
            set_xattrs(fd, member)
            time = mtime(member)
            os.utime(fd, ns=(time, time))
        finally:
            os.close(fd)

    def _copy_sparse(self, fd: int, member: tarfile.TarInfo) -> None:
        for offset, length in cast(list[tuple[int, int]], member.sparse):
            if offset < 0 or length < 0 or offset + length > member.size:
                raise ImageError(f"entry {member.name!r} has a corrupt sparse map")
            os.lseek(fd, offset, os.SEEK_SET)
            self._stream.copy(fd, length)
            self.size += length
        os.ftruncate(fd, member.size)

    def _hard_link(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        source = split_name(member.linkname, f"hard link {member.name!r} to")
        if not source or any(part.startswith(WHITEOUT) for part in source):
            raise ImageError(
                f"hard link {member.name!r} to {member.linkname!r}: no file of this layer can have that name"
            )
        try:
            source_parent = self._open_directory(tuple(source[:-1]))
        except FileNotFoundError as error:
            raise self._missing_target(member) from error
        try:
            try:
                found = os.lstat(source[-1], dir_fd=source_parent)
            except FileNotFoundError as error:
                raise self._missing_target(member) from error
            if stat.S_ISDIR(found.st_mode) or _is_whiteout(found):
                raise ImageError(f"hard link {member.name!r} to {member.linkname!r}: the target is no file")
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(found, os.lstat(name, dir_fd=parent)):
                    return
            self._clear(parent, name)
            try:
                os.link(source[-1], name, src_dir_fd=source_parent, dst_dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError as error:
                raise self._missing_target(member) from error
        finally:
            os.close(source_parent)

    def _missing_target(self, member: tarfile.TarInfo) -> ImageError:
        return ImageError(f"hard link {member.name!r} to {member.linkname!r}: no such file in this layer")

    def _special(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        device = (member.devmajor, member.devminor)
        kind = stat.S_IFIFO
        number = 0
        if not member.isfifo():
            if member.ischr() and device == (0, 0):
                raise ImageError(
                    f"entry {member.name!r} is a 0:0 device, which overlayfs takes for a whiteout; the image is unsafe"
                )
            if member.isblk() or device not in _HARMLESS:
                _LOG.warning("layer entry %r is device %d:%d and is left out", member.name, *device)
                return
            kind, number = stat.S_IFCHR, os.makedev(*device)
        self._clear(parent, name)
        os.mknod(name, kind | 0o600, number, dir_fd=parent)
        os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        os.chmod(name, member.mode & 0o7777, dir_fd=parent)
        self._set_owner_and_time(parent, name, member, owner=False)

    def _set_owner_and_time(self, parent: int, name: str, member: tarfile.TarInfo, owner: bool = True) -> None:
        if owner:
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        time = mtime(member)
        os.utime(name, ns=(time, time), dir_fd=parent, follow_symlinks=False)

    # Whiteouts

    def _whiteout(self, parts: list[str], member: tarfile.TarInfo) -> None:
        *above, last = parts
        if any(part.startswith(_AUFS) for part in above) or (last.startswith(_AUFS) and last != OPAQUE):
            return  # aufs's own bookkeeping, in images of old
        if any(part.startswith(WHITEOUT) for part in above):
            raise ImageError(f"entry {member.name!r} lies below a whiteout")
        hidden = last[len(WHITEOUT) :]
        if hidden in ("", ".", ".."):
            raise ImageError(f"whiteout {member.name!r} hides no name")
        if self._base:
            return
        parent = self._open_parent(tuple(above))
        if last == OPAQUE:
            self._make_opaque(parent, ".")
            return
        try:
            found = os.lstat(hidden, dir_fd=parent)
        except FileNotFoundError:
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
            return
        # A whiteout is about the layers below. What this layer itself puts there stays, but hides what it stands on.
        if stat.S_ISDIR(found.st_mode):
            self._make_opaque(parent, hidden)

    def _make_opaque(self, parent: int, name: str) -> None:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.setxattr(fd, lower.OPAQUE_XATTR, b"y")
        finally:
            os.close(fd)

    def set_times(self) -> None:
        """Set the times of directories, last of all, as every entry made in one changes it."""
        for parts, time in self._times.items():
            if not parts:
                os.utime(self._root, ns=(time, time))
                continue
            try:
                parent = self._open_directory(parts[:-1])
            except OSError:
                continue  # replaced by a later entry
            try:
                with contextlib.suppress(FileNotFoundError):
                    if stat.S_ISDIR(os.lstat(parts[-1], dir_fd=parent).st_mode):
                        os.utime(parts[-1], ns=(time, time), dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(parent)


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
