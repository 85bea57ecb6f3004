"""StatefulSets and DaemonSets in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from podrt.controllers.daemonset_rules import runs_on
from podrt.model.apps import ControllerRevision, DaemonSet, StatefulSet
from podrt.model.meta import DeleteOptions
from podrt.model.node import Node, NodeSpec, Taint
from podrt.model.pod import Pod, PodSpec
from podrt.model.scheduling import Toleration
from podrt.model.storage import PersistentVolumeClaim
from tests.framework.workloads import NODE, World, names, workload

CLAIM = {
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "store.db")
    yield made
    made.close()


def stateful(**spec: Any) -> dict[str, Any]:
    return workload("StatefulSet", serviceName="web", **spec)


def image(world: World, kind: type[Any], text: str) -> None:
    old = world.get(kind, "web")
    containers = tuple(replace(c, image=text) for c in old.spec.template.spec.containers)
    template = replace(old.spec.template, spec=replace(old.spec.template.spec, containers=containers))
    world.change(kind, "web", template=template)


def order_of(world: World) -> list[list[str]]:
    """The names of the Pods that are there, each time they change."""
    seen: list[list[str]] = []

    def look() -> None:
        now = names(world.pods())
        if not seen or seen[-1] != now:
            seen.append(now)

    world.watch(look)
    return seen


def test_pods_come_one_at_a_time_and_go_from_the_highest(world: World) -> None:
    seen = order_of(world)
    waiting: list[int] = []
    world.watch(lambda: waiting.append(len(world.active()) - len(world.ready())))
    world.apply(stateful(replicas=3))
    world.settle()
    assert seen[1:] == [["web-0"], ["web-0", "web-1"], ["web-0", "web-1", "web-2"]]
    assert max(waiting) == 1
    pod = world.get(Pod, "web-1")
    assert pod.spec.hostname == "web-1" and pod.spec.subdomain == "web"
    assert pod.metadata.labels["statefulset.kubernetes.io/pod-name"] == "web-1"
    seen.clear()
    world.change(StatefulSet, "web", replicas=1)
    world.settle()
    assert [row for row in seen if len(row) < 3] == [["web-0", "web-1"], ["web-0"]]


def test_parallel_does_not_wait(world: World) -> None:
    world.running = False
    world.apply(stateful(replicas=4, podManagementPolicy="Parallel"))
    world.settle()
    assert len(world.pods()) == 4


def test_ordinals_start(world: World) -> None:
    world.apply(stateful(replicas=2, ordinals={"start": 5}))
    world.settle()
    assert names(world.pods()) == ["web-5", "web-6"]


def test_min_ready_seconds_hold_up_the_next(world: World) -> None:
    world.apply(stateful(replicas=2, minReadySeconds=30))
    world.sleep(20)
    assert names(world.pods()) == ["web-0"]
    world.sleep(15)
    assert names(world.pods()) == ["web-0", "web-1"]


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_ended_pods_are_made_anew_under_their_name(world: World, phase: str) -> None:
    world.apply(stateful(replicas=2))
    world.settle()
    before = world.get(Pod, "web-0").metadata.uid
    world.finish(world.get(Pod, "web-0"), phase)
    world.settle()
    assert names(world.ready()) == ["web-0", "web-1"]
    assert world.get(Pod, "web-0").metadata.uid != before


def test_an_update_goes_down_to_the_partition_one_at_a_time(world: World) -> None:
    world.apply(stateful(replicas=4))
    world.settle()
    uids = {pod.metadata.name: pod.metadata.uid for pod in world.pods()}
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    old = world.get(StatefulSet, "web")
    strategy = replace(
        old.spec.update_strategy, rolling_update=replace(old.spec.update_strategy.rolling_update, partition=2)
    )
    assert rolling["type"] == strategy.type
    world.change(StatefulSet, "web", update_strategy=strategy)
    least: list[int] = []
    world.watch(lambda: least.append(len(world.ready())))
    replaced: list[str] = []

    def look() -> None:
        for pod in world.pods():
            name = pod.metadata.name
            if pod.metadata.uid != uids.get(name):
                uids[name] = pod.metadata.uid
                replaced.append(name)

    world.watch(look)
    image(world, StatefulSet, "app:2")
    world.settle()
    assert replaced == ["web-3", "web-2"] and min(least) == 3
    assert [pod.spec.containers[0].image for pod in world.pods()] == ["app:1", "app:1", "app:2", "app:2"]
    # A Pod below the partition comes back as it was.
    world.registry.delete(Pod, "default", "web-0")
    world.settle()
    assert world.get(Pod, "web-0").spec.containers[0].image == "app:1"
    status = world.get(StatefulSet, "web").status
    assert status.current_revision != status.update_revision and status.updated_replicas == 2
    zero = replace(strategy, rolling_update=replace(strategy.rolling_update, partition=0))
    world.change(StatefulSet, "web", update_strategy=zero)
    world.settle()
    status = world.get(StatefulSet, "web").status
    assert status.current_revision == status.update_revision and status.current_replicas == 4
    assert replaced[-2:] == ["web-1", "web-0"]


def test_on_delete_never_updates_by_itself(world: World) -> None:
    world.apply(stateful(replicas=2, updateStrategy={"type": "OnDelete"}))
    world.settle()
    image(world, StatefulSet, "app:2")
    world.settle()
    assert {pod.spec.containers[0].image for pod in world.pods()} == {"app:1"}
    world.registry.delete(Pod, "default", "web-1")
    world.settle()
    assert [pod.spec.containers[0].image for pod in world.pods()] == ["app:1", "app:2"]


def test_claims_are_kept_and_used_again(world: World) -> None:
    world.apply(stateful(replicas=2, volumeClaimTemplates=[CLAIM]))
    world.settle()
    assert names(world.all(PersistentVolumeClaim)) == ["data-web-0", "data-web-1"]
    volume = world.get(Pod, "web-1").spec.volumes[0]
    assert volume.name == "data" and volume.persistent_volume_claim.claim_name == "data-web-1"
    uid = world.get(PersistentVolumeClaim, "data-web-1").metadata.uid
    world.change(StatefulSet, "web", replicas=1)
    world.settle()
    world.change(StatefulSet, "web", replicas=2)
    world.settle()
    assert world.get(PersistentVolumeClaim, "data-web-1").metadata.uid == uid
    world.registry.delete(StatefulSet, "default", "web", DeleteOptions(propagation_policy="Foreground"))
    world.settle()
    assert not world.pods() and len(world.all(PersistentVolumeClaim)) == 2


def test_claims_go_where_the_policy_says_so(world: World) -> None:
    policy = {"whenDeleted": "Delete", "whenScaled": "Delete"}
    world.apply(stateful(replicas=2, volumeClaimTemplates=[CLAIM], persistentVolumeClaimRetentionPolicy=policy))
    world.settle()
    world.change(StatefulSet, "web", replicas=1)
    world.settle()
    gone = world.get(PersistentVolumeClaim, "data-web-1")
    # The claim's own protection is the storage side's; the deletion is asked for.
    assert gone is None or gone.metadata.deletion_timestamp is not None
    assert world.get(PersistentVolumeClaim, "data-web-0").metadata.deletion_timestamp is None
    world.registry.delete(StatefulSet, "default", "web", DeleteOptions(propagation_policy="Background"))
    world.settle()
    last = world.get(PersistentVolumeClaim, "data-web-0")
    assert last is None or last.metadata.deletion_timestamp is not None


def test_revisions_are_kept_for_undo(world: World) -> None:
    world.apply(stateful(replicas=1, revisionHistoryLimit=2))
    world.settle()
    for number in range(2, 7):
        image(world, StatefulSet, f"app:{number}")
        world.settle()
    found = world.all(ControllerRevision)
    assert sorted(entry.revision for entry in found) == [4, 5, 6]
    image(world, StatefulSet, "app:5")
    world.settle()
    assert max(entry.revision for entry in world.all(ControllerRevision)) == 7


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    replicas=st.integers(1, 5),
    then=st.integers(0, 5),
    parallel=st.booleans(),
    steps=st.integers(0, 25),
    events=st.lists(st.tuples(st.sampled_from(["delete", "fail", "crash", "update"]), st.integers(0, 4)), max_size=6),
)
def test_a_statefulset_converges_from_anything(
    tmp_path_factory: Any, replicas: int, then: int, parallel: bool, steps: int, events: list[tuple[str, int]]
) -> None:
    world = World(tmp_path_factory.mktemp("set") / "store.db")
    try:
        world.apply(stateful(replicas=replicas, podManagementPolicy="Parallel" if parallel else "OrderedReady"))
        last = 1
        for event, number in events:
            world.control(steps)
            world.node()
            pod = world.get(Pod, f"web-{number}")
            if event == "crash":
                world.restart()
            elif event == "update":
                last = number + 2
                image(world, StatefulSet, f"app:{last}")
            elif pod is not None and event == "delete":
                world.registry.delete(Pod, "default", pod.metadata.name)
            elif pod is not None and pod.metadata.deletion_timestamp is None:
                world.finish(pod, "Failed", 1)
        world.change(StatefulSet, "web", replicas=then)
        world.settle()
        assert names(world.ready()) == [f"web-{number}" for number in range(then)] == names(world.pods())
        assert {pod.spec.containers[0].image for pod in world.pods()} <= {f"app:{last}"}
        assert world.get(StatefulSet, "web").status.ready_replicas == then
    finally:
        world.close()


# DaemonSets


def test_a_daemonset_has_one_pod_here(world: World) -> None:
    world.apply(workload("DaemonSet"))
    world.settle()
    assert [pod.spec.node_name for pod in world.pods()] == [NODE]
    status = world.get(DaemonSet, "web").status
    assert (status.desired_number_scheduled, status.number_ready, status.number_available) == (1, 1, 1)
    world.registry.delete(Pod, "default", world.pods()[0].metadata.name)
    world.settle()
    assert len(world.ready()) == 1
    image(world, DaemonSet, "app:2")
    world.settle()
    assert [pod.spec.containers[0].image for pod in world.pods()] == ["app:2"]
    assert world.get(DaemonSet, "web").status.updated_number_scheduled == 1


def test_a_surge_makes_the_new_pod_first(world: World) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    world.apply(workload("DaemonSet", updateStrategy=strategy))
    world.settle()
    least: list[int] = []
    world.watch(lambda: least.append(len(world.ready())))
    image(world, DaemonSet, "app:2")
    world.settle()
    assert [pod.spec.containers[0].image for pod in world.pods()] == ["app:2"] and min(least) == 1


def test_a_node_that_does_not_match_has_none(world: World) -> None:
    document = workload("DaemonSet")
    document["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "fast"}
    world.apply(document)
    world.settle()
    assert not world.pods()
    node = world.store.get(Node, "", NODE)
    world.registry.update(replace(node, metadata=replace(node.metadata, labels={"disk": "fast"})))
    world.settle()
    assert len(world.ready()) == 1
    node = world.store.get(Node, "", NODE)
    world.registry.update(replace(node, metadata=replace(node.metadata, labels={})))
    world.settle()
    assert not world.pods()


def test_failing_daemons_come_back_ever_later(world: World) -> None:
    world.apply(workload("DaemonSet"))
    world.settle()
    waits = []
    for _ in range(5):
        start = world.now
        pod = world.active()[0]
        world.finish(pod, "Failed", 1)
        world.settle()
        while not world.active():
            world.sleep(0.5)
        waits.append(world.now - start)
    assert waits == sorted(waits) and waits[-1] >= 4


@pytest.mark.parametrize(
    ("taint", "toleration", "runs"),
    [
        (Taint(key="k", value="v", effect="NoSchedule"), None, False),
        (Taint(key="k", value="v", effect="PreferNoSchedule"), None, True),
        (Taint(key="k", value="v", effect="NoSchedule"), Toleration(key="k", operator="Exists"), True),
        (Taint(key="k", value="v", effect="NoExecute"), Toleration(key="k", value="v", operator="Equal"), True),
        (Taint(key="k", value="v", effect="NoExecute"), Toleration(key="k", value="w", operator="Equal"), False),
        (Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule"), None, True),
    ],
)
def test_taints(taint: Taint, toleration: Toleration | None, runs: bool) -> None:
    spec = PodSpec(tolerations=() if toleration is None else (toleration,))
    assert runs_on(spec, Node(spec=NodeSpec(taints=(taint,)))) is runs
