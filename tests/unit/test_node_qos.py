"""Where a Pod's cgroup is, and what the groups of the QoS classes weigh."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from podrt.engine.specs import Resources
from podrt.model import codec
from podrt.model.pod import Pod
from podrt.model.status import PodStatus
from podrt.node.qos import QosGroups, pod_cgroup


def made(uid: str, resources: dict[str, Any], *, node: str = "here") -> Pod:
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": uid, "uid": uid},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "x", "resources": resources}]},
    }
    pod = codec.decode_document(document).object
    assert isinstance(pod, Pod)
    return pod


class Recorder:
    def __init__(self) -> None:
        self.shares: dict[str, int] = {}

    async def set_group(self, path: str, resources: Resources) -> None:
        self.shares[path] = resources.cpu_shares


GUARANTEED = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}


@pytest.mark.parametrize(
    ("resources", "root", "path"),
    [
        (GUARANTEED, "/podrt", "/podrt/podu"),
        ({"requests": {"cpu": "1"}}, "/podrt/", "/podrt/burstable/podu"),
        ({}, "auto", "/podrt/besteffort/podu"),
        ({}, "/", "/besteffort/podu"),
        (GUARANTEED, "/", "/podu"),
    ],
)
def test_the_path_of_a_pod(resources: dict[str, Any], root: str, path: str) -> None:
    assert pod_cgroup(made("u", resources), root) == path


async def test_burstable_weighs_what_its_pods_request() -> None:
    engine = Recorder()
    groups = QosGroups(engine, "/r")  # type: ignore[arg-type]
    await groups.start()
    assert engine.shares == {"/r/besteffort": 2, "/r/burstable": 2}

    async def shares() -> int:
        await groups._write()
        return engine.shares["/r/burstable"]

    first, second = made("a", {"requests": {"cpu": "500m"}}), made("b", {"requests": {"cpu": "2"}})
    groups.note(None, first)
    groups.note(None, second)
    groups.note(None, made("c", GUARANTEED))
    groups.note(None, made("d", {"requests": {"cpu": "4"}}, node=""))
    assert await shares() == 2560
    ended = replace(first, status=PodStatus(phase="Succeeded"))
    groups.note(first, ended)
    assert await shares() == 2048
    groups.note(ended, None)
    groups.note(second, None)
    assert await shares() == 2
