"""Which CPUs and memory nodes. The file names are the same in v1 and v2; v1 needs more before a process may enter."""

from __future__ import annotations

from podrt.linux.cgroup.files import read, write
from podrt.linux.cgroup.limits import LimitsLike


def inherit_v1(directory: str, parent: str) -> None:
    """In v1 a new cpuset is empty and takes no process: give it what its parent has."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not read(directory, name).strip():
            write(directory, name, read(parent, name).strip())


def write_limit(directory: str, limits: LimitsLike) -> None:
    if limits.cpuset_cpus:
        write(directory, "cpuset.cpus", limits.cpuset_cpus)
    if limits.cpuset_mems:
        write(directory, "cpuset.mems", limits.cpuset_mems)
