"""Which metrics there are, and their values from one reading: cAdvisor's names, as KEP-2371 moves them to the runtime.

Values of the CRI are whole numbers, so seconds lose their fraction. A family whose numbers the kernel doesn't give
(block I/O on cgroup v1, pressure without PSI) has no values. Left out of cAdvisor's list: huge pages, load averages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cri_api.v1 import api_pb2 as api

from podrt.engine.specs import ContainerSpec, Stats

BASE_LABELS = ("id", "image", "namespace", "pod", "container")
"""Of every metric; those of a sandbox have an empty image and container."""


class Family(NamedTuple):
    """A metric's description. ``labels`` come after BASE_LABELS."""

    name: str
    help: str
    counter: bool = False
    labels: tuple[str, ...] = ()

    @property
    def kind(self) -> api.MetricType.ValueType:
        return api.COUNTER if self.counter else api.GAUGE


class Value(NamedTuple):
    family: str
    value: int
    labels: tuple[str, ...] = ()
    at: float = 0.0
    """When it was measured, if that is not now."""


class Volume(NamedTuple):
    """The file system that writable layers are on."""

    device: str
    size: int
    inodes: int
    free_inodes: int


_DEVICE, _INTERFACE = ("device",), ("interface",)

FAMILIES: tuple[Family, ...] = (
    Family("container_last_seen", "When the container was last looked at, in Unix seconds."),
    Family("container_start_time_seconds", "When the container was started, in Unix seconds."),
    Family("container_cpu_usage_seconds_total", "CPU time used, in seconds.", True, ("cpu",)),
    Family("container_cpu_user_seconds_total", "CPU time used in user mode, in seconds.", True),
    Family("container_cpu_system_seconds_total", "CPU time used in the kernel, in seconds.", True),
    Family("container_cpu_cfs_periods_total", "Periods in which the CPU quota was enforced.", True),
    Family("container_cpu_cfs_throttled_periods_total", "Periods in which the CPU quota was used up.", True),
    Family("container_cpu_cfs_throttled_seconds_total", "Time for which the CPU quota stopped it, in seconds.", True),
    Family("container_memory_usage_bytes", "All memory charged to it, in bytes."),
    Family("container_memory_working_set_bytes", "Memory in use but for inactive file pages, in bytes."),
    Family("container_memory_max_usage_bytes", "The most memory that was ever charged to it, in bytes."),
    Family("container_memory_rss", "Anonymous memory, in bytes."),
    Family("container_memory_cache", "Memory of the page cache, in bytes."),
    Family("container_memory_mapped_file", "Memory of mapped files, in bytes."),
    Family("container_memory_kernel_usage", "Memory of the kernel charged to it, in bytes."),
    Family("container_memory_swap", "Swap used, in bytes."),
    Family("container_memory_total_active_file_bytes", "File pages used lately, in bytes."),
    Family("container_memory_total_inactive_file_bytes", "File pages not used lately, in bytes."),
    Family("container_memory_failcnt", "How often the memory limit was reached.", True),
    Family("container_memory_failures_total", "Page faults, by kind.", True, ("failure_type", "scope")),
    Family("container_oom_events_total", "Processes killed for want of memory.", True),
    Family("container_fs_usage_bytes", "Bytes taken by the writable layer.", False, _DEVICE),
    Family("container_fs_limit_bytes", "Size of the file system of the writable layer, in bytes.", False, _DEVICE),
    Family("container_fs_inodes_total", "Inodes of the file system of the writable layer.", False, _DEVICE),
    Family("container_fs_inodes_free", "Free inodes of the file system of the writable layer.", False, _DEVICE),
    Family("container_fs_reads_total", "Block reads.", True, _DEVICE),
    Family("container_fs_reads_bytes_total", "Bytes read from block devices.", True, _DEVICE),
    Family("container_fs_writes_total", "Block writes.", True, _DEVICE),
    Family("container_fs_writes_bytes_total", "Bytes written to block devices.", True, _DEVICE),
    Family(
        "container_blkio_device_usage_total",
        "Bytes moved to and from block devices.",
        True,
        ("device", "major", "minor", "operation"),
    ),
    Family("container_processes", "Processes."),
    Family("container_threads", "Threads of all processes."),
    Family("container_threads_max", "How many threads it may have; 0: any number."),
    Family("container_file_descriptors", "Open descriptors of all processes."),
    Family("container_sockets", "Open sockets of all processes."),
    Family("container_ulimits_soft", "Soft limits of the first process.", False, ("ulimit",)),
    Family("container_spec_cpu_period", "Length of a period of the CPU quota, in microseconds."),
    Family("container_spec_cpu_quota", "CPU time allowed in each period, in microseconds."),
    Family("container_spec_cpu_shares", "CPU shares."),
    Family("container_spec_memory_limit_bytes", "Memory limit, in bytes; 0: none."),
    Family("container_spec_memory_reservation_limit_bytes", "Memory reservation, in bytes; podrt sets none."),
    Family("container_spec_memory_swap_limit_bytes", "Limit of memory and swap together, in bytes; 0: none."),
    Family("container_pressure_cpu_waiting_seconds_total", "Time that some tasks waited for a CPU.", True),
    Family("container_pressure_cpu_stalled_seconds_total", "Time that all tasks waited for a CPU.", True),
    Family("container_pressure_memory_waiting_seconds_total", "Time that some tasks waited for memory.", True),
    Family("container_pressure_memory_stalled_seconds_total", "Time that all tasks waited for memory.", True),
    Family("container_pressure_io_waiting_seconds_total", "Time that some tasks waited for I/O.", True),
    Family("container_pressure_io_stalled_seconds_total", "Time that all tasks waited for I/O.", True),
    Family("container_network_receive_bytes_total", "Bytes received.", True, _INTERFACE),
    Family("container_network_receive_packets_total", "Packets received.", True, _INTERFACE),
    Family("container_network_receive_errors_total", "Errors of receiving.", True, _INTERFACE),
    Family("container_network_receive_packets_dropped_total", "Received packets that were dropped.", True, _INTERFACE),
    Family("container_network_transmit_bytes_total", "Bytes sent.", True, _INTERFACE),
    Family("container_network_transmit_packets_total", "Packets sent.", True, _INTERFACE),
    Family("container_network_transmit_errors_total", "Errors of sending.", True, _INTERFACE),
    Family("container_network_transmit_packets_dropped_total", "Packets dropped in sending.", True, _INTERFACE),
)


