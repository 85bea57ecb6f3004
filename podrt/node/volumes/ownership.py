"""fsGroup: give a volume to a group, as the kubelet does.

Every file gets the group and ``rw`` for it (``r`` where the volume is read-only), every directory also ``x`` and
setgid, so that new files have the group too. Links are never followed, and each entry is held by descriptor while it
is changed: another container may be exchanging files meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from podrt.linux import abi, libc

READ_WRITE = 0o660
READ_ONLY = 0o440
PASS = 0o110
_RESOLVE = abi.RESOLVE_BENEATH | abi.RESOLVE_NO_SYMLINKS


def apply(root: Path, gid: int, *, read_only: bool = False, on_root_mismatch: bool = False) -> None:
    """Hand ``root`` and all below to group ``gid``. ``on_root_mismatch``: only if the root itself is not so already.

    Raises OSError; an entry that vanishes meanwhile is passed over.
    """
    bits = READ_ONLY if read_only else READ_WRITE
    if on_root_mismatch and _fits(root.stat(), gid, bits):
        return
    # The root last: where this is interrupted, OnRootMismatch begins anew.
    _below(root, gid, bits)
    _one(os.open(root, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC), gid, bits)


def _fits(found: os.stat_result, gid: int, bits: int) -> bool:
    wanted = bits | PASS | stat.S_ISGID
    return found.st_gid == gid and found.st_mode & wanted == wanted


def _below(root: Path, gid: int, bits: int) -> None:
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # Not os.fwalk, whose recursion a container can exhaust by nesting directories.
        pending = ["."]
        while pending:
            path = pending.pop()
            try:
                directory = libc.openat2(top, path, os.O_RDONLY | os.O_DIRECTORY, 0, _RESOLVE)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue
                raise
            try:
                pending += [f"{path}/{name}" for name in _entries(directory, gid, bits)]
            finally:
                os.close(directory)
    finally:
        os.close(top)


def _entries(directory: int, gid: int, bits: int) -> list[str]:
    """Change what is in ``directory``; the names of the directories among it."""
    below = []
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                fd = os.open(entry.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            except FileNotFoundError:
                continue
            _one(fd, gid, bits)
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.name)
    return below


def _one(fd: int, gid: int, bits: int) -> None:
    """Change what ``fd`` (O_PATH) is, and close it."""
    try:
        found = os.fstat(fd)
        path = f"/proc/self/fd/{fd}"
        if stat.S_ISLNK(found.st_mode):
            return  # Nobody needs rights on a link.
        if stat.S_ISDIR(found.st_mode):
            bits |= PASS | stat.S_ISGID
        if found.st_gid != gid:
            os.chown(path, -1, gid)
        mode = stat.S_IMODE(found.st_mode)
        if mode & bits != bits or found.st_gid != gid:
            os.chmod(path, mode | bits)
    finally:
        os.close(fd)
