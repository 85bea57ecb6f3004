"""Claims of mode Block: a device and no files. A file of the class ``local`` becomes one by a loop device."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from podrt.linux import loop
from podrt.node.volumes.errors import Unavailable

DISK = "disk.img"
"""The file that is the disk, in the volume's directory."""


def make_disk(directory: Path, size: int) -> Path:
    """A file of holes for a new volume."""
    file = directory / DISK
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)
    finally:
        os.close(fd)
    return file


def device(path: Path, own: Path) -> Path:
    """The device of a volume: ``path`` itself, or a loop device of a disk below ``own``. Raises Unavailable, OSError.

    Another file is no device: who writes the object of a volume must not get at any file of the host.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        raise Unavailable(f"{path} does not exist on this host") from None
    if stat.S_ISLNK(mode):
        mode = path.stat().st_mode
    if stat.S_ISBLK(mode):
        return path
    if not (is_disk(path, own) and stat.S_ISREG(mode)):
        raise Unavailable(f"{path} is no block device")
    if not loop.available():
        raise Unavailable("this machine has no loop devices: load the module loop")
    return loop.attach(path)


def is_disk(path: Path, own: Path) -> bool:
    """Whether podrt made the disk."""
    return path.name == DISK and path.parent.parent == own


def release(path: Path, own: Path) -> None:
    """Nobody uses the volume: give its loop device back. Raises OSError."""
    if is_disk(path, own) and loop.available():
        loop.detach(path)
