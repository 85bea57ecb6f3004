"""What a daemon may have left behind, read from the kernel: mounts, namespaces, cgroups, links, nft, processes, files.

Two views. :class:`Footprint` is what belongs to *one* daemon, told by its directories and tag; several daemons and
test runs may live on the machine at once. :class:`Snapshot` is the whole machine, for tests that use the kernel layer
without a daemon; it only makes sense while nobody else makes namespaces.

Only /proc, /sys and ``nft -j`` are read, nothing of podrt: a leak checker that shared its code with the leaker would be
blind in the same places.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from tests.framework import probes


def _unescape(name: str) -> str:
    return name.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def mount_points(pid: int | str = "self") -> list[str]:
    """Every mount point of a process's mount namespace, in mount order; doubles stay double."""
    return [_unescape(line.split(" ")[4]) for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]


def supervisor_mount_points(run_dir: Path) -> list[str]:
    """The same of the supervisor, which has a mount namespace of its own; none if there is no supervisor."""
    try:
        return mount_points(int((run_dir / "supervisor.pid").read_text()))
    except (OSError, ValueError):
        return []


def links() -> set[str]:
    return set(os.listdir("/sys/class/net"))


def bridge_ports(bridge: str) -> set[str]:
    with contextlib.suppress(FileNotFoundError):
        return set(os.listdir(f"/sys/class/net/{bridge}/brif"))
    return set()


def loop_devices(below: tuple[str, ...]) -> set[str]:
    """Loop devices on files below any of these directories (each ends with a slash), deleted ones too."""
    found = set()
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if (name := file.read_text().rstrip("\n")).startswith(below):
                found.add(f"{file.parts[3]} on {name}")
    return found


def netns_names(directory: Path = Path("/run/netns")) -> set[str]:
    with contextlib.suppress(FileNotFoundError):
        return set(os.listdir(directory))
    return set()


def cgroups(path: str) -> set[str]:
    """Every cgroup beneath ``path`` (itself not), in all hierarchies, as ``controller:/path``."""
    found: set[str] = set()
    for name, mount in probes.cgroup_mounts().items():
        top = mount / path.lstrip("/")
        for directory, names, _ in os.walk(top, onerror=lambda error: None):
            found.update(f"{name}:/{Path(directory, child).relative_to(mount)}" for child in names)
    return found


def nft_elements(table: str) -> set[str]:
    """Elements of all maps and sets, and rules, of ``table``; nothing where there is no such table."""
    found = set()
    for family in ("inet", "ip", "ip6", "bridge", "netdev"):
        listing = subprocess.run(("nft", "-j", "list", "table", family, table), capture_output=True, text=True)
        if listing.returncode:
            continue
        for item in json.loads(listing.stdout)["nftables"]:
            for kind in ("map", "set"):
                for element in item.get(kind, {}).get("elem", ()):
                    found.add(f"{family} {table} {kind} {item[kind]['name']}: {json.dumps(element)}")
    return found


def nft_tables() -> set[str]:
    if not probes.has_command("nft"):
        return set()
    listing = subprocess.run(("nft", "-j", "list", "tables"), capture_output=True, text=True)
    if listing.returncode:
        return set()
    tables = [item["table"] for item in json.loads(listing.stdout)["nftables"] if "table" in item]
    return {f"{table['family']} {table['name']}" for table in tables}


@dataclass(frozen=True)
class Process:
    pid: int
    command: str
    cgroups: str

    def __str__(self) -> str:
        return f"{self.pid} ({self.command[:200]})"


