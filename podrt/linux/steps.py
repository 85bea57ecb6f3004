"""Lists of system calls that ``supervisor/steps/steps.c`` carries out between a spawn and an exec.

A :class:`Steps` is written once, in full: the program that carries it out decides nothing. It is mapped at a fixed
address, so that pointers are numbers that can be written down. Only what is known beforehand can stand in it, which
is why containers are started by a fork of the supervisor, and only commands in running ones by a list.

Layout, in words of 8 bytes of the machine's order: the number of steps, the address of the first; what the steps point
to; the steps, each a system call's number, five arguments, and a mask of the errnos that are no failure.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
from collections.abc import Iterable, Sequence
from typing import Final

BASE: Final = 0x1_0000_0000
MAX_BYTES: Final = 1 << 20
TOKEN_BYTES: Final = 16
REPORT: Final = struct.Struct(f"{TOKEN_BYTES}sqq")
"""What the program writes: its token, the number of a step that has failed (-1: what comes before the list), the errno.
Or its token, :data:`STARTED`, and the pid of the copy of itself that carries out the list."""
STARTED: Final = -2
FAILED: Final = 125
"""Its exit code then."""
REPORT_FD, PIDFD, CGROUP_FD, LIST_FD = 3, 4, 5, 6
"""Descriptors that the program is started with, beside the three that the command gets."""
ANY_ERROR: Final = tuple(range(1, 64))

_EXPECT: Final = 2**64 - 1
_STEP = struct.Struct("7Q")
_HEADER = struct.Struct("2Q")

# (x86_64, aarch64)
_NUMBERS: Final = {
    "write": (1, 64),
    "close": (3, 57),
    "execve": (59, 221),
    "getcwd": (79, 17),
    "fchdir": (81, 50),
    "fchown": (93, 55),
    "umask": (95, 166),
    "setgroups": (116, 159),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "capset": (126, 91),
    "fstatfs": (138, 44),
    "prctl": (157, 167),
    "keyctl": (250, 219),
    "openat": (257, 56),
    "prlimit64": (302, 261),
    "setns": (308, 268),
    "seccomp": (317, 277),
    "close_range": (436, 436),
    "openat2": (437, 437),
}
_COLUMN = {"x86_64": 0, "aarch64": 1}.get(platform.machine())


def supported() -> bool:
    """Whether the program knows this machine's system calls."""
    return _COLUMN is not None


class Steps:
    """A list in the making. Methods that place data return its address in the program."""

    def __init__(self) -> None:
        if _COLUMN is None:
            raise OSError(errno.EOPNOTSUPP, f"no table of system calls for {platform.machine()}")
        self._column = _COLUMN
        self._data = bytearray(_HEADER.size)
        self._steps: list[bytes] = []

    def data(self, content: bytes) -> int:
        """Place bytes, aligned to a word."""
        self._data += bytes(-len(self._data) % 8)
        address = BASE + len(self._data)
        self._data += content
        return address

    def text(self, value: str | bytes) -> int:
        """Place a C string. Raises ValueError for one with a NUL in it."""
        encoded = os.fsencode(value)
        if b"\0" in encoded:
            raise ValueError(f"embedded null byte in {value!r}")
        return self.data(encoded + b"\0")

    def texts(self, values: Iterable[str | bytes]) -> int:
        """Place an array of C strings with a null pointer at its end, as argv and envp are."""
        addresses = [self.text(value) for value in values]
        return self.data(struct.pack(f"{len(addresses) + 1}Q", *addresses, 0))

    def numbers(self, values: Sequence[int]) -> int:
        """Place an array of 32-bit numbers, as setgroups(2) takes them."""
        return self.data(struct.pack(f"{len(values)}I", *values))

    def call(self, name: str, *arguments: int, tolerate: Iterable[int] = ()) -> None:
        """A system call by name; ``tolerate``: errnos below 64 that don't end the list."""
        tolerated = 0
        for number in tolerate:
            tolerated |= 1 << number
        values = [value % 2**64 for value in arguments]
        self._add(_NUMBERS[name][self._column], values, tolerated)

    def expect(self, address: int, mask: int, value: int, number: int) -> None:
        """Fail with errno ``number`` unless the word at ``address``, under ``mask``, is ``value``."""
        self._add(_EXPECT, [address, mask, value, number], 0)

    def write(self, path: str | bytes, content: bytes, fd: int, tolerate: Iterable[int] = ()) -> None:
        """One write(2) to an existing file; ``fd`` is the lowest descriptor that is free. Opening it is not
        tolerated to fail."""
        self.open(path, os.O_WRONLY)
        self.call("write", fd, self.data(content), len(content), tolerate=tolerate)
        self.call("close", fd)

    def open(self, path: str | bytes, flags: int) -> None:
        """open(2), close-on-exec; the descriptor is the lowest that is free."""
        self.call("openat", -100, self.text(path), flags | os.O_CLOEXEC)

    def finish(self) -> bytes:
        """The whole list. Raises ValueError if it is larger than :data:`MAX_BYTES`."""
        first = self.data(b"".join(self._steps))
        if len(self._data) > MAX_BYTES:
            raise ValueError(f"a list of {len(self._data)} bytes; {MAX_BYTES} is the most")
        _HEADER.pack_into(self._data, 0, len(self._steps), first)
        return bytes(self._data)

    def _add(self, number: int, arguments: Sequence[int], tolerated: int) -> None:
        padded = (*arguments, 0, 0, 0, 0, 0)[:5]
        self._steps.append(_STEP.pack(number, *padded, tolerated))
