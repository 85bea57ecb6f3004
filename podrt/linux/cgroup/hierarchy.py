"""Which control group hierarchies this machine has, and where."""

from __future__ import annotations

from typing import NamedTuple

from podrt.linux.cgroup.files import read

DEFAULT_ROOT = "/podrt"
"""Not the cgroup of the daemon's systemd unit, even where that is delegated: Pods outlive the unit, and systemd
before 254 can't start a unit again whose cgroup has given controllers to cgroups below it (EBUSY, "219/CGROUP")."""
DAEMON_LEAF = "daemon"


class Hierarchies(NamedTuple):
    """Mount points. A controller is in ``v1`` or in ``v2_controllers``, never in both."""

    mode: str
    """``v2`` (all controllers in cgroup2), ``hybrid`` (v1 controllers, cgroup2 beside them) or ``v1``."""
    unified: str
    """Mount point of cgroup2, empty if there is none."""
    v1: dict[str, str]
    """Controller -> mount point of its hierarchy; hierarchies with a name and no controller are left out."""
    v2_controllers: tuple[str, ...]


def detect() -> Hierarchies:
    """From /proc/self/mountinfo. Raises FileNotFoundError if no hierarchy is mounted."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        unified, v1 = parse(file.read())
    if not unified and not v1:
        raise FileNotFoundError(2, "no cgroup hierarchy is mounted; mount cgroup2 there", "/sys/fs/cgroup")
    available = tuple(read(unified, "cgroup.controllers").split()) if unified else ()
    mode = "v1" if not unified else "hybrid" if v1 else "v2"
    return Hierarchies(mode, unified, v1, available)


def parse(mountinfo: str) -> tuple[str, dict[str, str]]:
    """(mount point of cgroup2 or "", v1 controller -> mount point) of a mountinfo file."""
    unified = ""
    v1: dict[str, str] = {}
    with_names = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb", "net_cls"}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fstype, _, options = right.split(" ", 2)
        path = left.split(" ")[4]
        if fstype == "cgroup2" and not unified:
            unified = path
        elif fstype == "cgroup":
            for option in options.split(","):
                if option in with_names:
                    v1.setdefault(option, path)
    return unified, v1
