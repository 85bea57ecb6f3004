"""Init containers and sidecars with real processes: order, restarts, failures, and what the status says meanwhile."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import container, pod, restarts, status, terminated

SHARED = {"volumeMounts": [{"name": "log", "mountPath": "/log"}]}
VOLUME = [{"name": "log", "emptyDir": {}}]


def stamp(word: str) -> str:
    """A line of shell that notes the time of ``word`` in the Pod's shared file."""
    return f"echo $(date +%s.%N | cut -c1-14) {word} >> /log/order"


def init_status(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in found["status"].get("initContainerStatuses", ()) if one["name"] == name)


def conditions(found: dict[str, Any]) -> dict[str, str]:
    return {one["type"]: one["status"] for one in found["status"]["conditions"]}


def sidecar(name: str, script: str = "", **fields: Any) -> dict[str, Any]:
    return container(name, script, restartPolicy="Always", **fields)


@pytest.mark.fields("spec.initContainers", "status.initContainerStatuses")
def test_init_containers_run_one_after_another(shared_daemon: Daemon) -> None:
    first = container("first", f"{stamp('first-start')}; sleep 0.5; {stamp('first-end')}", **SHARED)
    second = container("second", f"{stamp('second-start')}; sleep 0.3; {stamp('second-end')}", **SHARED)
    main = container(script=f"{stamp('main')}; cat /log/order; sleep 1000", **SHARED)
    shared_daemon.apply(pod("orderly", main, initContainers=[first, second], volumes=VOLUME))
    waiting = shared_daemon.wait_for("orderly", lambda found: "running" in init_status(found, "first")["state"])
    assert waiting["status"]["phase"] == "Pending"
    assert status(waiting)["state"]["waiting"]["reason"] == "PodInitializing"
    assert conditions(waiting)["Initialized"] == "False"
    assert "Init:0/2" in shared_daemon.cli("get", "pod", "orderly").stdout
    found = shared_daemon.wait_for("orderly", "Ready")
    assert conditions(found)["Initialized"] == "True"
    eventually(lambda: "main" in shared_daemon.logs("orderly", "main"))
    words = re.findall(r"(\S+)$", shared_daemon.logs("orderly", "main"), re.MULTILINE)
    assert words == ["first-start", "first-end", "second-start", "second-end", "main"]
    for name in ("first", "second"):
        one = init_status(found, name)
        assert (one["state"]["terminated"]["reason"], one["ready"], one["started"]) == ("Completed", True, False)


def test_a_failing_init_container_is_tried_again(shared_daemon: Daemon) -> None:
    flaky = container("flaky", "[ -e /log/seen ] && exit 0; touch /log/seen; exit 4", **SHARED)
    shared_daemon.apply(pod("flaky", initContainers=[flaky], volumes=VOLUME))
    found = shared_daemon.wait_for("flaky", "Ready")
    assert init_status(found, "flaky")["restartCount"] == 1
    assert init_status(found, "flaky")["lastState"]["terminated"]["exitCode"] == 4


def test_a_failing_init_container_ends_a_pod_that_never_restarts(shared_daemon: Daemon) -> None:
    side = sidecar("side")
    shared_daemon.apply(pod("hopeless", initContainers=[side, container("bad", "exit 5")], restartPolicy="Never"))
    found = shared_daemon.wait_for("hopeless", "Failed")
    assert init_status(found, "bad")["state"]["terminated"]["exitCode"] == 5
    assert "terminated" in init_status(found, "side")["state"]
    assert status(found)["state"]["waiting"]["reason"] == "PodInitializing"
    assert "Init:Error" in shared_daemon.cli("get", "pod", "hopeless").stdout


def test_an_init_container_in_back_off_is_told(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("looping", initContainers=[container("bad", "exit 1")]))
    found = shared_daemon.wait_for(
        "looping",
        lambda found: init_status(found, "bad")["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff",
    )
    assert found["status"]["phase"] == "Pending"
    assert "Init:CrashLoopBackOff" in shared_daemon.cli("get", "pod", "looping").stdout


@pytest.mark.fields("spec.containers[].restartPolicy")
def test_a_sidecar_runs_beside_the_main_container(shared_daemon: Daemon) -> None:
    side = sidecar("side", startupProbe={"exec": {"command": ["test", "-e", "/log/up"]}, "periodSeconds": 1}, **SHARED)
    after = container("after", "echo after", **SHARED)
    shared_daemon.apply(pod("pair", initContainers=[side, after], volumes=VOLUME))
    found = shared_daemon.wait_for("pair", lambda found: "running" in init_status(found, "side")["state"])
    assert (init_status(found, "side")["started"], init_status(found, "after")["restartCount"]) == (False, 0)
    assert "waiting" in init_status(found, "after")["state"]
    shared_daemon.exec("pair", "touch", "/log/up", container="side")
    found = shared_daemon.wait_for("pair", "Ready")
    assert init_status(found, "side")["started"] is True
    assert "2/2" in shared_daemon.cli("get", "pod", "pair").stdout


def test_a_sidecar_that_ends_is_started_again_alone(shared_daemon: Daemon) -> None:
    side = sidecar("side", "[ -e /log/seen ] || { touch /log/seen; sleep 1; exit 0; }; sleep 1000", **SHARED)
    shared_daemon.apply(pod("patient", initContainers=[side], volumes=VOLUME, restartPolicy="OnFailure"))
    found = shared_daemon.wait_for("patient", lambda found: init_status(found, "side")["restartCount"] == 1)
    found = shared_daemon.wait_for("patient", "Ready")
    assert restarts(found) == 0


def test_sidecars_end_with_the_main_container_and_do_not_count(shared_daemon: Daemon) -> None:
    side = sidecar("side", "trap 'exit 3' TERM; sleep 1000 & wait")
    shared_daemon.apply(pod("job", container(script="sleep 0.5"), initContainers=[side], restartPolicy="Never"))
    found = shared_daemon.wait_for("job", "Succeeded")
    assert init_status(found, "side")["state"]["terminated"]["exitCode"] == 3
    assert terminated(found)["exitCode"] == 0


@pytest.mark.fields(
    "spec.containers[].restartPolicy",
    "spec.containers[].restartPolicyRules",
    "spec.containers[].restartPolicyRules[].action",
)
def test_restart_rules_decide_by_exit_code(shared_daemon: Daemon) -> None:
    rules = {
        "restartPolicy": "Never",
        "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}],
    }
    main = container(script="[ -e /log/seen ] && exit 7; touch /log/seen; exit 42", **rules, **SHARED)
    shared_daemon.apply(pod("ruled", main, volumes=VOLUME, restartPolicy="Always"))
    found = shared_daemon.wait_for("ruled", "Failed")
    assert (restarts(found), terminated(found)["exitCode"]) == (1, 7)


def test_init_containers_run_again_in_a_new_sandbox(daemon: Daemon) -> None:
    first = container("first", "echo ran >> /log/runs", **SHARED)
    daemon.apply(pod("again", initContainers=[first, sidecar("side")], volumes=VOLUME))
    daemon.wait_for("again", "Ready")
    daemon.reboot()
    found = daemon.wait_for("again", lambda found: restarts(found) == 1 and conditions(found)["Ready"] == "True")
    assert init_status(found, "first")["restartCount"] == 1