def of_cgroup(stats: Stats) -> Iterator[Value]:
    """What a container's and a sandbox's reading have in common."""
    more = stats.more
    if not more:
        return  # the cgroup is gone
    yield Value("container_last_seen", int(stats.at))
    yield from _cpu(stats)
    yield from _memory(stats)
    yield from _io(stats)
    yield from _processes(stats)
    for resource, pressure in stats.pressure.items():
        yield Value(f"container_pressure_{resource}_waiting_seconds_total", pressure.some.total_us // 1_000_000)
        yield Value(f"container_pressure_{resource}_stalled_seconds_total", pressure.full.total_us // 1_000_000)


def of_container(stats: Stats, spec: ContainerSpec, started_at: float, volume: Volume) -> Iterator[Value]:
    """What only a container has."""
    yield Value("container_start_time_seconds", int(started_at))
    device = (volume.device,)
    if stats.rootfs_at:
        yield Value("container_fs_usage_bytes", stats.rootfs_bytes, device, stats.rootfs_at)
    yield Value("container_fs_limit_bytes", volume.size, device)
    yield Value("container_fs_inodes_total", volume.inodes, device)
    yield Value("container_fs_inodes_free", volume.free_inodes, device)
    resources = spec.resources
    yield Value("container_spec_cpu_period", resources.cpu_period)
    if resources.cpu_quota > 0:
        yield Value("container_spec_cpu_quota", resources.cpu_quota)
    yield Value("container_spec_cpu_shares", resources.cpu_shares or 1024)
    yield Value("container_spec_memory_limit_bytes", max(resources.memory_limit, 0))
    yield Value("container_spec_memory_reservation_limit_bytes", 0)
    yield Value("container_spec_memory_swap_limit_bytes", max(resources.memory_swap or resources.memory_limit, 0))


def of_network(stats: Stats) -> Iterator[Value]:
    """Of a sandbox's interfaces but the loopback one."""
    for one in stats.network:
        if one.name == "lo":
            continue
        name = (one.name,)
        yield Value("container_network_receive_bytes_total", one.rx_bytes, name)
        yield Value("container_network_receive_packets_total", one.rx_packets, name)
        yield Value("container_network_receive_errors_total", one.rx_errors, name)
        yield Value("container_network_receive_packets_dropped_total", one.rx_dropped, name)
        yield Value("container_network_transmit_bytes_total", one.tx_bytes, name)
        yield Value("container_network_transmit_packets_total", one.tx_packets, name)
        yield Value("container_network_transmit_errors_total", one.tx_errors, name)
        yield Value("container_network_transmit_packets_dropped_total", one.tx_dropped, name)


def _cpu(stats: Stats) -> Iterator[Value]:
    more = stats.more
    yield Value("container_cpu_usage_seconds_total", _seconds(stats.cpu_usage_ns), ("total",))
    yield Value("container_cpu_user_seconds_total", _seconds(more.get("cpu_user_ns", 0)))
    yield Value("container_cpu_system_seconds_total", _seconds(more.get("cpu_system_ns", 0)))
    if "cpu_periods" in more:
        yield Value("container_cpu_cfs_periods_total", more["cpu_periods"])
        yield Value("container_cpu_cfs_throttled_periods_total", more["cpu_throttled_periods"])
        yield Value("container_cpu_cfs_throttled_seconds_total", _seconds(stats.cpu_throttled_ns))


def _memory(stats: Stats) -> Iterator[Value]:
    more = stats.more
    yield Value("container_memory_usage_bytes", stats.memory_usage)
    yield Value("container_memory_working_set_bytes", stats.memory_working_set)
    yield Value("container_memory_max_usage_bytes", more.get("memory_max_usage", 0))
    yield Value("container_memory_rss", stats.memory_rss)
    yield Value("container_memory_cache", more.get("memory_cache", 0))
    yield Value("container_memory_mapped_file", more.get("memory_mapped_file", 0))
    yield Value("container_memory_kernel_usage", more.get("memory_kernel", 0))
    yield Value("container_memory_swap", stats.swap_usage)
    yield Value("container_memory_total_active_file_bytes", more.get("memory_active_file", 0))
    yield Value("container_memory_total_inactive_file_bytes", more.get("memory_inactive_file", 0))
    yield Value("container_memory_failcnt", more.get("memory_failures", 0))
    yield Value("container_oom_events_total", stats.oom_kills)
    kinds = (
        ("pgfault", "memory_page_faults", stats.memory_page_faults),
        ("pgmajfault", "memory_major_page_faults", stats.memory_major_page_faults),
    )
    for kind, name, total in kinds:
        # cgroup v2 counts only the whole subtree.
        yield Value("container_memory_failures_total", more.get(f"{name}_own", total), (kind, "container"))
        yield Value("container_memory_failures_total", total, (kind, "hierarchy"))


def _io(stats: Stats) -> Iterator[Value]:
    for one in stats.devices:
        device = f"{one.major}:{one.minor}"
        yield Value("container_fs_reads_total", one.reads, (device,))
        yield Value("container_fs_reads_bytes_total", one.read_bytes, (device,))
        yield Value("container_fs_writes_total", one.writes, (device,))
        yield Value("container_fs_writes_bytes_total", one.write_bytes, (device,))
        labels = (device, str(one.major), str(one.minor))
        yield Value("container_blkio_device_usage_total", one.read_bytes, (*labels, "Read"))
        yield Value("container_blkio_device_usage_total", one.write_bytes, (*labels, "Write"))


def _processes(stats: Stats) -> Iterator[Value]:
    more = stats.more
    yield Value("container_processes", stats.processes)
    yield Value("container_threads", stats.pids)
    yield Value("container_threads_max", more.get("pids_limit", 0))
    yield Value("container_file_descriptors", more.get("files", 0))
    yield Value("container_sockets", more.get("sockets", 0))
    limit = more.get("files_limit", -1)
    if limit >= 0:
        yield Value("container_ulimits_soft", limit, ("max_open_files",))


def _seconds(nanoseconds: int) -> int:
    return nanoseconds // 1_000_000_000
