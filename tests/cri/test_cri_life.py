"""The life of sandboxes and containers as a kubelet leads it: what each verb does, refuses, and tells afterwards."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from cri_api.v1 import api_pb2 as api

from tests.framework.cri import CriClient, container, refused, sandbox
from tests.framework.daemon import Daemon, eventually

NOBODY = "0" * 64


def test_version_and_status(cri: CriClient) -> None:
    version = cri.call("Version")
    assert (version.runtime_name, version.runtime_api_version) == ("podrt", "v1")
    answer = cri.call("Status", verbose=True)
    assert {one.type: one.status for one in answer.status.conditions} == {"RuntimeReady": True, "NetworkReady": True}
    assert json.loads(answer.info["info"])["podrtVersion"] == version.runtime_version
    assert [one.name for one in answer.runtime_handlers] == ["", "podrt", "podrt-userns"]
    assert all(
        one.features.recursive_read_only_mounts and one.features.user_namespaces for one in answer.runtime_handlers
    )
    assert answer.features.supplemental_groups_policy
    assert cri.call("Status").info == {}
    assert cri.call("RuntimeConfig").linux.cgroup_driver == api.CGROUPFS


def test_a_container_from_create_to_remove(cri: CriClient, tmp_path: Path) -> None:
    labels = {"app": "Ünï=co\tde", "empty": ""}
    config = sandbox("life", tmp_path, labels=labels, annotations={"a/b": '{"x": "\\n"}'})
    before = time.time_ns()
    box = cri.run_sandbox(config)
    found = cri.sandbox_status(box)
    assert (found.id, found.state, found.metadata, found.runtime_handler) == (
        box,
        api.SANDBOX_READY,
        config.metadata,
        "",
    )
    assert dict(found.labels) == labels and dict(found.annotations) == dict(config.annotations)
    assert before - 10**9 < found.created_at < time.time_ns() + 10**9
    assert found.network.ip.count(".") == 3 and ":" in found.network.additional_ips[0].ip
    [listed] = cri.sandboxes()
    assert (listed.id, listed.labels, listed.annotations, listed.metadata) == (
        box,
        found.labels,
        found.annotations,
        found.metadata,
    )

    spec = container("main", ("sh", "-c", "echo hello; exec sleep 1000000"), labels=labels, log_path="main/0.log")
    unit = cri.create(box, config, spec)
    status = cri.status(unit)
    assert (status.state, status.started_at, status.finished_at) == (api.CONTAINER_CREATED, 0, 0)
    assert status.log_path == str(tmp_path / "main/0.log")
    assert dict(status.labels) == labels
    cri.start(unit)
    status = cri.status(unit)
    assert status.state == api.CONTAINER_RUNNING and status.created_at <= status.started_at <= time.time_ns()
    assert status.user.linux.uid == 0 and status.stop_signal == api.SIGTERM
    eventually(lambda: (tmp_path / "main/0.log").read_text().endswith(" stdout F hello\n"), what="the log")
    with refused("FAILED_PRECONDITION", "cannot go from running to running"):
        cri.start(unit)
    assert cri.exec(unit, "sh", "-c", "echo out; echo err >&2; exit 3") == (3, "out\n", "err\n")

    cri.stop(unit)
    status = cri.status(unit)
    assert (status.state, status.exit_code, status.reason) == (api.CONTAINER_EXITED, 137, "Error")
    assert status.finished_at >= status.started_at
    cri.stop(unit)
    with refused("FAILED_PRECONDITION", "it is exited, not running"):
        cri.exec(unit, "true")
    cri.remove(unit)
    cri.remove(unit)
    with refused("NOT_FOUND"):
        cri.status(unit)

    cri.stop_sandbox(box)
    cri.stop_sandbox(box)
    found = cri.sandbox_status(box)
    assert (found.state, found.network.ip) == (api.SANDBOX_NOTREADY, "")
    with refused("FAILED_PRECONDITION", "is not ready"):
        cri.create(box, config)
    cri.remove_sandbox(box)
    cri.remove_sandbox(box)
    with refused("NOT_FOUND"):
        cri.sandbox_status(box)


@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [(("true",), 0, "Completed"), (("sh", "-c", "exit 7"), 7, "Error"), (("sh", "-c", "kill -9 $$"), 137, "Error")],
)
def test_how_a_container_ended(cri: CriClient, command: tuple[str, ...], code: int, reason: str) -> None:
    config = sandbox()
    unit = cri.run(cri.run_sandbox(config), config, command=command)
    status = eventually(lambda: (found := cri.status(unit)).state == api.CONTAINER_EXITED and found)
    assert (status.exit_code, status.reason) == (code, reason)


def test_a_command_that_is_not_there(cri: CriClient) -> None:
    config = sandbox()
    unit = cri.create(cri.run_sandbox(config), config, command=("/nope",))
    with refused("UNKNOWN", "/nope"):
        cri.start(unit)
    status = cri.status(unit)
    assert (status.state, status.exit_code, status.reason) == (api.CONTAINER_EXITED, 128, "StartError")
    assert "/nope" in status.message


def test_what_does_not_exist(cri: CriClient) -> None:
    for identity in (NOBODY, "abc"):
        cri.stop(identity)
        cri.remove(identity)
        cri.stop_sandbox(identity)
        cri.remove_sandbox(identity)
        for method, field in (
            ("PodSandboxStatus", "pod_sandbox_id"),
            ("UpdatePodSandboxResources", "pod_sandbox_id"),
            ("ContainerStatus", "container_id"),
            ("StartContainer", "container_id"),
            ("UpdateContainerResources", "container_id"),
            ("ReopenContainerLog", "container_id"),
        ):
            with refused("NOT_FOUND"):
                cri.call(method, **{field: identity})
        with refused("NOT_FOUND"):
            cri.exec(identity, "true")
        with refused("NOT_FOUND"):
            cri.create(identity, sandbox())
        assert cri.sandboxes(id=identity) == cri.containers(id=identity) == []
    config = sandbox()
    box = cri.run_sandbox(config)
    with refused("NOT_FOUND", "nothing-of-that-name"):
        cri.create(box, config, image="localhost/nothing-of-that-name:1")
    with refused("UNIMPLEMENTED", "CRIU"):
        cri.call("CheckpointContainer", container_id=cri.create(box, config), location="/tmp/x")


def test_filters(cri: CriClient) -> None:
    configs = [sandbox(f"f{number}", labels={"n": str(number), "all": "x"}) for number in range(3)]
    boxes = [cri.run_sandbox(config) for config in configs]
    units = [
        cri.create(box, config, labels={"n": config.labels["n"]}) for box, config in zip(boxes, configs, strict=True)
    ]
    cri.start(units[0])
    cri.stop_sandbox(boxes[2])

    def ids(found: list[Any]) -> set[str]:
        return {one.id for one in found}

    assert ids(cri.sandboxes()) == ids(cri.sandboxes(label_selector={"all": "x"})) == set(boxes)
    assert ids(cri.sandboxes(label_selector={"all": "x", "n": "1"})) == {boxes[1]}
    assert ids(cri.sandboxes(label_selector={"all": "y"})) == set()
    assert ids(cri.sandboxes(state={"state": api.SANDBOX_READY})) == set(boxes[:2])
    assert ids(cri.sandboxes(state={"state": api.SANDBOX_NOTREADY})) == {boxes[2]}
    assert ids(cri.sandboxes(id=boxes[0])) == ids(cri.sandboxes(id=boxes[0][:13])) == {boxes[0]}
    assert ids(cri.sandboxes(id=boxes[0], state={"state": api.SANDBOX_NOTREADY})) == set()
    assert ids(cri.containers(state={"state": api.CONTAINER_RUNNING})) == {units[0]}
    assert ids(cri.containers(state={"state": api.CONTAINER_CREATED})) == set(units[1:])
    assert ids(cri.containers(pod_sandbox_id=boxes[1])) == {units[1]}
    assert ids(cri.containers(pod_sandbox_id=boxes[1], id=units[0])) == set()
    assert ids(cri.containers(label_selector={"n": "2"})) == {units[2]}
    assert cri.status(units[1][:20]).id == units[1]
    assert cri.sandbox_status(boxes[1][:20]).id == boxes[1]


def test_removing_a_sandbox_removes_what_runs_in_it(cri: CriClient) -> None:
    config = sandbox()
    box = cri.run_sandbox(config)
    units = [cri.run(box, config, name=f"c{number}") for number in range(2)]
    cri.remove_sandbox(box)
    assert cri.sandboxes() == cri.containers() == []
    with refused("NOT_FOUND"):
        cri.status(units[0])
    # All names are free again.
    box = cri.run_sandbox(config)
    cri.run(box, config, name="c0")


def test_a_created_container_is_still_created_after_a_restart(cri: CriClient, shared_daemon: Daemon) -> None:
    config = sandbox()
    box = cri.run_sandbox(config)
    unit = cri.create(box, config)
    shared_daemon.kill()
    shared_daemon.start()
    assert cri.status(unit).state == api.CONTAINER_CREATED
    with refused("ALREADY_EXISTS", box):
        cri.run_sandbox(config)
    with refused("ALREADY_EXISTS", unit):
        cri.create(box, config)
    cri.start(unit)
    assert cri.status(unit).state == api.CONTAINER_RUNNING
    cri.remove(unit)
    cri.create(box, config)
