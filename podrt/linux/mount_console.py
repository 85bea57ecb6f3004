"""A container's terminal: opened on the devpts of its own root, and bound on /dev/console.

No path of the container decides what is opened or what is covered (CVE-2025-52565).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import NamedTuple

from podrt.linux import abi, libc
from podrt.linux.inroot import IN_ROOT, make_file, open_in_root
from podrt.linux.mount_context import Context, attach
from podrt.linux.mount_table import clone_tree


def open_terminal(root_fd: int) -> tuple[int, int]:
    """A new pseudo-terminal of the root's own devpts: (master, slave), neither of them a controlling terminal.

    The slave is the master's peer by ioctl, so no path of the container decides what is opened.
    """
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    master = open_in_root(root_fd, "/dev/pts/ptmx", flags)
    try:
        if libc.fstatfs_type(master) != abi.DEVPTS_SUPER_MAGIC:
            raise OSError(errno.ENOTTY, "/dev/pts is not a devpts", "/dev/pts/ptmx")
        fcntl.ioctl(master, abi.TIOCSPTLCK, b"\0\0\0\0")
        return master, fcntl.ioctl(master, abi.TIOCGPTPEER, flags)
    except BaseException:
        os.close(master)
        raise


class Console(NamedTuple):
    """Bind the terminal's slave (``context.console_fd``) on /dev/console; nothing without a terminal.

    The slave must come from TIOCGPTPEER, not from a path, and /dev/console must not be a link (CVE-2025-52565).
    """

    def execute(self, context: Context) -> None:
        if context.console_fd is None:
            return
        found = os.fstat(context.console_fd)
        if not stat.S_ISCHR(found.st_mode) or libc.fstatfs_type(context.console_fd) != abi.DEVPTS_SUPER_MAGIC:
            raise OSError(errno.ENOTTY, "the console is not a terminal of devpts", "/dev/console")
        os.close(make_file(context.root(), "/dev/console", 0o600))
        resolve = IN_ROOT | abi.RESOLVE_NO_SYMLINKS
        target_fd = libc.openat2(context.root(), "/dev/console", os.O_PATH, 0, resolve)
        try:
            tree_fd = clone_tree(context.console_fd, recursive=False)
            try:
                attach(tree_fd, target_fd, "/dev/console")
            finally:
                os.close(tree_fd)
        finally:
            os.close(target_fd)

    def describe(self) -> str:
        return "bind the terminal on /dev/console"
