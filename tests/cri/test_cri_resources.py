"""Cgroups and limits: where a kubelet's sandboxes are, what they may take, and who owns what."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cri_api.v1 import api_pb2 as api

from tests.framework import probes
from tests.framework.cri import CriClient, container, refused, sandbox
from tests.framework.daemon import Daemon, eventually, remove_cgroups

V2 = probes.cgroup_mounts().keys() <= {""} or len(probes.cgroup_mounts()) == 1


@pytest.fixture
def parent(shared_daemon: Daemon) -> Iterator[str]:
    """A kubelet's cgroup for one Pod, which it makes and removes itself; the daemon's own root keeps it apart."""
    path = f"{shared_daemon.config.cgroup_root}-kubepods/burstable/pod1"
    for mount in probes.cgroup_mounts().values():
        (mount / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
    yield path
    remove_cgroups(f"{shared_daemon.config.cgroup_root}-kubepods")


def resourced(name: str = "main", command: Any = None, **limits: Any) -> Any:
    linux = api.LinuxContainerConfig(resources=api.LinuxContainerResources(**limits))
    return container(name, linux=linux, **({"command": command} if command else {}))


def directories(path: str) -> list[Path]:
    """Where a cgroup exists."""
    found = [mount / path.lstrip("/") for mount in probes.cgroup_mounts().values()]
    return [directory for directory in found if directory.is_dir()]


def limit(path: str, v1: str, v2: str) -> str:
    for directory in directories(path):
        for name in (v1, v2):
            if (directory / name).exists():
                return (directory / name).read_text().strip()
    raise AssertionError(f"{path}: neither {v1} nor {v2}")


def cgroup_of(cri: CriClient, unit: str) -> str:
    info = json.loads(cri.call("ContainerStatus", container_id=unit, verbose=True).info["info"])
    assert Path(f"/proc/{info['pid']}/cgroup").read_text().count(unit)
    return str(info["cgroup"])


def test_a_kubelet_s_cgroup_stays_the_kubelet_s(cri: CriClient, shared_daemon: Daemon, parent: str) -> None:
    before = {directory: directory.stat().st_ino for directory in directories(parent)}
    linux = api.LinuxPodSandboxConfig(
        cgroup_parent=parent,
        resources=api.LinuxContainerResources(memory_limit_in_bytes=64 << 20),
        security_context=api.LinuxSandboxSecurityContext(namespace_options=api.NamespaceOption(pid=api.POD)),
    )
    config = sandbox(linux=linux)
    box = cri.run_sandbox(config)
    unit = cri.run(box, config)
    assert cgroup_of(cri, unit) == f"{parent}/{box}/{unit}"
    # The limits of the Pod are the kubelet's to write.
    unlimited = limit(parent, "memory.limit_in_bytes", "memory.max")
    assert limit(f"{parent}/{box}", "memory.limit_in_bytes", "memory.max") == unlimited
    cri.call(
        "UpdatePodSandboxResources",
        pod_sandbox_id=box,
        resources=api.LinuxContainerResources(memory_limit_in_bytes=80 << 20),
    )
    assert limit(f"{parent}/{box}", "memory.limit_in_bytes", "memory.max") == unlimited
    shared_daemon.restart()
    cri.stop_sandbox(box)
    assert {directory: directory.stat().st_ino for directory in directories(parent)} == before
    # A kubelet removes the cgroup when all has stopped, and the sandbox when it comes to it.
    for directory in directories(parent):
        assert [entry.name for entry in os.scandir(directory) if entry.is_dir()] == []
    assert list(shared_daemon.config.netns_dir.iterdir()) == []
    cri.stop_sandbox(box)
    shared_daemon.restart()
    assert cri.sandbox_status(box).state == api.SANDBOX_NOTREADY
    assert cri.status(unit).exit_code == 137
    cri.remove_sandbox(box)
    assert {directory: directory.stat().st_ino for directory in directories(parent)} == before


def test_two_attempts_of_one_pod_side_by_side(cri: CriClient, parent: str) -> None:
    config = sandbox(linux=api.LinuxPodSandboxConfig(cgroup_parent=parent))
    first = cri.run_sandbox(config)
    cri.run(first, config)
    config.metadata.attempt = 1
    second = cri.run_sandbox(config)
    unit = cri.run(second, config, attempt=1)
    cri.remove_sandbox(first)
    assert cri.exec(unit, "true")[0] == 0


def test_without_a_parent_the_pod_s_limits_are_podrt_s(cri: CriClient, shared_daemon: Daemon) -> None:
    linux = api.LinuxPodSandboxConfig(
        resources=api.LinuxContainerResources(memory_limit_in_bytes=64 << 20),
        overhead=api.LinuxContainerResources(memory_limit_in_bytes=1 << 20),
    )
    config = sandbox(linux=linux)
    box = cri.run_sandbox(config)
    path = f"{shared_daemon.config.cgroup_root}/pod{box}"
    assert limit(path, "memory.limit_in_bytes", "memory.max") == str(65 << 20)
    cri.call(
        "UpdatePodSandboxResources",
        pod_sandbox_id=box,
        resources=api.LinuxContainerResources(memory_limit_in_bytes=80 << 20),
    )
    assert limit(path, "memory.limit_in_bytes", "memory.max") == str(80 << 20)


def test_what_an_update_of_a_sandbox_does_not_set_stays(cri: CriClient, shared_daemon: Daemon) -> None:
    linux = api.LinuxPodSandboxConfig(
        resources=api.LinuxContainerResources(
            cpu_period=50_000, cpu_quota=25_000, cpu_shares=512, memory_limit_in_bytes=64 << 20
        )
    )
    box = cri.run_sandbox(sandbox(linux=linux))
    path = f"{shared_daemon.config.cgroup_root}/pod{box}"
    cpu = api.LinuxContainerResources(cpu_quota=30_000)
    cri.call("UpdatePodSandboxResources", pod_sandbox_id=box, resources=cpu)
    shared_daemon.restart()
    memory = api.LinuxContainerResources(memory_limit_in_bytes=80 << 20)
    cri.call("UpdatePodSandboxResources", pod_sandbox_id=box, resources=memory)
    assert limit(path, "cpu.cfs_quota_us", "cpu.max").split()[0] == "30000"
    assert limit(path, "memory.limit_in_bytes", "memory.max") == str(80 << 20)
    kept = json.loads(cri.call("PodSandboxStatus", pod_sandbox_id=box, verbose=True).info["info"])["config"]
    told = {"cpu_quota": 30_000, "cpu_period": 50_000, "cpu_shares": 512, "memory_limit": 80 << 20}
    assert {name: kept["resources"][name] for name in told} == told


def test_limits_of_a_container(cri: CriClient) -> None:
    config = sandbox()
    box = cri.run_sandbox(config)
    unit = cri.run(
        box,
        config,
        resourced(
            cpu_period=50_000,
            cpu_quota=25_000,
            cpu_shares=512,
            memory_limit_in_bytes=64 << 20,
            cpuset_cpus="0",
            oom_score_adj=500,
            hugepage_limits=[api.HugepageLimit(page_size="2MB", limit=0)],
        ),
    )
    path = cgroup_of(cri, unit)
    assert limit(path, "cpu.cfs_quota_us", "cpu.max").split()[0] == "25000"
    assert limit(path, "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert cri.exec(unit, "sh", "-c", "grep Cpus_allowed_list /proc/self/status; cat /proc/self/oom_score_adj")[
        1
    ].split() == [
        "Cpus_allowed_list:",
        "0",
        "500",
    ]
    told = cri.status(unit).resources.linux
    assert (told.cpu_period, told.cpu_quota, told.cpu_shares, told.memory_limit_in_bytes) == (
        50_000,
        25_000,
        512,
        64 << 20,
    )
    assert (told.cpuset_cpus, told.oom_score_adj) == ("0", 500)
    assert [(one.page_size, one.limit) for one in told.hugepage_limits] == [("2MB", 0)]

    more = api.LinuxContainerResources(memory_limit_in_bytes=128 << 20, cpu_shares=1024)
    cri.call("UpdateContainerResources", container_id=unit, linux=more)
    assert limit(path, "memory.limit_in_bytes", "memory.max") == str(128 << 20)
    told = cri.status(unit).resources.linux
    assert (told.cpu_quota, told.cpu_shares, told.memory_limit_in_bytes) == (25_000, 1024, 128 << 20)
    cri.stop(unit)
    with refused("FAILED_PRECONDITION", "limits can't be changed"):
        cri.call("UpdateContainerResources", container_id=unit, linux=more)


def test_a_created_container_can_get_other_limits(cri: CriClient) -> None:
    config = sandbox()
    unit = cri.create(cri.run_sandbox(config), config)
    cri.call("UpdateContainerResources", container_id=unit, linux=api.LinuxContainerResources(cpu_quota=30_000))
    cri.start(unit)
    assert limit(cgroup_of(cri, unit), "cpu.cfs_quota_us", "cpu.max").split()[0] == "30000"


def test_a_lower_oom_score_than_allowed_is_not_fatal(cri: CriClient) -> None:
    config = sandbox()
    unit = cri.run(cri.run_sandbox(config), config, resourced(oom_score_adj=-999))
    score = int(cri.exec(unit, "cat", "/proc/self/oom_score_adj")[1])
    assert -999 <= score <= 0
    assert cri.status(unit).resources.linux.oom_score_adj == -999


def test_out_of_memory(cri: CriClient) -> None:
    config = sandbox()
    command = ("sh", "-c", "x=0123456789abcdef; while :; do x=$x$x; done")
    unit = cri.run(cri.run_sandbox(config), config, resourced(command=command, memory_limit_in_bytes=16 << 20))
    status = eventually(lambda: (found := cri.status(unit)).state == api.CONTAINER_EXITED and found, 60)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


def test_what_is_only_of_cgroup_v2(cri: CriClient) -> None:
    config = sandbox()
    box = cri.run_sandbox(config)
    spec = resourced(unified={"memory.high": str(64 << 20)})
    if V2:
        assert limit(cgroup_of(cri, cri.run(box, config, spec)), "memory.high", "memory.high") == str(64 << 20)
    else:
        with refused("UNIMPLEMENTED", "memory.high"):
            cri.create(box, config, spec)


def test_no_pids_limit_of_its_own(cri: CriClient) -> None:
    """A kubelet limits the Pod's cgroup; podrt's own default is for Pods of the API."""
    config = sandbox()
    unit = cri.run(cri.run_sandbox(config), config)
    assert limit(cgroup_of(cri, unit), "pids.max", "pids.max") == "max"
