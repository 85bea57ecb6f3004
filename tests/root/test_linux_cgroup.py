"""Control groups of the machine the tests run on, whatever its layout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from podrt.errors import DeadlineError
from podrt.linux.cgroup import DEFAULT_RULES, DeviceRule, Hierarchies, Limits, Manager, detect, devices
from tests.framework.patience import scaled

Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def manager() -> Iterator[Manager]:
    manager = Manager(f"/podrt-test-{os.getpid()}")
    manager.prepare()
    yield manager
    manager.remove(manager.root)
    assert not manager.exists(manager.root)
    for mount in {manager.hierarchies.unified, *manager.hierarchies.v1.values()} - {""}:
        assert not os.path.exists(mount + manager.root)


@pytest.fixture
def spawn(manager: Manager) -> Iterator[Spawn]:
    """Processes inside a cgroup: ``spawn(path, python code)``."""
    children = []

    def start(path: str, code: str) -> subprocess.Popen[bytes]:
        files = manager.tasks_files(path)
        if manager.hierarchies.unified:
            files.append(f"{manager.hierarchies.unified}{path}/cgroup.procs")
        enter = "".join(f"open({file!r}, 'w').write('0')\n" for file in files)
        child = subprocess.Popen([sys.executable, "-c", enter + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        children.append(child)
        return child

    yield start
    manager.kill(manager.root)
    for child in children:
        child.communicate(timeout=10)


def value(manager: Manager, controller: str, path: str, v1_name: str, v2_name: str) -> str:
    v1 = manager.hierarchies.v1
    directory, name = (v1[controller], v1_name) if controller in v1 else (manager.hierarchies.unified, v2_name)
    with open(f"{directory}{path}/{name}", encoding="ascii") as file:
        return file.read().strip()


def has(manager: Manager, controller: str) -> bool:
    return controller in manager.hierarchies.v1 or controller in manager.hierarchies.v2_controllers


def test_limits_are_written(manager: Manager) -> None:
    path = f"{manager.root}/pod1/c1"
    manager.create(f"{manager.root}/pod1", Limits(cpu_shares=2048, memory_limit=1 << 30), pod=True)
    limits = Limits(cpu_shares=1024, cpu_quota=50_000, memory_limit=64 << 20, pids_limit=77)
    manager.create(path, limits, rules=DEFAULT_RULES)
    manager.create(path, limits, rules=DEFAULT_RULES)
    assert value(manager, "cpu", path, "cpu.shares", "cpu.weight") in ("1024", "100")
    assert value(manager, "cpu", path, "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    assert value(manager, "memory", path, "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert value(manager, "pids", path, "pids.max", "pids.max") == "77"
    if "devices" in manager.hierarchies.v1:
        listed = value(manager, "devices", path, "devices.list", "").splitlines()
        assert sorted(listed) == sorted(devices.text_v1(rule) for rule in DEFAULT_RULES)
    manager.apply(path, Limits(memory_limit=128 << 20, cpu_quota=-1))
    assert value(manager, "memory", path, "memory.limit_in_bytes", "memory.max") == str(128 << 20)
    assert value(manager, "cpu", path, "cpu.cfs_quota_us", "cpu.max").split()[0] in ("-1", "max")
    assert value(manager, "pids", path, "pids.max", "pids.max") == "77"
    manager.apply(path, Limits(memory_limit=32 << 20))
    assert value(manager, "memory", path, "memory.limit_in_bytes", "memory.max") == str(32 << 20)
    assert manager.children(manager.root) == ["pod1"]
    assert manager.children(f"{manager.root}/pod1") == ["c1"]


def test_a_cpuset(manager: Manager, spawn: Spawn) -> None:
    if not has(manager, "cpuset"):
        pytest.skip("this machine lacks the cpuset controller")
    path = f"{manager.root}/pod1/c1"
    manager.create(f"{manager.root}/pod1", pod=True)
    manager.create(path, Limits(cpuset_cpus="0"))
    child = spawn(path, "import os; print(os.sched_getaffinity(0))")
    assert child.communicate()[0].strip() == b"{0}"


def test_an_error_names_file_and_value(manager: Manager) -> None:
    path = f"{manager.root}/c1"
    manager.create(path)
    with pytest.raises(OSError, match=r"writing '5000000'.*pids.max"):
        manager.apply(path, Limits(pids_limit=5_000_000))


def test_a_fork_bomb_stops_at_its_limit(manager: Manager, spawn: Spawn) -> None:
    path = f"{manager.root}/c1"
    manager.create(path, Limits(pids_limit=10))
    code = """
import os, time
for n in range(100):
    try:
        if os.fork() == 0:
            time.sleep(100)
    except BlockingIOError:
        print(n, flush=True)
        break
