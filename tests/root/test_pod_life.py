"""The life of a Pod, from the API to the kernel: start, restart, back-off, deletion. Real daemon, real processes."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest

from tests.framework.client import ApiError
from tests.framework.daemon import Daemon, eventually
from tests.framework.patience import scaled
from tests.framework.pods import BUSYBOX, container, pod, restarts, status, terminated


def host_pid(daemon: Daemon, name: str, container_name: str = "main") -> int:
    """The container's main process as the host sees it, from the engine's record."""
    ident = status(daemon.pod(name), container_name)["containerID"].removeprefix("podrt://")
    record = json.loads((daemon.config.run_dir / "containers" / ident / "state.json").read_bytes())
    return int(record["record"]["process"]["pid"])


def reasons(daemon: Daemon, name: str) -> set[str]:
    """Reasons of the events about a Pod."""
    events = daemon.api("GET", "/api/v1/namespaces/default/events")["items"]
    return {event["reason"] for event in events if event["involvedObject"]["name"] == name}


@pytest.mark.fields(
    "spec.containers",
    "spec.containers[].name",
    "spec.containers[].image",
    "spec.containers[].command",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.qosClass",
)
def test_a_pod_runs_and_is_deleted(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("simple", container(script="echo hello; echo oops >&2; sleep 1000")))
    running = shared_daemon.wait_for("simple", "Running")
    assert running["status"]["podIP"].startswith("10.")
    assert ":" in running["status"]["podIPs"][1]["ip"]
    assert running["status"]["qosClass"] == "BestEffort"
    eventually(lambda: "oops" in shared_daemon.logs("simple"))
    assert sorted(shared_daemon.logs("simple").split()) == ["hello", "oops"]
    shared_daemon.wait_for("simple", "Ready")
    shared_daemon.delete("simple")
    assert not shared_daemon.exists("simple")


@pytest.mark.fields(
    "spec.restartPolicy", "status.containerStatuses[].restartCount", "status.containerStatuses[].lastState"
)
def test_killed_from_outside_restarts_in_the_same_sandbox(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("victim"))
    before = shared_daemon.wait_for("victim", "Running")
    os.kill(host_pid(shared_daemon, "victim"), signal.SIGKILL)
    after = shared_daemon.wait_for("victim", lambda found: restarts(found) == 1 and "running" in status(found)["state"])
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["podIPs"] == before["status"]["podIPs"]
    last = status(after)["lastState"]["terminated"]
    assert (last["exitCode"], last["signal"], last["reason"]) == (137, 9, "Error")


def test_killed_from_inside_restarts_and_backs_off(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("suicide", container(script="echo run; exit 3")))

    def looping(found: dict[str, Any]) -> bool:
        state = status(found)["state"].get("waiting", {})
        return bool(state.get("reason") == "CrashLoopBackOff" and restarts(found) >= 1)

    found = shared_daemon.wait_for("suicide", looping, 10)
    one = status(found)
    assert "back-off 10s restarting failed container=main pod=suicide_default(" in one["state"]["waiting"]["message"]
    assert one["lastState"]["terminated"]["exitCode"] == 3
    assert found["status"]["phase"] == "Running"
    assert shared_daemon.logs("suicide", previous=True) == "run\n"
    eventually(lambda: {"Scheduled", "Pulled", "Created", "Started", "BackOff"} <= reasons(shared_daemon, "suicide"))


@pytest.mark.parametrize(
    ("policy", "code", "phase"),
    [("Never", 0, "Succeeded"), ("Never", 7, "Failed"), ("OnFailure", 0, "Succeeded")],
)
def test_a_pod_that_ends(shared_daemon: Daemon, policy: str, code: int, phase: str) -> None:
    name = f"ends-{policy.lower()}-{code}"
    shared_daemon.apply(pod(name, container(script=f"echo bye; exit {code}"), restartPolicy=policy))
    found = shared_daemon.wait_for(name, phase)
    assert terminated(found)["exitCode"] == code
    assert terminated(found)["reason"] == ("Completed" if code == 0 else "Error")
    assert shared_daemon.logs(name) == "bye\n"
    conditions = {one["type"]: one["status"] for one in found["status"]["conditions"]}
    assert conditions["Ready"] == "False"


@pytest.mark.fields("spec.restartPolicy")
def test_on_failure_restarts_a_failed_container_only(shared_daemon: Daemon) -> None:
    marks = "if [ -e /data/seen ]; then exit 0; fi; touch /data/seen; exit 1"
    once = container(script=marks, volumeMounts=[{"name": "data", "mountPath": "/data"}])
    spec = pod("retry", once, restartPolicy="OnFailure", volumes=[{"name": "data", "emptyDir": {}}])
    shared_daemon.apply(spec)
    found = shared_daemon.wait_for("retry", "Succeeded")
    assert restarts(found) == 1


@pytest.mark.fields("spec.containers[].terminationMessagePath", "spec.containers[].terminationMessagePolicy")
def test_termination_message(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("says", container(script="echo why > /dev/termination-log; exit 2"), restartPolicy="Never"))
    found = shared_daemon.wait_for("says", "Failed")
    assert terminated(found)["message"] == "why\n"


@pytest.mark.fields("spec.terminationGracePeriodSeconds")
def test_grace_period_is_given_and_shortened(shared_daemon: Daemon) -> None:
    stubborn = container(script="trap 'echo asked' TERM; while :; do sleep 0.1; done")
    shared_daemon.apply(pod("stubborn", stubborn, terminationGracePeriodSeconds=300))
    shared_daemon.wait_for("stubborn", "Running")
    time.sleep(0.3)
    shared_daemon.delete("stubborn", wait=False)
    eventually(lambda: "asked" in shared_daemon.logs("stubborn"))
    assert shared_daemon.pod("stubborn")["metadata"]["deletionGracePeriodSeconds"] == 300
    started = time.monotonic()
    shared_daemon.delete("stubborn", grace=1)
    assert time.monotonic() - started < scaled(10)


def test_a_polite_container_ends_at_once(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("polite", terminationGracePeriodSeconds=300))
    shared_daemon.wait_for("polite", "Running")
    time.sleep(0.3)
    started = time.monotonic()
    shared_daemon.delete("polite")
    assert time.monotonic() - started < scaled(5)


@pytest.mark.fields("spec.activeDeadlineSeconds", "status.reason", "status.message")
def test_active_deadline(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("late", activeDeadlineSeconds=1))
    found = shared_daemon.wait_for("late", "Failed", 15)
    assert found["status"]["reason"] == "DeadlineExceeded"
    assert "longer than the specified deadline" in found["status"]["message"]


@pytest.mark.fields("spec.containers[].imagePullPolicy", "status.containerStatuses[].state")
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"image": "localhost/podrt/none:1"}, "ErrImagePull"),
        ({"image": "localhost/podrt/none:1", "imagePullPolicy": "Never"}, "ErrImageNeverPull"),
        ({"image": "case/UPPER"}, "InvalidImageName"),
    ],
)
def test_an_image_that_cannot_be_had(shared_daemon: Daemon, fields: dict[str, Any], reason: str) -> None:
    shared_daemon.apply(pod("imageless", {**container(), **fields}))
    found = shared_daemon.wait_for(
        "imageless", lambda found: status(found)["state"].get("waiting", {}).get("reason") == reason
    )
    assert found["status"]["phase"] == "Pending"


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["/no/such/program"], "no such file or directory"),
        (["no-such-program"], "executable file not found in $PATH"),
        (["/etc/passwd"], "permission denied"),
    ],
)
def test_a_command_that_cannot_run(shared_daemon: Daemon, command: list[str], text: str) -> None:
    shared_daemon.apply(pod("broken", container(command=command), restartPolicy="Never"))
    found = shared_daemon.wait_for("broken", "Failed")
    ended = terminated(found)
    assert ended["reason"] == "StartError"
    assert text.lower() in ended["message"].lower()
    assert ended["exitCode"] in (126, 127, 128)


def test_a_missing_host_path_of_type_directory_is_told(shared_daemon: Daemon) -> None:
    volume = {"name": "v", "hostPath": {"path": "/no/such/directory", "type": "Directory"}}
    mounted = container(volumeMounts=[{"name": "v", "mountPath": "/v"}])
    shared_daemon.apply(pod("mountless", mounted, volumes=[volume]))

    def told() -> bool:
        events = shared_daemon.api("GET", "/api/v1/namespaces/default/events")["items"]
        return any(event["reason"] == "FailedMount" and "/no/such/directory" in event["message"] for event in events)

    eventually(told)


def test_an_image_that_arrives_later_starts_the_pod(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("patient", container(image="localhost/later:1")))
    shared_daemon.wait_for("patient", lambda found: "waiting" in status(found)["state"])
    shared_daemon.cli("image", "tag", BUSYBOX, "localhost/later:1")
    shared_daemon.wait_for("patient", "Running", 8)
    shared_daemon.delete("patient", grace=0)
    shared_daemon.cli("image", "rm", "localhost/later:1")


def test_the_same_name_twice_is_refused(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("twin"))
    with pytest.raises(ApiError) as caught:
        shared_daemon.apply(pod("twin"))
    assert caught.value.code == 409


def test_fifty_pods_at_once(shared_daemon: Daemon) -> None:
    names = [f"many-{index}" for index in range(50)]
    for name in names:
        shared_daemon.apply(pod(name))
    for name in names:
        shared_daemon.wait_for(name, "Running", 60)
    addresses = {shared_daemon.pod(name)["status"]["podIP"] for name in names}
    assert len(addresses) == 50
