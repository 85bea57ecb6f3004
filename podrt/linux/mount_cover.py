"""Mount operations that take something away from a container: masks, read-only paths, a read-only root.

They cover what has been mounted before, so they come last in a list. A path that is missing needs no cover.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from podrt.linux import abi, libc
from podrt.linux.inroot import open_in_root
from podrt.linux.mount_context import Context, attach
from podrt.linux.mount_table import clone_tree, set_tree
from podrt.linux.overlay import configure

_NULL_DEVICE = os.makedev(1, 3)
_GONE = (errno.ENOENT, errno.ENOTDIR)


class Mask(NamedTuple):
    """Hide a path: a file behind /dev/null, a directory behind an empty read-only tmpfs. A missing path is skipped.

    Call before Pivot: the null device is the host's, and is checked to be one (CVE-2025-31133).
    """

    path: str

    def execute(self, context: Context) -> None:
        try:
            target_fd = open_in_root(context.root(), self.path)
        except OSError as error:
            if error.errno in _GONE:
                return
            raise
        try:
            if stat.S_ISDIR(os.fstat(target_fd).st_mode):
                self._hide_directory(context, target_fd)
                return
            null_fd = _null_device()
            try:
                attach(null_fd, target_fd, self.path)
            finally:
                os.close(null_fd)
        finally:
            os.close(target_fd)

    def _hide_directory(self, context: Context, target_fd: int) -> None:
        if context.empty_fd is not None:
            # Only a tree that is attached can be copied (before Linux 6.15): the first mask lends itself to the rest.
            copy_fd = clone_tree(context.empty_fd, recursive=False)
            try:
                attach(copy_fd, target_fd, self.path)
            finally:
                os.close(copy_fd)
            return
        fd = libc.fsopen("tmpfs")
        try:
            configure(fd, ("nr_blocks=1", "nr_inodes=1", "mode=0555"))
            libc.fsconfig(fd, abi.FSCONFIG_CMD_CREATE)
            attributes = abi.MOUNT_ATTR_RDONLY | abi.MOUNT_ATTR_NOSUID | abi.MOUNT_ATTR_NODEV | abi.MOUNT_ATTR_NOEXEC
            mount_fd = libc.fsmount(fd, attributes=attributes)
        finally:
            os.close(fd)
        attach(mount_fd, target_fd, self.path)
        context.empty_fd = mount_fd

    def describe(self) -> str:
        return f"mask {self.path}"


def _null_device() -> int:
    """A detached tree of the host's /dev/null."""
    fd = clone_tree("/dev/null", recursive=False)
    found = os.fstat(fd)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _NULL_DEVICE:
        os.close(fd)
        raise OSError(errno.ENODEV, "the host's /dev/null is not the null device", "/dev/null")
    return fd


class ReadOnly(NamedTuple):
    """Make a path of the root, with all below it, read-only by a bind mount on itself. A missing path is skipped."""

    path: str

    def execute(self, context: Context) -> None:
        try:
            target_fd = open_in_root(context.root(), self.path)
        except OSError as error:
            if error.errno in _GONE:
                return
            raise
        try:
            tree_fd = clone_tree(target_fd)
            try:
                set_tree(tree_fd, read_only=True, recursive=True)
                attach(tree_fd, target_fd, self.path)
            finally:
                os.close(tree_fd)
        finally:
            os.close(target_fd)

    def describe(self) -> str:
        return f"make {self.path} read-only"


class ReadOnlyRoot(NamedTuple):
    """Make the root's own mount read-only, not what is mounted below it."""

    def execute(self, context: Context) -> None:
        libc.mount_setattr(context.root(), "", abi.AT_EMPTY_PATH, set=abi.MOUNT_ATTR_RDONLY)

    def describe(self) -> str:
        return "make the root read-only"
