"""Making, filling, reading and removing control groups.

Every method names a cgroup by its path below the hierarchies, starting with a slash. On v1 a cgroup is a directory in
each hierarchy that podrt uses: cpu, memory, pids and devices, cpuacct only where no cgroup2 counts CPU time, cpuset and
hugetlb only for those that ask for them. Each more hierarchy costs a directory and a migration per container.

Nothing is remembered between calls but where the hierarchies are: the kernel's directories are the state.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterable, Sequence

from podrt.errors import DeadlineError
from podrt.linux.cgroup import cpu, cpuset, devices, freezer, hugetlb, io, memory, pids, pressure, usage
from podrt.linux.cgroup.devices import DeviceRule
from podrt.linux.cgroup.files import read, read_table, write
from podrt.linux.cgroup.hierarchy import DAEMON_LEAF, DEFAULT_ROOT, Hierarchies, detect
from podrt.linux.cgroup.limits import LimitsLike

_V1_ALWAYS = ("cpu", "memory", "pids", "devices")
_V2_ALWAYS = ("cpu", "memory", "pids", "cpuset", "io", "hugetlb")
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ENODEV)


class Manager:
    """The cgroups of one daemon. ``root`` is ``auto`` or a path; :meth:`prepare` makes it.

    Methods block for microseconds, except freeze and remove, which wait for processes as long as ``timeout`` says.
    """

    def __init__(self, root: str = "auto", hierarchies: Hierarchies | None = None) -> None:
        self.hierarchies = hierarchies or detect()
        self.root = DEFAULT_ROOT if root == "auto" else root
        v1 = self.hierarchies.v1
        names = [name for name in _V1_ALWAYS if name in v1]
        if not self.hierarchies.unified:
            names += [name for name in ("cpuacct", "freezer") if name in v1]
        self._always = tuple(dict.fromkeys(v1[name] for name in names))
        self._enabled: set[str] = set()

    # -- making

    def prepare(self) -> None:
        """Make the root, and in v2 enable the controllers down to it. Can be repeated."""
        if self.root == "/":
            return
        for mount in self._always:
            os.makedirs(mount + self.root, exist_ok=True)
        if self.hierarchies.unified:
            self._make_unified(self.root, self._v2_wanted())
            self._enable(self.root, self._v2_wanted())

    def create(
        self,
        path: str,
        limits: LimitsLike | None = None,
        *,
        pod: bool = False,
        rules: Sequence[DeviceRule] | None = None,
    ) -> None:
        """Make a cgroup and its parents, with limits and device ``rules`` (None: all devices). Can be repeated.

        ``pod``: a cgroup whose children are containers; it takes the Pod's formula for cpu.weight and no oom.group.
        Raises OSError; what was made is left for :meth:`remove`.
        """
        for mount in self._mounts(limits):
            _make(mount, path)
        if self.hierarchies.unified:
            wanted = self._v2_wanted(limits)
            self._make_unified(path, wanted)
            if pod:
                self._enable(path, wanted)
        if limits is not None:
            self.apply(path, limits, pod=pod)
        if rules is not None:
            self._write_rules(path, rules)

    def apply(self, path: str, limits: LimitsLike, *, pod: bool = False) -> None:
        """Write the limits of a cgroup; 0 or empty leaves one as it is, -1 takes it away. Raises OSError."""
        v1, unified = self.hierarchies.v1, self.hierarchies.unified + path
        v2 = self.hierarchies.v2_controllers
        if "cpu" in v1:
            cpu.write_v1(v1["cpu"] + path, limits)
        elif "cpu" in v2:
            cpu.write_v2(unified, limits, pod)
        if "memory" in v1:
            memory.write_v1(v1["memory"] + path, limits)
        elif "memory" in v2:
            memory.write_v2(unified, limits, pod)
        if "pids" in v1:
            pids.write_limit(v1["pids"] + path, limits)
        elif "pids" in v2:
            pids.write_limit(unified, limits)
        if limits.cpuset_cpus or limits.cpuset_mems:
            if "cpuset" in v1:
                _make(v1["cpuset"], path, inherit=True)
                cpuset.write_limit(v1["cpuset"] + path, limits)
            else:
                cpuset.write_limit(unified, limits)
        if limits.hugepages:
            if "hugetlb" in v1:
                hugetlb.write_v1(v1["hugetlb"] + path, limits)
            else:
                hugetlb.write_v2(unified, limits)
        if v2 and self.hierarchies.mode == "v2":
            for name, value in limits.unified.items():
                if "/" in name or name.startswith("cgroup."):
                    raise OSError(errno.EINVAL, "not a limit of a cgroup", name)
                write(unified, name, value)

    def _write_rules(self, path: str, rules: Sequence[DeviceRule]) -> None:
        if "devices" in self.hierarchies.v1:
            devices.write_v1(self.hierarchies.v1["devices"] + path, rules)
        elif self.hierarchies.unified:
            devices.attach_v2(self.hierarchies.unified + path, rules)

    def _mounts(self, limits: LimitsLike | None) -> list[str]:
        v1 = self.hierarchies.v1
        mounts = list(self._always)
        if limits is not None and limits.hugepages and "hugetlb" in v1:
            mounts.append(v1["hugetlb"])
        return mounts

    def _v2_wanted(self, limits: LimitsLike | None = None) -> tuple[str, ...]:
        """Controllers to enable in cgroup2. Beside v1 the host's cgroup2 is left as it is unless a limit needs it."""
        if self.hierarchies.mode == "v2":
            return _V2_ALWAYS
        if limits is not None and limits.hugepages and "hugetlb" not in self.hierarchies.v1:
            return ("hugetlb",)
        return ()

    def _make_unified(self, path: str, controllers: tuple[str, ...]) -> None:
        directory = self.hierarchies.unified + path
        for _ in range(2):
            try:
                if controllers:
                    for parent in _ancestors(path):
                        self._enable(parent, controllers)
                os.mkdir(directory)
                return
            except FileExistsError:
                return
            except FileNotFoundError:
                self._enabled.clear()
                os.makedirs(os.path.dirname(directory), exist_ok=True)
        os.mkdir(directory)

    def _enable(self, path: str, controllers: tuple[str, ...]) -> None:
        """Let the children of ``path`` have the controllers."""
        key = f"{path} {controllers}"
        if key in self._enabled or not controllers:
            return
        directory = self.hierarchies.unified + path
        available = read(directory, "cgroup.controllers").split()
        value = " ".join(f"+{name}" for name in controllers if name in available)
        if value:
            try:
                write(directory, "cgroup.subtree_control", value)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                # A cgroup with processes can't give controllers to its children: its processes move to a leaf.
                self._evacuate(directory)
                write(directory, "cgroup.subtree_control", value)
        if path in ("/", "", self.root):
            self._enabled.add(key)

    def _evacuate(self, directory: str) -> None:
        leaf = f"{directory}/{DAEMON_LEAF}"
        with contextlib.suppress(FileExistsError):
            os.mkdir(leaf)
        for _ in range(10):
            found = read(directory, "cgroup.procs").split()
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    write(leaf, "cgroup.procs", pid)
            if not found:
                return

    # -- looking

    def tasks_files(self, path: str) -> list[str]:
        """The ``tasks`` file of each v1 hierarchy, by which a process of a single thread enters: writing 0 to it.

        Not cgroup.procs, by which the first process in about 10 ms waits as long for a grace period of the kernel's RCU
        (the threads of the one who is moved must not change meanwhile; one thread that moves itself can't)."""
        return [f"{directory}/tasks" for directory in self._directories(path, unified=False)]

    def open_fd(self, path: str) -> int:
        """A descriptor of the directory in cgroup2, for CLONE_INTO_CGROUP; -1 where no cgroup2 is mounted."""
        if not self.hierarchies.unified:
            return -1
        return os.open(self.hierarchies.unified + path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def exists(self, path: str) -> bool:
        """Whether it exists in any hierarchy."""
        return any(True for _ in self._directories(path))

    def children(self, path: str) -> list[str]:
        """Names of the cgroups right below ``path``, in any hierarchy."""
        names: dict[str, None] = {}
        for directory in self._directories(path):
            names.update(dict.fromkeys(_children(directory)))
        return sorted(names)

    def pids(self, path: str) -> list[int]:
        """The processes in ``path`` and below."""
        for directory in self._directories(path, unified_first=True):
            return _pids(directory)
        return []

    def stats(self, path: str) -> dict[str, int]:
        """See :func:`podrt.linux.cgroup.usage.stats`."""
        return usage.stats(self.hierarchies, path)

    def details(self, path: str) -> dict[str, int]:
        """See :func:`podrt.linux.cgroup.usage.details`."""
        return usage.details(self.hierarchies, path)

    def pressure(self, path: str) -> dict[str, pressure.Pressure]:
        """By ``cpu``, ``memory`` and ``io``; empty where the kernel or this layout of hierarchies has none."""
        return pressure.stats(self.hierarchies.unified + path) if self.hierarchies.unified else {}

    def io(self, path: str) -> tuple[io.DeviceIO, ...]:
        """By device; empty but on cgroup v2."""
        return io.stats(self.hierarchies.unified + path) if self.hierarchies.mode == "v2" else ()

    def oom_kills(self, path: str) -> int:
        """How many processes the out-of-memory killer killed; 0 for a cgroup that is gone."""
        if "memory" in self.hierarchies.v1:
            return memory.oom_kills_v1(self.hierarchies.v1["memory"] + path)
        return memory.oom_kills_v2(self.hierarchies.unified + path)

    # -- stopping and removing

    def freeze(self, path: str, timeout: float = 10) -> None:
        """Stop all processes of ``path`` and below. Raises DeadlineError, OSError."""
        self._set_frozen(path, True, timeout)

    def thaw(self, path: str, timeout: float = 10) -> None:
        """Let them go on."""
        self._set_frozen(path, False, timeout)

    def _set_frozen(self, path: str, frozen: bool, timeout: float) -> None:
        if self.hierarchies.unified:
            freezer.set_v2(self.hierarchies.unified + path, frozen, timeout)
        else:
            freezer.set_v1(self.hierarchies.v1["freezer"] + path, frozen, timeout)

    def kill(self, path: str) -> None:
        """SIGKILL to every process of ``path`` and below, forks included. Does not wait. Nothing if it is gone."""
        _check(path)
        if self.hierarchies.unified:
            try:
                write(self.hierarchies.unified + path, "cgroup.kill", "1")
                return
            except OSError as error:
                # Kernels before 5.14 have no such file; then the directory is still there.
                if error.errno not in _GONE:
                    raise
        found = self.pids(path)
        if not found:
            return
        frozen = True
        try:
            self.freeze(path, 1)
        except (OSError, DeadlineError):
            frozen = False
        for _ in range(1 if frozen else 5):
            for pid in self.pids(path):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if frozen:
            self.thaw(path, 1)

    def remove(self, path: str, timeout: float = 5) -> None:
        """Remove a cgroup and those below it, killing what runs there. Nothing if it is gone.

        Raises DeadlineError if processes don't go away in time (one in an uninterruptible system call).
        """
        _check(path)
        busy = [directory for directory in self._directories(path) if not _rmdir(directory)]
        if not busy:
            return
        self.kill(path)
        deadline = time.monotonic() + timeout
        pause = 0.0005
        while busy := [directory for directory in busy if not _remove_tree(directory)]:
            if time.monotonic() > deadline:
                left = {pid for directory in busy for pid in _pids(directory)}
                raise DeadlineError(f"cgroup {path}: processes {sorted(left)} are still there after {timeout} seconds")
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
            self.kill(path)

    def populated(self, path: str) -> bool:
        """Whether a process that isn't a zombie lives in ``path`` or below."""
        if self.hierarchies.unified:
            return bool(read_table(self.hierarchies.unified + path, "cgroup.events").get("populated", 0))
        return bool(self.pids(path))

    def _directories(self, path: str, *, unified: bool = True, unified_first: bool = False) -> Iterable[str]:
        v1 = self.hierarchies.v1
        mounts = list(self._always)
        mounts += [v1[name] for name in ("cpuset", "hugetlb") if name in v1 and v1[name] not in mounts]
        if unified and self.hierarchies.unified:
            mounts.insert(0 if unified_first else len(mounts), self.hierarchies.unified)
        return (mount + path for mount in mounts if os.path.isdir(mount + path))


def _check(path: str) -> None:
    """Nothing may ever kill or remove the root of a hierarchy, nor climb out of its own subtree."""
    if not path.startswith("/") or not path.strip("/") or ".." in path.split("/"):
        raise ValueError(f"{path!r} is not the path of a cgroup")


def _ancestors(path: str) -> list[str]:
    """``/a/b/c`` -> ``/``, ``/a``, ``/a/b``."""
    parts = path.strip("/").split("/")[:-1]
    return ["/", *("/" + "/".join(parts[: index + 1]) for index in range(len(parts)))]


def _make(mount: str, path: str, *, inherit: bool = False) -> None:
    """mkdir -p in a v1 hierarchy; ``inherit`` fills each new cpuset from its parent."""
    directory = mount + path
    if not inherit:
        try:
            os.mkdir(directory)
        except FileExistsError:
            pass
        except FileNotFoundError:
            os.makedirs(directory, exist_ok=True)
        return
    for parent, child in zip(_ancestors(path), [*_ancestors(path)[1:], path], strict=True):
        with contextlib.suppress(FileExistsError):
            os.mkdir(mount + child)
        cpuset.inherit_v1(mount + child, mount + parent)


def _children(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise


def _pids(directory: str) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, OSError):
        found += [int(pid) for pid in read(directory, "cgroup.procs").split() if pid != "0"]
    for name in _children(directory):
        found += _pids(f"{directory}/{name}")
    return found


def _rmdir(directory: str) -> bool:
    try:
        os.rmdir(directory)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        if error.errno not in _GONE:
            raise
    return True


def _remove_tree(directory: str) -> bool:
    """Children first; whether all of it is gone."""
    gone = [_remove_tree(f"{directory}/{name}") for name in _children(directory)]
    return all(gone) and _rmdir(directory)
