"""What the supervisor keeps of one process: its record, its output streams and log, its standard input."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import Any

from podrt.supervisor.logfile import LogFile
from podrt.supervisor.output import Scratch, Stream
from podrt.supervisor.poll import Loop
from podrt.supervisor.protocol import Log, ProcessRecord, Stdio


class Readers:
    """The supervisor's ends of a container's FIFOs, opened before the container's own ends.

    The FIFOs are made if they are missing. ``stdin`` is the writing end (it may be closed by stdinOnce), held so
    that the container sees no end of file while nobody is attached.
    """

    def __init__(self, stdio: Stdio) -> None:
        self.outputs: dict[str, int] = {}
        self.stdin: int | None = None
        self._holder: int | None = None
        if stdio.kind != "fifo":
            return
        try:
            for name, path in (("stdout", stdio.stdout), ("stderr", stdio.stderr)):
                if path is not None:
                    self.outputs[name] = _open_fifo(str(path), os.O_RDONLY)
                    # A reader that was opened after the last writer went is never told of the hang-up, unless one more
                    # comes and goes.
                    os.close(os.open(str(path), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW))
            if stdio.stdin is not None:
                # Opening only the writing end fails as long as nobody has the reading end.
                self._holder = _open_fifo(str(stdio.stdin), os.O_RDONLY)
                self.stdin = _open_fifo(str(stdio.stdin), os.O_WRONLY)
        except BaseException:
            self.close()
            raise

    def release_holder(self) -> None:
        """Once the container has its end of stdin: from then on a writer sees when the container is gone."""
        if self._holder is not None:
            os.close(self._holder)
            self._holder = None

    def close(self) -> None:
        self.release_holder()
        for fd in (*self.outputs.values(), self.stdin):
            if fd is not None:
                os.close(fd)
        self.outputs = {}
        self.stdin = None


class Process:
    """A process that was launched, running or exited, until it is forgotten."""

    def __init__(self, record: ProcessRecord, stdio: Stdio, log: Log | None) -> None:
        self.record = record
        self.stdio = stdio
        self.log_spec = log
        self.log: LogFile | None = None
        self.streams: dict[str, Stream] = {}
        self.stdin: int | None = None
        self.terminal: int | None = None
        self.adopted = False
        """Not a child: it was launched by a supervisor that has died."""
        self.pidfd: int | None = None
        """Held only for an adopted process, whose end no SIGCHLD tells."""

    def open_log(self, warn: Callable[[str], None]) -> None:
        """Have the log file there. Before anybody hears of the start: a kubelet opens it then."""
        if self.log_spec is not None and self.log_spec.path:
            self.log = LogFile(self.log_spec.path, self.log_spec.max_bytes, self.log_spec.max_files, warn)

    def start_output(self, loop: Loop, scratch: Scratch, outputs: dict[str, int], stdin: int | None) -> None:
        """Pump ``outputs`` (stream name -> descriptor, owned from now on). A terminal's master is its ``stdout``."""
        self.stdin = stdin
        terminal = self.stdio.kind == "terminal"
        for name, fd in outputs.items():
            os.set_blocking(fd, False)
            stream = Stream(loop, scratch, fd, name, self.log, terminal)
            stream.on_idle = lambda stream=stream: self._on_idle(stream)
            self.streams[name] = stream
            stream.wake()
            if terminal:
                self.terminal = fd

    def ended(self, code: int, signal: int, at: float, known: bool = True) -> None:
        """Log what the pipes hold and note the exit. Streams that other processes still write to stay open."""
        self.record = self.record._replace(exited=True, code=code, signal=signal, at=at, known=known)
        self.close_stdin()
        self.drain()

    def drain(self) -> None:
        """Log what the pipes hold now; the unfinished line too where nobody can finish it any more."""
        for stream in self.streams.values():
            if not stream.closed:
                # What can't be read must not keep the exit from being told.
                with contextlib.suppress(OSError):
                    stream.drain()
                    self._on_idle(stream)

    def close_stdin(self) -> None:
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

    def attach(self, name: str, fd: int) -> None:
        """Give a client's pipe the output ``name``. Raises OSError EPIPE where that has ended or never was."""
        stream = self.streams.get(name)
        if stream is None or stream.closed:
            raise OSError(errno.EPIPE, f"{name} of {self.record.id} has ended or is not kept by the supervisor")
        stream.attach(fd)

    def close(self) -> None:
        """Log the rest and let go of everything."""
        for stream in self.streams.values():
            if not stream.closed:
                stream.drain()
                stream.finish()
        if self.log is not None:
            self.log.close()
        self.close_stdin()
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None

    def running(self) -> bool:
        return not self.record.exited

    def open_pidfd(self) -> int:
        """Of a running process; the caller's."""
        # The pid of an adopted one may be another's already: someone else reaps it.
        return os.dup(self.pidfd) if self.pidfd is not None else os.pidfd_open(self.record.pid)

    def _on_idle(self, stream: Stream) -> None:
        if self.record.exited and not stream.writers:
            if stream.fd == self.terminal:
                self.terminal = None
            stream.finish()


def _open_fifo(path: str, mode: int) -> int:
    flags = mode | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    return os.open(path, flags)


def describe(process: Process) -> list[Any]:
    """The process as hello tells it: its record, stdio and log."""
    return [
        list(process.record),
        list(process.stdio),
        None if process.log_spec is None else list(process.log_spec),
    ]
