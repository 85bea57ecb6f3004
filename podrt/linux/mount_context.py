"""What the operations of a mount list share: their state while the list is carried out, and how a mount is attached."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Protocol

from podrt.linux import abi, libc

_EMPTY = abi.MOVE_MOUNT_F_EMPTY_PATH | abi.MOVE_MOUNT_T_EMPTY_PATH


class Context:
    """What the operations of one list share.

    ``root_fd`` is the root being built, set by the first of Overlay and Root; ``fds`` are the descriptors sent beside
    the launch, by index; ``console_fd`` is the terminal's slave, set by the caller before Console runs.
    """

    __slots__ = ("console_fd", "empty_fd", "fds", "root_fd")

    def __init__(self, root_fd: int | None = None, fds: Sequence[int] = (), console_fd: int | None = None) -> None:
        self.root_fd = root_fd
        self.fds = fds
        self.console_fd = console_fd
        self.empty_fd: int | None = None

    def root(self) -> int:
        if self.root_fd is None:
            raise OSError(errno.EINVAL, "no root: the list has to start with Overlay or Root")
        return self.root_fd


class Operation(Protocol):
    """One entry of a list (see :mod:`podrt.linux.mount`)."""

    def execute(self, context: Context) -> None: ...
    def describe(self) -> str: ...


def attach(tree_fd: int, target_fd: int, path: str) -> None:
    """Mount a detached tree on an open directory or file; ``path`` is for the message. Raises OSError."""
    try:
        libc.move_mount(tree_fd, "", target_fd, "", _EMPTY)
    except OSError as error:
        raise OSError(error.errno, f"mounting on {path}: {os.strerror(error.errno or 0)}", path) from error


def refuse_proc(target_fd: int, path: str) -> None:
    """No mount of the user's choice on procfs: it would hide what the runtime's own writes go to (CVE-2025-52881)."""
    if libc.fstatfs_type(target_fd) == abi.PROC_SUPER_MAGIC:
        raise OSError(errno.EPERM, "mounting inside /proc is not allowed", path)
