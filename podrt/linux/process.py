"""Processes that are named safely: by pid and start time, held by pidfd.

A pid alone may have been given to another process since; with the start time it is unique until the next boot, and a
pidfd keeps its meaning for good.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal as signals
import struct
from collections.abc import Iterable
from typing import Final

# ioctl_pidfd: _IOWR(0xFF, 11, struct pidfd_info) of 64 bytes; the exit code is its last field.
_PIDFD_GET_INFO: Final = 0xC040FF0B
_PIDFD_INFO_EXIT: Final = 1 << 3
_PIDFD_INFO_BYTES: Final = 64


def start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat: clock ticks after boot. Raises ProcessLookupError if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            data = file.read()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(errno.ESRCH, f"no process {pid}") from None
    return int(data[data.rindex(b")") + 2 :].split(b" ", 20)[19])


def pidfd_open(pid: int, expected_start_time: int = 0) -> int:
    """A pidfd (close-on-exec), checked to be the process of that start time if one is given.

    Raises ProcessLookupError if the process is gone and reaped, or the pid is another process now.
    """
    fd = os.pidfd_open(pid)
    if expected_start_time:
        try:
            if start_time(pid) != expected_start_time:
                raise ProcessLookupError(
                    errno.ESRCH, f"process {pid} is not the one of start time {expected_start_time}"
                )
        except BaseException:
            os.close(fd)
            raise
    return fd


def pidfd_exit_info(pidfd: int) -> int | None:
    """The exit code of a process that is gone and reaped, by whomever; None if unknown.

    As ``subprocess.Popen.returncode``: -N if signal N killed it. None: it still runs, isn't reaped yet, or the kernel
    is older than 6.15 (PIDFD_GET_INFO with PIDFD_INFO_EXIT).
    """
    info = bytearray(struct.pack("=Q", _PIDFD_INFO_EXIT).ljust(_PIDFD_INFO_BYTES, b"\0"))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL, errno.ESRCH):
            return None
        raise
    mask: int = struct.unpack_from("=Q", info)[0]
    if not mask & _PIDFD_INFO_EXIT:
        return None
    status: int = struct.unpack_from("=i", info, _PIDFD_INFO_BYTES - 4)[0]
    return os.waitstatus_to_exitcode(status)


class ProcessHandle:
    """A process by its pidfd, which the handle owns. Usable in ``with``."""

    __slots__ = ("pid", "pidfd", "start_time")

    def __init__(self, pidfd: int, pid: int, start_time: int) -> None:
        self.pidfd = pidfd
        self.pid = pid
        self.start_time = start_time

    @classmethod
    def open(cls, pid: int, expected_start_time: int = 0) -> ProcessHandle:
        """Raises ProcessLookupError as :func:`pidfd_open` does."""
        pidfd = pidfd_open(pid, expected_start_time)
        try:
            return cls(pidfd, pid, expected_start_time or start_time(pid))
        except BaseException:
            os.close(pidfd)
            raise

    def fileno(self) -> int:
        """For select and event loops: the pidfd is readable once the process has ended."""
        return self.pidfd

    def wait(self, timeout: float) -> bool:
        """Whether the process has ended within ``timeout`` seconds. Blocks. Not only for children; reaps nothing."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def alive(self) -> bool:
        """Whether it still runs: a zombie does not."""
        return not self.wait(0)

    def signal(self, number: int) -> bool:
        """Send a signal; False if the process has been reaped already."""
        try:
            signals.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return False
        return True

    def exit_code(self) -> int | None:
        """As :func:`pidfd_exit_info`: -N for signal N, None while it is unknown."""
        return pidfd_exit_info(self.pidfd)

    def close(self) -> None:
        if self.pidfd >= 0:
            with contextlib.suppress(OSError):
                os.close(self.pidfd)
            self.pidfd = -1

    def __enter__(self) -> ProcessHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_files(pids: Iterable[int]) -> dict[str, int]:
    """``files`` and ``sockets``: how many descriptors processes have open, and how many of those are sockets."""
    files = sockets = 0
    for pid in pids:
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                files += 1
                with contextlib.suppress(OSError):
                    sockets += os.readlink(entry.path).startswith("socket:")
    return {"files": files, "sockets": sockets}


def soft_limits(pid: int) -> dict[str, int]:
    """``files_limit`` of a process; empty if it is gone, see proc_pid_limits(5). -1: no limit."""
    try:
        with open(f"/proc/{pid}/limits", encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in lines:
        if line.startswith("Max open files"):
            value = line.split()[3]
            return {"files_limit": int(value) if value.isdigit() else -1}
    return {}
