"""This machine as a Node object: addresses, capacity, allocatable, conditions, system facts (psutil and /proc)."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import psutil

from podrt import __version__
from podrt.config import Config
from podrt.model.base import format_time
from podrt.model.meta import ObjectMeta
from podrt.model.node import (
    ContainerImage,
    Node,
    NodeAddress,
    NodeCondition,
    NodeStatus,
    NodeSystemInfo,
)
from podrt.model.quantity import Quantity
from podrt.node import eviction

MAX_PODS = 500
MAX_IMAGES = 50
"""Images listed in the node's status, the largest first, as the kubelet does."""


class NodeInfo:
    """What this machine is and has."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.name = config.node_name or socket.gethostname().lower()
        self._addresses: tuple[str, ...] = ()
        self.pressure: frozenset[str] = frozenset()
        """MemoryPressure, DiskPressure, if the node is under it."""

    def addresses(self) -> tuple[str, ...]:
        """The machine's own addresses, at most one per family, IPv4 first; 127.0.0.1 if there is no other."""
        if not self._addresses:
            self._addresses = _host_addresses(self._config.bridge)
        return self._addresses

    @functools.lru_cache(maxsize=1)  # noqa: B019 - one object, as long as the daemon
    def allocatable(self) -> Mapping[str, str]:
        """Resource name -> quantity. Nothing is reserved for the system on one machine: it is the capacity."""
        disk = shutil.disk_usage(self._config.state_dir)
        return {
            "cpu": str(os.cpu_count() or 1),
            "memory": f"{psutil.virtual_memory().total // 1024}Ki",
            "ephemeral-storage": f"{disk.total // 1024}Ki",
            "pods": str(MAX_PODS),
            **_huge_pages(),
        }

    def status(self, old: NodeStatus, images: tuple[ContainerImage, ...]) -> NodeStatus:
        """The node's status now; times of unchanged conditions are kept from ``old``."""
        # Asked anew once a minute only: with hundreds of Pods there are as many links to look at.
        self._addresses = ()
        addresses = tuple(NodeAddress(type="InternalIP", address=ip) for ip in self.addresses())
        return NodeStatus(
            capacity=dict(self.allocatable()),
            allocatable=dict(self.allocatable()),
            conditions=self._conditions(old),
            addresses=(*addresses, NodeAddress(type="Hostname", address=self.name)),
            node_info=_system_info(),
            images=images,
        )

    def _conditions(self, old: NodeStatus) -> tuple[NodeCondition, ...]:
        memory_low, disk_low = "MemoryPressure" in self.pressure, "DiskPressure" in self.pressure
        threads_low = not _pids_left()
        wanted = (
            ("MemoryPressure", memory_low, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory", "memory"),
            ("DiskPressure", disk_low, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure", "disk space"),
            ("PIDPressure", threads_low, "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "PIDs"),
        )
        stamp = format_time(time.time())
        before = {condition.type: condition for condition in old.conditions}

        def condition(kind: str, value: bool, reason: str, message: str) -> NodeCondition:
            status, last = "True" if value else "False", before.get(kind)
            kept = last.last_transition_time if last is not None and last.status == status else None
            return NodeCondition(
                type=kind,
                status=status,
                last_heartbeat_time=stamp,
                last_transition_time=kept or stamp,
                reason=reason,
                message=message,
            )

        pressure = [
            condition(
                kind, low, bad if low else good, f"podrt has {'too little' if low else 'sufficient'} {what} available"
            )
            for kind, low, bad, good, what in wanted
        ]
        return (*pressure, condition("Ready", True, "KubeletReady", "podrt is posting ready status"))

    def node(self, images: tuple[ContainerImage, ...], old: Node | None = None) -> Node:
        """The Node object, new or on top of ``old``."""
        labels = {
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": _go_arch(),
        }
        if old is None:
            old = Node(metadata=ObjectMeta(name=self.name))
        meta = msgspec.structs.replace(old.metadata, labels={**old.metadata.labels, **labels})
        others = tuple(taint for taint in old.spec.taints if taint.key not in eviction.TAINTS.values())
        taints = (*others, *eviction.pressure_taints(self.pressure))
        spec = old.spec if taints == old.spec.taints else msgspec.structs.replace(old.spec, taints=taints)
        return msgspec.structs.replace(old, metadata=meta, spec=spec, status=self.status(old.status, images))


def _huge_pages() -> dict[str, str]:
    """``hugepages-2Mi`` and so on, as many as the kernel has set aside."""
    found = {}
    for path in sorted(Path("/sys/kernel/mm/hugepages").glob("hugepages-*kB")):
        size = int(path.name.removeprefix("hugepages-").removesuffix("kB")) * 1024
        found[f"hugepages-{Quantity.bytes(size)}"] = str(
            Quantity.bytes(size * int((path / "nr_hugepages").read_text()))
        )
    return found


def _host_addresses(bridge: str) -> tuple[str, ...]:
    found: dict[int, str] = {}
    state = psutil.net_if_stats()
    for name, entries in sorted(psutil.net_if_addrs().items()):
        if (
            name == "lo"
            or name.startswith(("veth", "docker", "cni", bridge))
            or not (name in state and state[name].isup)
        ):
            continue
        for entry in entries:
            if entry.family in (socket.AF_INET, socket.AF_INET6) and not entry.address.lower().startswith("fe80"):
                found.setdefault(entry.family, entry.address.partition("%")[0])
    addresses = tuple(found[family] for family in (socket.AF_INET, socket.AF_INET6) if family in found)
    return addresses or ("127.0.0.1",)


def _pids_left() -> bool:
    """Whether a tenth of the kernel's PIDs is free."""
    limit = int(Path("/proc/sys/kernel/pid_max").read_text())
    running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    return running < limit * 9 // 10


def _go_arch() -> str:
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


@functools.cache
def _system_info() -> NodeSystemInfo:
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        system = "Linux"
    return NodeSystemInfo(
        machine_id=_read("/etc/machine-id"),
        system_uuid=_read("/sys/class/dmi/id/product_uuid"),
        boot_id=_read("/proc/sys/kernel/random/boot_id"),
        kernel_version=platform.release(),
        os_image=system,
        container_runtime_version=f"podrt://{__version__}",
        kubelet_version=f"v1.36.2+podrt.{__version__}",
        operating_system="linux",
        architecture=_go_arch(),
    )
