"""``podrt system check``: what this kernel and machine offer, what is missing and what that costs.

Plain reads of /proc, /sys and /boot: nothing is loaded, mounted or changed, and no privilege is needed. So "a module
that could be loaded" is told from its file, not by trying. ``Machine.root`` lets tests look at a made-up machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

OK, WARN, MISSING = "ok", "warning", "missing"


class Finding(NamedTuple):
    """One line of the report. ``cost`` says what does not work, and what to do; "" where all is well."""

    name: str
    state: str
    found: str
    cost: str = ""


class Machine:
    """Reads of the machine's own description of itself, below ``root``."""

    def __init__(self, root: str = "/", release: str = "") -> None:
        self.root = root
        self.release = release or os.uname().release
        self._config: dict[str, str] | None = None

    def path(self, path: str) -> str:
        return os.path.join(self.root, path.lstrip("/"))

    def exists(self, path: str) -> bool:
        return os.path.exists(self.path(path))

    def read(self, path: str) -> str:
        """The text, or "" if it can't be read."""
        try:
            with open(self.path(path), encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def listdir(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(self.path(path)))
        except OSError:
            return []

    def config(self, option: str) -> str:
        """``y``, ``m``, ``n``, or "" if the kernel's configuration can't be read."""
        if self._config is None:
            self._config = self._read_config()
        return self._config.get(option, "n") if self._config else ""

    def _read_config(self) -> dict[str, str]:
        text = self.read(f"/boot/config-{self.release}")
        if not text and self.exists("/proc/config.gz"):
            import gzip

            try:
                with gzip.open(self.path("/proc/config.gz"), "rt") as file:
                    text = file.read()
            except OSError:
                return {}
        return dict(re.findall(r"^CONFIG_(\w+)=(\S+)", text, re.MULTILINE))

    def module(self, name: str, option: str) -> str:
        """``loaded``, ``built in``, ``module`` (can be loaded), ``absent``, or ``unknown``."""
        if re.search(rf"^{name} ", self.read("/proc/modules"), re.MULTILINE):
            return "loaded"
        directory = f"/lib/modules/{self.release}"
        if f"/{name}.ko" in self.read(f"{directory}/modules.builtin") or self.config(option) == "y":
            return "built in"
        if self.exists(f"/sys/module/{name}"):
            return "loaded"
        if re.search(rf"/{name}\.ko", self.read(f"{directory}/modules.dep")):
            return "module"
        return "absent" if self.config(option) == "n" else "unknown"


def report(machine: Machine) -> list[Finding]:
    """All findings, in the order they are shown."""
    sections: list[Callable[[Machine], Iterator[Finding]]] = [
        _kernel,
        _cgroups,
        _namespaces,
        _filesystems,
        _security,
        _network,
        _limits,
    ]
    return [finding for section in sections for finding in section(machine)]


def version_of(release: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _kernel(machine: Machine) -> Iterator[Finding]:
    version = version_of(machine.release)
    needs = [
        ((5, 9), MISSING, "close_range, openat2 and pidfds are needed: containers can't be started safely below 5.9"),
        ((5, 12), WARN, "no mount_setattr before 5.12: recursive read-only mounts are not to be had"),
        ((5, 14), WARN, "no cgroup.kill before 5.14: killing a container freezes it first and takes longer"),
        ((6, 3), WARN, "no idmapped tmpfs before 6.3: emptyDir with medium Memory needs hostUsers: true"),
    ]
    for least, state, cost in needs:
        if version < least:
            yield Finding("kernel", state, machine.release, cost)
            return
    yield Finding("kernel", OK, machine.release)


def cgroup_layout(machine: Machine) -> tuple[str, dict[str, str]]:
    """``v2``, ``hybrid``, ``v1`` or ``none``, and where each controller is: ``v1`` or ``v2``."""
    controllers: dict[str, str] = {}
    v2_root = ""
    for line in machine.read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        kind, _, rest = right.partition(" ")
        point = left.split()[4] if len(left.split()) > 4 else ""
        if kind == "cgroup2":
            v2_root = v2_root or point
        elif kind == "cgroup":
            for word in rest.split()[-1].split(","):
                controllers.setdefault(word, "v1")
    if v2_root:
        for word in machine.read(f"{v2_root}/cgroup.controllers").split():
            controllers[word] = "v2"
    has_v1 = "v1" in controllers.values()
    layout = ("hybrid" if has_v1 else "v2") if v2_root else ("v1" if has_v1 else "none")
    return layout, controllers


def _cgroups(machine: Machine) -> Iterator[Finding]:
    layout, controllers = cgroup_layout(machine)
    costs = {
        "hybrid": "no memory.high, no io limits",
        "v1": "freeze and kill go through the v1 freezer and signals; no pressure figures, no io limits",
        "none": "mount cgroup2 at /sys/fs/cgroup: without cgroups no container can be limited or found",
    }
    state = {"v2": OK, "none": MISSING}.get(layout, WARN)
    yield Finding("cgroup layout", state, layout, costs.get(layout, ""))
    what = {
        "cpu": "cpu limits and requests are not enforced",
        "memory": "memory limits are not enforced, and no container is OOM-killed at its own",
        "pids": "a fork bomb is not stopped",
        "cpuset": "containers can't be pinned to CPUs",
        "hugetlb": "hugepages limits are not enforced",
    }
    for name, cost in what.items():
        where = controllers.get(name)
        missing = MISSING if name in ("cpu", "memory", "pids") else WARN
        yield Finding(f"cgroup {name}", OK if where else missing, where or "absent", "" if where else cost)
    pressure = machine.exists("/proc/pressure/memory")
    cost = "" if pressure else "no pressure figures of the node (boot with psi=1)"
    yield Finding("pressure (PSI)", OK if pressure else WARN, "present" if pressure else "absent", cost)


def _namespaces(machine: Machine) -> Iterator[Finding]:
    names = {"mnt": "mount", "pid": "pid", "net": "network", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup"}
    present = set(machine.listdir("/proc/self/ns"))
    missing = [title for name, title in names.items() if name not in present]
    text = ", ".join(title for name, title in names.items() if name in present) or "none"
    cost = f"no {', '.join(missing)} namespaces: the kernel was built without them" if missing else ""
    yield Finding("namespaces", MISSING if missing else OK, text, cost)
    limit = machine.read("/proc/sys/user/max_user_namespaces").strip()
    works = "user" in present and limit not in ("", "0")
    cost = "" if works else "Pods with hostUsers: false can't run (sysctl user.max_user_namespaces)"
    yield Finding("user namespaces", OK if works else WARN, f"up to {limit}" if works else "off", cost)


def _filesystems(machine: Machine) -> Iterator[Finding]:
    listed = {line.split()[-1] for line in machine.read("/proc/filesystems").splitlines() if line.split()}
    overlay = "present" if "overlay" in listed else machine.module("overlay", "OVERLAY_FS")
    state = MISSING if overlay == "absent" else WARN if overlay == "unknown" else OK
    cost = "" if state == OK else "containers have no root file system without overlayfs (modprobe overlay)"
    yield Finding("overlayfs", state, overlay, cost)
    mqueue = "mqueue" in listed
    cost = "" if mqueue else "no POSIX message queues in Pods"
    yield Finding("mqueue", OK if mqueue else WARN, "present" if mqueue else "absent", cost)
    kind = filesystem_of(machine, "/var/lib/podrt")
    layered = kind == "overlay"
    cost = "overlay on overlay is refused: put /var/lib/podrt on another file system" if layered else ""
    yield Finding("/var/lib/podrt is on", MISSING if layered else OK, kind or "unknown", cost)
    free = _free_bytes(machine, "/var/lib")
    if free is not None:
        low = free < 1 << 30
        cost = "images need room: less than 1 GB is left" if low else ""
        yield Finding("free below /var/lib", WARN if low else OK, f"{free / 1e9:.1f} GB", cost)


def filesystem_of(machine: Machine, path: str) -> str:
    """Type of the file system that ``path`` is or would be on, from mountinfo; "" if it can't be told."""
    best, kind = "", ""
    for line in machine.read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:
            continue
        point = fields[4].replace("\\040", " ")
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind


def _free_bytes(machine: Machine, path: str) -> int | None:
    try:
        found = os.statvfs(machine.path(path))
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def _security(machine: Machine) -> Iterator[Finding]:
    actions = machine.read("/proc/sys/kernel/seccomp/actions_avail").split()
    cost = "" if actions else "no system call filter: containers can call everything that their capabilities allow"
    yield Finding("seccomp", OK if actions else MISSING, "filter" if actions else "absent", cost)
    modules = machine.read("/sys/kernel/security/lsm").strip()
    active = [name for name in ("apparmor", "selinux") if name in modules.split(",")]
    cost = "" if active else "appArmorProfile and seLinuxOptions are refused; the other walls stand"
    yield Finding("security modules", OK if active else WARN, modules or "none visible", cost)
    yield from _capabilities(machine)


_WANTED = {
    7: ("CAP_SETUID", "containers can't change to their user"),
    12: ("CAP_NET_ADMIN", "no Pod network can be set up"),
    18: ("CAP_SYS_CHROOT", "containers can't be given their root"),
    21: ("CAP_SYS_ADMIN", "no namespace and no mount can be made: run the daemon as root"),
    24: (
        "CAP_SYS_RESOURCE",
        "limits (oom_score_adj below the daemon's own, rlimits above the hard limit) can't be raised",
    ),
    27: ("CAP_MKNOD", "devices of containers must be bind-mounted instead of made"),
}


def _capabilities(machine: Machine) -> Iterator[Finding]:
    """The bounding set of this process: what root could have here at most."""
    match = re.search(r"^CapBnd:\s*([0-9a-f]+)", machine.read("/proc/self/status"), re.MULTILINE)
    if match is None:
        yield Finding("capabilities", WARN, "unknown", "/proc/self/status can't be read")
        return
    bounding = int(match[1], 16)
    lacking = {number: item for number, item in _WANTED.items() if not bounding >> number & 1}
    if not lacking:
        yield Finding("capabilities", OK, "all that the daemon needs")
    for number, (name, cost) in lacking.items():
        yield Finding(f"capability {name}", WARN if number in (24, 27) else MISSING, "absent", cost)


def _network(machine: Machine) -> Iterator[Finding]:
    for name, option, cost in (
        ("veth", "VETH", "Pods can't be joined to the network"),
        ("bridge", "BRIDGE", "Pods can't be joined to the network"),
        ("nf_tables", "NF_TABLES", "no masquerade and no hostPort"),
        ("nft_chain_nat", "NFT_NAT", "no masquerade and no hostPort"),
    ):
        found = machine.module(name, option)
        state = MISSING if found == "absent" else WARN if found == "unknown" else OK
        extra = f"can't tell; if it is absent: {cost}" if found == "unknown" else cost
        yield Finding(f"kernel {name}", state, found, "" if state == OK else extra)
    forward = machine.read("/proc/sys/net/ipv4/ip_forward").strip() == "1"
    cost = "" if forward else "the daemon switches it on for Pods to reach other machines"
    yield Finding("IPv4 forwarding", OK if forward else WARN, "on" if forward else "off", cost)
    disabled = machine.read("/proc/sys/net/ipv6/conf/all/disable_ipv6").strip()
    works = disabled == "0"
    cost = "" if works else "Pods get IPv4 addresses only"
    yield Finding("IPv6", OK if works else WARN, "on" if works else "off" if disabled else "absent", cost)
    plugins = machine.listdir("/opt/cni/bin")
    yield Finding(
        "CNI plugins", OK, f"{len(plugins)} in /opt/cni/bin" if plugins else "none (the built-in bridge needs none)"
    )


def _limits(machine: Machine) -> Iterator[Finding]:
    for path, least, cost in (
        ("kernel/pid_max", 32768, "few processes for many Pods"),
        ("fs/inotify/max_user_instances", 128, "programs that watch files fail in many Pods (sysctl)"),
        ("kernel/keys/maxkeys", 200, "a few hundred containers of one user run out of keys (sysctl)"),
    ):
        text = machine.read(f"/proc/sys/{path}").strip()
        low = text.isdigit() and int(text) < least
        yield Finding(path.replace("/", "."), WARN if low or not text else OK, text or "unknown", cost if low else "")
    systemd = machine.exists("/run/systemd/system")
    cost = "" if systemd else "the daemon runs in the background and is not started at boot by a unit"
    yield Finding("systemd", OK if systemd else WARN, "running" if systemd else "not running", cost)
