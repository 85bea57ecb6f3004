"""A private directory for what is not finished, which a crash can't make pile up.

Each store makes its own below ``root`` and holds a flock(2) on it. At start, every directory whose lock is free
belonged to a process that is gone and is removed; those of living processes are left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import uuid
from pathlib import Path

from podrt.linux.removal import remove_tree

_LOG = logging.getLogger(__name__)
TRASH = "removed-"
_LAST_WAIT = 2.0


class Staging:
    """``path`` is the directory, mode 0700; it goes with :meth:`close` or, after a crash, at the next start."""

    def __init__(self, root: Path) -> None:
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)  # nobody removes a directory between its mkdir and its flock
        try:
            self.path = root / uuid.uuid4().hex
            self.path.mkdir(mode=0o700)
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self.alone = self._take_leftovers(root)
            """Whether no other store works below ``root`` as this one starts."""
        finally:
            os.close(lock)

    def empty_trash(self, wait: float = 1.0) -> None:
        """Delete what was moved to names that begin with TRASH, in a thread of its own: a file system may take minutes
        to free many files. Returns when it is done or after ``wait`` seconds."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._empty_trash, name="podrt-trash", daemon=True)
                self._thread.start()
            thread = self._thread
        thread.join(wait)

    def close(self) -> None:
        """Remove the directory, unless there is much to delete still: that is for the next start."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_LAST_WAIT)
        if not any(self._trash()):
            with contextlib.suppress(OSError):
                remove_tree(self.path)
        os.close(self._fd)

    def _trash(self) -> list[str]:
        try:
            return [entry.path for entry in os.scandir(self.path) if entry.name.startswith(TRASH)]
        except FileNotFoundError:
            return []

    def _empty_trash(self) -> None:
        while not self._closing.is_set() and (found := self._trash()):
            for path in found:
                try:
                    remove_tree(path)
                except OSError:
                    _LOG.exception("%s: can't be deleted; tried again at the next start", path)
                    return
                if self._closing.is_set():
                    return

    def _take_leftovers(self, root: Path) -> bool:
        """Move what belonged to processes that are gone to our trash. True if nothing of others is left."""
        alone = True
        for entry in list(os.scandir(root)):
            if entry.path == os.fspath(self.path):
                continue
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            fd = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.rename(entry.path, self.path / f"{TRASH}{entry.name}")
            except BlockingIOError:
                alone = False
            finally:
                os.close(fd)
        return alone
