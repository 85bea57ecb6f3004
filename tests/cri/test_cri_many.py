"""Many at once: two hundred sandboxes asked for in the same moment, run, listed, counted, stopped and removed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from cri_api.v1 import api_pb2 as api

from tests.framework.cri import CriClient, container, refused, sandbox
from tests.framework.daemon import Daemon
from tests.framework.patience import scaled

COUNT = 200


def at_once(stub: Any, requests: Iterable[Any]) -> list[Any]:
    """Send all, then wait for all; the answers in order."""
    calls = [stub.future(request, timeout=scaled(300), wait_for_ready=True) for request in requests]
    return [call.result() for call in calls]


@pytest.mark.timeout(600)
def test_two_hundred_sandboxes_at_once(cri: CriClient, shared_daemon: Daemon) -> None:
    runtime = cri.runtime
    configs = [sandbox(f"many-{number}", labels={"number": str(number)}) for number in range(COUNT)]
    answers = at_once(runtime.RunPodSandbox, [api.RunPodSandboxRequest(config=config) for config in configs])
    ids = [answer.pod_sandbox_id for answer in answers]
    assert len(set(ids)) == COUNT
    made = at_once(
        runtime.CreateContainer,
        [
            api.CreateContainerRequest(
                pod_sandbox_id=sandbox_id, config=container(labels=dict(config.labels)), sandbox_config=config
            )
            for sandbox_id, config in zip(ids, configs, strict=True)
        ],
    )
    containers = [answer.container_id for answer in made]
    at_once(runtime.StartContainer, [api.StartContainerRequest(container_id=one) for one in containers])

    assert {one.id for one in cri.sandboxes(state={"state": api.SANDBOX_READY})} == set(ids)
    assert {one.id for one in cri.containers(state={"state": api.CONTAINER_RUNNING})} == set(containers)
    found = at_once(runtime.PodSandboxStatus, [api.PodSandboxStatusRequest(pod_sandbox_id=one) for one in ids])
    assert len({one.status.network.ip for one in found}) == COUNT
    assert [one.id for one in cri.sandboxes(label_selector={"number": "77"})] == [ids[77]]
    assert len(cri.call("ListPodSandboxStats").stats) == COUNT
    said = at_once(
        runtime.ExecSync, [api.ExecSyncRequest(container_id=one, cmd=["hostname", "-i"]) for one in containers[:20]]
    )
    assert [answer.stdout.decode().split()[0] for answer in said] == [one.status.network.ip for one in found[:20]]

    shared_daemon.restart()
    assert len(cri.sandboxes(state={"state": api.SANDBOX_READY})) == COUNT

    at_once(runtime.StopPodSandbox, [api.StopPodSandboxRequest(pod_sandbox_id=one) for one in ids])
    assert cri.sandboxes(state={"state": api.SANDBOX_READY}) == []
    assert cri.containers(state={"state": api.CONTAINER_RUNNING}) == []
    at_once(runtime.RemovePodSandbox, [api.RemovePodSandboxRequest(pod_sandbox_id=one) for one in ids])
    assert cri.sandboxes() == cri.containers() == []


def test_one_name_asked_for_many_times_at_once_is_made_once(cri: CriClient) -> None:
    config = sandbox("same")
    calls = [cri.runtime.RunPodSandbox.future(api.RunPodSandboxRequest(config=config)) for _ in range(10)]
    codes = [call.exception().code().name if call.exception() else "OK" for call in calls]
    assert sorted(codes) == ["ALREADY_EXISTS"] * 9 + ["OK"]
    [made] = cri.sandboxes()
    calls = [
        cri.runtime.CreateContainer.future(
            api.CreateContainerRequest(pod_sandbox_id=made.id, config=container("same"), sandbox_config=config)
        )
        for _ in range(10)
    ]
    codes = [call.exception().code().name if call.exception() else "OK" for call in calls]
    assert sorted(codes) == ["ALREADY_EXISTS"] * 9 + ["OK"]
    assert len(cri.containers()) == 1
    with refused("ALREADY_EXISTS"):
        cri.run_sandbox(config)


def test_stop_and_remove_from_many_sides_at_once(cri: CriClient) -> None:
    """A kubelet that asks again before it had its answer gets the same answer."""
    config = sandbox("gone")
    sandbox_id = cri.run_sandbox(config)
    for number in range(3):
        cri.run(sandbox_id, config, name=f"c{number}")
    at_once(cri.runtime.StopPodSandbox, [api.StopPodSandboxRequest(pod_sandbox_id=sandbox_id)] * 10)
    at_once(cri.runtime.RemovePodSandbox, [api.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id)] * 10)
    assert cri.sandboxes() == cri.containers() == []
