"""In-place resize with real cgroups: cpu and memory of a container change while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.framework import probes
from tests.framework.client import ApiError
from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import container, pod, restarts, status

POD = "/api/v1/namespaces/default/pods/{}"
SMALL = {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
MERGE = "application/strategic-merge-patch+json"


def resize(daemon: Daemon, name: str, **resources: Any) -> dict[str, Any]:
    patch = {"spec": {"containers": [{"name": "main", "resources": resources}]}}
    found: dict[str, Any] = daemon.api("PATCH", f"{POD.format(name)}/resize", patch, content_type=MERGE)
    return found


def limits(daemon: Daemon, name: str, container: str = "main") -> tuple[int, int]:
    """(cpu quota in us per 100 ms, memory in bytes) as the kernel has them."""
    mounts = probes.cgroup_mounts()
    identity = status(daemon.pod(name), container)["containerID"].removeprefix("podrt://")
    if "cpu" in mounts:
        cpu = next(path for path in daemon.cgroups("cpu") if path.endswith(identity))
        memory = next(path for path in daemon.cgroups("memory") if path.endswith(identity))
        quota, bound = Path(cpu, "cpu.cfs_quota_us"), Path(memory, "memory.limit_in_bytes")
    else:
        directory = next(path for path in daemon.cgroups() if path.endswith(identity))
        quota, bound = Path(directory, "cpu.max"), Path(directory, "memory.max")
    return int(quota.read_text().split()[0]), int(bound.read_text())


def condition(found: dict[str, Any], kind: str) -> dict[str, Any]:
    return next((one for one in found["status"]["conditions"] if one["type"] == kind), {})


def settled(found: dict[str, Any]) -> bool:
    return not condition(found, "PodResizePending") and not condition(found, "PodResizeInProgress")


@pytest.mark.fields("status.containerStatuses[].allocatedResources", "status.containerStatuses[].resources")
def test_up_and_down_without_a_restart(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("box", container(resources=SMALL)))
    before = shared_daemon.wait_for("box", "Running")
    assert limits(shared_daemon, "box") == (20_000, 64 << 20)
    assert status(before)["resources"] == SMALL
    assert status(before)["allocatedResources"] == SMALL["requests"]
    for cpu, memory, quota, size in (("400m", "128Mi", 40_000, 128 << 20), ("150m", "48Mi", 15_000, 48 << 20)):
        wanted = {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": cpu, "memory": memory}}
        sent = resize(shared_daemon, "box", **wanted)
        assert sent["metadata"]["generation"] > before["metadata"]["generation"]
        eventually(lambda: settled(shared_daemon.pod("box")))
        found = shared_daemon.wait_for("box", lambda one: bool(status(one)["resources"]["limits"]["cpu"] == cpu))  # noqa: B023
        assert status(found)["resources"] == wanted
        assert limits(shared_daemon, "box") == (quota, size)
        assert status(found)["containerID"] == status(before)["containerID"]
        assert restarts(found) == 0


@pytest.mark.fields("spec.containers[].resizePolicy")
def test_a_resize_that_asks_for_a_restart(shared_daemon: Daemon) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    shared_daemon.apply(pod("box", container(resources=SMALL, resizePolicy=policy), container("other")))
    before = shared_daemon.wait_for("box", "Running")
    resize(shared_daemon, "box", limits={"cpu": "300m", "memory": "64Mi"})
    eventually(lambda: limits(shared_daemon, "box") == (30_000, 64 << 20))
    assert restarts(shared_daemon.pod("box")) == 0
    resize(shared_daemon, "box", limits={"cpu": "300m", "memory": "96Mi"})
    found = shared_daemon.wait_for("box", lambda one: restarts(one) == 1 and "running" in status(one)["state"])
    assert limits(shared_daemon, "box") == (30_000, 96 << 20)
    assert status(found, "other")["containerID"] == status(before, "other")["containerID"]
    assert status(found)["resources"]["limits"]["memory"] == "96Mi"


def test_memory_is_not_taken_away_that_is_in_use(shared_daemon: Daemon) -> None:
    hold = "dd if=/dev/zero of=/dev/shm/held bs=1M count=40; touch /tmp/done; trap 'exit 0' TERM; sleep 100000 & wait"
    shared_daemon.apply(pod("box", container(script=hold, resources=SMALL)))
    shared_daemon.wait_for("box", "Running")
    eventually(lambda: shared_daemon.exec("box", "ls", "/tmp", container="main").strip() == "done")
    resize(shared_daemon, "box", requests={"cpu": "100m", "memory": "16Mi"}, limits={"cpu": "200m", "memory": "24Mi"})
    found = shared_daemon.wait_for("box", lambda one: condition(one, "PodResizeInProgress").get("reason") == "Error")
    assert "below current usage" in condition(found, "PodResizeInProgress")["message"]
    assert limits(shared_daemon, "box")[1] == 64 << 20
    assert status(found)["resources"]["limits"]["memory"] == str(64 << 20)
    shared_daemon.exec("box", "rm", "/dev/shm/held", container="main")
    found = shared_daemon.wait_for("box", settled)
    assert limits(shared_daemon, "box")[1] == 24 << 20
    assert restarts(found) == 0


@pytest.mark.fields("status.resize")
def test_what_does_not_fit_waits_or_is_refused(shared_daemon: Daemon) -> None:
    node = shared_daemon.api("GET", "/api/v1/nodes")["items"][0]
    cores = int(node["status"]["allocatable"]["cpu"])
    large = {"requests": {"cpu": f"{cores * 1000 - 200}m"}}
    shared_daemon.apply(pod("large", container(resources=large)))
    shared_daemon.apply(pod("box", container(resources={"requests": {"cpu": "100m"}})))
    shared_daemon.wait_for("large", "Running")
    shared_daemon.wait_for("box", "Running")
    resize(shared_daemon, "box", requests={"cpu": str(cores + 1)})
    found = shared_daemon.wait_for("box", lambda one: bool(condition(one, "PodResizePending")))
    assert condition(found, "PodResizePending")["reason"] == "Infeasible"
    assert "resize" not in found["status"], "the conditions have taken its place"
    assert status(found)["resources"] == {"requests": {"cpu": "100m"}}
    resize(shared_daemon, "box", requests={"cpu": "500m"})
    found = shared_daemon.wait_for("box", lambda one: condition(one, "PodResizePending").get("reason") == "Deferred")
    assert "didn't have enough resource: cpu" in condition(found, "PodResizePending")["message"]
    assert status(found)["resources"] == {"requests": {"cpu": "100m"}}
    shared_daemon.kill()
    shared_daemon.start()
    assert status(shared_daemon.pod("box"))["resources"] == {"requests": {"cpu": "100m"}}
    shared_daemon.delete("large", grace=0)
    found = shared_daemon.wait_for("box", settled)
    assert status(found)["resources"] == {"requests": {"cpu": "500m"}}
    assert restarts(found) == 0


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"requests": {"cpu": "200m", "memory": "64Mi"}}, "Pod QOS Class may not change"),
        ({"limits": {"ephemeral-storage": "1Gi"}}, "only cpu and memory resources are mutable"),
        ({"limits": {"cpu": None}}, "resource limits cannot be removed"),
        ({"limits": {"cpu": "50m"}}, "must be less than or equal to cpu limit"),
    ],
)
def test_what_can_not_be_asked_for(shared_daemon: Daemon, resources: dict[str, Any], words: str) -> None:
    shared_daemon.apply(pod("box", container(resources=SMALL)))
    with pytest.raises(ApiError) as refused:
        resize(shared_daemon, "box", **resources)
    assert refused.value.code == 422
    assert words in str(refused.value)


def test_the_subresource_is_the_only_way(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("box", container(resources=SMALL)))
    patch = {"spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "1"}}}]}}
    with pytest.raises(ApiError) as refused:
        shared_daemon.api("PATCH", POD.format("box"), patch, content_type=MERGE)
    assert refused.value.code == 422
    text = '{"spec":{"containers":[{"name":"main","resources":{"limits":{"cpu":"300m"}}}]}}'
    shared_daemon.cli("patch", "pod", "box", "--subresource", "resize", "-p", text)
    shared_daemon.wait_for("box", "Running")
    eventually(lambda: limits(shared_daemon, "box")[0] == 30_000)
