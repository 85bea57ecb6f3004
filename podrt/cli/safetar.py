"""Packing and unpacking of the tar streams of ``cp``.

What comes out of a container is hostile: its tar may be anything. Each entry is created below the destination with
openat and O_NOFOLLOW for every directory on the way, so that neither ``..``, nor an absolute name, nor a link in the
archive, nor one that another process plants meanwhile, leads outside (CVE-2018-15664, CVE-2019-11246,
CVE-2019-1002101).
Links that point outside the destination are skipped with a warning, and so are devices and FIFOs.
"""

from __future__ import annotations

import os
import posixpath
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from podrt.cli.errors import CliError

Warn = Callable[[str], None]
_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(stream: IO[bytes], source: str, destination: str, warn: Warn, preserve: bool = True) -> int:
    """Unpack the tar ``stream`` of remote path ``source`` to local ``destination``; the number of entries written.

    Entries are named by the remote path without its leading slash. A directory's contents go into ``destination``, a
    file becomes ``destination``, or goes into it if that is a directory. Raises CliError for a broken archive.
    """
    prefix = posixpath.normpath(source).lstrip("/")
    prefix = "" if prefix == "." else prefix
    count = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            placer: _Placer | None = None
            for member in archive:
                relative = _relative(member.name, prefix)
                if relative is None:
                    warn(f"skipping {member.name!r}: it is not below {source!r}")
                    continue
                if placer is None:
                    placer = _Placer(destination, member.isdir() or relative != "", prefix)
                count += placer.place(archive, member, relative, warn, preserve)
            if placer is not None:
                placer.close()
    except tarfile.TarError as error:
        raise CliError(f"the archive from the container is broken: {error}") from None
    return count


def _relative(name: str, prefix: str) -> str | None:
    """``name`` below ``prefix`` as a clean relative path ("" for the prefix itself); None if it is elsewhere."""
    parts = name.lstrip("/").split("/")
    if ".." in parts or "\0" in name:
        return None
    clean = posixpath.normpath("/".join(parts))
    clean = "" if clean == "." else clean
    if clean == prefix:
        return ""
    head = prefix + "/" if prefix else ""
    return clean[len(head) :] if clean.startswith(head) else None


class _Placer:
    """Writes members below one directory that is held open."""

    def __init__(self, destination: str, into_directory: bool, prefix: str) -> None:
        """``into_directory``: the source is a directory, its members go into ``destination``. ``prefix``: the remote
        path that names are below.
        """
        self._prefix = prefix
        self._written: set[str] = set()
        self._single = ""
        if into_directory:
            os.makedirs(destination, exist_ok=True)
            root = destination
        elif os.path.isdir(destination):
            root, self._single = destination, posixpath.basename(prefix)
        else:
            root, self._single = os.path.dirname(destination) or ".", os.path.basename(destination)
            if not self._single:
                raise CliError(f"{destination}: no such directory")
        # The destination itself is the user's own word: links in it are followed, links below it are not.
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._root)

    def place(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, relative: str, warn: Warn, preserve: bool
    ) -> int:
        if not relative and member.isdir():
            return 0
        path = relative or self._single
        if not path:
            warn(f"skipping {member.name!r}: the archive is of several sources")
            return 0
        folder, name = posixpath.split(path)
        mode = member.mode & 0o777 if preserve else 0o666 | (member.mode & 0o111)
        try:
            with self._folder(folder) as fd:
                return self._write(archive, member, fd, name, path, mode, warn)
        except OSError as error:
            raise CliError(f"can't write {path}: {error.strerror}") from None

    @contextmanager
    def _folder(self, folder: str) -> Iterator[int]:
        fd = os.dup(self._root)
        try:
            for part in folder.split("/") if folder else ():
                with suppress(FileExistsError):
                    os.mkdir(part, 0o777, dir_fd=fd)
                following = os.open(part, _DIR_FLAGS, dir_fd=fd)
                os.close(fd)
                fd = following
            yield fd
        finally:
            os.close(fd)

    def _write(
        self,
        archive: tarfile.TarFile,
        member: tarfile.TarInfo,
        fd: int,
        name: str,
        path: str,
        mode: int,
        warn: Warn,
    ) -> int:
        if member.isdir():
            try:
                os.mkdir(name, mode | 0o700, dir_fd=fd)
            except FileExistsError:
                os.close(os.open(name, _DIR_FLAGS, dir_fd=fd))
            return 1
        if member.issym():
            return self._symlink(member, fd, name, path, warn)
        if member.islnk():
            return self._hard_link(member, fd, name, path, warn)
        if not member.isreg():
            warn(f"skipping {path}: a special file is not copied")
            return 0
        content = archive.extractfile(member)
        assert content is not None
        _remove_other_than_file(name, fd)
        target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=fd)
        with open(target, "wb") as file:
            while chunk := content.read(1 << 20):
                file.write(chunk)
            os.fchmod(target, mode & ~_umask())
        self._written.add(path)
        return 1

    def _hard_link(self, member: tarfile.TarInfo, fd: int, name: str, path: str, warn: Warn) -> int:
        """Link ``name`` to the file that an earlier member became; never to one that was there before."""
        target = _relative(member.linkname, self._prefix)
        if target not in self._written:
            warn(f"skipping {path}: a hard link to {member.linkname!r}, which is not copied")
            return 0
        folder, base = posixpath.split(target)
        with self._folder(folder) as source:
            _remove_other_than_file(name, fd, files_too=True)
            os.link(base, name, src_dir_fd=source, dst_dir_fd=fd, follow_symlinks=False)
        return 1

    def _symlink(self, member: tarfile.TarInfo, fd: int, name: str, path: str, warn: Warn) -> int:
        target = member.linkname
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if target.startswith("/") or inside == ".." or inside.startswith("../"):
            warn(f"skipping {path}: a link to {target!r}, outside of what is copied")
            return 0
        _remove_other_than_file(name, fd, files_too=True)
        os.symlink(target, name, dir_fd=fd)
        return 1


def _remove_other_than_file(name: str, fd: int, files_too: bool = False) -> None:
    """Make room for ``name``: a link there is removed, never written through."""
    try:
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode) or (files_too and stat.S_ISREG(found.st_mode)):
        os.unlink(name, dir_fd=fd)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def pack(stream: IO[bytes], source: str, name: str, preserve: bool = True) -> None:
    """Write local ``source`` (a file, or a directory with all below it) as a tar whose top entry is ``name``.

    Links are packed as links. Sockets are left out (tar knows none).
    """

    def keep(member: tarfile.TarInfo) -> tarfile.TarInfo:
        if not preserve:
            member.uid = member.gid = 0
            member.uname = member.gname = "root"
        return member

    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        archive.add(os.path.realpath(source) if os.path.islink(source) else source, name, filter=keep)
