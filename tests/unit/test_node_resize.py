"""In-place resize: what fits, what was given, in which order limits change. Tables, without a kernel."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from podrt.engine.specs import Resources
from podrt.model import codec
from podrt.model.container import ResourceRequirements
from podrt.model.pod import Pod
from podrt.model.status import ContainerStatus
from podrt.node import resize, resources

NODE = {"cpu": "2", "memory": "1Gi"}


def made(name: str, requests: dict[str, str], had: dict[str, str] | None = None, **fields: Any) -> Pod:
    one = {"name": "main", "image": "x", "resources": {"requests": requests}, **fields}
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "uid": name},
        "spec": {"nodeName": "here", "containers": [one]},
    }
    pod = codec.decode_document(document).object
    assert isinstance(pod, Pod)
    if had is None:
        return pod
    status = ContainerStatus(name="main", resources=ResourceRequirements(requests=had))
    return replace(pod, status=replace(pod.status, container_statuses=(status,)))


@pytest.mark.parametrize(
    ("requests", "others", "reason"),
    [
        ({"cpu": "1"}, [], ""),
        ({"cpu": "2", "memory": "1Gi"}, [], ""),
        ({"cpu": "2001m"}, [], "Infeasible"),
        ({"memory": "1025Mi"}, [], "Infeasible"),
        ({"cpu": "1"}, [made("a", {"cpu": "1"})], ""),
        ({"cpu": "1"}, [made("a", {"cpu": "1001m"})], "Deferred"),
        ({"memory": "600Mi"}, [made("a", {"memory": "500Mi"})], "Deferred"),
        # What another one only asks for is not taken yet; what it still has is.
        ({"cpu": "1"}, [made("a", {"cpu": "1500m"}, had={"cpu": "500m"})], ""),
        ({"cpu": "1"}, [made("a", {"cpu": "500m"}, had={"cpu": "1500m"})], "Deferred"),
        ({"cpu": "1500m"}, [made("box", {"cpu": "1"})], ""),
    ],
)
def test_what_fits(requests: dict[str, str], others: list[Pod], reason: str) -> None:
    found = resize.refusal(made("box", requests), others, NODE)
    assert (found.reason if found is not None else "") == reason


def test_words() -> None:
    found = resize.refusal(made("box", {"cpu": "3"}), [], NODE)
    assert found is not None
    assert found.message == "Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000"
    found = resize.refusal(made("box", {"cpu": "1500m"}), [made("a", {"cpu": "1"})], NODE)
    assert found is not None
    assert found.message == "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000"


def test_what_was_given() -> None:
    pod = made("box", {"cpu": "1"}, had={"cpu": "500m"})
    assert resize.given(pod).spec.containers[0].resources.requests == {"cpu": "500m"}
    assert resize.given(made("box", {"cpu": "1"}, had={"cpu": "1"})).spec is not None
    fresh = made("box", {"cpu": "1"})
    assert resize.given(fresh) is fresh


@pytest.mark.parametrize(
    ("policy", "actual", "differs", "restart"),
    [
        ({}, Resources(cpu_shares=512), set(), False),
        ({}, Resources(cpu_shares=256), {"cpu"}, False),
        ({"cpu": "RestartContainer"}, Resources(cpu_shares=256), {"cpu"}, True),
        ({"cpu": "NotRequired", "memory": "RestartContainer"}, Resources(cpu_shares=256), {"cpu"}, False),
        # It has no limit of its own, so it has the Pod's.
        ({"memory": "RestartContainer"}, Resources(cpu_shares=512, memory_limit=7), set(), False),
        ({"memory": "RestartContainer"}, Resources(cpu_shares=512, pids_limit=7), set(), False),
    ],
)
def test_who_needs_a_restart(policy: dict[str, str], actual: Resources, differs: set[str], restart: bool) -> None:
    rules = [{"resourceName": name, "restartPolicy": value} for name, value in policy.items()]
    spec = made("box", {"cpu": "500m"}, resizePolicy=rules).spec.containers[0]
    assert resources.differing(spec, actual) == differs
    assert resources.needs_restart(spec, actual) is restart


def test_between_two_sizes_the_pod_has_the_larger() -> None:
    old = Resources(cpu_shares=512, cpu_quota=50_000, memory_limit=100)
    new = Resources(cpu_shares=1024, cpu_quota=20_000, memory_limit=0)
    assert resize.between(old, new) == Resources(cpu_shares=1024, cpu_quota=50_000, memory_limit=0)
    assert resize.between(old, old) == old
