"""The number of processes and threads. The files are the same in v1 and v2."""

from __future__ import annotations

from podrt.linux.cgroup.files import limit_v2, read_number, write
from podrt.linux.cgroup.limits import LimitsLike


def write_limit(directory: str, limits: LimitsLike) -> None:
    if limits.pids_limit:
        write(directory, "pids.max", limit_v2(limits.pids_limit))


def stats(directory: str) -> dict[str, int]:
    """``pids``: processes and threads."""
    return {"pids": read_number(directory, "pids.current")}


def details(directory: str) -> dict[str, int]:
    """``pids_limit``: 0 for none."""
    return {"pids_limit": read_number(directory, "pids.max")}
