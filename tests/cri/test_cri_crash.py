"""Nothing is half done: callers that give up, daemons that are killed at every step, sockets left behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from cri_api.v1 import api_pb2 as api

from tests.conftest import DaemonFactory
from tests.framework import leaks
from tests.framework.cri import CriClient, container, refused, sandbox
from tests.framework.daemon import Daemon, eventually
from tests.framework.patience import scaled

SANDBOX_STEPS = (
    "sandbox.record",
    "sandbox.namespaces",
    "sandbox.cgroup",
    "sandbox.shm",
    "sandbox.network",
    "sandbox.files",
    "sandbox.pause",
    "sandbox.ready",
)
CONTAINER_STEPS = ("container.record", "container.image", "container.cgroup", "container.storage", "container.created")


def test_the_socket(cri: CriClient, shared_daemon: Daemon) -> None:
    path = Path(shared_daemon.config.cri_socket)
    found = path.stat()
    assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o660 and found.st_uid == 0
    shared_daemon.kill()
    assert path.exists()
    shared_daemon.start()
    assert cri.call("Version").runtime_name == "podrt"
    shared_daemon.stop()
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(AssertionError, match="exists and is not a socket"):
        shared_daemon.start()
    assert path.read_text() == "mine"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(AssertionError, match="another program listens"):
            shared_daemon.start()
    path.unlink()
    shared_daemon.start()


def test_callers_that_give_up_leave_nothing(cri: CriClient, shared_daemon: Daemon) -> None:
    """A kubelet's deadline may pass at any moment of RunPodSandbox and CreateContainer."""
    config = sandbox("stays")
    box = cri.run_sandbox(config)
    given_up = 0
    for number in range(40):
        delay = number * 0.0004
        request = api.RunPodSandboxRequest(config=sandbox(f"gone-{number}"))
        call = cri.runtime.RunPodSandbox.future(request)
        time.sleep(delay)
        given_up += call.cancel()
        spec = container(f"c{number}")
        create = api.CreateContainerRequest(pod_sandbox_id=box, config=spec, sandbox_config=config)
        call = cri.runtime.CreateContainer.future(create)
        time.sleep(delay / 4)
        given_up += call.cancel()
    assert given_up > 5

    def settled() -> bool:
        # What was done before the caller gave up is there as a whole, under its name; the rest is not there at all.
        found = {one.id for one in cri.sandboxes(state={"state": api.SANDBOX_READY})}
        run_dir = shared_daemon.config.run_dir
        on_disk = {path.name for path in (run_dir / "sandboxes").iterdir()}
        units = {one.id for one in cri.containers()}
        return found == on_disk and units == {path.name for path in (run_dir / "containers").iterdir()}

    eventually(settled, what="what was given up is undone")
    cri.clear()


def kill_at(daemon: Daemon, step: str, call: Callable[[], object]) -> None:
    """Have ``call`` kill the daemon at ``step``, and start another one."""
    daemon.stop()
    daemon.environment["PODRT_FAULT_AT"] = step
    daemon.start()
    with pytest.raises(grpc.RpcError):
        call()
    assert daemon.process is not None
    assert daemon.process.wait(scaled(20)) == -signal.SIGKILL, step
    daemon.environment.clear()
    daemon.start()


@pytest.mark.timeout(300)
def test_a_daemon_killed_in_run_pod_sandbox(daemon: Daemon) -> None:
    config = sandbox("one")
    request = api.RunPodSandboxRequest(config=config)
    with CriClient(daemon.config.cri_socket) as cri:
        for step in SANDBOX_STEPS:
            kill_at(daemon, step, lambda: cri.runtime.RunPodSandbox(request, wait_for_ready=True))
            assert cri.sandboxes() == [], step
            assert daemon.leaked() == [], step
        # The name is free, as the kubelet will ask for it again.
        cri.run(cri.run_sandbox(config), config)


@pytest.mark.timeout(300)
def test_a_daemon_killed_in_create_container(daemon: Daemon) -> None:
    config = sandbox("one")
    with CriClient(daemon.config.cri_socket) as cri:
        box = cri.run_sandbox(config)
        request = api.CreateContainerRequest(pod_sandbox_id=box, config=container(), sandbox_config=config)
        for step in CONTAINER_STEPS:
            kill_at(daemon, step, lambda: cri.runtime.CreateContainer(request, wait_for_ready=True))
            assert cri.containers() == [], step
        unit = cri.run(box, config)
        assert cri.status(unit).state == api.CONTAINER_RUNNING


