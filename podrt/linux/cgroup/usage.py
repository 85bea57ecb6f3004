"""Reading what a cgroup has used: its counters, from whichever hierarchy has them.

:func:`stats` reads the few files that are asked for often; :func:`details` some more, for metrics.
"""

from __future__ import annotations

from podrt.linux.cgroup import cpu, memory, pids
from podrt.linux.cgroup.files import read_number
from podrt.linux.cgroup.hierarchy import Hierarchies


def stats(hierarchies: Hierarchies, path: str) -> dict[str, int]:
    """Raw numbers; those that the engine's Stats has too are named as there. What is not there is 0 or missing."""
    v1, unified = hierarchies.v1, hierarchies.unified
    result: dict[str, int] = {}
    if "cpu" in v1:
        result |= cpu.stats_v1(v1["cpu"] + path)
    if unified:
        result |= cpu.stats_v2(unified + path)
    elif "cpuacct" in v1:
        result["cpu_usage_ns"] = read_number(v1["cpuacct"] + path, "cpuacct.usage")
    result |= memory.stats_v1(v1["memory"] + path) if "memory" in v1 else memory.stats_v2(unified + path)
    result |= pids.stats(v1.get("pids", unified) + path)
    return result


def details(hierarchies: Hierarchies, path: str) -> dict[str, int]:
    """What :func:`stats` does not read: high-water marks, failures, limits."""
    v1, unified = hierarchies.v1, hierarchies.unified
    result = memory.details_v1(v1["memory"] + path) if "memory" in v1 else memory.details_v2(unified + path)
    if not unified and "cpuacct" in v1:
        result |= cpu.details_v1(v1["cpuacct"] + path)
    return result | pids.details(v1.get("pids", unified) + path)
