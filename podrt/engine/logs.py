"""Reading a container's log, in the CRI's format, across rotation.

A line of the file is ``<RFC3339Nano> stdout|stderr F|P <text>``; P marks a line that goes on in the next record of
its stream. The supervisor (or the kubelet) rotates by renaming ``0.log`` to ``0.log.<time>`` and making ``0.log``
anew, and gzips older ones.

Limits: ``tail`` and ``since`` look at the rotated neighbours too, but not inside gzipped ones (the kubelet reads only
the newest file; here the file just rotated away counts as well). Following polls stat(2), 20 ms after something came
and up to 100 ms when nothing comes: cheaper and simpler than inotify, which would need one watch per reader and a
second path for rotation."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from podrt.errors import InvalidError

_CHUNK = 64 * 1024
_POLL_MIN = 0.02
_POLL_MAX = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """PodLogOptions of the Kubernetes API."""

    follow: bool = False
    previous: bool = False
    """For the caller, who chooses the file."""
    tail_lines: int | None = None
    """Lines, counted over both streams from the end, one that nothing has ended yet with them; None: all."""
    since_seconds: float | None = None
    since_time: float | None = None
    """Seconds since the epoch."""
    timestamps: bool = False
    limit_bytes: int | None = None
    stream: str = "All"
    """``All``, ``Stdout`` or ``Stderr``."""

    def since(self, now: float) -> str:
        """The first time to show as RFC 3339 text in UTC, which compares like the time; "" for no limit."""
        moment = self.since_time if self.since_seconds is None else now - self.since_seconds
        if moment is None:
            return ""
        return datetime.fromtimestamp(max(moment, 0), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


async def read_log(
    path: Path | str, options: LogOptions, stopped: Callable[[], bool] = lambda: True
) -> AsyncIterator[bytes]:
    """Yield the text of the log at ``path`` in chunks of whole records.

    With ``follow`` it ends once ``stopped()`` says that nothing more will be written and the end is reached. A log
    that does not exist yet is empty. Raises InvalidError for options that contradict each other or are negative."""
    _check(options)
    budget = options.limit_bytes
    async for chunk in _formatted(Path(path), options, stopped):
        if budget is not None:
            if len(chunk) >= budget:
                yield chunk[:budget]
                return
            budget -= len(chunk)
        if chunk:
            yield chunk


async def _formatted(path: Path, options: LogOptions, stopped: Callable[[], bool]) -> AsyncIterator[bytes]:
    formatter = _Formatter(options, options.since(datetime.now(UTC).timestamp()))
    reader = _Reader(path)
    try:
        await asyncio.to_thread(reader.seek, options.tail_lines)
        delay = _POLL_MIN
        while True:
            # Asked before the read: what was written until then is read below.
            done = not options.follow or stopped()
            data = await asyncio.to_thread(reader.read)
            if data:
                yield formatter.format(data)
                delay = _POLL_MIN
                continue
            if done:
                yield formatter.format(reader.rest())
                return
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, _POLL_MAX)
    finally:
        reader.close()


def _check(options: LogOptions) -> None:
    for name in ("tail_lines", "limit_bytes", "since_seconds"):
        value = getattr(options, name)
        if value is not None and (value < 0 or (name == "limit_bytes" and value < 1)):
            raise InvalidError(f"{name}: must not be {value}")
    if options.since_seconds is not None and options.since_time is not None:
        raise InvalidError("since_seconds and since_time: give at most one of them")
    if options.stream not in ("All", "Stdout", "Stderr"):
        raise InvalidError(f"stream: {options.stream!r} is not All, Stdout or Stderr")


class _Formatter:
    """Records in, text out: filters by stream and time and strips the heads. Keeps who began the open partial line."""

    def __init__(self, options: LogOptions, since: str) -> None:
        self._timestamps = options.timestamps
        self._stream = b"" if options.stream == "All" else options.stream.lower().encode()
        self._since = since.encode()
        self._open: dict[bytes, bool] = {}

    def format(self, data: bytes) -> bytes:
        out = []
        for line in data.split(b"\n"):
            parts = line.split(b" ", 3)
            if len(parts) < 4:
                # Torn by a crash or not ours; only a record can be shown.
                continue
            time, stream, tag, text = parts
            partial = tag.startswith(b"P")
            begun = self._open.get(stream, False)
            self._open[stream] = partial
            if (self._stream and stream != self._stream) or (self._since and time < self._since):
                continue
            if self._timestamps and not begun:
                out.append(time + b" ")
            out.append(text if partial else text + b"\n")
        return b"".join(out)


class _Reader:
    """The files of one log, oldest first, as one stream of whole records."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._inode = 0
        self._partial = b""
        self._older: list[Path] = []

    def seek(self, tail: int | None) -> None:
        """Open at the first record to show: the ``tail``-th line from the end, or the oldest record."""
        if tail is None:
            self._older = _rotated(self._path)
            self._next_older()
            return
        self._open_current()
        if self._fd < 0:
            return
        if tail == 0:
            os.lseek(self._fd, 0, os.SEEK_END)
            return
        offset, missing = _tail_offset(self._fd, tail, newest=True)
        if not missing:
            os.lseek(self._fd, offset, os.SEEK_SET)
            return
        rotated = _rotated(self._path)
        for index in range(len(rotated) - 1, -1, -1):
            try:
                fd = _open(rotated[index])
            except FileNotFoundError:
                continue
            offset, missing = _tail_offset(fd, missing)
            if not missing or index == 0:
                self.close()
                self._fd, self._inode = fd, os.fstat(fd).st_ino
                os.lseek(fd, offset, os.SEEK_SET)
                self._older = rotated[index + 1 :]
                return
            os.close(fd)

    def read(self) -> bytes:
        """The next whole records, b"" at the end of what is there now."""
        while True:
            if self._fd < 0 and not self._next_older():
                return b""
            data = os.read(self._fd, _CHUNK)
            if data:
                complete, newline, rest = data.rpartition(b"\n")
                if not newline:
                    self._partial += data
                    continue
                complete = self._partial + complete
                self._partial = rest
                return complete
            if not self._advance():
                return b""

    def rest(self) -> bytes:
        """A last record without its newline, which only a crash leaves."""
        rest, self._partial = self._partial, b""
        return rest

    def _advance(self) -> bool:
        """At the end of a file: go to the next one if there is one. False: wait for more."""
        if self._older:
            self._partial = b""
            self.close()
            return self._next_older()
        try:
            inode = os.stat(self._path).st_ino
        except FileNotFoundError:
            # Between the rename and the new file, or removed: what is open may still grow.
            return False
        if inode == self._inode:
            if os.lseek(self._fd, 0, os.SEEK_CUR) > os.fstat(self._fd).st_size:
                os.lseek(self._fd, 0, os.SEEK_SET)  # truncated in place
                return True
            return False
        # Rotated. The writer may have added to the old file after our last read and before its rename.
        if os.fstat(self._fd).st_size > os.lseek(self._fd, 0, os.SEEK_CUR):
            return True
        self._older = _after(_rotated(self._path), self._inode)
        self._partial = b""
        self.close()
        return self._next_older()

    def _next_older(self) -> bool:
        while self._older:
            try:
                self._fd = _open(self._older.pop(0))
            except FileNotFoundError:
                continue
            self._inode = os.fstat(self._fd).st_ino
            return True
        return self._open_current()

    def _open_current(self) -> bool:
        try:
            self._fd = _open(self._path)
        except FileNotFoundError:
            return False
        self._inode = os.fstat(self._fd).st_ino
        return True

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open(path: Path) -> int:
    """Raises FileNotFoundError, and InvalidError for what is no plain file.

    A Pod that collects logs may have their directory: no link of its making leads to a file of the host's, and no FIFO
    holds up a thread."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise InvalidError(f"log {path}: is a link; logs are plain files") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidError(f"log {path}: is not a plain file")
    return fd


def _rotated(path: Path) -> list[Path]:
    """Plain rotated files of a log, oldest first: their suffix is a time or a sequence that sorts."""
    try:
        names = os.listdir(path.parent)
    except FileNotFoundError:
        return []
    start = f"{path.name}."
    return [
        path.parent / name for name in sorted(names) if name.startswith(start) and not name.endswith((".gz", ".tmp"))
    ]


def _after(paths: list[Path], inode: int) -> list[Path]:
    """Those that were rotated after the file ``inode``; none if it is not among them (then only the newest is left)."""
    for index, path in enumerate(paths):
        try:
            if os.stat(path).st_ino == inode:
                return paths[index + 1 :]
        except FileNotFoundError:
            continue
    return []


def _tail_offset(fd: int, lines: int, *, newest: bool = False) -> tuple[int, int]:
    """Where the last ``lines`` lines of a log begin, read from the end; and how many lines are missing.

    A line is the records up to and with one tagged F, so the offset is just behind the F record before them. At the end
    of the ``newest`` file stands perhaps one that nothing has ended: ``printf 'no newline'``.
    """
    end = os.fstat(fd).st_size
    found = 0
    last = newest
    for offset, record in _backwards(fd, end):
        full, at_end, last = _is_full(record), last, False
        if at_end and not full:
            found = 1
        if full:
            if found == lines:
                return offset + len(record) + 1, 0
            found += 1
    return 0, lines - found


def _backwards(fd: int, end: int) -> Iterator[tuple[int, bytes]]:
    """(offset, record without newline) from the last to the first."""
    tail = b""
    position = end
    while position > 0:
        start = max(0, position - _CHUNK)
        block = os.pread(fd, position - start, start) + tail
        records = block.split(b"\n")
        tail = records[0]
        offset = start + len(block)
        for record in reversed(records[1:]):
            offset -= len(record)
            if record:
                yield offset, record
            offset -= 1
        position = start
    if tail:
        yield 0, tail


def _is_full(record: bytes) -> bool:
    parts = record.split(b" ", 3)
    return len(parts) >= 3 and parts[2].startswith(b"F")
