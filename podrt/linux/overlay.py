"""Mounting an overlay of many layers, on kernels with and without ``lowerdir+``."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from podrt.linux import abi, libc

_LAYERS_SINCE = (6, 7)
"""Asked by version, not by trying: before 6.5 fsconfig(2) takes any option of an overlay, and only the mount fails,
with a line in the kernel's log for each container."""


_DETACHED_LAYERS_SINCE = (6, 15)


def attach_layers(target: str, fds: Sequence[int]) -> None:
    """Attach detached trees that are to be layers of an overlay at ``target``, where the kernel wants that of layers.

    They lie below the overlay, one on the other, and vanish with all else when the root is pivoted.
    """
    if _kernel() < _DETACHED_LAYERS_SINCE:
        for fd in fds:
            libc.move_mount(fd, "", abi.AT_FDCWD, target, abi.MOVE_MOUNT_F_EMPTY_PATH)


def mount_overlay(target: str, lower: Sequence[str], options: Sequence[str]) -> int:
    """Mount an overlay at ``target``, ``lower`` from top to bottom; returns a descriptor of its root."""
    fd = _by_layer(lower, options)
    if fd is not None:
        libc.move_mount(fd, "", abi.AT_FDCWD, target, abi.MOVE_MOUNT_F_EMPTY_PATH)
        return fd
    _by_page(target, lower, options)
    return os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _kernel() -> tuple[int, ...]:
    """``6.1.0-40-cloud-amd64`` -> (6, 1)."""
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in os.uname().release.split(".")[:2])


def configure(fd: int, options: Sequence[str]) -> None:
    """Options ``key`` and ``key=value`` of a file system context of fsopen(2)."""
    for option in options:
        key, separator, value = option.partition("=")
        if separator:
            libc.fsconfig(fd, abi.FSCONFIG_SET_STRING, key, value)
        else:
            libc.fsconfig(fd, abi.FSCONFIG_SET_FLAG, key)


def _by_layer(lower: Sequence[str], options: Sequence[str]) -> int | None:
    """The overlay through fsconfig(2), layer by layer; None if this kernel is too old for it."""
    if _kernel() < _LAYERS_SINCE:
        return None
    fd = libc.fsopen("overlay")
    try:
        for index, layer in enumerate(lower):
            try:
                libc.fsconfig(fd, abi.FSCONFIG_SET_STRING, "lowerdir+", layer)
            except OSError as error:
                if index == 0 and error.errno == errno.EINVAL:
                    return None
                raise
        configure(fd, options)
        libc.fsconfig(fd, abi.FSCONFIG_CMD_CREATE)
        return libc.fsmount(fd)
    finally:
        os.close(fd)


def _by_page(target: str, lower: Sequence[str], options: Sequence[str]) -> None:
    """The overlay through mount(2), whose options must fit in a page.

    The layers are named by descriptor number relative to /proc/self/fd, so that about a thousand of them fit, and a
    colon in a path means nothing.
    """
    fds: list[int] = []
    old = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        for layer in lower:
            fds.append(os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        # A comma in a label ends no option if it is quoted, and fsconfig(2) would take the quotes for a part of it.
        quoted = [
            f'context="{value}"' if key == "context" else option
            for option in options
            for key, _, value in (option.partition("="),)
        ]
        data = ",".join([*quoted, "lowerdir=" + ":".join(map(str, fds))])
        if len(os.fsencode(data)) > 4095:
            raise OSError(errno.E2BIG, f"{len(lower)} layers don't fit in one mount", target)
        os.chdir("/proc/self/fd")
        libc.mount("overlay", target, "overlay", 0, data)
    finally:
        os.fchdir(old)
        for fd in (*fds, old):
            os.close(fd)