time.sleep(100)
"""
    child = spawn(path, code)
    assert child.stdout is not None
    assert child.stdout.readline() == b"9\n"
    assert manager.stats(path)["pids"] == 10
    assert len(manager.pids(path)) == 10
    assert manager.populated(path)


def test_a_memory_hog_is_killed_and_counted(manager: Manager, spawn: Spawn) -> None:
    path = f"{manager.root}/c1"
    manager.create(path, Limits(memory_limit=20 << 20))
    child = spawn(path, "data = bytearray(200 << 20)")
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    # cgroup v2 counts a process twice that it kills for its group.
    assert manager.oom_kills(path) in ((1, 2) if manager.hierarchies.mode == "v2" else (1,))
    stats = manager.stats(path)
    assert stats["oom_kills"] == manager.oom_kills(path)
    assert stats["memory_page_faults"] > 0
    assert manager.oom_kills(f"{manager.root}/gone") == 0


def test_a_cpu_hog_is_throttled_and_counted(manager: Manager, spawn: Spawn) -> None:
    path = f"{manager.root}/c1"
    manager.create(path, Limits(cpu_quota=10_000))
    spawn(path, "while True: pass")
    deadline = time.monotonic() + 20
    while manager.stats(path)["cpu_throttled_ns"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    used, at = manager.stats(path)["cpu_usage_ns"], time.monotonic()
    time.sleep(1)
    share = (manager.stats(path)["cpu_usage_ns"] - used) / 1e9 / (time.monotonic() - at)
    assert 0.01 < share < 0.25


def test_freeze_and_thaw(manager: Manager, spawn: Spawn) -> None:
    path = f"{manager.root}/c1"
    manager.create(path)
    child = spawn(path, "while True: pass")
    while manager.stats(path).get("cpu_usage_ns", 0) == 0:
        time.sleep(0.01)
    manager.freeze(path)
    before = manager.stats(path)["cpu_usage_ns"]
    time.sleep(0.2)
    assert manager.stats(path)["cpu_usage_ns"] - before < 20e6
    manager.thaw(path)
    time.sleep(0.2)
    assert manager.stats(path)["cpu_usage_ns"] - before > 20e6
    assert child.poll() is None


def test_removing_kills_everything_below(manager: Manager, spawn: Spawn) -> None:
    manager.create(f"{manager.root}/pod1", pod=True)
    children = []
    for name in ("a", "b/inner"):
        manager.create(f"{manager.root}/pod1/{name}")
        bomb = "import os\nwhile True:\n  if os.fork() == 0: break\n  os.wait()\nwhile True: os.fork() or os._exit(0)"
        children.append(spawn(f"{manager.root}/pod1/{name}", "import time; time.sleep(100)" if name == "a" else bomb))
    while not all(manager.pids(f"{manager.root}/pod1/{name}") for name in ("a", "b")):
        time.sleep(0.01)
    manager.remove(f"{manager.root}/pod1")
    manager.remove(f"{manager.root}/pod1")
    assert not manager.exists(f"{manager.root}/pod1")
    assert [child.wait(5) for child in children] == [-9, -9]


def test_removing_what_was_half_made(manager: Manager) -> None:
    """A crash in the middle leaves directories in some hierarchies only."""
    mounts = {manager.hierarchies.unified, *manager.hierarchies.v1.values()} - {""}
    mount = sorted(mount for mount in mounts if os.path.isdir(mount + manager.root))[0]
    os.mkdir(f"{mount}{manager.root}/half")
    assert manager.exists(f"{manager.root}/half")
    assert manager.children(manager.root) == ["half"]
    manager.remove(f"{manager.root}/half")
    assert not manager.exists(f"{manager.root}/half")
    manager.kill(f"{manager.root}/half")


def unified() -> str:
    path = detect().unified
    if not path:
        pytest.skip("this machine lacks cgroup2")
    return path


def test_without_cgroup_kill_everything_is_frozen_and_killed(spawn: Spawn, manager: Manager) -> None:
    unified()
    path = f"{manager.root}/c1"
    manager.create(path)
    child = spawn(path, "import os\nwhile True: os.fork() or os._exit(0)")
    while not manager.pids(path):
        time.sleep(0.01)
    real = manager.hierarchies
    old = Manager(manager.root, real)

    def refuse(directory: str, name: str, text: str) -> None:
        if name == "cgroup.kill":
            raise FileNotFoundError(2, "no such file")
        with open(f"{directory}/{name}", "w", encoding="ascii") as file:
            file.write(text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("podrt.linux.cgroup.manager.write", refuse)
        old.kill(path)
    child.wait(5)
    deadline = time.monotonic() + 5
    while manager.populated(path):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_cgroup2_alone(spawn: Spawn) -> None:
    """The v2 way on whatever cgroup2 there is: controllers enabled, CLONE_INTO_CGROUP, the device program."""
    hierarchies = Hierarchies("v2", unified(), {}, ())
    manager = Manager(f"/podrt-v2-{os.getpid()}", hierarchies)
    with open(f"{unified()}/cgroup.subtree_control", encoding="ascii") as file:
        before = file.read().split()
    try:
        manager.prepare()
        path = f"{manager.root}/pod/c"
        manager.create(f"{manager.root}/pod", pod=True)
        rules = (DeviceRule("c", 1, 3), DeviceRule("c", 1, 5, "r"))
        manager.create(path, rules=rules)
        with (
            open(f"{unified()}{path}/cgroup.controllers", encoding="ascii") as file,
            open(f"{unified()}/cgroup.controllers", encoding="ascii") as root,
        ):
            wanted = {"cpu", "memory", "pids", "cpuset", "io", "hugetlb"}
            assert set(file.read().split()) == set(root.read().split()) & wanted
        assert manager.tasks_files(path) == []
        code = f"""
