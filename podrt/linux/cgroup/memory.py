"""Memory: the limit, swap, and what the out-of-memory killer did."""

from __future__ import annotations

import errno
import os

from podrt.linux.cgroup.files import limit_v2, read, read_number, read_table, write
from podrt.linux.cgroup.limits import LimitsLike

_UNLIMITED = 1 << 62


def write_v1(directory: str, limits: LimitsLike) -> None:
    if not limits.memory_limit:
        return
    files = [("memory.limit_in_bytes", limits.memory_limit)]
    swap = limits.memory_swap or limits.memory_limit
    if os.path.exists(f"{directory}/memory.memsw.limit_in_bytes"):
        files.append(("memory.memsw.limit_in_bytes", swap))
    try:
        for name, value in files:
            write(directory, name, str(value))
    except OSError as error:
        # memsw must never be below the limit: to raise both, memsw comes first.
        if error.errno not in (errno.EINVAL, errno.EBUSY) or len(files) == 1:
            raise
        for name, value in reversed(files):
            write(directory, name, str(value))


def write_v2(directory: str, limits: LimitsLike, pod: bool) -> None:
    if not limits.memory_limit:
        return
    write(directory, "memory.max", limit_v2(limits.memory_limit))
    if os.path.exists(f"{directory}/memory.swap.max"):
        swap = limits.memory_swap
        amount = -1 if min(swap, limits.memory_limit) < 0 else max(swap - limits.memory_limit, 0)
        write(directory, "memory.swap.max", limit_v2(amount))
    if not pod and limits.oom_group:
        # A container dies as a whole, as the kubelet has it: half of a server is worse than none.
        write(directory, "memory.oom.group", "1")


def stats_v1(directory: str) -> dict[str, int]:
    usage = read_number(directory, "memory.usage_in_bytes")
    table = read_table(directory, "memory.stat")
    limit = _limit(read_number(directory, "memory.limit_in_bytes"))
    return {
        "memory_usage": usage,
        "memory_working_set": max(usage - table.get("total_inactive_file", 0), 0),
        "memory_rss": table.get("total_rss", 0),
        "memory_page_faults": table.get("total_pgfault", 0),
        "memory_page_faults_own": table.get("pgfault", 0),
        "memory_major_page_faults_own": table.get("pgmajfault", 0),
        "memory_major_page_faults": table.get("total_pgmajfault", 0),
        "memory_limit": limit,
        "memory_cache": table.get("total_cache", 0),
        "memory_mapped_file": table.get("total_mapped_file", 0),
        "memory_active_file": table.get("total_active_file", 0),
        "memory_inactive_file": table.get("total_inactive_file", 0),
        "swap_usage": table.get("total_swap", 0),
        "swap_limit": _swap_limit_v1(directory, limit),
        "oom_kills": oom_kills_v1(directory),
    }


def stats_v2(directory: str) -> dict[str, int]:
    usage = read_number(directory, "memory.current")
    table = read_table(directory, "memory.stat")
    return {
        "memory_usage": usage,
        "memory_working_set": max(usage - table.get("inactive_file", 0), 0),
        "memory_rss": table.get("anon", 0),
        "memory_page_faults": table.get("pgfault", 0),
        "memory_major_page_faults": table.get("pgmajfault", 0),
        "memory_limit": read_number(directory, "memory.max"),
        "memory_cache": table.get("file", 0),
        "memory_mapped_file": table.get("file_mapped", 0),
        "memory_active_file": table.get("active_file", 0),
        "memory_inactive_file": table.get("inactive_file", 0),
        "memory_kernel": table.get("kernel", 0) or table.get("kernel_stack", 0) + table.get("slab", 0),
        "swap_usage": read_number(directory, "memory.swap.current"),
        "swap_limit": _swap_limit_v2(directory),
        "oom_kills": oom_kills_v2(directory),
    }


def details_v1(directory: str) -> dict[str, int]:
    return {
        "memory_max_usage": read_number(directory, "memory.max_usage_in_bytes"),
        "memory_failures": read_number(directory, "memory.failcnt"),
        "memory_kernel": read_number(directory, "memory.kmem.usage_in_bytes"),
    }


def details_v2(directory: str) -> dict[str, int]:
    """The high-water mark since Linux 5.19; failures are counts of reaching the limit."""
    return {
        "memory_max_usage": read_number(directory, "memory.peak"),
        "memory_failures": read_table(directory, "memory.events").get("max", 0),
    }


def _swap_limit_v1(directory: str, memory: int) -> int:
    """Bytes of swap; -1 without a limit or where swap is not counted."""
    both = _limit(read_number(directory, "memory.memsw.limit_in_bytes"))
    return max(both - memory, 0) if both and memory else -1


def _swap_limit_v2(directory: str) -> int:
    """Bytes of swap; -1 without a limit or where swap is not counted."""
    try:
        text = read(directory, "memory.swap.max").strip()
    except (FileNotFoundError, NotADirectoryError):
        return -1
    return int(text) if text.isdigit() else -1


def _limit(value: int) -> int:
    """0 for what v1 says where there is no limit: the largest number of pages."""
    return 0 if value >= _UNLIMITED else value


def oom_kills_v1(directory: str) -> int:
    """Processes of this very cgroup that the out-of-memory killer killed."""
    return read_table(directory, "memory.oom_control").get("oom_kill", 0)


def oom_kills_v2(directory: str) -> int:
    """Processes of this cgroup and those below it that the out-of-memory killer killed."""
    return read_table(directory, "memory.events").get("oom_kill", 0)
