"""CPU time: shares or weight, and the quota in each period."""

from __future__ import annotations

import errno
import math

from podrt.linux.cgroup.files import read_number, read_table, write
from podrt.linux.cgroup.limits import LimitsLike

MIN_SHARES = 2
MAX_SHARES = 262_144


def weight_of_container(shares: int) -> int:
    """cpu.weight for cpu.shares as runc and crun convert since 2025: 1024 shares (one CPU) are weight 100."""
    if shares <= MIN_SHARES:
        return 1
    if shares >= MAX_SHARES:
        return 10_000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def weight_of_pod(shares: int) -> int:
    """cpu.weight for cpu.shares as the kubelet converts for a Pod's cgroup: linear, 1024 shares are weight 39."""
    shares = min(max(shares, MIN_SHARES), MAX_SHARES)
    return 1 + (shares - MIN_SHARES) * 9999 // (MAX_SHARES - MIN_SHARES)


def write_v1(directory: str, limits: LimitsLike) -> None:
    if limits.cpu_shares:
        write(directory, "cpu.shares", str(min(max(limits.cpu_shares, MIN_SHARES), MAX_SHARES)))
    if not limits.cpu_quota:
        return
    period = str(limits.cpu_period or 100_000)
    late = False
    try:
        write(directory, "cpu.cfs_period_us", period)
    except OSError as error:
        # The new period with the old quota may be more than the parent allows.
        if error.errno != errno.EINVAL:
            raise
        late = True
    write(directory, "cpu.cfs_quota_us", str(limits.cpu_quota))
    if late:
        write(directory, "cpu.cfs_period_us", period)


def write_v2(directory: str, limits: LimitsLike, pod: bool) -> None:
    if limits.cpu_shares:
        weight = weight_of_pod(limits.cpu_shares) if pod else weight_of_container(limits.cpu_shares)
        write(directory, "cpu.weight", str(weight))
    if limits.cpu_quota:
        quota = "max" if limits.cpu_quota < 0 else str(limits.cpu_quota)
        write(directory, "cpu.max", f"{quota} {limits.cpu_period or 100_000}")


def stats_v1(directory: str) -> dict[str, int]:
    table = read_table(directory, "cpu.stat")
    return {
        "cpu_periods": table.get("nr_periods", 0),
        "cpu_throttled_periods": table.get("nr_throttled", 0),
        "cpu_throttled_ns": table.get("throttled_time", 0),
    }


def details_v1(directory: str) -> dict[str, int]:
    """Of the cpuacct hierarchy."""
    return {
        "cpu_user_ns": read_number(directory, "cpuacct.usage_user"),
        "cpu_system_ns": read_number(directory, "cpuacct.usage_sys"),
    }


def stats_v2(directory: str) -> dict[str, int]:
    """Usage is there even where the controller is not enabled."""
    table = read_table(directory, "cpu.stat")
    result = {
        "cpu_usage_ns": table.get("usage_usec", 0) * 1000,
        "cpu_user_ns": table.get("user_usec", 0) * 1000,
        "cpu_system_ns": table.get("system_usec", 0) * 1000,
    }
    if "throttled_usec" in table:
        result["cpu_periods"] = table.get("nr_periods", 0)
        result["cpu_throttled_periods"] = table.get("nr_throttled", 0)
        result["cpu_throttled_ns"] = table["throttled_usec"] * 1000
    return result
