"""Namespaces: kinds, descriptors, id maps, and running a function inside a network namespace."""

from __future__ import annotations

import _thread
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from podrt.linux import abi, libc

Result = TypeVar("Result")

FLAGS: dict[str, int] = {
    "mnt": abi.CLONE_NEWNS,
    "cgroup": abi.CLONE_NEWCGROUP,
    "uts": abi.CLONE_NEWUTS,
    "ipc": abi.CLONE_NEWIPC,
    "user": abi.CLONE_NEWUSER,
    "pid": abi.CLONE_NEWPID,
    "net": abi.CLONE_NEWNET,
}
"""CLONE_NEW* of each kind; the kinds are the names below /proc/PID/ns."""
KINDS: tuple[str, ...] = tuple(FLAGS)


def flags(kinds: Iterable[str]) -> int:
    """The CLONE_NEW* flags of several kinds. Raises KeyError for a kind that doesn't exist."""
    result = 0
    for kind in kinds:
        result |= FLAGS[kind]
    return result


def open_current(kind: str) -> int:
    """A descriptor of the calling thread's namespace. For ``pid`` the one that its next children will be in."""
    name = "pid_for_children" if kind == "pid" else kind
    return os.open(f"/proc/thread-self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)


def open_of(pid: int, kind: str) -> int:
    """A descriptor of another process's namespace."""
    return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def open_pinned(path: str | os.PathLike[str]) -> int:
    """A descriptor of a namespace pinned at ``path``. Raises FileNotFoundError if nothing is pinned there."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if libc.fstatfs_type(fd) != abi.NSFS_MAGIC:
        os.close(fd)
        raise FileNotFoundError(2, "no namespace is pinned here", os.fspath(path))
    return fd


def inode(namespace: int | str | os.PathLike[str]) -> int:
    """The number that names a namespace, from a descriptor or path: equal for the same namespace."""
    return os.stat(namespace).st_ino


def same(first: int | str | os.PathLike[str], second: int | str | os.PathLike[str]) -> bool:
    """Whether two descriptors or paths are the same namespace."""
    return os.path.samestat(os.stat(first), os.stat(second))


def write_id_maps(pid: int, uid_map: Sequence[tuple[int, int, int]], gid_map: Sequence[tuple[int, int, int]]) -> None:
    """Write uid_map and gid_map, rows of (inside, outside, count), of a process in a new user namespace.

    By a process with CAP_SETUID and CAP_SETGID in the parent namespace, see user_namespaces(7). The kernel takes a map
    in one write only. Raises OSError; EPERM if a map was written before.
    """
    for name, rows in (("uid_map", uid_map), ("gid_map", gid_map)):
        text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in rows)
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def in_netns(fd: int, function: Callable[[], Result]) -> Result:
    """Run ``function`` in a thread of its own that has entered the network namespace ``fd``, and return its result.

    A thread that has changed its namespace must not be used for anything else, so it ends with the function. What the
    function raises is raised here. _thread and not threading: the supervisor loads this module and stays small.
    """
    results: list[Result] = []
    errors: list[BaseException] = []
    done = _thread.allocate_lock()
    done.acquire()

    def run() -> None:
        try:
            libc.setns(fd, abi.CLONE_NEWNET)
            results.append(function())
        except BaseException as error:
            errors.append(error)
        finally:
            done.release()

    _thread.start_new_thread(run, ())
    done.acquire()
    if errors:
        raise errors[0]
    return results[0]
