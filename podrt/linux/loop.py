"""Loop devices: a file as a block device (loop(4)).

A device stays attached until :func:`detach`, whoever has it open meanwhile, so that containers and daemons may come and
go; a reboot ends all. Which file a device stands for is asked of the kernel, by inode, not remembered.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

_CONTROL = "/dev/loop-control"
_GET_FREE = 0x4C82
_CONFIGURE = 0x4C0A
_CLEAR = 0x4C01
_STATUS = 0x4C05
_MAJOR = 7
_READ_ONLY = 1
_INFO = struct.Struct("=5Q4I64s64s32s2Q")
"""struct loop_info64: device, inode, rdevice, offset, limit; number, two of encryption, flags; names, key, init."""
_TRIES = 64
"""How often a free device is asked for that somebody else is quicker to take."""


def available() -> bool:
    """Whether this machine gives out loop devices."""
    return os.access(_CONTROL, os.R_OK | os.W_OK)


def attach(file: Path, *, read_only: bool = False) -> Path:
    """The device of a regular file; the one that it has, if it has one. Raises OSError."""
    if found := device_of(file):
        return found
    backing = os.open(file, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
        try:
            for _ in range(_TRIES):
                number = fcntl.ioctl(control, _GET_FREE)
                try:
                    return _configure(_node(number), backing, os.fspath(file), read_only=read_only)
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise
        finally:
            os.close(control)
    finally:
        os.close(backing)
    raise OSError(errno.EBUSY, "no loop device is free", os.fspath(file))


def _configure(device: Path, backing: int, name: str, *, read_only: bool) -> Path:
    flags = _READ_ONLY if read_only else 0
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, os.fsencode(name)[:63], b"", b"", 0, 0)
    config = struct.pack("=II", backing, 0) + info + bytes(64)
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _CONFIGURE, config)
    finally:
        os.close(fd)
    return device


def _node(number: int) -> Path:
    """The device's node, which is made where /dev is not kept by the kernel."""
    path = Path(f"/dev/loop{number}")
    with contextlib.suppress(FileExistsError):
        os.mknod(path, 0o660 | 0o060000, os.makedev(_MAJOR, number))
    return path


def device_of(file: Path) -> Path | None:
    """The device that a file is attached to. Raises OSError if there is no such file."""
    wanted = file.stat()
    for device in _attached():
        try:
            fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            answer = fcntl.ioctl(fd, _STATUS, bytes(_INFO.size))
        except OSError:
            continue  # Detached meanwhile.
        finally:
            os.close(fd)
        inside = _INFO.unpack(answer)
        if (inside[0], inside[1]) == (wanted.st_dev, wanted.st_ino):
            return device
    return None


def _attached() -> Iterator[Path]:
    for entry in Path("/sys/block").glob("loop*"):
        match = re.fullmatch(r"loop(\d+)", entry.name)
        if match and (entry / "loop").is_dir():
            yield _node(int(match[1]))


def detach(file: Path) -> None:
    """Take a file's device from it, at its last close where it is open. Nothing if it has none. Raises OSError."""
    try:
        device = device_of(file)
    except FileNotFoundError:
        return
    if device is None:
        return
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _CLEAR, 0)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
    finally:
        os.close(fd)
