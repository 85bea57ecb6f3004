"""Hooks and ends with real processes: postStart, preStop, stop signals, grace periods, and the order of it all."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from tests.framework.daemon import Daemon, eventually
from tests.framework.patience import scaled
from tests.framework.pods import TOOLS, container, pod, restarts, status, statuses
from tests.root.test_pod_probes import events, told

LOG = {"volumeMounts": [{"name": "log", "mountPath": "/log"}]}


HANDLER = r"""
cat > /tmp/handler <<'END'
read method path rest
echo "1 $path" >> /log/order
printf 'HTTP/1.1 500 No\r\n\r\n'
END
"""


def note(word: str) -> str:
    """Shell: the time and ``word`` into the shared file. Written at once, so lines of several processes stay whole."""
    return f'echo "$(date +%s) {word}" >> /log/order'


def waits(word: str) -> str:
    """Shell: a process that says when it starts and when it is asked to end."""
    return f"trap '{note(word + '-term')}; exit 0' TERM; {note(word + '-runs')}; sleep 1000 & wait"


def shell(script: str) -> dict[str, Any]:
    return {"exec": {"command": ["sh", "-c", script]}}


def log_volume(path: Any) -> list[dict[str, Any]]:
    return [{"name": "log", "hostPath": {"path": str(path), "type": "Directory"}}]


def words(path: Any) -> list[str]:
    return re.findall(r"^\d+ (\S+)$", (path / "order").read_text(), re.MULTILINE)


@pytest.mark.fields(
    "spec.containers[].lifecycle", "spec.containers[].lifecycle.postStart", "spec.containers[].lifecycle.postStart.exec"
)
def test_a_container_runs_once_its_post_start_is_over(shared_daemon: Daemon) -> None:
    hook = {"postStart": shell("sleep 1; touch /tmp/hooked")}
    shared_daemon.apply(pod("hooked", container("a", lifecycle=hook), container("b")))
    found = shared_daemon.wait_for("hooked", lambda found: statuses(found).get("a", {}).get("containerID"))
    assert status(found, "a")["state"]["waiting"]["reason"] == "ContainerCreating"
    assert not status(found, "b").get("containerID")
    shared_daemon.wait_for("hooked", "Ready")
    assert shared_daemon.exec("hooked", "ls", "/tmp/hooked", container="a") == "/tmp/hooked\n"


def test_a_failed_post_start_kills_the_container(shared_daemon: Daemon) -> None:
    hook = {"postStart": shell("exit 3")}
    shared_daemon.apply(pod("unhooked", container(lifecycle=hook, script="trap 'exit 9' TERM; sleep 1000 & wait")))
    found = shared_daemon.wait_for("unhooked", lambda found: restarts(found) >= 1, 15)
    assert status(found)["ready"] is False
    told(shared_daemon, "unhooked", "FailedPostStartHook", "PostStartHook failed")
    told(shared_daemon, "unhooked", "Killing", "FailedPostStartHook")


@pytest.mark.fields(
    "spec.containers[].lifecycle", "spec.containers[].lifecycle.preStop", "spec.containers[].lifecycle.preStop.exec"
)
def test_pre_stop_runs_before_the_signal(shared_daemon: Daemon, tmp_path: Any) -> None:
    hook = {"preStop": shell(f"sleep 0.5; {note('hook')}")}
    shared_daemon.apply(
        pod(
            "polite",
            container(script=waits("main"), lifecycle=hook, **LOG),
            volumes=log_volume(tmp_path),
            terminationGracePeriodSeconds=20,
        )
    )
    shared_daemon.wait_for("polite", "Ready")
    eventually(lambda: (tmp_path / "order").exists())
    shared_daemon.delete("polite")
    assert words(tmp_path) == ["main-runs", "hook", "main-term"]


def test_pre_stop_has_the_grace_period_and_no_more(shared_daemon: Daemon) -> None:
    hook = {"preStop": shell("sleep 100")}
    shared_daemon.apply(pod("lingering", container(lifecycle=hook), terminationGracePeriodSeconds=2))
    shared_daemon.wait_for("lingering", "Ready")
    started = time.monotonic()
    shared_daemon.delete("lingering")
    assert 2 <= time.monotonic() - started < scaled(8)


def test_a_shorter_grace_period_ends_a_hook(shared_daemon: Daemon) -> None:
    hook = {"preStop": {"sleep": {"seconds": 200}}}
    shared_daemon.apply(pod("hurried", container(lifecycle=hook), terminationGracePeriodSeconds=300))
    shared_daemon.wait_for("hurried", "Ready")
    shared_daemon.delete("hurried", wait=False)
    told(shared_daemon, "hurried", "Killing", "Stopping container main")
    time.sleep(1)
    assert shared_daemon.exists("hurried")
    started = time.monotonic()
    shared_daemon.delete("hurried", grace=1)
    assert time.monotonic() - started < scaled(6)


def test_force_runs_no_hook(shared_daemon: Daemon, tmp_path: Any) -> None:
    hook = {"preStop": shell(note("hook"))}
    main = container(script=waits("main"), lifecycle=hook, **LOG)
    shared_daemon.apply(pod("forced", main, volumes=log_volume(tmp_path), terminationGracePeriodSeconds=300))
    shared_daemon.wait_for("forced", "Ready")
    eventually(lambda: (tmp_path / "order").exists())
    shared_daemon.delete("forced", grace=0)
    assert words(tmp_path) == ["main-runs"]


def test_a_failed_pre_stop_is_told(shared_daemon: Daemon) -> None:
    meta = {"finalizers": ["example.com/keep"]}
    broken = pod("grumpy", container(lifecycle={"preStop": shell("exit 1")}))
    broken["metadata"] |= meta
    shared_daemon.apply(broken)
    shared_daemon.wait_for("grumpy", "Ready")
    shared_daemon.delete("grumpy", wait=False)
    told(shared_daemon, "grumpy", "FailedPreStopHook", "PreStopHook failed")
    # The containers have ended, but the finalizer keeps the object.
    eventually(lambda: "terminated" in status(shared_daemon.pod("grumpy"))["state"])
    assert shared_daemon.exists("grumpy")
    patch = [{"op": "remove", "path": "/metadata/finalizers"}]
    path = "/api/v1/namespaces/default/pods/grumpy"
    shared_daemon.api("PATCH", path, patch, content_type="application/json-patch+json")
    shared_daemon.wait_for("grumpy", "deleted")


@pytest.mark.fields("spec.containers[].lifecycle.preStop.httpGet")
def test_an_http_hook_asks_the_pod(shared_daemon: Daemon, tmp_path: Any) -> None:
    serve = HANDLER + "exec socat TCP-LISTEN:8080,fork,reuseaddr EXEC:'sh /tmp/handler'"
    listens = shell("until ss -ltn | grep -q :8080; do sleep 0.1; done")
    server = container("server", serve, image=TOOLS, lifecycle={"postStart": listens}, **LOG)
    # Whatever it answers, the hook was heard.
    hooks = {
        "postStart": {"httpGet": {"path": "/hello", "port": 8080}},
        "preStop": {"httpGet": {"path": "/bye", "port": 8080}},
    }
    shared_daemon.apply(pod("caller", server, container(lifecycle=hooks), volumes=log_volume(tmp_path)))
    shared_daemon.wait_for("caller", "Ready")
    eventually(lambda: (tmp_path / "order").exists() and words(tmp_path) == ["/hello"])
    deaf = {"postStart": {"httpGet": {"path": "/hello", "port": 8099}}}
    shared_daemon.apply(pod("deaf", container(lifecycle=deaf)))
    told(shared_daemon, "deaf", "FailedPostStartHook", "PostStartHook failed")


@pytest.mark.fields("spec.containers[].lifecycle.stopSignal", "status.containerStatuses[].stopSignal")
@pytest.mark.parametrize("name", ["SIGUSR1", "SIGRTMIN+2"])
def test_the_stop_signal_is_the_containers(shared_daemon: Daemon, tmp_path: Any, name: str) -> None:
    number = {"SIGUSR1": "USR1", "SIGRTMIN+2": "36"}[name]
    script = f"trap '{note('got')}; exit 0' {number}; {note('runs')}; sleep 1000 & wait"
    main = container(script=script, lifecycle={"stopSignal": name}, **LOG)
    spec = pod("signalled", main, volumes=log_volume(tmp_path), os={"name": "linux"}, terminationGracePeriodSeconds=20)
    shared_daemon.apply(spec)
    found = shared_daemon.wait_for("signalled", "Ready")
    assert status(found)["stopSignal"] == name
    eventually(lambda: (tmp_path / "order").exists())
    shared_daemon.delete("signalled")
    assert words(tmp_path) == ["runs", "got"]


def test_sidecars_end_last_and_in_reverse(shared_daemon: Daemon, tmp_path: Any) -> None:
    def slow(word: str) -> str:
        return f"trap 'sleep 0.4; {note(word + '-ends')}; exit 0' TERM; sleep 1000 & wait"

    inits = [container(one, slow(one), restartPolicy="Always", **LOG) for one in ("first", "second")]
    spec = pod(
        "reverse",
        container(script=slow("main"), **LOG),
        initContainers=inits,
        volumes=log_volume(tmp_path),
        terminationGracePeriodSeconds=30,
    )
    shared_daemon.apply(spec)
    shared_daemon.wait_for("reverse", "Ready")
    time.sleep(0.3)
    shared_daemon.delete("reverse")
    assert words(tmp_path) == ["main-ends", "second-ends", "first-ends"]


@pytest.mark.fields("status.containerStatuses[].imageID", "status.observedGeneration")
def test_a_new_image_restarts_that_container_only(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("swap", container("a"), container("b"), restartPolicy="Never"))
    before = shared_daemon.wait_for("swap", "Ready")
    patch = {"spec": {"containers": [{"name": "a", "image": TOOLS}]}}
    path = "/api/v1/namespaces/default/pods/swap"
    shared_daemon.api("PATCH", path, patch, content_type="application/strategic-merge-patch+json")
    found = shared_daemon.wait_for("swap", lambda found: restarts(found, "a") == 1 and status(found, "a")["ready"])
    assert status(found, "a")["imageID"] != status(before, "a")["imageID"]
    assert status(found, "b") == status(before, "b")
    assert found["status"]["podIPs"] == before["status"]["podIPs"]
    assert (found["metadata"]["generation"], found["status"]["observedGeneration"]) == (2, 2)
    told(shared_daemon, "swap", "Killing", "Container a definition changed, will be restarted")


def test_everything_in_the_documented_order(shared_daemon: Daemon, tmp_path: Any) -> None:
    """2 init containers, 2 sidecars and 3 main containers with all probes and hooks, by their time stamps."""

    def probe(word: str) -> dict[str, Any]:
        return {**shell(f"{note(word)}; test -e /tmp/up"), "periodSeconds": 1}

    def full(name: str, **fields: Any) -> dict[str, Any]:
        hooks = {
            "postStart": shell(f"sleep 0.2; {note(name + '-hook')}; touch /tmp/up"),
            "preStop": shell(note(name + "-prestop")),
        }
        probes = {f"{kind}Probe": probe(f"{name}-{kind}") for kind in ("startup", "liveness", "readiness")}
        return container(name, waits(name), lifecycle=hooks, **probes, **LOG, **fields)

    def step(name: str) -> dict[str, Any]:
        return container(name, f"{note(name + '-runs')}; sleep 0.2; {note(name + '-ends')}", **LOG)

    inits = [full("s1", restartPolicy="Always"), step("i1"), full("s2", restartPolicy="Always"), step("i2")]
    mains = [full(name) for name in ("m1", "m2", "m3")]
    spec = pod("all", *mains, initContainers=inits, volumes=log_volume(tmp_path), terminationGracePeriodSeconds=60)
    shared_daemon.apply(spec)
    shared_daemon.wait_for("all", "Ready", 60)
    eventually(lambda: {f"{one}-liveness" for one in ("s1", "s2", "m1", "m2", "m3")} <= set(words(tmp_path)))
    shared_daemon.delete("all")
    seen = words(tmp_path)
    first = {word: seen.index(word) for word in reversed(seen)}
    stamps = [int(line.split()[0]) for line in (tmp_path / "order").read_text().splitlines()]
    assert len(stamps) == len(seen)

    def in_order(*names: str) -> None:
        places = [first[name] for name in names]
        assert places == sorted(places), (names, seen)
        # Not of all lines: probes of several containers that run at once may write in another order than they stamp in.
        assert [stamps[place] for place in places] == sorted(stamps[place] for place in places), (names, stamps)

    starts = ("s1-runs", "s1-hook", "s1-startup", "i1-runs", "i1-ends", "s2-runs", "s2-hook", "s2-startup", "i2-runs")
    in_order(*starts, "i2-ends", "m1-runs", "m1-hook", "m2-runs", "m2-hook", "m3-runs", "m3-hook")
    for one in ("s1", "s2", "m1", "m2", "m3"):
        in_order(f"{one}-runs", f"{one}-hook", f"{one}-startup", f"{one}-liveness")
        in_order(f"{one}-startup", f"{one}-readiness")
        in_order(f"{one}-prestop", f"{one}-term")
        assert (seen.count(f"{one}-prestop"), seen.count(f"{one}-runs"), seen.count(f"{one}-term")) == (1, 1, 1)
    last_main = max(first[f"{one}-term"] for one in ("m1", "m2", "m3"))
    assert last_main < first["s2-term"] < first["s1-term"]
    assert max(first[f"{one}-prestop"] for one in ("s1", "s2")) < first["s2-term"]
    in_order(max((f"{one}-term" for one in ("m1", "m2", "m3")), key=first.__getitem__), "s2-term", "s1-term")
    assert not events(shared_daemon, "all", "Unhealthy")


def test_a_daemon_that_dies_in_a_pre_stop_hook_goes_on(daemon: Daemon, tmp_path: Any) -> None:
    hook = {"preStop": shell(f"{note('hook')}; sleep 2")}
    main = container(script=waits("main"), lifecycle=hook, **LOG)
    daemon.apply(pod("cut", main, volumes=log_volume(tmp_path), terminationGracePeriodSeconds=60))
    daemon.wait_for("cut", "Ready")
    eventually(lambda: (tmp_path / "order").exists())
    daemon.delete("cut", wait=False)
    eventually(lambda: "hook" in words(tmp_path))
    daemon.kill()
    daemon.start()
    daemon.wait_for("cut", "deleted", 20)
    # At least once: nobody knows how far the first one came.
    assert words(tmp_path) == ["main-runs", "hook", "hook", "main-term"]


def test_a_daemon_that_dies_in_the_middle_of_init_goes_on(daemon: Daemon, tmp_path: Any) -> None:
    steps = [container(name, f"{note(name)}; sleep 2", **LOG) for name in ("one", "two")]
    daemon.apply(
        pod("begun", container(script=waits("main"), **LOG), initContainers=steps, volumes=log_volume(tmp_path))
    )
    eventually(lambda: (tmp_path / "order").exists())
    daemon.kill()
    time.sleep(2.5)
    daemon.start()
    daemon.wait_for("begun", "Ready", 20)
    eventually(lambda: words(tmp_path) == ["one", "two", "main-runs"], 5)
