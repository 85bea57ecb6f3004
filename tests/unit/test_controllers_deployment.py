"""Deployments and ReplicaSets in virtual time: bounds at every write, recovery at every point."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from podrt.controllers import deployment_rules as rules
from podrt.controllers.deployment_rules import Bounds, Member
from podrt.controllers.replicaset_rules import deletion_rank
from podrt.model.apps import Deployment, DeploymentSpec, DeploymentStrategy, ReplicaSet, RollingUpdateDeployment
from podrt.model.meta import DeleteOptions
from podrt.model.pod import Pod
from tests.framework.workloads import World, workload


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "store.db")
    yield made
    made.close()


def image(world: World, name: str, text: str) -> None:
    old = world.get(Deployment, name)
    containers = tuple(replace(c, image=text) for c in old.spec.template.spec.containers)
    spec = replace(old.spec.template, spec=replace(old.spec.template.spec, containers=containers))
    world.change(Deployment, name, template=spec)


def test_a_replicaset_makes_replaces_and_removes_pods(world: World) -> None:
    world.apply(workload("ReplicaSet", replicas=5))
    world.settle()
    assert len(world.ready()) == 5
    world.finish(world.pods()[0], "Failed", 1)
    world.registry.delete(Pod, "default", world.pods()[1].metadata.name)
    world.settle()
    assert len(world.ready()) == 5 and len(world.pods()) == 6
    world.change(ReplicaSet, "web", replicas=2)
    world.settle()
    assert len(world.ready()) == 2
    status = world.get(ReplicaSet, "web").status
    assert (status.replicas, status.ready_replicas, status.available_replicas) == (2, 2, 2)
    assert status.observed_generation == world.get(ReplicaSet, "web").metadata.generation == 2


def test_a_replicaset_adopts_and_releases(world: World) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stray", "labels": {"app": "web"}}}
    world.apply({**pod, "spec": {"containers": [{"name": "main", "image": "app:1"}]}})
    world.apply(workload("ReplicaSet", replicas=2))
    world.settle()
    assert len(world.pods()) == 2
    assert world.get(Pod, "stray").metadata.owner_references[0].name == "web"
    stray = world.get(Pod, "stray")
    world.registry.update(replace(stray, metadata=replace(stray.metadata, labels={"app": "other"})))
    world.settle()
    assert world.get(Pod, "stray").metadata.owner_references == ()
    assert len(world.pods()) == 3


def test_order_of_deletion() -> None:
    def pod(name: str, phase: str = "Running", node: str = "n", **metadata: Any) -> Pod:
        new = Pod()
        return replace(
            new,
            metadata=replace(new.metadata, name=name, creation_timestamp="2026-01-01T00:00:00Z", **metadata),
            spec=replace(new.spec, node_name=node),
            status=replace(new.status, phase=phase),
        )

    cheap = pod("cheap", annotations={"controller.kubernetes.io/pod-deletion-cost": "-5"})
    older = replace(pod("old"), metadata=replace(pod("old").metadata, creation_timestamp="2020-01-01T00:00:00Z"))
    expected = [
        pod("unassigned", node=""),
        pod("pending", "Pending"),
        pod("unknown", "Unknown"),
        cheap,
        pod("new"),
        older,
    ]
    shuffled = expected[::-1]
    assert sorted(shuffled, key=deletion_rank) == expected


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (10, "25%", "25%", Bounds(3, 2)),
        (1, "25%", "25%", Bounds(1, 0)),
        (4, 0, "10%", Bounds(0, 1)),
        (3, 1, 0, Bounds(1, 0)),
        (2, 0, 5, Bounds(0, 2)),
    ],
)
def test_bounds_round(replicas: int, surge: Any, unavailable: Any, expected: Bounds) -> None:
    rolling = RollingUpdateDeployment(max_surge=surge, max_unavailable=unavailable)
    strategy = DeploymentStrategy(type="RollingUpdate", rolling_update=rolling)
    assert rules.bounds(Deployment(spec=DeploymentSpec(replicas=replicas, strategy=strategy))) == expected


def guard(world: World, most: int, least: int) -> list[str]:
    """Note every moment at which a rollout of ready Pods breaks a bound."""
    broken: list[str] = []

    def look() -> None:
        active, ready = len(world.active()), len(world.ready())
        if active > most or ready < least:
            broken.append(f"{active} pods, {ready} ready")

    world.watch(look)
    return broken


def test_a_rollout_keeps_its_bounds_at_every_write(world: World) -> None:
    world.apply(workload("Deployment", replicas=10))
    world.settle()
    first = {pod.metadata.uid for pod in world.pods()}
    broken = guard(world, 13, 8)
    image(world, "web", "app:2")
    world.settle()
    assert not broken
    assert not first & {pod.metadata.uid for pod in world.pods()}
    assert {pod.spec.containers[0].image for pod in world.ready()} == {"app:2"}
    deployment = world.get(Deployment, "web")
    assert deployment.metadata.annotations["deployment.kubernetes.io/revision"] == "2"
    reasons = {c.type: (c.status, c.reason) for c in deployment.status.conditions}
    assert reasons["Progressing"] == ("True", "NewReplicaSetAvailable")
    assert reasons["Available"] == ("True", "MinimumReplicasAvailable")
    assert deployment.status.updated_replicas == deployment.status.replicas == 10
    image(world, "web", "app:1")
    world.settle()
    assert not broken and len(world.all(ReplicaSet)) == 2
    assert {pod.spec.containers[0].image for pod in world.ready()} == {"app:1"}
    assert world.get(Deployment, "web").metadata.annotations["deployment.kubernetes.io/revision"] == "3"


def test_a_broken_image_stops_the_rollout_and_passes_the_deadline(world: World) -> None:
    world.apply(workload("Deployment", replicas=10, progressDeadlineSeconds=60))
    world.settle()
    broken = guard(world, 13, 8)
    image(world, "web", "broken")
    world.settle()
    assert len(world.ready()) == 8 and len(world.active()) == 13
    world.sleep(100)
    conditions = {c.type: c for c in world.get(Deployment, "web").status.conditions}
    assert conditions["Progressing"].status == "False"
    assert conditions["Progressing"].reason == "ProgressDeadlineExceeded"
    assert len(world.ready()) == 8 and not broken
    image(world, "web", "app:1")
    world.settle()
    assert len(world.ready()) == 10 and len(world.active()) == 10


def test_scaling_in_the_middle_is_proportional(world: World) -> None:
    world.apply(workload("Deployment", replicas=10))
    world.settle()
    image(world, "web", "broken")
    world.settle()
    world.change(Deployment, "web", replicas=20)
    world.settle()
    sizes = {entry.spec.template.spec.containers[0].image: entry.spec.replicas for entry in world.all(ReplicaSet)}
    assert sum(sizes.values()) == 25
    assert sizes["app:1"] > sizes["broken"] > 5


def test_paused_deployments_scale_but_do_not_roll(world: World) -> None:
    world.apply(workload("Deployment", replicas=2))
    world.settle()
    world.change(Deployment, "web", paused=True)
    image(world, "web", "app:2")
    world.change(Deployment, "web", replicas=4)
    world.settle()
    assert [pod.spec.containers[0].image for pod in world.ready()] == ["app:1"] * 4
    world.change(Deployment, "web", paused=False)
    world.settle()
    assert [pod.spec.containers[0].image for pod in world.ready()] == ["app:2"] * 4


def test_recreate_never_runs_both(world: World) -> None:
    world.apply(workload("Deployment", replicas=3, strategy={"type": "Recreate"}))
    world.settle()
    mixed: list[int] = []
    world.watch(lambda: mixed.append(len({pod.spec.containers[0].image for pod in world.pods()})))
    image(world, "web", "app:2")
    world.settle()
    assert max(mixed) == 1
    assert [pod.spec.containers[0].image for pod in world.ready()] == ["app:2"] * 3


def test_history_is_limited(world: World) -> None:
    world.apply(workload("Deployment", revisionHistoryLimit=2))
    for number in range(2, 7):
        image(world, "web", f"app:{number}")
        world.settle()
    assert len(world.all(ReplicaSet)) == 3


@pytest.mark.parametrize("policy", ["Background", "Foreground", "Orphan"])
def test_deletion_of_owners(world: World, policy: str) -> None:
    world.apply(workload("Deployment", replicas=3))
    world.settle()
    order: list[tuple[bool, int]] = []
    world.watch(lambda: order.append((world.get(Deployment, "web") is not None, len(world.pods()))))
    world.registry.delete(Deployment, "default", "web", DeleteOptions(propagation_policy=policy))
    world.settle()
    assert world.get(Deployment, "web") is None
    if policy == "Orphan":
        assert len(world.ready()) == 3 and len(world.all(ReplicaSet)) == 1
        assert not world.all(ReplicaSet)[0].metadata.owner_references
        return
    assert not world.pods() and not world.all(ReplicaSet)
    # In the foreground the owner is there until its last Pod is gone.
    assert ((False, 3) in order) == (policy == "Background")


def test_an_orphaned_set_is_adopted_again(world: World) -> None:
    world.apply(workload("Deployment", replicas=3))
    world.settle()
    before = {pod.metadata.uid for pod in world.pods()}
    world.registry.delete(Deployment, "default", "web", DeleteOptions(propagation_policy="Orphan"))
    world.settle()
    world.apply(workload("Deployment", replicas=3))
    world.settle()
    assert {pod.metadata.uid for pod in world.pods()} == before and len(world.all(ReplicaSet)) == 1


@pytest.mark.parametrize("steps", range(1, 40, 3))
def test_a_restart_at_any_point_of_a_rollout(tmp_path: Path, steps: int) -> None:
    world = World(tmp_path / "store.db")
    try:
        world.apply(workload("Deployment", replicas=6))
        world.settle()
        image(world, "web", "app:2")
        world.control(steps)
        world.node()
        world.control(steps)
        world.restart()
        broken = guard(world, 8, 5)
        world.settle()
        assert not broken
        assert [pod.spec.containers[0].image for pod in world.pods()] == ["app:2"] * 6
        assert len(world.all(ReplicaSet)) == 2
    finally:
        world.close()


members = st.builds(
    lambda name, replicas, pods, available: Member(
        ReplicaSet(metadata=replace(ReplicaSet().metadata, name=name)), replicas, max(pods, available), available
    ),
    st.just("x"),
    st.integers(0, 12),
    st.integers(0, 12),
    st.integers(0, 12),
)


@settings(max_examples=400, deadline=None)
@given(
    replicas=st.integers(0, 12),
    surge=st.integers(0, 4),
    unavailable=st.integers(0, 4),
    new=members,
    old=st.lists(members, max_size=3),
)
def test_one_step_never_breaks_a_bound(
    replicas: int, surge: int, unavailable: int, new: Member, old: list[Member]
) -> None:
    """From any state: Pods only grow within the surge, and what serves shrinks no further than it may."""
    rolling = RollingUpdateDeployment(max_surge=surge, max_unavailable=unavailable)
    strategy = DeploymentStrategy(type="RollingUpdate", rolling_update=rolling)
    deployment = Deployment(spec=DeploymentSpec(replicas=replicas, strategy=strategy))
    limits = rules.bounds(deployment)

    def named(member: Member, name: str) -> Member:
        return member._replace(set=replace(member.set, metadata=replace(member.set.metadata, name=name)))

    new = named(new, "new")
    old = [named(member, f"old-{index}") for index, member in enumerate(old)]
    change = rules.rolled(deployment, new, old)
    after = [member.scaled(change.get(member.name, member.replicas)) for member in (new, *old)]
    before_weight, weight = sum(m.weight for m in (new, *old)), sum(m.weight for m in after)
    assert weight <= max(before_weight, replicas + limits.surge)
    before_serving, serving = sum(m.serving for m in (new, *old)), sum(m.serving for m in after)
    if new.replicas <= replicas:
        assert serving >= min(before_serving, replicas - limits.unavailable)
    assert all(member.replicas >= 0 for member in after)


EVENTS = st.tuples(st.sampled_from(["delete", "fail", "crash", "image", "scale", "pause", "step"]), st.integers(0, 6))


@settings(max_examples=40, deadline=None)
@given(
    replicas=st.integers(0, 7),
    surge=st.integers(0, 3),
    unavailable=st.integers(0, 3),
    events=st.lists(EVENTS, max_size=10),
    steps=st.integers(0, 12),
)
def test_a_deployment_converges_from_anything(
    tmp_path_factory: Any, replicas: int, surge: int, unavailable: int, events: list[tuple[str, int]], steps: int
) -> None:
    """Whatever happens on the way, at the end there are the Pods of the last template, and no surge was ever passed."""
    if surge == unavailable == 0:
        surge = 1
    world = World(tmp_path_factory.mktemp("roll") / "store.db")
    try:
        rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
        world.apply(workload("Deployment", replicas=replicas, strategy={"rollingUpdate": rolling}))
        most = [replicas + surge]
        beyond: list[int] = []
        world.watch(lambda: beyond.append(len(world.active()) - max(most)))
        last = "app:1"
        for event, number in events:
            world.control(steps)
            world.node()
            pods = world.active()
            if event == "crash":
                world.restart()
                world.watch(lambda: beyond.append(len(world.active()) - max(most)))
            elif event == "image":
                last = "broken" if number == 6 else f"app:{number}"
                image(world, "web", last)
            elif event == "scale":
                replicas = number
                most.append(replicas + surge)
                world.change(Deployment, "web", replicas=number)
            elif event == "pause":
                world.change(Deployment, "web", paused=bool(number % 2))
            elif pods and event == "delete":
                world.registry.delete(Pod, "default", pods[number % len(pods)].metadata.name)
            elif pods and event == "fail":
                world.finish(pods[number % len(pods)], "Failed", 1)
        world.change(Deployment, "web", paused=False)
        image(world, "web", "app:last")
        world.settle()
        assert [pod.spec.containers[0].image for pod in world.active()] == ["app:last"] * replicas
        assert len(world.ready()) == replicas
        assert max(beyond, default=0) <= 0
        told = world.get(Deployment, "web").status
        assert (told.replicas, told.updated_replicas, told.available_replicas) == (replicas,) * 3
    finally:
        world.close()
