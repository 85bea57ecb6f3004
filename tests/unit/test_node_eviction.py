"""Who is evicted, when, and what it is told: tables, without a kernel."""

from __future__ import annotations

from typing import Any

import pytest

from podrt.model import codec
from podrt.model.pod import Pod
from podrt.model.scheduling import Taint
from podrt.node import eviction, storage
from podrt.node.eviction import MEMORY, STORAGE, Signal, Usage
from podrt.node.storage import Disk
from podrt.node.taints import evict_after

MI = 1 << 20


def made(name: str, *resources: dict[str, Any], **spec: Any) -> Pod:
    given = resources or ({},)
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "uid": name, "annotations": spec.pop("annotations", {})},
        "spec": {
            "containers": [{"name": f"c{i}", "image": "x", "resources": one} for i, one in enumerate(given)],
            **spec,
        },
    }
    pod = codec.decode_document(document).object
    assert isinstance(pod, Pod)
    return pod


def asks(memory: str) -> dict[str, Any]:
    return {"requests": {"memory": memory}}


@pytest.mark.parametrize(
    ("usages", "order"),
    [
        # Above the request before below it, whatever the amounts.
        ([(made("in", asks("500Mi")), 400), (made("above", asks("10Mi")), 20)], ["above", "in"]),
        # Among those above: the less important first.
        ([(made("high", priority=10), 400), (made("low", priority=1), 20)], ["low", "high"]),
        ([(made("none"), 20), (made("negative", priority=-1), 10)], ["negative", "none"]),
        # Of one importance: the furthest above its request.
        ([(made("a", asks("300Mi")), 400), (made("b", asks("10Mi")), 200)], ["b", "a"]),
        # A request that is kept protects more than a priority.
        ([(made("a", asks("500Mi"), priority=-5), 400), (made("b", priority=100), 1)], ["b", "a"]),
        # Never: static Pods and those of the system.
        (
            [
                (made("static", annotations={"kubernetes.io/config.source": "file"}), 900),
                (made("system", priority=2_000_000_000), 900),
                (made("other"), 1),
            ],
            ["other"],
        ),
    ],
)
def test_ranking(usages: list[tuple[Pod, int]], order: list[str]) -> None:
    found = eviction.rank([Usage(pod, used * MI) for pod, used in usages], MEMORY)
    assert [one.pod.metadata.name for one in found] == order


def test_storage_is_ranked_by_its_own_request() -> None:
    modest = made("modest", {"requests": {"ephemeral-storage": "100Mi"}})
    greedy = made("greedy", {"requests": {"ephemeral-storage": "1Mi", "memory": "1Gi"}})
    found = eviction.rank([Usage(modest, 90 * MI), Usage(greedy, 50 * MI)], STORAGE)
    assert [one.pod.metadata.name for one in found] == ["greedy", "modest"]


@pytest.mark.parametrize(
    ("threshold", "available", "met"),
    [
        ("100Mi", 99 * MI, True),
        ("100Mi", 100 * MI, False),
        ("10%", 99 * MI, True),
        ("10%", 100 * MI, False),
        ("0", 0, False),
    ],
)
def test_thresholds(threshold: str, available: int, met: bool) -> None:
    assert Signal(MEMORY, available, 1000 * MI, threshold).met() is met


def test_message() -> None:
    pod = made("p", asks("10Mi"), asks("50Mi"))
    text = eviction.message(
        Signal(MEMORY, 90 * MI, 1000 * MI, "100Mi"), Usage(pod, 60 * MI, {"c0": 20 * MI, "c1": 40 * MI})
    )
    assert text == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 90Mi. "
        "Container c0 was using 20Mi, request is 10Mi, has larger consumption of memory. "
    )


LIMITED = {"limits": {"ephemeral-storage": "10Mi"}}


@pytest.mark.parametrize(
    ("resources", "disk", "says"),
    [
        ((LIMITED,), Disk({"c0": 10 * MI}, 0), ""),
        ((LIMITED,), Disk({"c0": 4 * MI}, 7 * MI), "exceeds the total limit of containers 10Mi. "),
        (
            (LIMITED, LIMITED),
            Disk({"c0": 11 * MI, "c1": 1 * MI}, 0),
            'Container c0 exceeded its local ephemeral storage limit "10Mi". ',
        ),
        ((LIMITED, LIMITED), Disk({"c0": 10 * MI, "c1": 10 * MI}, 1), "exceeds the total limit of containers 20Mi. "),
        (({},), Disk({"c0": 1000 * MI}, 1000 * MI), ""),
    ],
)
def test_limits_of_ephemeral_storage(resources: tuple[dict[str, Any], ...], disk: Disk, says: str) -> None:
    found = storage.beyond(made("p", *resources), disk)
    assert found.endswith(says) if says else found == ""


def toleration(**fields: Any) -> dict[str, Any]:
    return {"key": "broken", "operator": "Exists", **fields}


TAINT = Taint(key="broken", value="yes", effect="NoExecute")


@pytest.mark.parametrize(
    ("tolerations", "taints", "after"),
    [
        ([], [TAINT], 0.0),
        ([], [Taint(key="broken", effect="NoSchedule")], None),
        ([toleration()], [TAINT], None),
        ([toleration(effect="NoSchedule")], [TAINT], 0.0),
        ([toleration(effect="NoExecute", tolerationSeconds=30)], [TAINT], 30.0),
        ([toleration(effect="NoExecute", tolerationSeconds=-1)], [TAINT], 0.0),
        ([toleration(effect="NoExecute", tolerationSeconds=30), toleration()], [TAINT], 30.0),
        ([toleration(effect="NoExecute", tolerationSeconds=30)], [TAINT, Taint(key="other", effect="NoExecute")], 0.0),
        ([{"operator": "Exists"}], [TAINT, Taint(key="other", effect="NoExecute")], None),
    ],
)
def test_no_execute(tolerations: list[dict[str, Any]], taints: list[Taint], after: float | None) -> None:
    assert evict_after(made("p", tolerations=tolerations), taints) == after
