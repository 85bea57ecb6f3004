"""What Pods get of the machine, as real cgroups have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.framework import probes
from tests.framework.client import ApiError
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


def limit_of(daemon: Daemon, path: str) -> tuple[int, int]:
    """(cpu quota in us per 100 ms, memory in bytes) of a cgroup below the daemon's; -1 for no limit."""
    mounts = probes.cgroup_mounts()
    below = daemon.config.cgroup_root.lstrip("/") + path
    if "cpu" in mounts:
        quota = (mounts["cpu"] / below / "cpu.cfs_quota_us").read_text()
        memory = (mounts["memory"] / below / "memory.limit_in_bytes").read_text()
    else:
        top = next(iter(mounts.values())) / below
        quota, memory = (top / "cpu.max").read_text().split()[0], (top / "memory.max").read_text()
    return int(quota.replace("max", "-1")), int(memory.replace("max", "-1"))


@pytest.mark.fields("spec.resources")
def test_resources_of_the_whole_pod(shared_daemon: Daemon) -> None:
    own = {"limits": {"cpu": "100m", "memory": "32Mi"}}
    whole = {"limits": {"cpu": "300m", "memory": "96Mi"}}
    shared_daemon.apply(pod("shared", container("one", resources=own), container("two"), resources=whole))
    found = shared_daemon.wait_for("shared", "Running")
    # Requested by the containers, as far as they request anything.
    assert found["spec"]["resources"]["requests"] == {"cpu": "100m", "memory": "32Mi"}
    assert found["status"]["qosClass"] == "Burstable"
    path = cgroup_of(shared_daemon, "shared")
    ids = {one["name"]: one["containerID"].removeprefix("podrt://") for one in found["status"]["containerStatuses"]}
    assert limit_of(shared_daemon, path) == (30_000, 96 << 20)
    assert limit_of(shared_daemon, f"{path}/{ids['one']}") == (10_000, 32 << 20)
    assert limit_of(shared_daemon, f"{path}/{ids['two']}") == (30_000, 96 << 20)
    # The container without a limit of its own is killed at the Pod's.
    shared_daemon.apply(pod("fat", container(script="dd if=/dev/zero of=/dev/null bs=200M count=1"), resources=whole))
    shared_daemon.wait_for("fat", lambda one: one["status"].get("qosClass") == "Guaranteed")
    ended = shared_daemon.wait_for("fat", lambda one: one["status"]["containerStatuses"][0]["restartCount"] > 0)
    last = ended["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert last["reason"] == "OOMKilled"


@pytest.mark.parametrize(
    ("resources", "field"),
    [
        ({"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}, "spec.resources.requests.cpu"),
        ({"limits": {"cpu": "150m"}}, "spec.containers[0].resources.limits.cpu"),
        ({"limits": {"ephemeral-storage": "1Gi"}}, "spec.resources.limits.ephemeral-storage"),
    ],
)
def test_pod_and_containers_must_agree(shared_daemon: Daemon, resources: dict[str, Any], field: str) -> None:
    main = container(resources={"requests": {"cpu": "120m"}, "limits": {"cpu": "200m"}})
    with pytest.raises(ApiError) as refused:
        shared_daemon.apply(pod("odd", main, resources=resources))
    assert refused.value.code == 422
    assert field in str(refused.value)


HUGE_2M = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")


@pytest.fixture
def huge_pages() -> Iterator[None]:
    """Eight pages of 2 MiB set aside, where the kernel has as many."""
    try:
        before = HUGE_2M.read_text()
        HUGE_2M.write_text("8")
    except OSError as error:
        pytest.skip(f"huge pages can't be set aside: {error}")
    try:
        if int(HUGE_2M.read_text()) < 8:
            pytest.skip("there is no memory for huge pages")
        yield
    finally:
        HUGE_2M.write_text(before)


@pytest.mark.fields("spec.volumes[].emptyDir.medium")
@pytest.mark.usefixtures("huge_pages")
def test_huge_pages(daemon_factory: Callable[..., Daemon]) -> None:
    daemon = daemon_factory()
    assert daemon.api("GET", "/api/v1/nodes")["items"][0]["status"]["allocatable"]["hugepages-2Mi"] == "16Mi"
    mount = [{"name": "huge", "mountPath": "/huge"}]
    volume = [{"name": "huge", "emptyDir": {"medium": "HugePages"}}]
    amounts = {"hugepages-2Mi": "4Mi", "memory": "64Mi", "cpu": "100m"}
    user = container(resources={"limits": amounts}, volumeMounts=mount)
    daemon.apply(pod("huge", user, container("none"), volumes=volume))
    found = daemon.wait_for("huge", "Running")
    ids = {one["name"]: one["containerID"].removeprefix("podrt://") for one in found["status"]["containerStatuses"]}
    limits = {
        path.rsplit("/", 2)[1]: int(Path(path).read_text().replace("max", "-1"))
        for top in daemon.cgroups()
        for path in (f"{top}/hugetlb.2MB.max", f"{top}/hugetlb.2MB.limit_in_bytes")
        if Path(path).exists()
    }
    assert limits[ids["main"]] == 4 << 20
    assert limits[ids["none"]] == 0
    assert limits[f"pod{found['metadata']['uid']}"] == 4 << 20
    assert "hugetlbfs" in daemon.exec("huge", "grep", " /huge ", "/proc/mounts", container="main")
    daemon.apply(pod("many", container(resources={"limits": amounts | {"hugepages-2Mi": "14Mi"}})))
    waiting = daemon.wait_for("many", lambda one: bool(one["status"].get("conditions")))
    assert "Insufficient hugepages-2Mi" in waiting["status"]["conditions"][0]["message"]
