"""A private directory for what is not finished, which a crash can't make pile up.

Each store makes its own below ``root`` and holds a flock(2) on it. At start, every directory whose lock is free
belonged to a process that is gone and is removed; those of living processes are left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from pathlib import Path

from podrt.linux.removal import remove_tree


class Staging:
    """``path`` is the directory, mode 0700; it goes with :meth:`close` or, after a crash, at the next start."""

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)  # nobody removes a directory between its mkdir and its flock
        try:
            self.alone = _remove_leftovers(root)
            """Whether no other store works below ``root`` as this one starts."""
            self.path = root / uuid.uuid4().hex
            self.path.mkdir(mode=0o700)
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        finally:
            os.close(lock)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            remove_tree(self.path)
        os.close(self._fd)


def _remove_leftovers(root: Path) -> bool:
    """True if nothing is left afterwards."""
    alone = True
    for entry in list(os.scandir(root)):
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)
            continue
        fd = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(entry.path)
        except BlockingIOError:
            alone = False
        finally:
            os.close(fd)
    return alone