def processes() -> Iterator[Process]:
    """All processes but kernel threads and zombies."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            root = Path("/proc", entry)
            state = (root / "stat").read_text().rpartition(")")[2].split()[0]
            command = (root / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if state not in "ZX" and command:
                yield Process(int(entry), command, (root / "cgroup").read_text())


def processes_below(cgroup: str) -> set[Process]:
    """Processes that are in ``cgroup`` or beneath it in any hierarchy."""
    found = set()
    for process in processes():
        paths = [line.split(":", 2)[2] for line in process.cgroups.splitlines()]
        if any(path == cgroup or path.startswith(cgroup + "/") for path in paths):
            found.add(process)
    return found


def tree(*roots: Path) -> set[str]:
    """Every file beneath ``roots`` with its kind in front (``p`` FIFO, ``s`` socket, ``-`` file, ``d`` directory)."""
    found = set()
    for root in roots:
        for directory, names, files in os.walk(root, onerror=lambda error: None):
            for name in (*names, *files):
                path = Path(directory, name)
                with contextlib.suppress(FileNotFoundError):
                    found.add(f"{stat.filemode(path.lstat().st_mode)[0]} {path}")
    return found


def _empty(name: str, roots: tuple[Path, ...]) -> bool:
    """A directory of the layout that is made when first needed, with nothing in it."""
    path = Path(name[2:])
    with contextlib.suppress(OSError):
        return name.startswith("d ") and path.parent in roots and not os.listdir(path)
    return False


def _beyond(now: Footprint | Snapshot, base: Footprint | Snapshot) -> list[str]:
    lines = []
    for field in fields(now):
        before = list(getattr(base, field.name))
        for item in sorted(getattr(now, field.name), key=str):
            if item in before:
                before.remove(item)
            else:
                lines.append(f"{field.name}: {item}")
    return lines


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What there is of one daemon right now. Compare one taken with no Pod (:meth:`beyond`) to one taken later."""

    mounts: tuple[str, ...]
    supervisor_mounts: tuple[str, ...]
    """All of its namespace but what the host mounts meanwhile: those below the daemon's directories."""
    netns: frozenset[str]
    cgroups: frozenset[str]
    ports: frozenset[str]
    """Links attached to the bridge: the host's ends of the Pods' veths."""
    elements: frozenset[str]
    processes: frozenset[Process]
    loops: frozenset[str]
    files: frozenset[str]

    @classmethod
    def take(cls, config: Any) -> Self:
        """``config`` is a :class:`podrt.config.Config` whose paths all lie in directories of its own."""
        roots = (config.run_dir, config.state_dir, config.log_dir)
        below = tuple(f"{root}/" for root in (*roots, config.netns_dir))
        quiet = (str(config.state_dir / "images"), str(config.state_dir / "store.db"))
        return cls(
            mounts=tuple(p for p in mount_points() if p.startswith(below)),
            supervisor_mounts=tuple(p for p in supervisor_mount_points(config.run_dir) if p.startswith(below)),
            netns=frozenset(netns_names(config.netns_dir)),
            cgroups=frozenset(cgroups(config.cgroup_root)),
            ports=frozenset(bridge_ports(config.bridge)),
            elements=frozenset(nft_elements(config.nft_table)),
            processes=frozenset(processes_below(config.cgroup_root)),
            loops=frozenset(loop_devices(below)),
            files=frozenset(name for name in tree(*roots) if not (name[2:].startswith(quiet) or _empty(name, roots))),
        )

    def beyond(self, base: Self) -> list[str]:
        """What is here and was not in ``base``, one readable line each."""
        return _beyond(self, base)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The machine's mounts, named netns, links, nft tables and cgroups whose name starts with ``prefix``."""

    mounts: tuple[str, ...]
    netns: frozenset[str]
    links: frozenset[str]
    tables: frozenset[str]
    cgroups: frozenset[str]

    @classmethod
    def take(cls, prefix: str = "") -> Self:
        tops = {entry.name for mount in probes.cgroup_mounts().values() for entry in mount.iterdir() if entry.is_dir()}
        return cls(
            mounts=tuple(mount_points()),
            netns=frozenset(name for name in netns_names() if name.startswith(prefix)),
            links=frozenset(name for name in links() if name.startswith(prefix)),
            tables=frozenset(name for name in nft_tables() if name.split()[1].startswith(prefix)),
            cgroups=frozenset(
                cgroup for top in tops if top.startswith(prefix) for cgroup in {f"/{top}", *cgroups(f"/{top}")}
            ),
        )

    def beyond(self, base: Self) -> list[str]:
        """What is here and was not in ``base``, one readable line each."""
        return _beyond(self, base)
