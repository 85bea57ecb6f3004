"""Mount operations as data: a list made by the daemon, carried out by the child between fork and exec.

Each operation is a NamedTuple with ``execute(context)`` and ``describe()``; :func:`encode` and :func:`decode` are its
wire form, a JSON array of the operation's name and its fields.

The child runs as root in a mount namespace of its own with the image's files under its hands. Paths inside the root
(always absolute there) are looked up by :mod:`podrt.linux.inroot` alone, and mounts are attached to descriptors. No
import happens here after the module is loaded.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from podrt.linux import libc
from podrt.linux.inroot import IN_ROOT, make_directory, make_file, open_in_root, split
from podrt.linux.mount_table import attach_tree as attach_tree
from podrt.linux.mount_table import clone_tree as clone_tree
from podrt.linux.mount_table import make_private_mount as make_private_mount
from podrt.linux.mount_table import make_runtime_mount as make_runtime_mount
from podrt.linux.mount_table import make_shared_mount as make_shared_mount
from podrt.linux.mount_table import mount_points as mount_points
from podrt.linux.mount_table import pin_namespace as pin_namespace
from podrt.linux.mount_table import set_tree as set_tree
from podrt.linux.mount_table import unpin as unpin
from podrt.linux.overlay import attach_layers, configure, mount_overlay

_EMPTY = libc.MOVE_MOUNT_F_EMPTY_PATH | libc.MOVE_MOUNT_T_EMPTY_PATH
_NULL_DEVICE = os.makedev(1, 3)
_GONE = (errno.ENOENT, errno.ENOTDIR)
_CONTEXT = "context="
"""The option of SELinux that gives all files of a mount one label."""


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
    def execute(self, context: Context) -> None: ...
    def describe(self) -> str: ...


def _attach(tree_fd: int, target_fd: int, path: str) -> None:
    try:
        libc.move_mount(tree_fd, "", target_fd, "", _EMPTY)
    except OSError as error:
        raise OSError(error.errno, f"mounting on {path}: {os.strerror(error.errno or 0)}", path) from error


def _refuse_proc(target_fd: int, path: str) -> None:
    """No mount of the user's choice on procfs: it would hide what the runtime's own writes go to (CVE-2025-52881)."""
    if libc.fstatfs_type(target_fd) == libc.PROC_SUPER_MAGIC:
        raise OSError(errno.EPERM, "mounting inside /proc is not allowed", path)


def _set_label(fd: int, label: str) -> None:
    """The SELinux label of an O_PATH descriptor's file; passed over where the file system has none."""
    try:
        os.setxattr(f"/proc/self/fd/{fd}", "security.selinux", label.encode())
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise


# -- the operations


class Propagation(NamedTuple):
    """mount(2) with MS_PRIVATE, MS_SLAVE or MS_SHARED (and MS_REC) on a path of the current namespace."""

    path: str
    flags: int

    def execute(self, context: Context) -> None:
        libc.mount(None, self.path, flags=self.flags)

    def describe(self) -> str:
        return f"set the propagation of {self.path} to {self.flags:#x}"


class Overlay(NamedTuple):
    """An overlay file system at ``target``, an existing directory of the host; it becomes the root being built.

    ``lower`` from top to bottom. With ``lower_fds`` (indexes of detached, idmapped trees) those are the lower layers
    instead. The upper directory is never idmapped: the overlay itself works in it as the host's root, which an id map
    of a container leaves out; copied-up files land there with the container's ids. An empty ``upper`` makes a read-only
    overlay.
    """

    target: str
    lower: tuple[str, ...]
    upper: str
    work: str
    options: tuple[str, ...] = ()
    lower_fds: tuple[int, ...] = ()

    def execute(self, context: Context) -> None:
        lower = [f"/proc/self/fd/{context.fds[index]}" for index in self.lower_fds] or list(self.lower)
        options = list(self.options)
        if self.upper:
            options += [f"upperdir={self.upper}", f"workdir={self.work}"]
        attach_layers(self.target, [context.fds[index] for index in self.lower_fds])
        context.root_fd = mount_overlay(self.target, lower, options)

    def describe(self) -> str:
        return f"mount an overlay of {len(self.lower_fds or self.lower)} layers at {self.target}"


