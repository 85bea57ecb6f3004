"""Counters of network interfaces, in other network namespaces than the caller's.

One throw-away thread visits all namespaces in turn and reads /proc/thread-self/net/dev in each (proc_pid_net(5)): some
30 us each, where a netlink dump would take ten times that.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Sequence
from typing import NamedTuple

from podrt.linux import abi, libc, namespace

_LOG = logging.getLogger(__name__)


class Interface(NamedTuple):
    """Counts since the interface was made; ``rx`` is what it received."""

    name: str
    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


def counters(paths: Sequence[str]) -> dict[str, tuple[Interface, ...]]:
    """The interfaces of each of the pinned namespaces, in the kernel's order; those that are gone are left out.

    Blocks for as long as it takes.
    """
    found: dict[str, tuple[Interface, ...]] = {}
    if not paths:
        return found
    fd = namespace.open_current("net")
    try:
        namespace.in_netns(fd, lambda: found.update((path, here) for path in paths if (here := _visit(path))))
    finally:
        os.close(fd)
    return found


def _visit(path: str) -> tuple[Interface, ...]:
    """Enter a namespace, to stay in it, and look around."""
    try:
        fd = namespace.open_pinned(path)
        try:
            libc.setns(fd, abi.CLONE_NEWNET)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno != errno.ENOENT:  # else its sandbox is being stopped
            _LOG.warning("interfaces of %s can't be read: %s", path, error)
        return ()
    with open("/proc/thread-self/net/dev", "rb") as file:
        return parse(file.read().decode(errors="replace"))


def parse(text: str) -> tuple[Interface, ...]:
    """The lines of /proc/net/dev below its two headings."""
    result = []
    for line in text.splitlines()[2:]:
        name, _, rest = line.rpartition(":")
        numbers = [int(field) for field in rest.split()]
        result.append(Interface(name.strip(), *numbers[0:4], *numbers[8:12]))
    return tuple(result)
