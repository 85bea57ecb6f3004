"""Owners and what they own: several owners, chains, namespaces, Jobs that are orphaned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from podrt.model.batch import TRACKING, Job
from podrt.model.configuration import ConfigMap
from podrt.model.meta import DeleteOptions, OwnerReference
from podrt.model.namespace import Namespace
from podrt.model.pod import Pod
from podrt.store.deletion import FOREGROUND
from tests.framework.workloads import World, job, workload


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "store.db")
    yield made
    made.close()


def config(world: World, name: str, *owners: OwnerReference) -> ConfigMap:
    made: ConfigMap = world.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
    changed = replace(made, metadata=replace(made.metadata, owner_references=owners))
    return world.registry.update(changed) if owners else made


def owned_by(obj: Any, block: bool = True) -> OwnerReference:
    return OwnerReference(
        api_version=obj.api_version,
        kind=obj.kind,
        name=obj.metadata.name,
        uid=obj.metadata.uid,
        block_owner_deletion=block,
    )


def delete(world: World, obj: Any, policy: str) -> None:
    options = DeleteOptions(propagation_policy=policy)
    world.registry.delete(type(obj), "default", obj.metadata.name, options)
    world.settle()


def test_one_of_two_owners_keeps_it(world: World) -> None:
    first, second = config(world, "first"), config(world, "second")
    config(world, "child", owned_by(first), owned_by(second))
    delete(world, first, "Background")
    child = world.get(ConfigMap, "child")
    assert [owner.name for owner in child.metadata.owner_references] == ["second"]
    delete(world, second, "Background")
    assert world.get(ConfigMap, "child") is None


def test_a_chain_goes_in_the_foreground_from_its_end(world: World) -> None:
    top = config(world, "top")
    middle = config(world, "middle", owned_by(top))
    leaf = config(world, "leaf", owned_by(middle))
    held = replace(leaf, metadata=replace(leaf.metadata, finalizers=("example.test/hold",)))
    world.registry.update(held)
    delete(world, top, "Foreground")
    for name in ("top", "middle"):
        assert FOREGROUND in world.get(ConfigMap, name).metadata.finalizers
    leaf = world.get(ConfigMap, "leaf")
    world.registry.update(replace(leaf, metadata=replace(leaf.metadata, finalizers=())))
    world.settle()
    assert not world.all(ConfigMap)


def test_a_dependent_that_does_not_block_is_not_waited_for(world: World) -> None:
    top = config(world, "top")
    child = config(world, "child", owned_by(top, block=False))
    world.registry.update(replace(child, metadata=replace(child.metadata, finalizers=("example.test/hold",))))
    delete(world, top, "Foreground")
    assert world.get(ConfigMap, "top") is None
    assert world.get(ConfigMap, "child").metadata.deletion_timestamp is not None


def test_an_owner_of_another_uid_or_kind(world: World) -> None:
    top = config(world, "top")
    config(world, "stranger", replace(owned_by(top), uid="another"))
    foreign = OwnerReference(api_version="example.test/v1", kind="Thing", name="t", uid="u")
    config(world, "foreign", foreign)
    world.settle()
    assert world.get(ConfigMap, "stranger") is None
    assert world.get(ConfigMap, "foreign") is not None


def test_what_was_left_behind_goes_after_a_restart(world: World) -> None:
    world.apply(workload("ReplicaSet", replicas=2))
    world.settle()
    world.registry.delete("replicasets", "default", "web", DeleteOptions(propagation_policy="Background"))
    world.restart()
    world.settle()
    assert not world.pods()


def test_orphans_of_a_job_are_not_held(world: World) -> None:
    world.apply(job())
    world.settle()
    delete(world, world.get(Job, "work"), "Orphan")
    (pod,) = world.pods()
    assert TRACKING not in pod.metadata.finalizers and not pod.metadata.owner_references
    world.registry.delete(Pod, "default", pod.metadata.name)
    world.settle()
    assert not world.pods()


def test_a_namespace_takes_all_workloads_with_it(world: World) -> None:
    world.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "test"}})
    cron = {"schedule": "* * * * *", "jobTemplate": {"spec": job()["spec"]}}
    documents = [
        workload(kind, f"a{kind.lower()}") for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
    ]
    for number, document in enumerate(documents):
        labels = {"app": f"app-{number}"}
        document["spec"]["selector"] = {"matchLabels": labels}
        document["spec"]["template"]["metadata"]["labels"] = labels
    documents += [job(), {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"}, "spec": cron}]
    for document in documents:
        document["metadata"]["namespace"] = "test"
        world.apply(document)
    world.sleep(61)
    assert len(world.ready()) == 6
    world.registry.delete(Namespace, "", "test")
    world.sleep(5)
    assert not world.pods() and world.store.find(Namespace, "", "test") is None
