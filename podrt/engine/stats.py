"""Usage of containers and sandboxes, read from the kernel when asked for, many in one go.

Whatever the number of containers, one thread reads their cgroups and another enters the sandboxes' network namespaces;
the disk usage of writable layers is known from :mod:`podrt.engine.disk`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from podrt.engine import threads
from podrt.engine.disk import Measured, together
from podrt.engine.specs import Stats
from podrt.engine.state import Container, Machine, Sandbox
from podrt.linux import netdev, process

_FIELDS = frozenset(Stats.__struct_fields__)


class Subject(NamedTuple):
    """One container or sandbox to read."""

    id: str
    cgroup: str
    pid: int = 0
    """The first process of a running container."""
    netns: str = ""


async def of_container(machine: Machine, unit: Container) -> Stats:
    """A container that doesn't run uses nothing but disk."""
    return (await read(machine, [unit], []))[unit.id]


async def of_sandbox(machine: Machine, sandbox: Sandbox) -> Stats:
    """The Pod's cgroup and network, and the sum of its containers' writable layers."""
    return (await read(machine, [], [sandbox]))[sandbox.id]


async def read(
    machine: Machine, units: Sequence[Container], sandboxes: Sequence[Sandbox], *, detailed: bool = False
) -> dict[str, Stats]:
    """By id. ``detailed`` fills ``Stats.more`` and ``Stats.devices``."""
    members: dict[str, list[Container]] = {one.id: [] for one in sandboxes}
    for unit in machine.containers.values():
        if unit.record.sandbox_id in members:
            members[unit.record.sandbox_id].append(unit)
    subjects = [Subject(one.id, one.record.cgroup, one.record.status().pid) for one in units]
    subjects += [Subject(one.id, one.record.cgroup, 0, one.record.namespaces.get("net", "")) for one in sandboxes]
    layers, found = await asyncio.gather(
        layer_usage(machine, [*units, *(unit for some in members.values() for unit in some)]),
        threads.in_own_thread(partial(_read_all, machine, subjects, detailed)),
    )
    disk = {one.id: layers[one.id] for one in units}
    disk |= {identity: together(layers[unit.id] for unit in some) for identity, some in members.items()}
    return {identity: Stats(**_disk(disk[identity]), **numbers) for identity, numbers in found.items()}


async def layer_usage(machine: Machine, units: Sequence[Container]) -> dict[str, Measured]:
    """Of each container's writable layer."""
    return await machine.disk.of((unit.id, unit.storage / "upper") for unit in units)


def _disk(measured: Measured) -> dict[str, Any]:
    return {"rootfs_at": measured.at, "rootfs_bytes": measured.bytes, "rootfs_inodes": measured.inodes}


def _read_all(machine: Machine, subjects: Sequence[Subject], detailed: bool) -> dict[str, dict[str, Any]]:
    networks = netdev.counters([one.netns for one in subjects if one.netns])
    return {one.id: _read(machine, one, networks.get(one.netns, ()), detailed) for one in subjects}


def _read(machine: Machine, subject: Subject, network: tuple[netdev.Interface, ...], detailed: bool) -> dict[str, Any]:
    """Fields of Stats; none but ``at`` of a cgroup that is gone."""
    cgroups = machine.cgroups
    result: dict[str, Any] = {"at": time.time(), "network": network}
    try:
        numbers = cgroups.stats(subject.cgroup)
        pressure = cgroups.pressure(subject.cgroup)
    except OSError:
        return result  # it goes while it is read
    pids = cgroups.pids(subject.cgroup)
    result |= {name: value for name, value in numbers.items() if name in _FIELDS}
    result |= {"pressure": pressure, "processes": len(pids)}
    if detailed:
        with contextlib.suppress(OSError):
            numbers |= cgroups.details(subject.cgroup)
            result["devices"] = cgroups.io(subject.cgroup)
        numbers |= process.open_files(pids)
        if subject.pid:
            numbers |= process.soft_limits(subject.pid)
        result["more"] = numbers
    return result
