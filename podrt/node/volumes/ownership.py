"""fsGroup: give a volume to a group, as the kubelet does.

Every file gets the group and ``rw`` for it (``r`` where the volume is read-only), every directory also ``x`` and
setgid, so that new files have the group too. Links are never followed, and each entry is held by descriptor while it
is changed: another container may be exchanging files meanwhile.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

READ_WRITE = 0o660
READ_ONLY = 0o440
PASS = 0o110


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
    for _, directories, files, directory_fd in os.fwalk(root, follow_symlinks=False):
        for name in (*directories, *files):
            try:
                fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
            except FileNotFoundError:
                continue
            _one(fd, gid, bits)


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
