"""What Pods get of the machine, as real cgroups have it."""

from __future__ import annotations

from collections.abc import Callable
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


def with_sysctl(name: str, sysctl: str, value: str) -> dict[str, Any]:
    return pod(name, securityContext={"sysctls": [{"name": sysctl, "value": value}]})


def test_unsafe_sysctls_need_to_be_allowed(daemon_factory: Callable[..., Daemon]) -> None:
    daemon = daemon_factory(allowed_unsafe_sysctls="net.core.somaxconn,kernel.msg*")
    daemon.apply(with_sysctl("safe", "net.ipv4.ip_local_port_range", "3000 4000"))
    daemon.apply(with_sysctl("allowed", "kernel.msgmax", "4242"))
    daemon.apply(with_sysctl("forbidden", "kernel.shmmni", "17"))
    daemon.wait_for("safe", "Running")
    daemon.wait_for("allowed", "Running")
    assert daemon.exec("allowed", "cat", "/proc/sys/kernel/msgmax", container="main").strip() == "4242"
    assert daemon.exec("safe", "cat", "/proc/sys/net/ipv4/ip_local_port_range", container="main").split()[0] == "3000"
    found = daemon.wait_for("forbidden", "Failed")
    assert found["status"]["reason"] == "SysctlForbidden"
    assert found["status"]["message"] == 'Pod was rejected: forbidden sysctl: "kernel.shmmni" not allowlisted'
    items = daemon.api("GET", "/api/v1/namespaces/default/events")["items"]
    assert any(one["reason"] == "SysctlForbidden" and one["type"] == "Warning" for one in items)