class Root(NamedTuple):
    """A detached tree (``fd`` an index; -1: a copy of ``target``), attached at the host's ``target``, is the root."""

    target: str
    fd: int = -1

    def execute(self, context: Context) -> None:
        tree_fd = context.fds[self.fd] if self.fd >= 0 else clone_tree(self.target)
        attach_tree(tree_fd, self.target)
        context.root_fd = tree_fd

    def describe(self) -> str:
        return f"use {self.target} as the root"


class FileSystem(NamedTuple):
    """A new file system inside the root; ``attrs`` are MOUNT_ATTR_*, ``options`` are ``key`` or ``key=value``."""

    target: str
    fstype: str
    source: str
    attrs: int = 0
    options: tuple[str, ...] = ()

    def execute(self, context: Context) -> None:
        root_fd = context.root()
        target_fd = make_directory(root_fd, self.target)
        if self.fstype in ("proc", "sysfs"):
            # An image whose /proc is a link would have masks and label writes go elsewhere.
            os.close(target_fd)
            resolve = IN_ROOT | libc.RESOLVE_NO_SYMLINKS
            target_fd = libc.openat2(root_fd, self.target, os.O_PATH | os.O_DIRECTORY, 0, resolve)
        try:
            if self.fstype != "proc":
                # An image whose /dev is a link to /proc would have the masked paths hidden instead of masked.
                _refuse_proc(target_fd, self.target)
            fd = libc.fsopen(self.fstype)
            try:
                if self.source:
                    libc.fsconfig(fd, libc.FSCONFIG_SET_STRING, "source", self.source)
                options, label = self.options, ""
                if self.fstype == "mqueue":
                    # One of an IPC namespace, which other containers may have mounted with another label.
                    label = next((one[len(_CONTEXT) :] for one in options if one.startswith(_CONTEXT)), "")
                    options = tuple(one for one in options if not one.startswith(_CONTEXT))
                configure(fd, options)
                libc.fsconfig(fd, libc.FSCONFIG_CMD_CREATE)
                mount_fd = libc.fsmount(fd, attributes=self.attrs)
                if label:
                    _set_label(mount_fd, label)
            finally:
                os.close(fd)
            try:
                _attach(mount_fd, target_fd, self.target)
            finally:
                os.close(mount_fd)
        finally:
            os.close(target_fd)

    def describe(self) -> str:
        return f"mount {self.fstype} on {self.target}"


class BindTree(NamedTuple):
    """Attach a detached tree (``fd`` an index) inside the root, on a directory or a file, made if it is missing.

    ``propagation`` is 0 (as the tree is), MS_PRIVATE, MS_SLAVE or MS_SHARED. ``recursive``: also what is mounted below
    becomes read-only.
    """

    target: str
    fd: int
    directory: bool = True
    read_only: bool = False
    recursive: bool = False
    propagation: int = 0

    def execute(self, context: Context) -> None:
        tree_fd = context.fds[self.fd]
        set_tree(tree_fd, read_only=self.read_only, recursive=self.recursive, propagation=self.propagation)
        make = make_directory if self.directory else make_file
        target_fd = make(context.root(), self.target)
        try:
            _refuse_proc(target_fd, self.target)
            _attach(tree_fd, target_fd, self.target)
        finally:
            os.close(target_fd)

    def describe(self) -> str:
        return f"bind {'read-only ' if self.read_only else ''}on {self.target}"


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
                _attach(null_fd, target_fd, self.path)
            finally:
                os.close(null_fd)
        finally:
            os.close(target_fd)

    def _hide_directory(self, context: Context, target_fd: int) -> None:
        if context.empty_fd is not None:
            # Only a tree that is attached can be copied (before Linux 6.15): the first mask lends itself to the rest.
            copy_fd = clone_tree(context.empty_fd, recursive=False)
            try:
                _attach(copy_fd, target_fd, self.path)
            finally:
                os.close(copy_fd)
            return
        fd = libc.fsopen("tmpfs")
        try:
            configure(fd, ("nr_blocks=1", "nr_inodes=1", "mode=0555"))
            libc.fsconfig(fd, libc.FSCONFIG_CMD_CREATE)
            attributes = (
                libc.MOUNT_ATTR_RDONLY | libc.MOUNT_ATTR_NOSUID | libc.MOUNT_ATTR_NODEV | libc.MOUNT_ATTR_NOEXEC
            )
            mount_fd = libc.fsmount(fd, attributes=attributes)
        finally:
            os.close(fd)
        _attach(mount_fd, target_fd, self.path)
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
                _attach(tree_fd, target_fd, self.path)
            finally:
                os.close(tree_fd)
        finally:
            os.close(target_fd)

    def describe(self) -> str:
        return f"make {self.path} read-only"


