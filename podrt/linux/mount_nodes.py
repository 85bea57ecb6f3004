"""Mount operations that make what a root file system lacks: directories, files, links and devices.

Each leaves alone what is there and as wanted. Paths are absolute inside the root, and never lead out of it.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from podrt.linux.inroot import make_directory, make_file, split
from podrt.linux.mount_context import Context


class Directory(NamedTuple):
    """A directory and its parents, if missing."""

    path: str
    mode: int = 0o755

    def execute(self, context: Context) -> None:
        os.close(make_directory(context.root(), self.path, self.mode))

    def describe(self) -> str:
        return f"make the directory {self.path}"


class File(NamedTuple):
    """A file and its parents, if missing; one that exists is left as it is."""

    path: str
    mode: int = 0o644
    content: str = ""

    def execute(self, context: Context) -> None:
        os.close(make_file(context.root(), self.path, self.mode, self.content))

    def describe(self) -> str:
        return f"make the file {self.path}"


class Symlink(NamedTuple):
    """A link at ``path``; what is there already is left if it is the same link, else FileExistsError."""

    path: str
    target: str

    def execute(self, context: Context) -> None:
        parent, name = split(self.path)
        parent_fd = make_directory(context.root(), parent)
        try:
            os.symlink(self.target, name, dir_fd=parent_fd)
        except FileExistsError:
            found = os.lstat(name, dir_fd=parent_fd)
            if not stat.S_ISLNK(found.st_mode) or os.readlink(name, dir_fd=parent_fd) != self.target:
                raise
        finally:
            os.close(parent_fd)

    def describe(self) -> str:
        return f"link {self.path} to {self.target}"


class DeviceNode(NamedTuple):
    """mknod(2); a node that exists must be the same device."""

    path: str
    kind: str
    """``c`` or ``b``."""
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0

    def execute(self, context: Context) -> None:
        parent, name = split(self.path)
        parent_fd = make_directory(context.root(), parent)
        kind = stat.S_IFCHR if self.kind == "c" else stat.S_IFBLK
        device = os.makedev(self.major, self.minor)
        try:
            try:
                os.mknod(name, kind | self.mode, device, dir_fd=parent_fd)
            except FileExistsError:
                found = os.lstat(name, dir_fd=parent_fd)
                if stat.S_IFMT(found.st_mode) != kind or found.st_rdev != device:
                    raise
                return
            if self.uid or self.gid:
                os.chown(name, self.uid, self.gid, dir_fd=parent_fd, follow_symlinks=False)
        finally:
            os.close(parent_fd)

    def describe(self) -> str:
        return f"make the device {self.path} ({self.kind} {self.major}:{self.minor})"
