"""Placement on this node with a real daemon: a Pod that doesn't fit says why, and starts as soon as it fits."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import container, pod, priority_class


def asking(name: str, cpu: str, **spec: Any) -> dict[str, Any]:
    return pod(name, container(resources={"requests": {"cpu": cpu}}), **spec)


def events(daemon: Daemon, reason: str) -> list[str]:
    items = daemon.api("GET", "/api/v1/namespaces/default/events")["items"]
    return [event["message"] for event in items if event["reason"] == reason]


def patch_node(daemon: Daemon, patch: dict[str, Any]) -> None:
    path = f"/api/v1/nodes/{daemon.config.node_name}"
    daemon.api("PATCH", path, patch, content_type="application/merge-patch+json")


def scheduled(found: dict[str, Any]) -> dict[str, Any]:
    conditions: dict[str, dict[str, Any]] = {one["type"]: one for one in found["status"].get("conditions", ())}
    return conditions.get("PodScheduled", {})


def test_too_much_cpu_waits_for_room(shared_daemon: Daemon) -> None:
    cores = int(shared_daemon.api("GET", "/api/v1/nodes")["items"][0]["status"]["allocatable"]["cpu"])
    shared_daemon.apply(asking("first", str(cores)))
    shared_daemon.wait_for("first", "Running")
    shared_daemon.apply(asking("second", "1"))
    waiting = shared_daemon.wait_for("second", lambda found: scheduled(found).get("status") == "False")
    assert "1 Insufficient cpu" in scheduled(waiting)["message"]
    assert waiting["status"]["phase"] == "Pending"
    assert "nodeName" not in waiting["spec"]
    assert any("Insufficient cpu" in message for message in events(shared_daemon, "FailedScheduling"))
    shared_daemon.delete("first")
    assert scheduled(shared_daemon.wait_for("second", "Running"))["status"] == "True"


@pytest.mark.fields("spec.nodeSelector", "status.conditions")
def test_a_label_of_the_node_lets_a_pod_in(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("picky", nodeSelector={"disk": "ssd"}))
    shared_daemon.wait_for("picky", lambda found: scheduled(found).get("reason") == "Unschedulable")
    shared_daemon.cli("label", "node", shared_daemon.config.node_name, "disk=ssd")
    shared_daemon.wait_for("picky", "Running")


def test_a_cordoned_node_takes_no_new_pods(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("before"))
    shared_daemon.wait_for("before", "Running")
    patch_node(shared_daemon, {"spec": {"unschedulable": True}})
    shared_daemon.apply(pod("after"))
    shared_daemon.wait_for("after", lambda found: "unschedulable" in scheduled(found).get("message", ""))
    patch_node(shared_daemon, {"spec": {"unschedulable": None}})
    shared_daemon.wait_for("after", "Running")


@pytest.mark.fields("spec.schedulerName")
def test_a_pod_of_another_scheduler_starts_when_it_is_bound(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("foreign", schedulerName="mine"))
    shared_daemon.apply(pod("ours"))
    shared_daemon.wait_for("ours", "Running")
    assert "nodeName" not in shared_daemon.pod("foreign")["spec"]
    target = {"kind": "Node", "name": shared_daemon.config.node_name}
    body = {"kind": "Binding", "apiVersion": "v1", "metadata": {"name": "foreign"}, "target": target}
    answer = shared_daemon.api("POST", "/api/v1/namespaces/default/pods/foreign/binding", body)
    assert (answer["kind"], answer["status"]) == ("Status", "Success")
    shared_daemon.wait_for("foreign", "Running")


@pytest.mark.fields("spec.priority", "spec.priorityClassName")
def test_preemption(shared_daemon: Daemon) -> None:
    for name, value in (("low", 1), ("high", 100)):
        shared_daemon.apply(priority_class(name, value))
    cores = int(shared_daemon.api("GET", "/api/v1/nodes")["items"][0]["status"]["allocatable"]["cpu"])
    shared_daemon.apply(asking("humble", str(cores), priorityClassName="low"))
    shared_daemon.wait_for("humble", "Running")
    shared_daemon.apply(asking("mighty", "1", priorityClassName="high"))
    shared_daemon.wait_for("mighty", "Running")
    assert not shared_daemon.exists("humble")
    assert eventually(lambda: events(shared_daemon, "Preempted"))


def test_waiting_pods_are_placed_after_a_restart(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("gated", schedulingGates=[{"name": "example.com/wait"}]))
    shared_daemon.wait_for("gated", lambda found: scheduled(found).get("reason") == "SchedulingGated")
    shared_daemon.kill()
    shared_daemon.start()
    patch = {"spec": {"schedulingGates": []}}
    path = "/api/v1/namespaces/default/pods/gated"
    shared_daemon.api("PATCH", path, patch, content_type="application/merge-patch+json")
    shared_daemon.wait_for("gated", "Running")


def test_static_pods_run_and_come_back(shared_daemon: Daemon) -> None:
    directory = shared_daemon.config.static_pod_dir
    directory.mkdir()
    file = directory / "web.yaml"
    file.write_text(yaml.safe_dump(pod("web")))
    name = f"web-{shared_daemon.config.node_name}"
    first = eventually(lambda: shared_daemon.exists(name) and shared_daemon.wait_for(name, "Running"))
    shared_daemon.api("DELETE", f"/api/v1/namespaces/default/pods/{name}")
    again = shared_daemon.wait_for(name, lambda found: found["metadata"]["uid"] != first["metadata"]["uid"])
    assert again["metadata"]["annotations"]["kubernetes.io/config.source"] == "file"
    file.unlink()
    shared_daemon.wait_for(name, "deleted")
