"""Debugging containers: the ephemeralcontainers subresource and ``podrt debug``, with real processes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.framework.client import ApiError
from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import BUSYBOX, TOOLS, container, pod, restarts

PATCH = "application/strategic-merge-patch+json"


def path(name: str) -> str:
    return f"/api/v1/namespaces/default/pods/{name}/ephemeralcontainers"


def debugger(found: dict[str, Any], name: str) -> dict[str, Any]:
    entries = found["status"].get("ephemeralContainerStatuses", ())
    return next((one for one in entries if one["name"] == name), {})


@pytest.mark.fields(
    "spec.ephemeralContainers", "spec.containers[].targetContainerName", "status.ephemeralContainerStatuses"
)
def test_debug_runs_once_and_sees_its_target(shared_daemon: Daemon) -> None:
    main = container(script="trap 'exit 0' TERM; MARK=1 sleep 54321 & wait")
    shared_daemon.apply(pod("patient", main))
    before = shared_daemon.wait_for("patient", "Ready")
    result = shared_daemon.cli(
        "debug", "patient", f"--image={TOOLS}", "-c", "look", "--target=main", "--attach", "--", "ps", "-eo", "args"
    )
    assert "sleep 54321" in result.stdout
    found = shared_daemon.wait_for("patient", lambda found: "terminated" in debugger(found, "look").get("state", {}))
    assert found["status"]["phase"] == "Running"
    assert (restarts(found), debugger(found, "look")["restartCount"]) == (0, 0)
    assert found["metadata"]["generation"] == before["metadata"]["generation"] + 1
    assert "sleep 54321" in shared_daemon.logs("patient", "look")
    # Without a target it has processes of its own only.
    alone = shared_daemon.cli("debug", "patient", f"--image={BUSYBOX}", "-q", "--attach", "--", "ps", "-o", "args")
    assert "sleep 54321" not in alone.stdout


def test_a_debugger_can_be_entered_and_ends_with_the_pod(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("open", container()))
    shared_daemon.wait_for("open", "Ready")
    result = shared_daemon.cli(
        "debug", "-i", "-q", "open", f"--image={BUSYBOX}", "--", "sh", input="hostname; exit 7\n", check=False
    )
    assert (result.stdout, result.returncode) == ("open\n", 7)
    shared_daemon.cli("debug", "open", f"--image={BUSYBOX}", "-c", "stays", "--", "sleep", "1000")
    shared_daemon.wait_for("open", lambda found: "running" in debugger(found, "stays").get("state", {}))
    assert shared_daemon.exec("open", "echo", "in", container="stays") == "in\n"
    shared_daemon.delete("open")


def test_debugging_containers_can_only_be_added(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("fixed", container()))
    shared_daemon.wait_for("fixed", "Ready")
    first = {"name": "one", "image": BUSYBOX, "command": ["true"]}
    shared_daemon.api("PATCH", path("fixed"), {"spec": {"ephemeralContainers": [first]}}, content_type=PATCH)
    changed = {"spec": {"ephemeralContainers": [first | {"image": TOOLS}]}}
    for body, kind in ((changed, PATCH), ({"spec": {"ephemeralContainers": []}}, "application/merge-patch+json")):
        with pytest.raises(ApiError) as caught:
            shared_daemon.api("PATCH", path("fixed"), body, content_type=kind)
        assert caught.value.code == 422
    with pytest.raises(ApiError) as caught:
        shared_daemon.api("PATCH", path("fixed").rpartition("/")[0], changed, content_type=PATCH)
    assert caught.value.code == 422
    probe = {"name": "two", "image": BUSYBOX, "livenessProbe": {"exec": {"command": ["true"]}}}
    with pytest.raises(ApiError) as caught:
        shared_daemon.api("PATCH", path("fixed"), {"spec": {"ephemeralContainers": [probe]}}, content_type=PATCH)
    assert "livenessProbe" in str(caught.value)


def test_debugging_a_pod_that_waits_for_its_init_container(shared_daemon: Daemon) -> None:
    waits = container("waits", "until [ -e /tmp/go ]; do sleep 0.1; done")
    shared_daemon.apply(pod("stuck", initContainers=[waits]))
    shared_daemon.wait_for(
        "stuck", lambda found: found["status"].get("initContainerStatuses", [{}])[0].get("state", {}).get("running")
    )
    shared_daemon.cli("debug", "stuck", f"--image={BUSYBOX}", "-c", "look", "--", "sh", "-c", "echo here")
    eventually(lambda: "terminated" in debugger(shared_daemon.pod("stuck"), "look").get("state", {}))
    assert shared_daemon.pod("stuck")["status"]["phase"] == "Pending"
    shared_daemon.exec("stuck", "touch", "/tmp/go", container="waits")
    shared_daemon.wait_for("stuck", "Ready")
