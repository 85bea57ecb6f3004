"""Mount operations as data: a list made by the daemon, carried out by the child between fork and exec.

Each operation is a NamedTuple with ``execute(context)`` and ``describe()``; :func:`encode` and :func:`decode` are its
wire form, a JSON array of the operation's name and its fields. Here are those that mount and the list of all; the
others are in ``mount_nodes`` (what is made inside the root), ``mount_cover`` (what is hidden or made read-only) and
``mount_console``.

The child runs as root in a mount namespace of its own with the image's files under its hands. Paths inside the root
(always absolute there) are looked up by :mod:`podrt.linux.inroot` alone, and mounts are attached to descriptors. No
import happens in these modules after they are loaded.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from podrt.linux import abi, libc
from podrt.linux.inroot import IN_ROOT, make_directory, make_file
from podrt.linux.mount_console import Console
from podrt.linux.mount_context import Context, attach, refuse_proc
from podrt.linux.mount_cover import Mask, ReadOnly, ReadOnlyRoot
from podrt.linux.mount_nodes import DeviceNode, Directory, File, Symlink
from podrt.linux.mount_table import attach_tree, clone_tree, set_tree
from podrt.linux.overlay import attach_layers, configure, mount_overlay

_CONTEXT = "context="
"""The option of SELinux that gives all files of a mount one label."""


def _set_label(fd: int, label: str) -> None:
    """The SELinux label of an O_PATH descriptor's file; passed over where the file system has none."""
    try:
        os.setxattr(f"/proc/self/fd/{fd}", "security.selinux", label.encode())
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise


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
            resolve = IN_ROOT | abi.RESOLVE_NO_SYMLINKS
            target_fd = libc.openat2(root_fd, self.target, os.O_PATH | os.O_DIRECTORY, 0, resolve)
        try:
            if self.fstype != "proc":
                # An image whose /dev is a link to /proc would have the masked paths hidden instead of masked.
                refuse_proc(target_fd, self.target)
            fd = libc.fsopen(self.fstype)
            try:
                if self.source:
                    libc.fsconfig(fd, abi.FSCONFIG_SET_STRING, "source", self.source)
                options, label = self.options, ""
                if self.fstype == "mqueue":
                    # One of an IPC namespace, which other containers may have mounted with another label.
                    label = next((one[len(_CONTEXT) :] for one in options if one.startswith(_CONTEXT)), "")
                    options = tuple(one for one in options if not one.startswith(_CONTEXT))
                configure(fd, options)
                libc.fsconfig(fd, abi.FSCONFIG_CMD_CREATE)
                mount_fd = libc.fsmount(fd, attributes=self.attrs)
                if label:
                    _set_label(mount_fd, label)
            finally:
                os.close(fd)
            try:
                attach(mount_fd, target_fd, self.target)
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
            refuse_proc(target_fd, self.target)
            attach(tree_fd, target_fd, self.target)
        finally:
            os.close(target_fd)

    def describe(self) -> str:
        return f"bind {'read-only ' if self.read_only else ''}on {self.target}"


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
        libc.mount(None, ".", flags=abi.MS_SLAVE | abi.MS_REC)
        libc.umount2(".", abi.MNT_DETACH)
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
