"""Small helpers over files that several layers need."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_atomic(path: Path | str, data: bytes, mode: int = 0o600, *, durable: bool = False) -> None:
    """Write ``data`` so that a reader sees the old file or the new one, never half of it.

    ``durable`` adds fsync(2) of the file and its directory, for what must survive a power cut.
    """
    path = os.fspath(path)
    temporary = f"{path}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with open(fd, "wb", buffering=0) as file:
            os.fchmod(fd, mode)
            file.write(data)
            if durable:
                os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    if durable:
        sync_dir(os.path.dirname(path))


def sync_dir(path: Path | str) -> None:
    """fsync(2) a directory, which makes renames and new names in it durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def unlink_missing_ok(path: Path | str) -> None:
    """unlink(2); no error if the name is gone already."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
