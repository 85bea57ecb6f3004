"""Evictions by a real daemon: disk limits of Pods, a node that is short of memory or disk, NoExecute taints."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.framework.daemon import Daemon, eventually, write_toml
from tests.framework.pods import container, pod, priority_class

HOLD = "trap 'exit 0' TERM; sleep 100000 & wait"
LIMIT = {"limits": {"ephemeral-storage": "4Mi"}}


def conditions(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["type"]: one for one in found["status"]["conditions"]}


def node(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.api("GET", f"/api/v1/nodes/{daemon.config.node_name}")
    return found


def has_written(daemon: Daemon, name: str) -> bool:
    return daemon.exec(name, "ls", "/tmp", container="main").strip() == "done"


def configure(daemon: Daemon, **settings: Any) -> None:
    """Other settings for the next start."""
    daemon.config = dataclasses.replace(daemon.config, **settings)
    write_toml(daemon.config_file, daemon.config)


def taint(daemon: Daemon, *taints: dict[str, str]) -> None:
    path = f"/api/v1/nodes/{daemon.config.node_name}"
    daemon.api("PATCH", path, {"spec": {"taints": taints}}, content_type="application/merge-patch+json")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("dd if=/dev/zero of=/big bs=1M count=6", "Pod ephemeral local storage usage exceeds the total limit"),
        ("dd if=/dev/zero of=/scratch/big bs=1M count=6", "Pod ephemeral local storage usage exceeds the total limit"),
        ("dd if=/dev/zero bs=1M count=6 | tr '\\0' x", "Pod ephemeral local storage usage exceeds the total limit"),
    ],
    ids=["layer", "emptyDir", "log"],
)
def test_more_on_disk_than_the_limit(daemon_factory: Callable[..., Daemon], script: str, words: str) -> None:
    daemon = daemon_factory(eviction_period=1)
    mount = [{"name": "scratch", "mountPath": "/scratch"}]
    volume = [{"name": "scratch", "emptyDir": {}}]
    greedy = container(script=f"{script}; {HOLD}", resources=LIMIT, volumeMounts=mount)
    daemon.apply(pod("greedy", greedy, volumes=volume))
    daemon.apply(pod("modest", container(script=f"echo hello > /small; {HOLD}", resources=LIMIT)))
    found = daemon.wait_for("greedy", "Failed")
    assert found["status"]["reason"] == "Evicted"
    assert found["status"]["message"].startswith(words)
    assert conditions(found)["DisruptionTarget"]["reason"] == "TerminationByKubelet"
    assert daemon.wait_for("modest", "Running")["status"]["phase"] == "Running"


def test_a_node_that_is_short_of_memory(daemon_factory: Callable[..., Daemon]) -> None:
    daemon = daemon_factory()
    hog = container(script=f"dd if=/dev/zero of=/dev/shm/held bs=1M count=40; touch /tmp/done; {HOLD}")
    fair = container(resources={"requests": {"memory": "64Mi"}})
    for name, value in (("important", 1000), ("vital", 2000)):
        daemon.apply(priority_class(name, value))
    daemon.apply(pod("important", hog, priorityClassName="important"))
    daemon.apply(pod("hog", hog))
    daemon.apply(pod("small", container()))
    daemon.apply(pod("fair", fair))
    for name in ("important", "hog", "small", "fair"):
        daemon.wait_for(name, "Running")
    for name in ("important", "hog"):
        eventually(functools.partial(has_written, daemon, name))
    daemon.kill()
    # More than any machine has: the node is short for as long as this daemon runs.
    configure(daemon, eviction_memory_available="1000Ti", eviction_period=3)
    daemon.start()
    found = conditions(node(daemon))["MemoryPressure"]
    assert (found["status"], found["reason"]) == ("True", "KubeletHasInsufficientMemory")
    taints = node(daemon)["spec"]["taints"]
    assert taints == [{"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"}]
    gone = daemon.wait_for("hog", "Failed")
    assert gone["status"]["reason"] == "Evicted"
    assert gone["status"]["message"].startswith(
        "The node was low on resource: memory. Threshold quantity: 1000Ti, avail"
    )
    assert "Container main was using" in gone["status"]["message"]
    assert [daemon.pod(name)["status"]["phase"] for name in ("small", "important", "fair")] == ["Running"] * 3
    daemon.apply(pod("late", container()))
    daemon.apply(pod("sure", container(resources={"requests": {"memory": "32Mi"}}), priorityClassName="vital"))
    daemon.wait_for("sure", "Running")
    waiting = daemon.wait_for("late", lambda one: "PodScheduled" in {c["type"] for c in one["status"]["conditions"]})
    assert "memory-pressure" in conditions(waiting)["PodScheduled"]["message"]
    daemon.wait_for("small", "Failed")
    daemon.wait_for("important", "Failed")
    assert daemon.pod("fair")["status"]["phase"] == "Running"
    daemon.kill()
    configure(daemon, eviction_memory_available="0", eviction_period=3)
    daemon.start()
    assert "taints" not in node(daemon)["spec"]
    daemon.wait_for("late", "Running")


def test_no_execute_taints(shared_daemon: Daemon) -> None:
    def tolerating(name: str, **fields: Any) -> dict[str, Any]:
        return pod(name, tolerations=[{"key": "broken", "operator": "Exists", "effect": "NoExecute", **fields}])

    shared_daemon.apply(pod("plain"))
    shared_daemon.apply(tolerating("forever"))
    shared_daemon.apply(tolerating("some", tolerationSeconds=3))
    shared_daemon.apply(tolerating("long", tolerationSeconds=3600))
    for name in ("plain", "forever", "some", "long"):
        shared_daemon.wait_for(name, "Running")
    taint(shared_daemon, {"key": "broken", "value": "yes", "effect": "NoExecute"})
    begun = time.monotonic()
    try:
        eventually(lambda: not shared_daemon.exists("plain"))
        eventually(lambda: not shared_daemon.exists("some"))
        assert time.monotonic() - begun >= 3
        assert shared_daemon.exists("forever")
        assert shared_daemon.exists("long")
        items = shared_daemon.api("GET", "/api/v1/namespaces/default/events")["items"]
        marked = {one["involvedObject"]["name"] for one in items if one["reason"] == "TaintManagerEviction"}
        assert marked == {"plain", "some"}
    finally:
        taint(shared_daemon)