class ReadOnlyRoot(NamedTuple):
    """Make the root's own mount read-only, not what is mounted below it."""

    def execute(self, context: Context) -> None:
        libc.mount_setattr(context.root(), "", libc.AT_EMPTY_PATH, set=libc.MOUNT_ATTR_RDONLY)

    def describe(self) -> str:
        return "make the root read-only"


class Console(NamedTuple):
    """Bind the terminal's slave (``context.console_fd``) on /dev/console; nothing without a terminal.

    The slave must come from TIOCGPTPEER, not from a path, and /dev/console must not be a link (CVE-2025-52565).
    """

    def execute(self, context: Context) -> None:
        if context.console_fd is None:
            return
        found = os.fstat(context.console_fd)
        if not stat.S_ISCHR(found.st_mode) or libc.fstatfs_type(context.console_fd) != libc.DEVPTS_SUPER_MAGIC:
            raise OSError(errno.ENOTTY, "the console is not a terminal of devpts", "/dev/console")
        os.close(make_file(context.root(), "/dev/console", 0o600))
        resolve = IN_ROOT | libc.RESOLVE_NO_SYMLINKS
        target_fd = libc.openat2(context.root(), "/dev/console", os.O_PATH, 0, resolve)
        try:
            tree_fd = clone_tree(context.console_fd, recursive=False)
            try:
                _attach(tree_fd, target_fd, "/dev/console")
            finally:
                os.close(tree_fd)
        finally:
            os.close(target_fd)

    def describe(self) -> str:
        return "bind the terminal on /dev/console"


class Pivot(NamedTuple):
    """Make the root being built the root of the process, and let go of the old one."""

    root: str

    def execute(self, context: Context) -> None:
        old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fchdir(context.root())
            libc.pivot_root(".", ".")
            # From the new root "." would name that, and volumes that are shared with the host would be so no longer.
            os.fchdir(old)
        finally:
            os.close(old)
        libc.mount(None, ".", flags=libc.MS_SLAVE | libc.MS_REC)
        libc.umount2(".", libc.MNT_DETACH)
        os.chdir("/")

    def describe(self) -> str:
        return f"change the root to {self.root}"


OPERATIONS: dict[str, Any] = {
    operation.__name__: operation
    for operation in (
        Propagation,
        Overlay,
        Root,
        FileSystem,
        BindTree,
        Directory,
        File,
        Symlink,
        DeviceNode,
        Mask,
        ReadOnly,
        ReadOnlyRoot,
        Console,
        Pivot,
    )
}


def encode(operation: Any) -> list[Any]:
    """The wire form: ``[name, field, ...]``, nothing but JSON."""
    return [type(operation).__name__, *operation]


def decode(wire: Sequence[Any]) -> Any:
    """The operation of a wire form. Raises ValueError for an unknown name or a wrong number of fields."""
    operation = OPERATIONS.get(wire[0]) if wire else None
    if operation is None:
        raise ValueError(f"unknown mount operation {wire[:1]!r}")
    try:
        return operation(*(tuple(field) if isinstance(field, list) else field for field in wire[1:]))
    except TypeError as error:
        raise ValueError(f"mount operation {wire[0]}: {error}") from error


def open_terminal(root_fd: int) -> tuple[int, int]:
    """A new pseudo-terminal of the root's own devpts: (master, slave), neither of them a controlling terminal.

    The slave is the master's peer by ioctl, so no path of the container decides what is opened.
    """
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    master = open_in_root(root_fd, "/dev/pts/ptmx", flags)
    try:
        if libc.fstatfs_type(master) != libc.DEVPTS_SUPER_MAGIC:
            raise OSError(errno.ENOTTY, "/dev/pts is not a devpts", "/dev/pts/ptmx")
        return master, libc.terminal_peer(master, flags)
    except BaseException:
        os.close(master)
        raise
