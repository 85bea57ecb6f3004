"""Paths inside a root that is not trusted: the only way this package looks one up.

Every look-up is an openat2(2) with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS below a descriptor of the root: links,
``..`` and absolute names can't lead out, and what was found is held by descriptor, so a link that is exchanged
afterwards changes nothing (CVE-2021-30465, CVE-2024-45310, CVE-2018-15664). Missing components are made one at a time,
relative to the descriptor of their parent.
"""

from __future__ import annotations

import errno
import os
import stat

from podrt.linux import abi, libc

IN_ROOT = abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_MAGICLINKS
_MAX_LINKS = 40


def open_in_root(root_fd: int, path: str, flags: int = os.O_PATH, mode: int = 0) -> int:
    """Open ``path`` as if ``root_fd`` were /. Magic links of procfs are refused (ELOOP)."""
    return libc.openat2(root_fd, path, flags, mode, IN_ROOT)


def make_directory(root_fd: int, path: str, mode: int = 0o755, depth: int = 0) -> int:
    """``mkdir -p`` inside the root; returns an O_PATH descriptor of the directory.

    A link that points nowhere is followed and what it names is made, always inside the root. Raises OSError:
    ENOTDIR where a component is a file, ELOOP after 40 links.
    """
    try:
        return open_in_root(root_fd, path, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        pass
    if path.endswith("/.."):
        # As a link's target may end. Its parent is made, and then the kernel knows what is above it.
        os.close(make_directory(root_fd, path[:-3] or "/", mode, depth))
        return open_in_root(root_fd, path, os.O_PATH | os.O_DIRECTORY)
    parent, name = split(path)
    parent_fd = make_directory(root_fd, parent, mode, depth)
    try:
        try:
            os.mkdir(name, mode, dir_fd=parent_fd)
        except FileExistsError:
            # A link to nowhere, or made since it was looked for.
            if stat.S_ISLNK(os.lstat(name, dir_fd=parent_fd).st_mode):
                return make_directory(root_fd, _follow(parent_fd, parent, name, depth), mode, depth + 1)
        return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    finally:
        os.close(parent_fd)


def make_file(root_fd: int, path: str, mode: int = 0o644, content: str = "", depth: int = 0) -> int:
    """An O_PATH descriptor of the file at ``path``, made with ``content`` (parents too) if it is missing.

    Raises IsADirectoryError if it is a directory.
    """
    try:
        fd = open_in_root(root_fd, path)
    except FileNotFoundError:
        pass
    else:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            raise IsADirectoryError(errno.EISDIR, "is a directory, a file is needed", path)
        return fd
    parent, name = split(path)
    parent_fd = make_directory(root_fd, parent)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            new_fd = os.open(name, flags, mode, dir_fd=parent_fd)
        except FileExistsError:
            return make_file(root_fd, _follow(parent_fd, parent, name, depth), mode, content, depth + 1)
        try:
            if content:
                os.write(new_fd, content.encode())
        finally:
            os.close(new_fd)
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    finally:
        os.close(parent_fd)


def split(path: str) -> tuple[str, str]:
    """Parent and last component. Raises OSError EINVAL if that is empty, ``.`` or ``..``."""
    parent, _, name = path.rstrip("/").rpartition("/")
    if not name or name in (".", ".."):
        raise OSError(errno.EINVAL, "not a path that can be made", path)
    return parent or "/", name


def _follow(parent_fd: int, parent: str, name: str, depth: int) -> str:
    if depth >= _MAX_LINKS:
        raise OSError(errno.ELOOP, "too many links", f"{parent}/{name}")
    target = os.readlink(name, dir_fd=parent_fd)
    return target if target.startswith("/") else f"{parent}/{target}"
