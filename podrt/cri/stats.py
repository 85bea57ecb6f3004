"""The CRI's usage of containers and sandboxes, from the engine's counters.

All that a call asks for is read in one go (:meth:`podrt.engine.api.EngineApi.all_stats`), and turned into messages in
a thread, since hundreds of them would hold up the event loop. What the kernel does not tell is unset, never 0: limits
that there are none of, pressure without PSI, disk usage before the first walk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from cri_api.v1 import api_pb2 as api

from podrt.config import Config
from podrt.cri import report
from podrt.cri.filesystems import filesystem, mountpoints
from podrt.cri.own import Own
from podrt.cri.rates import Rates
from podrt.engine.api import EngineApi
from podrt.engine.specs import ContainerState, ContainerStatus, SandboxState, SandboxStatus, Stats
from podrt.errors import ConflictError, NotFoundError
from podrt.linux.cgroup.pressure import Pressure, Stall
from podrt.linux.netdev import Interface

_DEFAULT_INTERFACE = "eth0"
_LOOPBACK = "lo"
_COUNTED = (ContainerState.CREATED, ContainerState.RUNNING)


class StatsService:
    """The four RPCs about usage, as RuntimeService has them."""

    def __init__(self, config: Config, engine: EngineApi, own: Own) -> None:
        self._config = config
        self._engine = engine
        self._own = own
        self._rates = Rates()

    async def ContainerStats(self, request: api.ContainerStatsRequest) -> api.ContainerStatsResponse:
        """Of any container; of an ended one no more than its writable layer. Raises NotFoundError."""
        status = self._own.container(request.container_id)
        (found,) = await self._containers([status])
        return api.ContainerStatsResponse(stats=found)

    async def ListContainerStats(self, request: api.ListContainerStatsRequest) -> api.ListContainerStatsResponse:
        """Of the containers that have not ended."""
        wanted = request.filter
        found = self._own.containers()
        self._forget(found)
        try:
            identity = self._own.container(wanted.id).id if wanted.id else ""
            sandbox_id = self._own.sandbox(wanted.pod_sandbox_id).id if wanted.pod_sandbox_id else ""
        except NotFoundError:
            return api.ListContainerStatsResponse()
        chosen = [
            one
            for one in found
            if one.state in _COUNTED
            and identity in ("", one.id)
            and sandbox_id in ("", one.sandbox_id)
            and report.matches(one.spec.labels, wanted.label_selector)
        ]
        return api.ListContainerStatsResponse(stats=await self._containers(chosen))

    async def PodSandboxStats(self, request: api.PodSandboxStatsRequest) -> api.PodSandboxStatsResponse:
        """Raises NotFoundError, ConflictError for a sandbox that is stopped."""
        status = self._own.sandbox(request.pod_sandbox_id)
        if status.state is not SandboxState.READY:
            raise ConflictError(f"sandbox {status.spec.name} ({status.id[:12]}) is not ready: it uses nothing")
        found = await self._sandboxes([status])
        if not found:
            raise NotFoundError(f"sandbox {status.id!r} does not exist")
        return api.PodSandboxStatsResponse(stats=found[0])

    async def ListPodSandboxStats(self, request: api.ListPodSandboxStatsRequest) -> api.ListPodSandboxStatsResponse:
        """Of the sandboxes that are ready, with their containers that have not ended."""
        wanted = request.filter
        self._forget(self._own.containers())
        try:
            identity = self._own.sandbox(wanted.id).id if wanted.id else ""
        except NotFoundError:
            return api.ListPodSandboxStatsResponse()
        chosen = [
            one
            for one in self._own.sandboxes()
            if one.state is SandboxState.READY
            and identity in ("", one.id)
            and report.matches(one.spec.labels, wanted.label_selector)
        ]
        return api.ListPodSandboxStatsResponse(stats=await self._sandboxes(chosen))

    # Inside

    def _forget(self, containers: Sequence[ContainerStatus]) -> None:
        self._rates.keep({one.id for one in containers} | {one.id for one in self._own.sandboxes()})

    async def _containers(self, statuses: Sequence[ContainerStatus]) -> list[api.ContainerStats]:
        stats = await self._engine.all_stats([one.id for one in statuses], ())
        _, mountpoint = mountpoints(self._config)

        def convert() -> list[api.ContainerStats]:
            return [self._container(one, stats[one.id], mountpoint) for one in statuses if one.id in stats]

        return await asyncio.to_thread(convert)

    async def _sandboxes(self, statuses: Sequence[SandboxStatus]) -> list[api.PodSandboxStats]:
        members: dict[str, list[ContainerStatus]] = {one.id: [] for one in statuses}
        for one in self._own.containers():
            if one.sandbox_id in members and one.state in _COUNTED:
                members[one.sandbox_id].append(one)
        ids = [one.id for some in members.values() for one in some]
        stats = await self._engine.all_stats(ids, list(members))
        _, mountpoint = mountpoints(self._config)

        def convert() -> list[api.PodSandboxStats]:
            found = []
            for status in statuses:
                if status.id not in stats:
                    continue  # removed meanwhile
                containers = [
                    self._container(one, stats[one.id], mountpoint) for one in members[status.id] if one.id in stats
                ]
                found.append(self._sandbox(status, stats[status.id], containers))
            return found

        return await asyncio.to_thread(convert)

    def _container(self, status: ContainerStatus, stats: Stats, mountpoint: str) -> api.ContainerStats:
        result = api.ContainerStats(
            attributes=api.ContainerAttributes(
                id=status.id,
                metadata=report.container_metadata(status),
                labels=status.spec.labels,
                annotations=status.spec.annotations,
            )
        )
        if stats.rootfs_at:
            usage = filesystem(mountpoint, stats.rootfs_at, stats.rootfs_bytes, stats.rootfs_inodes)
            result.writable_layer.CopyFrom(usage)
        if status.state in _COUNTED:
            rate = self._rates.of(status.id, stats.at, stats.cpu_usage_ns, status.created_at)
            result.cpu.CopyFrom(cpu(stats, rate))
            result.memory.CopyFrom(memory(stats))
            result.swap.CopyFrom(swap(stats))
            if "io" in stats.pressure:
                result.io.CopyFrom(io(stats))
        return result

    def _sandbox(
        self, status: SandboxStatus, stats: Stats, containers: Sequence[api.ContainerStats]
    ) -> api.PodSandboxStats:
        at = report.nanoseconds(stats.at)
        rate = self._rates.of(status.id, stats.at, stats.cpu_usage_ns, status.created_at)
        return api.PodSandboxStats(
            attributes=api.PodSandboxAttributes(
                id=status.id,
                metadata=report.sandbox_metadata(status),
                labels=status.spec.labels,
                annotations=status.spec.annotations,
            ),
            linux=api.LinuxPodSandboxStats(
                cpu=cpu(stats, rate),
                memory=memory(stats),
                network=network(stats) if stats.network else None,
                process=api.ProcessUsage(timestamp=at, process_count=_number(stats.processes)),
                containers=containers,
                io=io(stats) if "io" in stats.pressure else None,
            ),
        )


# -- messages


def cpu(stats: Stats, rate: int | None) -> api.CpuUsage:
    """``rate`` in nanocores."""
    return api.CpuUsage(
        timestamp=report.nanoseconds(stats.at),
        usage_core_nano_seconds=_number(stats.cpu_usage_ns),
        usage_nano_cores=None if rate is None else _number(rate),
        psi=_psi(stats.pressure, "cpu"),
    )


def memory(stats: Stats) -> api.MemoryUsage:
    """What is available is unset where the cgroup has no limit of its own."""
    available = None
    if stats.memory_limit:
        available = _number(max(stats.memory_limit - stats.memory_working_set, 0))
    return api.MemoryUsage(
        timestamp=report.nanoseconds(stats.at),
        working_set_bytes=_number(stats.memory_working_set),
        available_bytes=available,
        usage_bytes=_number(stats.memory_usage),
        rss_bytes=_number(stats.memory_rss),
        page_faults=_number(stats.memory_page_faults),
        major_page_faults=_number(stats.memory_major_page_faults),
        psi=_psi(stats.pressure, "memory"),
    )


def swap(stats: Stats) -> api.SwapUsage:
    """What is available is unset without a limit of swap."""
    available = None
    if stats.swap_limit >= 0:
        available = _number(max(stats.swap_limit - stats.swap_usage, 0))
    return api.SwapUsage(
        timestamp=report.nanoseconds(stats.at),
        swap_available_bytes=available,
        swap_usage_bytes=_number(stats.swap_usage),
    )


def io(stats: Stats) -> api.IoUsage:
    return api.IoUsage(timestamp=report.nanoseconds(stats.at), psi=_psi(stats.pressure, "io"))


def network(stats: Stats) -> api.NetworkUsage:
    """The default interface is eth0, which the built-in bridge and CNI make, else the first. No loopback."""
    found = [one for one in stats.network if one.name != _LOOPBACK]
    default = next((one for one in found if one.name == _DEFAULT_INTERFACE), found[0] if found else None)
    return api.NetworkUsage(
        timestamp=report.nanoseconds(stats.at),
        default_interface=None if default is None else _interface(default),
        interfaces=[_interface(one) for one in found if one is not default],
    )


def _interface(counted: Interface) -> api.NetworkInterfaceUsage:
    return api.NetworkInterfaceUsage(
        name=counted.name,
        rx_bytes=_number(counted.rx_bytes),
        rx_errors=_number(counted.rx_errors),
        tx_bytes=_number(counted.tx_bytes),
        tx_errors=_number(counted.tx_errors),
    )


def _psi(pressure: Mapping[str, Pressure], resource: str) -> api.PsiStats | None:
    found = pressure.get(resource)
    return None if found is None else api.PsiStats(Full=_stall(found.full), Some=_stall(found.some))


def _stall(stall: Stall) -> api.PsiData:
    return api.PsiData(Total=stall.total_us * 1000, Avg10=stall.avg10, Avg60=stall.avg60, Avg300=stall.avg300)


def _number(value: int) -> Any:
    return api.UInt64Value(value=value)
