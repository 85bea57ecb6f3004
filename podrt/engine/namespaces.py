"""Making a sandbox's namespaces in a thread that ends with it.

unshare(2) of the network, UTS and IPC namespaces concerns the calling thread alone, so a thread can make and set them
up and hand over their descriptors in half a millisecond, where a forked child needs two and more. The thread must not
be used for anything else afterwards, so it is not one of a pool. A user namespace can't be made by one thread of
several (EINVAL): such sandboxes go through the supervisor."""

from __future__ import annotations

import os
from collections.abc import Sequence

from podrt.errors import LaunchError
from podrt.linux import libc, namespace
from podrt.supervisor import setup


def make(kinds: Sequence[str], hostname: str, sysctls: Sequence[tuple[str, str]]) -> list[int]:
    """Make the namespaces ``kinds`` for the calling thread, set them up, and return their descriptors in order.

    Raises OSError, and LaunchError for a sysctl that the kernel refuses.
    """
    libc.unshare(namespace.flags(kinds))
    if "uts" in kinds:
        setup.set_names(hostname, "")
    try:
        setup.write_sysctls(tuple(sysctls))
    except OSError as error:
        path = error.filename if isinstance(error.filename, str) else ""
        text = f"sysctl {path}: {error.strerror}"
        raise LaunchError("sysctl", error.errno or 0, path, text) from error
    if "net" in kinds:
        setup.loopback_up()
    fds: list[int] = []
    try:
        for kind in kinds:
            fds.append(namespace.open_current(kind))
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return fds
