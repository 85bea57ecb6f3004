"""Usage of containers and sandboxes, read from the kernel when asked for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from podrt.engine.specs import Stats
from podrt.engine.state import Container, Machine, Sandbox
from podrt.linux import libc

_RESOLVE = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS | libc.RESOLVE_NO_XDEV


async def of_container(machine: Machine, unit: Container) -> Stats:
    """The writable layer is walked in a thread. A container that doesn't run uses nothing but disk."""
    used, inodes = await asyncio.to_thread(disk_usage, unit.storage / "upper")
    return _read(machine, unit.record.cgroup, rootfs_bytes=used, rootfs_inodes=inodes)


async def of_sandbox(machine: Machine, sandbox: Sandbox) -> Stats:
    """The Pod's cgroup, and the sum of its containers' writable layers."""
    used = inodes = 0
    for unit in machine.containers_of(sandbox.id):
        some, entries = await asyncio.to_thread(disk_usage, unit.storage / "upper")
        used += some
        inodes += entries
    return _read(machine, sandbox.record.cgroup, rootfs_bytes=used, rootfs_inodes=inodes)


def _read(machine: Machine, cgroup: str, **disk: int) -> Stats:
    try:
        numbers = machine.cgroups.stats(cgroup)
    except FileNotFoundError:
        numbers = {}
    known = {name: value for name, value in numbers.items() if name in Stats.__struct_fields__}
    return Stats(at=time.time(), **known, **disk)


def disk_usage(directory: Path) -> tuple[int, int]:
    """(bytes allocated, inodes) below a directory, each hard-linked file once, other file systems left out.

    A container works in it meanwhile: no link that it exchanges for a directory is followed, and what can't be opened
    (gone, or nested deeper than a path can be long) is not counted.
    """
    used = inodes = 0
    seen: set[int] = set()
    try:
        top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0, 0
    try:
        pending = ["."]
        while pending:
            path = pending.pop()
            try:
                fd = libc.openat2(top, path, os.O_RDONLY | os.O_DIRECTORY, 0, _RESOLVE)
            except OSError:
                continue
            for name, found in _entries(fd):
                if stat.S_ISDIR(found.st_mode):
                    pending.append(f"{path}/{name}")
                elif found.st_nlink > 1:
                    if found.st_ino in seen:
                        continue
                    seen.add(found.st_ino)
                used += found.st_blocks * 512
                inodes += 1
    finally:
        os.close(top)
    return used, inodes


def _entries(fd: int) -> Iterator[tuple[str, os.stat_result]]:
    """What is in a directory; closes ``fd``."""
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    yield entry.name, entry.stat(follow_symlinks=False)
    finally:
        os.close(fd)
