"""Mounts as the daemon handles them: detached trees, pinned namespaces, and the table of what is mounted.

A *tree* is the descriptor of a detached copy of a mount, open_tree(2) with OPEN_TREE_CLONE: opened in the host's mount
namespace, given its attributes, sent to the child with SCM_RIGHTS and attached there, so that no path of the host is
looked up where a container could have changed it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import NamedTuple

from podrt.linux import abi, libc


class MountPoint(NamedTuple):
    """One line of /proc/PID/mountinfo, see proc_pid_mountinfo(5)."""

    id: int
    parent: int
    root: str
    path: str
    fstype: str
    source: str
    shared: bool
    slave: bool = False


def clone_tree(source: str | os.PathLike[str] | int, *, recursive: bool = True) -> int:
    """A detached copy of the mount at a path or O_PATH descriptor, with what is mounted below if ``recursive``.

    A path's last component may be a link; a caller who doesn't trust the path passes a descriptor. Raises OSError.
    """
    flags = abi.OPEN_TREE_CLONE | (abi.AT_RECURSIVE if recursive else 0)
    if isinstance(source, int):
        return libc.open_tree(source, "", flags | abi.AT_EMPTY_PATH)
    return libc.open_tree(abi.AT_FDCWD, os.fspath(source), flags)


def set_tree(
    fd: int,
    *,
    read_only: bool = False,
    recursive: bool = False,
    nosuid: bool = False,
    nodev: bool = False,
    noexec: bool = False,
    propagation: int = 0,
    idmap_userns_fd: int = -1,
) -> None:
    """Attributes of a detached tree. ``propagation`` is MS_PRIVATE, MS_SLAVE or MS_SHARED, and always recursive.

    ``idmap_userns_fd``: show files with the ids of that user namespace; only for a tree that was never idmapped, and
    only on file systems that support it (EINVAL otherwise).
    """
    attributes = (
        (abi.MOUNT_ATTR_RDONLY if read_only else 0)
        | (abi.MOUNT_ATTR_NOSUID if nosuid else 0)
        | (abi.MOUNT_ATTR_NODEV if nodev else 0)
        | (abi.MOUNT_ATTR_NOEXEC if noexec else 0)
        | (abi.MOUNT_ATTR_IDMAP if idmap_userns_fd >= 0 else 0)
    )
    flags = abi.AT_EMPTY_PATH | (abi.AT_RECURSIVE if recursive else 0)
    if propagation:
        libc.mount_setattr(fd, "", abi.AT_EMPTY_PATH | abi.AT_RECURSIVE, propagation=propagation)
    if attributes:
        libc.mount_setattr(fd, "", flags, set=attributes, userns_fd=idmap_userns_fd)


def attach_tree(fd: int, target: str | os.PathLike[str]) -> None:
    """Mount a detached tree at a path that the caller trusts."""
    libc.move_mount(fd, "", abi.AT_FDCWD, os.fspath(target), abi.MOVE_MOUNT_F_EMPTY_PATH)


def pin_namespace(ns_fd: int, path: str | os.PathLike[str]) -> None:
    """Keep a namespace alive without a process: bind-mount it on a new file, as ``ip netns`` does.

    Raises FileExistsError if the path exists.
    """
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o444))
    try:
        libc.mount(f"/proc/self/fd/{ns_fd}", os.fspath(path), flags=abi.MS_BIND)
    except BaseException:
        os.unlink(path)
        raise


def unpin(path: str | os.PathLike[str]) -> None:
    """Undo :func:`pin_namespace`: unmount all that is on ``path`` and remove the file. Nothing if it is gone."""
    unmount_all(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def unmount_all(path: str | os.PathLike[str]) -> None:
    """Detach every mount stacked on ``path``; nothing if there is none."""
    while True:
        try:
            libc.umount2(os.fspath(path), abi.MNT_DETACH | abi.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                return
            raise


def _unescape(text: str) -> str:
    """Undo mountinfo's escapes: a backslash and three octal digits for space, tab, newline, # and backslash."""
    head, *parts = text.split("\\")
    return head + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts)


def parse_mountinfo(text: str) -> list[MountPoint]:
    """The lines of a mountinfo file, oldest mount first."""
    points = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        fstype, source = right.split(" ")[:2]
        shared = any(tag.startswith("shared:") for tag in fields[6:])
        points.append(
            MountPoint(
                int(fields[0]),
                int(fields[1]),
                _unescape(fields[3]),
                _unescape(fields[4]),
                fstype,
                _unescape(source),
                shared,
                any(tag.startswith("master:") for tag in fields[6:]),
            )
        )
    return points


def mount_points(prefix: str | os.PathLike[str] = "/") -> list[MountPoint]:
    """What is mounted at or below ``prefix`` in this process's mount namespace, oldest first."""
    with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        text = file.read()
    start = os.path.realpath(prefix)
    inside = start.rstrip("/") + "/"
    return [point for point in parse_mountinfo(text) if point.path == start or point.path.startswith(inside)]


def _mount_on(path: str) -> MountPoint | None:
    """The mount whose root ``path`` is, as a look-up of the path finds it: one hidden below a newer mount isn't it."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/thread-self/fdinfo/{fd}", encoding="ascii") as file:
            rows = dict(line.split(":", 1) for line in file)
    finally:
        os.close(fd)
    found = int(rows["mnt_id"])
    return next((point for point in mount_points(path) if point.id == found), None)


def _make_mount(path: str, propagation: int) -> None:
    path = os.path.realpath(path)
    point = _mount_on(path)
    if point is None or point.path != path:
        libc.mount(path, path, flags=abi.MS_BIND | abi.MS_REC)
        point = _mount_on(path)
    if point is None or point.shared != (propagation == abi.MS_SHARED):
        libc.mount(None, path, flags=propagation | abi.MS_REC)


def make_runtime_mount(path: str | os.PathLike[str]) -> None:
    """Make ``path`` a private mount point on tmpfs, for state that must not outlive a reboot. Can be repeated.

    On a tmpfs already, as /run is under systemd, it is a bind mount of itself; elsewhere a new tmpfs. Two processes
    that do so at the same time mount once.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        real = os.path.realpath(path)
        point = _mount_on(real)
        if (point is None or point.path != real) and libc.fstatfs_type(fd) != abi.TMPFS_MAGIC:
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
            libc.mount("tmpfs", real, "tmpfs", abi.MS_NOSUID | abi.MS_NODEV, f"mode={mode:o}")
        _make_mount(real, abi.MS_PRIVATE)
    finally:
        os.close(fd)


def make_private_mount(path: str | os.PathLike[str]) -> None:
    """Make ``path`` a mount point of its own whose mounts don't propagate. Can be repeated."""
    _make_mount(os.fspath(path), abi.MS_PRIVATE)


def make_shared_mount(path: str | os.PathLike[str]) -> None:
    """Make ``path`` a shared mount point, as ``ip netns`` makes /run/netns. Can be repeated."""
    _make_mount(os.fspath(path), abi.MS_SHARED)
