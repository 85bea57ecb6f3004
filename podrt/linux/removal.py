"""Removing directory trees that a container has made, which may be as nasty as a file system allows.

shutil.rmtree goes down by recursion: a tree of a thousand levels, a second's work for any container, ends it with a
RecursionError, each time it is tried. Here the depth costs nothing: what is a directory in a directory is first moved
up to the top. Nothing is followed and no mount is entered, so a mount that was left in the tree is an error (EXDEV,
EBUSY) and not the end of what is mounted there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator

from podrt.linux import abi, libc

_RESOLVE = abi.RESOLVE_BENEATH | abi.RESOLVE_NO_SYMLINKS | abi.RESOLVE_NO_XDEV
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str | os.PathLike[str], *, dir_fd: int | None = None) -> None:
    """Remove the directory ``path`` and all below; nothing if it is gone.

    ``path`` itself (below ``dir_fd`` if given) is trusted, what is below is not. Nobody may add to it meanwhile. Raises
    OSError: EXDEV or EBUSY where something is mounted below, NotADirectoryError if it is a file or link.
    """
    try:
        root = os.open(path, _FLAGS, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    try:
        _empty(root)
    finally:
        os.close(root)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path, dir_fd=dir_fd)


def _empty(root: int) -> None:
    numbers = itertools.count()
    # What was moved up may be listed or not while the directory is being read: until nothing is found.
    while True:
        found = False
        for name, is_directory in _entries(root):
            found = True
            if is_directory:
                _flatten(root, name, numbers)
            else:
                os.unlink(name, dir_fd=root)
        if not found:
            return


def _flatten(root: int, name: str, numbers: Iterator[int]) -> None:
    """Remove the directory ``name`` of ``root``, moving its directories up into ``root``."""
    fd = libc.openat2(root, name, _FLAGS, 0, _RESOLVE)
    try:
        for entry, is_directory in _entries(fd):
            if is_directory:
                _move_up(fd, entry, root, numbers)
            else:
                os.unlink(entry, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=root)


def _move_up(fd: int, entry: str, root: int, numbers: Iterator[int]) -> None:
    with contextlib.suppress(OSError):
        # Most are empty, or will be: a leaf needs no move.
        os.rmdir(entry, dir_fd=fd)
        return
    while True:
        target = f".removing-{next(numbers)}"
        try:
            os.lstat(target, dir_fd=root)
        except FileNotFoundError:
            os.rename(entry, target, src_dir_fd=fd, dst_dir_fd=root)
            return


def _entries(fd: int) -> Iterator[tuple[str, bool]]:
    """(name, whether it is a directory). Read from the start each time: a descriptor has one position."""
    os.lseek(fd, 0, os.SEEK_SET)
    with os.scandir(fd) as entries:
        for entry in entries:
            yield entry.name, entry.is_dir(follow_symlinks=False)
