"""Usage of containers and sandboxes, read from the kernel when asked for."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from podrt.engine.specs import Stats
from podrt.engine.state import Container, Machine, Sandbox


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
    """(bytes allocated, inodes) below a directory, each hard-linked file once, other file systems left out."""
    used = inodes = 0
    seen: set[int] = set()
    pending = [os.fspath(directory)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    if found.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                        if found.st_ino in seen:
                            continue
                        seen.add(found.st_ino)
                    used += found.st_blocks * 512
                    inodes += 1
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
        except FileNotFoundError:
            continue  # removed meanwhile
    return used, inodes
