"""What Pods get of the machine, as real cgroups have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.framework import probes
from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import container, pod

GUARANTEED = {"limits": {"cpu": "200m", "memory": "64Mi"}, "requests": {"cpu": "200m", "memory": "64Mi"}}


def cpu_weight(daemon: Daemon, group: str) -> int:
    """cpu.shares, or cpu.weight on cgroup v2."""
    mounts = probes.cgroup_mounts()
    top = mounts["cpu"] if "cpu" in mounts else next(iter(mounts.values()))
    path = top / daemon.config.cgroup_root.lstrip("/") / group
    name = "cpu.shares" if (path / "cpu.shares").exists() else "cpu.weight"
    return int((path / name).read_text())


def cgroup_of(daemon: Daemon, name: str) -> str:
    """The Pod's cgroup, below the daemon's own."""
    uid = daemon.pod(name)["metadata"]["uid"]
    found = {path.partition(daemon.config.cgroup_root)[2] for path in daemon.cgroups() if path.endswith(f"pod{uid}")}
    assert len(found) == 1
    return found.pop()


def asking(name: str, resources: dict[str, Any]) -> dict[str, Any]:
    return pod(name, container(resources=resources))


def test_a_group_for_each_qos_class(shared_daemon: Daemon) -> None:
    low = cpu_weight(shared_daemon, "besteffort")
    assert low in (1, 2)
    assert cpu_weight(shared_daemon, "burstable") == low
    for one in (
        asking("best", {}),
        asking("some", {"requests": {"cpu": "500m"}}),
        asking("more", {"requests": {"cpu": "250m"}}),
        asking("sure", GUARANTEED),
    ):
        shared_daemon.apply(one)
    for name, group in (("best", "/besteffort"), ("some", "/burstable"), ("more", "/burstable"), ("sure", "")):
        shared_daemon.wait_for(name, "Running")
        assert Path(cgroup_of(shared_daemon, name)).parent == Path(f"{group}/")
    assert cpu_weight(shared_daemon, "besteffort") == low
    # 750m: 768 shares, or weight 1 + 766 * 9999 / 262142.
    eventually(lambda: cpu_weight(shared_daemon, "burstable") in (768, 30))
    shared_daemon.delete("some", grace=0)
    eventually(lambda: cpu_weight(shared_daemon, "burstable") in (256, 10))