import os
from podrt.linux import abi, libc
fd = os.open({unified() + path!r}, os.O_RDONLY)
pid, pidfd = libc.clone3(cgroup_fd=fd)
if pid == 0:
    result = [next(line for line in open("/proc/self/cgroup") if line.startswith("0::")).strip()]
    for name, flags in (("null", os.O_RDWR), ("zero", os.O_RDONLY), ("zero", os.O_RDWR), ("full", os.O_RDONLY)):
        try:
            os.open("/dev/" + name, flags)
            result.append("yes")
        except PermissionError:
            result.append("no")
    print(*result, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
        assert done.stdout.split() == [f"0::{path}", "yes", "yes", "no", "no"], done.stderr
        manager.remove(manager.root)
        assert not manager.exists(manager.root)
    finally:
        manager.remove(manager.root)
        with open(f"{unified()}/cgroup.subtree_control", encoding="ascii") as file:
            added = set(file.read().split()) - set(before)
        if added:
            with open(f"{unified()}/cgroup.subtree_control", "w", encoding="ascii") as file:
                file.write(" ".join(f"-{name}" for name in added))


def test_what_does_not_die_is_reported(manager: Manager, spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{manager.root}/c1"
    manager.create(path)
    child = spawn(path, "import time; time.sleep(100)")
    while not manager.pids(path):
        time.sleep(0.01)
    monkeypatch.setattr(manager, "kill", lambda path: None)
    with pytest.raises(DeadlineError, match=str(child.pid)):
        manager.remove(path, timeout=0.1)


def test_creating_is_quick(manager: Manager) -> None:
    """The budget is 1 ms for each cgroup; the bound here is loose because the machine may be busy."""
    manager.create(f"{manager.root}/pod1", Limits(memory_limit=1 << 30), pod=True)
    limits = Limits(cpu_shares=1024, cpu_quota=50_000, memory_limit=64 << 20, pids_limit=77)
    times = []
    for number in range(30):
        start = time.perf_counter()
        manager.create(f"{manager.root}/pod1/c{number}", limits, rules=DEFAULT_RULES)
        times.append(time.perf_counter() - start)
    assert sorted(times)[15] < scaled(0.005)


@pytest.mark.skipif("memory" not in detect().v1, reason="this machine lacks: cgroup v1")
def test_entering_by_tasks_waits_for_nothing(manager: Manager) -> None:
    """By cgroup.procs the kernel makes the first in a while wait for a grace period, which is some 10 ms here."""
    path = f"{manager.root}/c"
    manager.create(path)
    code = f"""
import os, time
took = []
for _ in range(10):
    time.sleep(0.05)
    start = time.perf_counter()
    if (pid := os.fork()) == 0:
        for path in {manager.tasks_files(path)!r}:
            with open(path, "wb", buffering=0) as file:
                file.write(b"0")
        os._exit(0)
    os.waitpid(pid, 0)
    took.append(time.perf_counter() - start)
print(sorted(took)[5])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert float(done.stdout) < scaled(0.004)


def test_clone3_reports_a_pidfd() -> None:
    code = """
import os
from podrt.linux import abi, libc, process
pid, pidfd = libc.clone3(abi.CLONE_NEWPID | abi.CLONE_NEWNS)
if pid == 0:
    os._exit(os.getpid() + 40)
status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED).si_status << 8
print(os.waitstatus_to_exitcode(status), process.pidfd_exit_info(pidfd))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.stdout.split() in (["41", "41"], ["41", "None"]), done.stderr