def test_what_ended_while_the_daemon_was_dead(cri: CriClient, shared_daemon: Daemon, tmp_path: Path) -> None:
    config = sandbox("ends", tmp_path)
    box = cri.run_sandbox(config)
    spec = container(command=("sh", "-c", "until test -e /go/now; do sleep 0.05; done; echo bye; exit 5"), log_path="l")
    spec.mounts.add(host_path=str(tmp_path), container_path="/go")
    unit = cri.run(box, config, spec)
    pause = cri.call("PodSandboxStatus", pod_sandbox_id=box, verbose=True)
    shared_daemon.kill()
    (tmp_path / "now").touch()
    eventually(lambda: "bye" in (tmp_path / "l").read_text())
    shared_daemon.start()
    status = eventually(lambda: (found := cri.status(unit)).state == api.CONTAINER_EXITED and found)
    assert (status.exit_code, status.reason) == (5, "Error")
    assert cri.call("PodSandboxStatus", pod_sandbox_id=box, verbose=True).info == pause.info


def test_a_reboot_leaves_no_sandbox_and_frees_all_names(daemon_factory: DaemonFactory) -> None:
    daemon = daemon_factory()
    config = sandbox("one")
    with CriClient(daemon.config.cri_socket) as cri:
        cri.run(cri.run_sandbox(config), config)
        daemon.reboot()
        assert cri.sandboxes() == cri.containers() == []
        unit = cri.run(cri.run_sandbox(config), config)
        assert cri.exec(unit, "true")[0] == 0


def test_two_clients_of_which_one_is_stuck(cri: CriClient, shared_daemon: Daemon) -> None:
    """A container that needs its 60 seconds to stop holds up nobody else."""
    config = sandbox()
    box = cri.run_sandbox(config)
    script = "trap '' TERM; touch /ready; while :; do sleep 1; done"
    stubborn = cri.run(box, config, container("stubborn", ("sh", "-c", script)))
    eventually(lambda: cri.exec(stubborn, "test", "-e", "/ready")[0] == 0)
    stopping = threading.Thread(target=lambda: cri.stop(stubborn, timeout=60), daemon=True)
    stopping.start()
    begin = time.monotonic()
    other = sandbox()
    unit = cri.run(cri.run_sandbox(other), other)
    assert cri.exec(unit, "true")[0] == 0
    assert time.monotonic() - begin < scaled(10)
    cri.stop(stubborn, timeout=0)  # a shorter time overtakes the longer one
    stopping.join(scaled(20))
    assert not stopping.is_alive()
    assert cri.status(stubborn).exit_code == 137


def test_large_messages(cri: CriClient) -> None:
    """A kubelet may send 16 MiB; here labels and variables of some 3 MB."""
    labels = {f"label-{number}": "x" * 1000 for number in range(1000)}
    config = sandbox(labels=labels)
    box = cri.run_sandbox(config)
    assert dict(cri.sandbox_status(box).labels) == labels
    spec = container(labels=labels, envs=[api.KeyValue(key=f"V{n}", value="y" * 1000) for n in range(1000)])
    unit = cri.run(box, config, spec)
    assert cri.exec(unit, "sh", "-c", "env | grep -c ^V")[1] == "1000\n"
    with refused("RESOURCE_EXHAUSTED"):
        cri.run_sandbox(sandbox(labels={"x": "y" * 17 * 1024 * 1024}))


def test_nothing_is_left_open(cri: CriClient, shared_daemon: Daemon) -> None:
    def once() -> None:
        config = sandbox()
        box = cri.run_sandbox(config)
        unit = cri.run(box, config)
        cri.exec(unit, "true")
        cri.stop_sandbox(box)
        cri.remove_sandbox(box)

    def held() -> int:
        return len(os.listdir(f"/proc/{shared_daemon.pid}/fd"))

    for _ in range(3):
        once()
    before = held()
    for _ in range(5):
        once()
    eventually(lambda: held() <= before, what=f"descriptors are at most {before} again")
    assert leaks.processes_below(shared_daemon.config.cgroup_root) == set()


def test_the_runtime_is_not_ready_while_no_supervisor_can_be_started(cri: CriClient, shared_daemon: Daemon) -> None:
    def ready() -> tuple[bool, str]:
        condition = next(one for one in cri.call("Status").status.conditions if one.type == "RuntimeReady")
        return condition.status, condition.reason

    config = sandbox()
    unit = cri.run(cri.run_sandbox(config), config)
    assert ready() == (True, "")
    # A new one can't listen where a directory is.
    path = shared_daemon.config.run_dir / "supervisor.sock"
    path.unlink()
    path.mkdir()
    shared_daemon.kill_supervisor()
    eventually(lambda: ready() == (False, "SupervisorNotReady"), what="the condition")
    path.rmdir()
    eventually(lambda: ready() == (True, ""), what="the condition")
    assert cri.exec(unit, "true")[0] == 0
