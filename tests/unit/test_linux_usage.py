"""Counters of cgroups and network interfaces, read from files as the kernel writes them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from podrt.linux import netdev, process
from podrt.linux.cgroup import Hierarchies, io, usage
from podrt.linux.cgroup.io import DeviceIO
from podrt.linux.netdev import Interface

UNLIMITED = "9223372036854771712"


def write(directory: Path, files: Mapping[str, str]) -> str:
    directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / name).write_text(text + "\n")
    return str(directory)


def unified(tmp_path: Path, files: Mapping[str, str]) -> Hierarchies:
    write(tmp_path / "v2" / "pod", files)
    return Hierarchies("v2", str(tmp_path / "v2"), {}, ("cpu", "memory", "pids", "io"))


def test_v2(tmp_path: Path) -> None:
    files = {
        "cpu.stat": "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 2\nthrottled_usec 5",
        "memory.current": "1000",
        "memory.stat": "anon 300\nfile 500\nkernel 80\nfile_mapped 40\ninactive_file 400\nactive_file 100\n"
        "pgfault 7\npgmajfault 1",
        "memory.max": "4096",
        "memory.peak": "2000",
        "memory.events": "low 0\nmax 3\noom 1\noom_kill 1",
        "memory.swap.current": "16",
        "memory.swap.max": "64",
        "pids.current": "5",
        "pids.max": "20",
    }
    hierarchies = unified(tmp_path, files)
    assert usage.stats(hierarchies, "/pod") == {
        "cpu_usage_ns": 30_000,
        "cpu_user_ns": 20_000,
        "cpu_system_ns": 10_000,
        "cpu_periods": 4,
        "cpu_throttled_periods": 2,
        "cpu_throttled_ns": 5000,
        "memory_usage": 1000,
        "memory_working_set": 600,
        "memory_rss": 300,
        "memory_page_faults": 7,
        "memory_major_page_faults": 1,
        "memory_limit": 4096,
        "memory_cache": 500,
        "memory_mapped_file": 40,
        "memory_active_file": 100,
        "memory_inactive_file": 400,
        "memory_kernel": 80,
        "swap_usage": 16,
        "swap_limit": 64,
        "oom_kills": 1,
        "pids": 5,
    }
    assert usage.details(hierarchies, "/pod") == {"memory_max_usage": 2000, "memory_failures": 3, "pids_limit": 20}


def test_no_limit_in_v2(tmp_path: Path) -> None:
    hierarchies = unified(
        tmp_path, {"memory.max": "max", "memory.swap.max": "max", "pids.max": "max", "memory.current": "1"}
    )
    found = usage.stats(hierarchies, "/pod") | usage.details(hierarchies, "/pod")
    assert (found["memory_limit"], found["swap_limit"], found["pids_limit"]) == (0, -1, 0)


def v1(tmp_path: Path, memory: Mapping[str, str]) -> Hierarchies:
    mounts = {
        "cpu": {"cpu.stat": "nr_periods 4\nnr_throttled 2\nthrottled_time 5000"},
        "cpuacct": {"cpuacct.usage": "30000", "cpuacct.usage_user": "20000", "cpuacct.usage_sys": "10000"},
        "memory": memory,
        "pids": {"pids.current": "5", "pids.max": "max"},
    }
    for name, files in mounts.items():
        write(tmp_path / name / "pod", files)
    return Hierarchies("v1", "", {name: str(tmp_path / name) for name in mounts}, ())


def test_v1(tmp_path: Path) -> None:
    files = {
        "memory.usage_in_bytes": "1000",
        "memory.stat": "cache 1\ntotal_cache 500\ntotal_rss 300\ntotal_inactive_file 400\ntotal_active_file 100\n"
        "total_mapped_file 40\ntotal_pgfault 7\ntotal_pgmajfault 1\ntotal_swap 16",
        "memory.limit_in_bytes": "4096",
        "memory.memsw.limit_in_bytes": "4160",
        "memory.max_usage_in_bytes": "2000",
        "memory.failcnt": "3",
        "memory.kmem.usage_in_bytes": "80",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1",
    }
    hierarchies = v1(tmp_path, files)
    found = usage.stats(hierarchies, "/pod")
    assert found["cpu_usage_ns"] == 30_000 and found["cpu_throttled_ns"] == 5000 and found["cpu_periods"] == 4
    assert found["memory_working_set"] == 600 and found["memory_rss"] == 300 and found["memory_cache"] == 500
    assert (found["memory_limit"], found["swap_limit"], found["swap_usage"]) == (4096, 64, 16)
    assert usage.details(hierarchies, "/pod") == {
        "memory_max_usage": 2000,
        "memory_failures": 3,
        "memory_kernel": 80,
        "cpu_user_ns": 20_000,
        "cpu_system_ns": 10_000,
        "pids_limit": 0,
    }


def test_no_limit_in_v1(tmp_path: Path) -> None:
    files = {"memory.limit_in_bytes": UNLIMITED, "memory.memsw.limit_in_bytes": UNLIMITED}
    found = usage.stats(v1(tmp_path, files), "/pod")
    assert (found["memory_limit"], found["swap_limit"]) == (0, -1)


def test_io() -> None:
    text = "8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:0\n253:0 rbytes=7 wbytes=8 rios=9 wios=10\n"
    assert io.parse(text) == (DeviceIO(8, 16, 1, 2, 3, 4), DeviceIO(253, 0, 7, 8, 9, 10))


def test_interfaces() -> None:
    text = (
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls ...\n"
        "    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0 0 0\n"
        "  eth0:11 12 13 14 15 16 17 18 21 22 23 24 25 26 27 28\n"
    )
    assert netdev.parse(text) == (Interface("lo"), Interface("eth0", 11, 12, 13, 14, 21, 22, 23, 24))


def test_open_files_and_sockets(tmp_path: Path) -> None:
    before = process.open_files([os.getpid()])
    first, second = os.pipe()
    with open(tmp_path / "file", "w"):
        after = process.open_files([os.getpid(), 2**22 + 1])
    os.close(first)
    os.close(second)
    assert after["files"] == before["files"] + 3 and after["sockets"] == before["sockets"]
    assert process.soft_limits(os.getpid())["files_limit"] != 0 and process.soft_limits(2**22 + 1) == {}
