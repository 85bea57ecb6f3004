"""Limits, killing, freezing and pressure on cgroup v2, with the installed daemon and with the kernel layer itself."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from podrt.linux.cgroup import Limits, Manager
from tests.framework.daemon import eventually
from tests.framework.pods import container, pod, restarts, status
from tests.vm.conftest import Installed

pytestmark = pytest.mark.usefixtures("cgroup_v2")

SPIN = "while :; do :; done"
HOG = "sleep 1; exec tail /dev/zero"


def read(directory: Path | str, name: str) -> str:
    return Path(directory, name).read_text().strip()


def table(directory: Path | str, name: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in read(directory, name).splitlines())


@pytest.fixture
def manager() -> Iterator[Manager]:
    made = Manager("/podrt-vm-test")
    assert made.hierarchies.mode == "v2"
    made.prepare()
    yield made
    made.remove("/podrt-vm-test")


def test_limits_of_container_and_pod_are_in_the_kernel(installed: Installed) -> None:
    resources = {"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}}
    installed.apply(pod("limits", container(resources=resources)))
    installed.wait_for("limits", "Running")
    one = installed.cgroup_of("limits")
    assert read(one, "memory.max") == str(64 << 20)
    assert read(one, "memory.oom.group") == "1"
    assert read(one, "cpu.max") == "50000 100000"
    assert read(one, "cpu.weight") == "35"  # of 256 shares, as runc converts them since 2025
    assert read(one, "pids.max") == str(installed.config.pids_limit)
    assert read(one.parent, "memory.max") == str(64 << 20)
    assert read(one.parent, "cpu.max") == "50000 100000"
    assert read(one.parent, "cpu.weight") == "10"  # linear, as the kubelet converts a Pod's
    assert read(one.parent, "memory.oom.group") == "0"


def test_a_container_is_born_in_its_cgroup_and_sees_it_as_the_root(installed: Installed) -> None:
    installed.apply(pod("born", container(script="cat /proc/1/cgroup; sleep 100000")))
    installed.wait_for("born", "Running")
    eventually(lambda: installed.logs("born"), 10, "its first line")
    assert installed.logs("born") == "0::/\n"
    [first, *_] = read(installed.cgroup_of("born"), "cgroup.procs").split()
    own = installed.cgroup_of("born").relative_to("/sys/fs/cgroup")
    assert read(f"/proc/{first}", "cgroup") == f"0::/{own}"
    # No process stands between: neither the Pod's cgroup nor the root of all has any.
    assert not read(installed.cgroup_of("born").parent, "cgroup.procs")
    assert not read(installed.cgroup_root, "cgroup.procs")


def test_out_of_memory_ends_the_whole_container_and_no_other(installed: Installed) -> None:
    limit = {"limits": {"memory": "24Mi"}}
    hog = container("hog", f"sleep 100000 & ({HOG}) & wait; sleep 100000", resources=limit)
    installed.apply(pod("oom", hog, container("neighbour")))

    def killed(found: dict[str, object]) -> bool:
        return restarts(found, "hog") > 0 or "terminated" in status(found, "hog")["state"]

    found = installed.wait_for("oom", killed, 60)
    ended = {**status(found, "hog").get("lastState", {}), **status(found, "hog")["state"]}["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
    assert restarts(found, "neighbour") == 0
    assert "running" in status(found, "neighbour")["state"]


def test_cpu_max_throttles(installed: Installed) -> None:
    installed.apply(pod("spin", container(script=SPIN, resources={"limits": {"cpu": "100m"}})))
    installed.wait_for("spin", "Running")
    directory = installed.cgroup_of("spin")
    eventually(lambda: int(table(directory, "cpu.stat")["nr_throttled"]) > 5, 20, "it is throttled")
    used, at = int(table(directory, "cpu.stat")["usage_usec"]), time.monotonic()
    time.sleep(3)
    share = (int(table(directory, "cpu.stat")["usage_usec"]) - used) / 1e6 / (time.monotonic() - at)
    assert share < 0.2


def test_devices_are_filtered(installed: Installed) -> None:
    installed.apply(pod("devices"))
    installed.wait_for("devices", "Running")
    major, minor = read("/sys/class/block/vda", "dev").split(":")
    disk = f"mknod /tmp/disk b {major} {minor} && dd if=/tmp/disk of=/dev/null bs=512 count=1 2>&1 || true"
    assert "Operation not permitted" in installed.exec("devices", "sh", "-c", disk)
    zero = "mknod /tmp/zero c 1 5 && head -c 3 /tmp/zero | wc -c && echo x >/dev/null && head -c 1 /dev/urandom | wc -c"
    assert installed.exec("devices", "sh", "-c", zero).split() == ["3", "1"]


def test_a_pods_cgroup_is_gone_after_it(installed: Installed) -> None:
    installed.apply(pod("gone", container(script="(sleep 1000 &) ; sleep 1000")))
    installed.wait_for("gone", "Running")
    directory = installed.cgroup_of("gone").parent
    assert directory.is_dir()
    installed.delete("gone", grace=0)
    assert not directory.exists()


def test_unified_limits_cpuset_and_pids(manager: Manager) -> None:
    device = read("/sys/class/block/vda", "dev")
    limits = Limits(
        pids_limit=7,
        cpuset_cpus="0",
        unified={"memory.high": "16777216", "io.max": f"{device} wbps=1048576", "cpu.idle": "0"},
    )
    path = f"{manager.root}/one"
    manager.create(path, limits)
    directory = manager.hierarchies.unified + path
    assert read(directory, "pids.max") == "7"
    assert read(directory, "cpuset.cpus.effective") == "0"
    assert read(directory, "memory.high") == "16777216"
    assert read(directory, "io.max") == f"{device} rbps=max wbps=1048576 riops=max wiops=max"


def inside(manager: Manager, path: str, *command: str) -> subprocess.Popen[bytes]:
    """A process in a cgroup of ``manager``."""
    enter = f'echo 0 >{manager.hierarchies.unified}{path}/cgroup.procs; exec "$@"'
    return subprocess.Popen(("sh", "-c", enter, "sh", *command), stdin=subprocess.DEVNULL)


def test_memory_high_holds_back_and_shows_as_pressure(manager: Manager) -> None:
    path = f"{manager.root}/high"
    manager.create(path, Limits(memory_limit=256 << 20, unified={"memory.high": str(8 << 20)}))
    process = inside(manager, path, "tail", "/dev/zero")
    try:
        directory = manager.hierarchies.unified + path
        eventually(lambda: int(table(directory, "memory.events")["high"]) > 0, 20, "memory.high is reached")
        eventually(lambda: manager.pressure(path)["memory"].some.total_us > 0, 20, "it waits for memory")
        assert manager.stats(path)["memory_usage"] < 64 << 20
        assert manager.pressure(path)["cpu"].some.total_us >= 0
    finally:
        manager.kill(path)
        process.wait()


def test_freeze_thaw_and_kill_reach_every_process(manager: Manager) -> None:
    path = f"{manager.root}/group"
    manager.create(path)
    process = inside(manager, path, "sh", "-c", "sleep 1000 & sleep 1000 & while :; do :; done")
    try:
        eventually(lambda: len(manager.pids(path)) == 3, 10, "three processes")

        def used() -> int:
            return manager.stats(path)["cpu_usage_ns"]

        before = used()
        eventually(lambda: used() > before, 10, "it runs")
        manager.freeze(path, 30)
        frozen = used()
        time.sleep(0.5)
        assert used() == frozen
        manager.thaw(path, 30)
        eventually(lambda: used() > frozen, 10, "it goes on")
        manager.freeze(path, 30)  # cgroup.kill reaches the frozen, too
    finally:
        manager.kill(path)
        process.wait()
    eventually(lambda: not manager.populated(path), 10, "all of them are gone")


def test_io_max_slows_writing(manager: Manager, tmp_path: Path) -> None:
    disk = read("/sys/class/block/vda", "dev")
    path = f"{manager.root}/io"
    manager.create(path, Limits(unified={"io.max": f"{disk} wbps=1048576"}))
    start = time.monotonic()
    file = Path("/var/tmp/podrt-io-test")
    process = inside(manager, path, "dd", "if=/dev/zero", f"of={file}", "bs=1M", "count=4", "oflag=direct")
    try:
        assert process.wait() == 0
        assert time.monotonic() - start > 2  # 4 MiB at 1 MiB a second; a burst is let through
    finally:
        manager.kill(path)
        file.unlink(missing_ok=True)


def test_remove_kills_what_runs(manager: Manager) -> None:
    path = f"{manager.root}/busy"
    manager.create(f"{path}/below")
    process = inside(manager, f"{path}/below", "sleep", "1000")
    eventually(lambda: bool(manager.pids(path)), 10, "it runs there")
    manager.remove(path, 30)
    assert process.wait() == -9
    assert not os.path.exists(manager.hierarchies.unified + path)
