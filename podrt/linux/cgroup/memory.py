"""Memory: the limit, swap, and what the out-of-memory killer did."""

from __future__ import annotations

import errno
import os

from podrt.linux.cgroup.files import limit_v2, read_number, read_table, write
from podrt.linux.cgroup.limits import LimitsLike


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
    if not pod:
        # A container dies as a whole, as the kubelet has it: half of a server is worse than none.
        write(directory, "memory.oom.group", "1")


def stats_v1(directory: str) -> dict[str, int]:
    usage = read_number(directory, "memory.usage_in_bytes")
    table = read_table(directory, "memory.stat")
    return {
        "memory_usage": usage,
        "memory_working_set": max(usage - table.get("total_inactive_file", 0), 0),
        "memory_rss": table.get("total_rss", 0),
        "memory_page_faults": table.get("total_pgfault", 0),
        "memory_major_page_faults": table.get("total_pgmajfault", 0),
        "swap_usage": table.get("total_swap", 0),
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
        "swap_usage": read_number(directory, "memory.swap.current"),
        "oom_kills": oom_kills_v2(directory),
    }


def oom_kills_v1(directory: str) -> int:
    """Processes of this very cgroup that the out-of-memory killer killed."""
    return read_table(directory, "memory.oom_control").get("oom_kill", 0)


def oom_kills_v2(directory: str) -> int:
    """Processes of this cgroup and those below it that the out-of-memory killer killed."""
    return read_table(directory, "memory.events").get("oom_kill", 0)
