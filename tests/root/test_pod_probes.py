"""Probes with real processes and real sockets: each handler, what follows from its result, and what is told."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import TOOLS, container, pod, restarts, status, statuses

FILE = {"exec": {"command": ["test", "-e", "/tmp/fine"]}, "periodSeconds": 1, "failureThreshold": 1}
SERVER = "mkdir -p /tmp/www; touch /tmp/www/fine; exec busybox httpd -f -p 8080 -h /tmp/www"
GRPC = r"""
answer() {  # SETTINGS; HEADERS :status 200, content-type; DATA; trailers grpc-status
  printf '\0\0\0\4\0\0\0\0\0'
  printf '\0\0\040\1\4\0\0\0\1\210\0\014content-type\020application/grpc'
  printf '\0\0\007\0\0\0\0\0\1\0\0\0\0\2\10'; printf "$1"
  printf '\0\0\017\1\5\0\0\0\1\0\013grpc-status\0010'
}
answer '\1' > /tmp/serving; answer '\2' > /tmp/not; cp /tmp/serving /tmp/answer
exec socat TCP-LISTEN:50051,fork,reuseaddr SYSTEM:"cat /tmp/answer; sleep 0.3"
"""


def events(daemon: Daemon, name: str, reason: str) -> list[str]:
    items = daemon.api("GET", "/api/v1/namespaces/default/events")["items"]
    return [one["message"] for one in items if one["involvedObject"]["name"] == name and one["reason"] == reason]


def told(daemon: Daemon, name: str, reason: str, text: str) -> None:
    eventually(lambda: any(text in one for one in events(daemon, name, reason)), what=f"{reason}: {text}")


def is_ready(found: dict[str, Any]) -> bool:
    return bool(status(found)["ready"])


@pytest.mark.fields(
    "spec.containers[].readinessProbe",
    "status.containerStatuses[].ready",
    "spec.containers[].readinessProbe.exec",
    "spec.containers[].readinessProbe.periodSeconds",
)
def test_readiness_follows_its_probe(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("file", container(readinessProbe=FILE)))
    found = shared_daemon.wait_for("file", "Running")
    assert (status(found)["ready"], status(found)["started"]) == (False, True)
    told(shared_daemon, "file", "Unhealthy", "Readiness probe failed: ")
    shared_daemon.exec("file", "touch", "/tmp/fine")
    shared_daemon.wait_for("file", "Ready", 5)
    shared_daemon.exec("file", "rm", "/tmp/fine")
    found = shared_daemon.wait_for("file", lambda found: not is_ready(found), 5)
    assert restarts(found) == 0


@pytest.mark.fields("spec.containers[].readinessProbe.httpGet", "spec.containers[].readinessProbe.tcpSocket")
@pytest.mark.parametrize("handler", [{"httpGet": {"path": "/fine", "port": "web"}}, {"tcpSocket": {"port": "web"}}])
def test_http_and_tcp_from_the_host(shared_daemon: Daemon, handler: dict[str, Any]) -> None:
    probe = {**handler, "periodSeconds": 1, "failureThreshold": 1}
    ports = [{"name": "web", "containerPort": 8080}]
    server = container(script=SERVER, image=TOOLS, ports=ports, readinessProbe=probe)
    shared_daemon.apply(pod("served", server))
    shared_daemon.wait_for("served", "Ready")
    if "httpGet" in handler:
        shared_daemon.exec("served", "rm", "/tmp/www/fine")
        shared_daemon.wait_for("served", lambda found: not is_ready(found), 5)
        told(shared_daemon, "served", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404")


def test_nobody_listens(shared_daemon: Daemon) -> None:
    http = {"httpGet": {"path": "/x", "port": 81}, "periodSeconds": 1}
    tcp = {"tcpSocket": {"port": 82}, "periodSeconds": 1}
    shared_daemon.apply(pod("deaf", container("a", readinessProbe=http), container("b", readinessProbe=tcp)))
    told(shared_daemon, "deaf", "Unhealthy", ':81/x": dial tcp')
    told(shared_daemon, "deaf", "Unhealthy", ":82: connect: connection refused")


@pytest.mark.fields("spec.containers[].readinessProbe.grpc", "spec.containers[].readinessProbe.failureThreshold")
def test_grpc(shared_daemon: Daemon) -> None:
    probe = {"grpc": {"port": 50051}, "periodSeconds": 1, "failureThreshold": 1}
    shared_daemon.apply(pod("grpc", container(script=GRPC, image=TOOLS, readinessProbe=probe)))
    shared_daemon.wait_for("grpc", "Ready")
    shared_daemon.exec("grpc", "cp", "/tmp/not", "/tmp/answer")
    shared_daemon.wait_for("grpc", lambda found: not is_ready(found), 5)
    told(shared_daemon, "grpc", "Unhealthy", 'Readiness probe failed: service unhealthy (responded with "NOT_SERVING")')


@pytest.mark.fields("spec.containers[].livenessProbe")
def test_liveness_restarts_the_container_alone(shared_daemon: Daemon) -> None:
    script = "trap 'exit 0' TERM; touch /tmp/fine; sleep 1000 & wait"
    shared_daemon.apply(
        pod("alive", container(script=script, livenessProbe=FILE), container("other"), restartPolicy="OnFailure")
    )
    shared_daemon.wait_for("alive", "Running")
    time.sleep(1.5)
    assert restarts(shared_daemon.pod("alive")) == 0
    shared_daemon.exec("alive", "rm", "/tmp/fine", container="main")
    found = shared_daemon.wait_for("alive", lambda found: restarts(found) == 1, 10)
    assert restarts(found, "other") == 0
    told(shared_daemon, "alive", "Unhealthy", "Liveness probe failed: ")
    told(shared_daemon, "alive", "Killing", "Container main failed liveness probe, will be restarted")


@pytest.mark.fields("spec.containers[].livenessProbe.terminationGracePeriodSeconds")
def test_liveness_has_a_grace_period_of_its_own(shared_daemon: Daemon) -> None:
    probe = {**FILE, "terminationGracePeriodSeconds": 1}
    script = "trap '' TERM; while :; do sleep 0.1; done"
    shared_daemon.apply(pod("brief", container(script=script, livenessProbe=probe), terminationGracePeriodSeconds=300))
    found = shared_daemon.wait_for("brief", lambda found: restarts(found) == 1, 10)
    assert status(found)["lastState"]["terminated"]["exitCode"] == 137


def test_a_pod_that_never_restarts_fails_with_its_liveness(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("once", container(livenessProbe=FILE, script="sleep 1000"), restartPolicy="Never"))
    found = shared_daemon.wait_for("once", "Failed", 15)
    assert restarts(found) == 0


@pytest.mark.fields("spec.containers[].startupProbe", "status.containerStatuses[].started")
def test_startup_gates_the_other_probes(shared_daemon: Daemon) -> None:
    startup = {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 30}
    probes = {"startupProbe": startup, "livenessProbe": FILE, "readinessProbe": FILE}
    shared_daemon.apply(pod("slow", container(**probes)))
    found = shared_daemon.wait_for("slow", "Running")
    time.sleep(2.5)
    found = shared_daemon.pod("slow")
    # Liveness would have failed long ago.
    assert (restarts(found), status(found)["started"], status(found)["ready"]) == (0, False, False)
    shared_daemon.exec("slow", "touch", "/tmp/fine", "/tmp/up")
    shared_daemon.wait_for("slow", "Ready", 5)
    assert not any("Liveness" in one for one in events(shared_daemon, "slow", "Unhealthy"))


@pytest.mark.fields("spec.containers[].startupProbe.failureThreshold")
def test_a_startup_probe_that_fails_restarts(shared_daemon: Daemon) -> None:
    startup = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2}
    shared_daemon.apply(pod("never-up", container(startupProbe=startup)))
    shared_daemon.wait_for("never-up", lambda found: restarts(found) == 1, 15)
    told(shared_daemon, "never-up", "Killing", "Container main failed startup probe, will be restarted")


@pytest.mark.fields("spec.containers[].readinessProbe.timeoutSeconds")
def test_an_exec_probe_that_takes_too_long_has_failed(shared_daemon: Daemon) -> None:
    probe = {"exec": {"command": ["sleep", "30"]}, "timeoutSeconds": 1, "periodSeconds": 1}
    shared_daemon.apply(pod("sleepy", container(readinessProbe=probe)))
    told(shared_daemon, "sleepy", "Unhealthy", 'command timed out: "sleep 30" timed out after 1s')


def test_a_command_that_does_not_exist_is_no_verdict(shared_daemon: Daemon) -> None:
    probe = {"exec": {"command": ["/no/such/command"]}, "periodSeconds": 1, "failureThreshold": 1}
    shared_daemon.apply(pod("mistaken", container(livenessProbe=probe)))
    told(shared_daemon, "mistaken", "Unhealthy", "Liveness probe errored and resulted in unknown state: ")
    time.sleep(2)
    assert restarts(shared_daemon.pod("mistaken")) == 0


@pytest.mark.fields("spec.readinessGates", "status.conditions")
def test_a_readiness_gate_is_opened_from_outside(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("gated", readinessGates=[{"conditionType": "example.com/fine"}]))

    def ready(found: dict[str, Any]) -> tuple[str, str]:
        one = next(one for one in found["status"]["conditions"] if one["type"] == "Ready")
        return one["status"], one.get("reason", "")

    shared_daemon.wait_for("gated", lambda found: is_ready(found) if "main" in statuses(found) else False)
    assert ready(shared_daemon.pod("gated")) == ("False", "ReadinessGatesNotReady")
    patch = {"status": {"conditions": [{"type": "example.com/fine", "status": "True"}]}}
    path = "/api/v1/namespaces/default/pods/gated/status"
    shared_daemon.api("PATCH", path, patch, content_type="application/strategic-merge-patch+json")
    shared_daemon.wait_for("gated", "Ready", 5)


def test_what_probes_said_outlives_the_daemon(daemon: Daemon) -> None:
    startup = {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 30}
    slow = {"exec": {"command": ["true"]}, "periodSeconds": 60}
    script = "touch /tmp/up; sleep 1000"
    daemon.apply(pod("stays", container(script=script, startupProbe=startup, readinessProbe=slow)))
    daemon.wait_for("stays", "Ready")
    daemon.exec("stays", "rm", "/tmp/up")
    daemon.kill()
    daemon.start()
    time.sleep(1.5)
    found = daemon.pod("stays")
    assert (restarts(found), status(found)["ready"], status(found)["started"]) == (0, True, True)
