"""The pump: from a container's FIFOs or terminal into its log and to attached clients.

A FIFO is read without consuming: tee(2) into a private pipe, write the log, then consume what was written. The death of
the supervisor at any point loses no line and doubles at most the chunk in hand. Only whole lines (and full pieces
of long ones) are consumed; an unfinished line stays in the FIFO, which is why FIFOs are watched edge-triggered. A
terminal can't be read that way: its unfinished line is kept in memory.

Attached clients get the raw bytes at once, unfinished lines too. While a client doesn't take what it was given, its
streams are not read, so the container is slowed down as with a real terminal; a client that hangs up is dropped.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import time
from collections.abc import Callable

from podrt.linux import abi, libc
from podrt.supervisor.logfile import PARTIAL, LogFile, cut, format_lines
from podrt.supervisor.poll import EDGE, IN, OUT, Loop

CHUNK = 64 * 1024
_PRIVATE_PIPE = 1024 * 1024
_F_SETPIPE_SZ, _F_GETPIPE_SZ = 1031, 1032
_SMALL_PIPE = 2 * PARTIAL
_LINGER = 10.0
"""Seconds that a slow client has to take the last output of a stream that has ended."""


class Scratch:
    """The private pipe that tee(2) copies into, and the sink that consumed bytes go to; one of each for all streams."""

    def __init__(self) -> None:
        self.null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        self._make_pipe()

    def _make_pipe(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.writer, _F_SETPIPE_SZ, _PRIVATE_PIPE)

    def peek(self, fifo: int) -> bytes | None:
        """What stands first in ``fifo``, at most :data:`CHUNK`; b"" without a writer, None if it is empty."""
        while True:
            try:
                count = libc.tee(fifo, self.writer, CHUNK, abi.SPLICE_F_NONBLOCK)
                break
            except InterruptedError:
                continue
            except BlockingIOError:
                return None
        if count == 0:
            return b""
        try:
            data = os.read(self.reader, count)
            while len(data) < count:
                data += os.read(self.reader, count - len(data))
        except OSError:
            # Pages of a broken file that the container has spliced in. Left here, they would be another one's output.
            os.close(self.reader)
            os.close(self.writer)
            self._make_pipe()
            raise
        return data

    def consume(self, fifo: int, count: int) -> None:
        """Take ``count`` bytes away, or what is left of them: a container can read its own pipe meanwhile."""
        while count > 0:
            try:
                taken = libc.splice(fifo, self.null, count, abi.SPLICE_F_MOVE | abi.SPLICE_F_NONBLOCK)
            except InterruptedError:
                # Else it would be written to the log again: libc's wrapper doesn't do that as Python's own do.
                continue
            except BlockingIOError:
                return
            if taken == 0:
                return
            count -= taken


class Attacher:
    """One stream of an attached client: the writing end of a pipe."""

    __slots__ = ("fd", "pending")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.pending = b""

    def flush(self) -> bool:
        """Write what is pending. False: the client is gone."""
        try:
            while self.pending:
                self.pending = self.pending[os.write(self.fd, self.pending) :]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True


class Stream:
    """One output stream. ``fd`` is non-blocking: the reading end of a FIFO, or the master of a terminal."""

    def __init__(self, loop: Loop, scratch: Scratch, fd: int, name: str, log: LogFile | None, terminal: bool) -> None:
        self.loop = loop
        self.scratch = scratch
        self.fd = fd
        self.name = name
        self.log = log
        self.terminal = terminal
        self.seen = 0
        """Bytes at the front of the FIFO that clients have got already."""
        self.tail = b""
        """A terminal's unfinished line."""
        self.attachers: list[Attacher] = []
        self.writers = True
        """False once the FIFO had no writer, or the terminal's other side was closed."""
        self.closed = False
        self._queued = False
        self.on_idle: Callable[[], None] | None = None
        """Called when nothing is left to read for now."""
        loop.watch(fd, IN | EDGE, lambda _: self.wake())

    def wake(self) -> None:
        """Have the stream read in the loop's next round."""
        if not self._queued and not self.closed:
            self._queued = True
            self.loop.queue(self._work)

    @property
    def paused(self) -> bool:
        return any(attacher.pending for attacher in self.attachers)

    def _work(self) -> bool:
        if self.closed or self.paused:
            self._queued = False
            return False
        try:
            again = self.turn()
        except BaseException:
            self._queued = False  # or it would never be read again
            raise
        if again:
            return True
        self._queued = False
        if self.on_idle is not None and not self.paused:
            self.on_idle()
        return False

    def turn(self) -> bool:
        """Move one chunk. True: there may be more."""
        return self._turn_terminal() if self.terminal else self._turn_fifo()

    def drain(self) -> None:
        """After the process has exited: log all that is in the pipe now; clients get what they take. Bounded by its
        size."""
        for _ in range(2 * _PRIVATE_PIPE // CHUNK):
            if not self.turn():
                break

    def finish(self) -> None:
        """The end of the stream: log its unfinished line, let clients see the end of file, close."""
        if self.closed:
            return
        rest = self.tail
        if not self.terminal:
            data = self.scratch.peek(self.fd) or b""
            rest = data
            self.scratch.consume(self.fd, len(rest))
        if rest and self.log is not None:
            self.log.write(format_lines(rest, self.name, time.time_ns()))
        self.close()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.loop.unwatch(self.fd)
        os.close(self.fd)
        for attacher in self.attachers[:]:
            if not attacher.pending:
                self._drop(attacher)
        if self.attachers:
            self.loop.later(_LINGER, self._drop_all)

    def attach(self, fd: int, pending: bytes = b"") -> None:
        """Give ``fd``, the writing end of a pipe, all output from now on; it is closed at the end."""
        os.set_blocking(fd, False)
        attacher = Attacher(fd)
        attacher.pending = pending
        self.attachers.append(attacher)
        self.loop.watch(fd, EDGE | OUT, lambda mask: self._on_client(fd, mask))

    def _turn_fifo(self) -> bool:
        data = self.scratch.peek(self.fd)
        if not data:
            self.writers = data is None
            return False
        self._forward(data[self.seen :])
        self.seen = len(data)
        count = len(data) if self.log is None else cut(data)
        if count == 0 and fcntl.fcntl(self.fd, _F_GETPIPE_SZ) < _SMALL_PIPE:
            # The container has made its pipe so small that a line may never become whole in it: it would wait for ever.
            count = len(data)
        if count == 0:
            # An unfinished line that nobody can finish any more hides the end of file.
            self.writers = not _hung_up(self.fd)
            return False
        self.writers = True
        if self.log is not None:
            self.log.write(format_lines(data[:count], self.name, time.time_ns()))
        self.scratch.consume(self.fd, count)
        self.seen -= count
        return not self.paused

    def _turn_terminal(self) -> bool:
        try:
            data = os.read(self.fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""
        self.writers = bool(data)
        if not data:
            return False
        self._forward(data)
        if self.log is not None:
            line = self.tail + data
            count = cut(line)
            self.tail = line[count:]
            if count:
                self.log.write(format_lines(line[:count], self.name, time.time_ns()))
        return not self.paused

    def _forward(self, data: bytes) -> None:
        if not data:
            return
        for attacher in self.attachers[:]:
            attacher.pending += data
            if not attacher.flush():
                self._drop(attacher)

    def _on_client(self, fd: int, mask: int) -> None:
        attacher = next((one for one in self.attachers if one.fd == fd), None)
        if attacher is None:
            return
        was_paused = self.paused
        if mask & select.EPOLLERR or not attacher.flush() or (self.closed and not attacher.pending):
            self._drop(attacher)
        if was_paused and not self.paused:
            self.wake()

    def _drop_all(self) -> None:
        for attacher in self.attachers[:]:
            self._drop(attacher)

    def _drop(self, attacher: Attacher) -> None:
        self.attachers.remove(attacher)
        self.loop.unwatch(attacher.fd)
        os.close(attacher.fd)
        if not self.closed:
            self.wake()


def _hung_up(fifo: int) -> bool:
    poll = select.poll()
    poll.register(fifo, 0)
    return any(mask & select.POLLHUP for _, mask in poll.poll(0))
