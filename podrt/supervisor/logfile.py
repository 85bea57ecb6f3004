"""A container's log in CRI format, with rotation.

Each line is ``<RFC 3339 time with nanoseconds> <stream> <tag> <text>``; the tag is F for a whole line, P for a piece
of one that goes on in the next record of the same stream. Lines written in one go carry one time.

A rotated file is renamed to ``<path>.<UTC time>`` and a new one is made, so a reader holds the old one by descriptor
and goes on with the new one by name. Rotated files are not compressed: that would block the loop for their size.

Writing never fails to the caller: a full disk or a removed directory loses lines, not the container. The first loss
of a row is reported, with what happened; afterwards writing is tried again with every chunk.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

PARTIAL = 16 * 1024
"""Longest text of one record."""

_second = -1
_prefix = ""


def timestamp(now_ns: int) -> str:
    """RFC 3339 with nine digits, UTC."""
    global _second, _prefix
    seconds, nanoseconds = divmod(now_ns, 1_000_000_000)
    if seconds != _second:
        _second, _prefix = seconds, time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(seconds))
    return f"{_prefix}{nanoseconds:09d}Z"


def format_lines(data: bytes, stream: str, now_ns: int) -> bytes:
    """Records of ``data``. What follows the last newline becomes a P record, cut into pieces of :data:`PARTIAL`.

    Lines above PARTIAL are cut too.
    """
    head = f"{timestamp(now_ns)} {stream} "
    full, partial = f"{head}F ".encode(), f"{head}P ".encode()
    lines_end = data.rfind(b"\n") + 1
    parts = []
    if lines_end:
        if _has_long_line(data, lines_end):
            for line in data[: lines_end - 1].split(b"\n"):
                start = 0
                while len(line) - start > PARTIAL:
                    parts += [partial, line[start : start + PARTIAL], b"\n"]
                    start += PARTIAL
                parts += [full, line[start:], b"\n"]
        else:
            parts = [full, data[: lines_end - 1].replace(b"\n", b"\n" + full), b"\n"]
    for start in range(lines_end, len(data), PARTIAL):
        parts += [partial, data[start : start + PARTIAL], b"\n"]
    return b"".join(parts)


def cut(data: bytes) -> int:
    """How much of ``data`` can be logged now: all whole lines, and of a longer unfinished one the full pieces."""
    lines_end = data.rfind(b"\n") + 1
    return lines_end + (len(data) - lines_end) // PARTIAL * PARTIAL


def _has_long_line(data: bytes, end: int) -> bool:
    start = 0
    while end - start > PARTIAL + 1:
        newline = data.rfind(b"\n", start, start + PARTIAL + 1)
        if newline < 0:
            return True
        start = newline + 1
    return False


class LogFile:
    """An open log. ``max_bytes`` 0: no rotation; ``max_files`` counts the current file too."""

    __slots__ = ("_broken", "_fd", "_size", "_warn", "max_bytes", "max_files", "path")

    def __init__(self, path: str, max_bytes: int, max_files: int, warn: Callable[[str], None]) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.max_files = max(max_files, 1)
        self._warn = warn
        self._fd = -1
        self._size = 0
        self._broken = False
        self._guard(self._open)

    def write(self, records: bytes) -> None:
        """Append; rotates afterwards if the file has reached its size."""
        if self._fd < 0:
            self._guard(self._open)
        if self._fd < 0:
            return
        if self._guard(self._append, records) and self.max_bytes and self._size >= self.max_bytes:
            self._guard(self._rotate)

    def reopen(self) -> None:
        """Go on in a new file of the same path: someone else has renamed the old one.

        Raises OSError, and goes on in the old file: a kubelet gives that its name back then."""
        old = self._fd
        self._open()
        self._broken = False
        if old >= 0:
            os.close(old)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _guard(self, action: Callable[..., None], *arguments: bytes) -> bool:
        try:
            action(*arguments)
        except OSError as error:
            if not self._broken:
                self._broken = True
                self._warn(f"log {self.path}: {error.strerror}; output is dropped until it can be written again")
            return False
        self._broken = False
        return True

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(self.path, flags, 0o640)
        self._fd, self._size = fd, os.fstat(fd).st_size

    def _append(self, records: bytes) -> None:
        view = memoryview(records)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            # No half record stays in the file: the next one would be glued to it.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(records)

    def _rotate(self) -> None:
        now = time.time_ns()
        seconds, nanoseconds = divmod(now, 1_000_000_000)
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(seconds)) + f".{nanoseconds:09d}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path, f"{self.path}.{stamp}")
        old = self._fd
        try:
            self._open()
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self.path), 0o755, exist_ok=True)
            self._open()
        os.close(old)
        self._prune()

    def _prune(self) -> None:
        directory, name = os.path.split(self.path)
        rotated = sorted(entry for entry in os.listdir(directory) if entry.startswith(f"{name}."))
        for entry in rotated[: max(len(rotated) - (self.max_files - 1), 0)]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, entry))
