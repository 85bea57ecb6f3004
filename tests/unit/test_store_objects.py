"""The registry: creating, updating, deleting with grace, namespaces, status, finalizers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from podrt.errors import AlreadyExistsError, ConflictError, ForbiddenError, InvalidError, NotFoundError
from podrt.model import codec
from podrt.model.base import parse_time
from podrt.model.event import Event, ObjectReference
from podrt.model.meta import DeleteOptions, ObjectMeta, Preconditions
from podrt.model.namespace import Namespace
from podrt.model.node import Node
from podrt.model.pod import Pod
from podrt.model.status import PodStatus
from podrt.store.objects import Registry
from podrt.store.store import Store
from tests.framework.malformed import GOOD


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    store = Store(tmp_path / "store.db")
    yield Registry(store)
    store.close()


def pod(name: str = "a", namespace: str = "default", **metadata: Any) -> Pod:
    document = json.loads(json.dumps(GOOD))
    document["spec"]["terminationGracePeriodSeconds"] = 30
    document["metadata"] = {"name": name, "namespace": namespace, **metadata}
    obj = codec.decode_document(document).object
    assert isinstance(obj, Pod)
    return obj


def bound(registry: Registry, name: str = "a", namespace: str = "default", **metadata: Any) -> Pod:
    if registry.store.find(Node, "", "here") is None:
        registry.create(Node(metadata=ObjectMeta(name="here")))
    registry.create(pod(name, namespace, **metadata))
    return registry.bind(namespace, name, "here")


def make_namespace(registry: Registry, name: str, **metadata: Any) -> Namespace:
    return registry.create(Namespace(metadata=ObjectMeta(name=name, **metadata)))


def test_the_first_namespaces(registry: Registry) -> None:
    names = [item.metadata.name for item in registry.store.list(Namespace).items]
    assert names == ["default", "kube-node-lease", "kube-public", "kube-system"]
    default = registry.store.get(Namespace, "", "default")
    assert default.status.phase == "Active"
    assert default.metadata.labels == {"kubernetes.io/metadata.name": "default"}


def test_create_fills_in(registry: Registry) -> None:
    sent = replace(pod(namespace=""), status=PodStatus(phase="Running"))
    made = registry.create(sent)
    assert made.metadata.namespace == "default"
    assert made.metadata.uid and made.metadata.creation_timestamp
    assert made.metadata.generation == 1
    assert (made.status.phase, made.status.qos_class) == ("Pending", "Burstable")
    assert made.spec.restart_policy == "Always"
    assert registry.store.get(Pod, "default", "a") is made


def test_generated_names(registry: Registry) -> None:
    names = {registry.create(pod("", generateName="web-")).metadata.name for _ in range(20)}
    assert len(names) == 20
    assert all(name.startswith("web-") and len(name) == 9 for name in names)


def test_create_refuses(registry: Registry) -> None:
    registry.create(pod())
    with pytest.raises(AlreadyExistsError, match='pods "a" already exists'):
        registry.create(pod())
    with pytest.raises(NotFoundError, match=r'namespaces "nowhere" not found'):
        registry.create(pod(namespace="nowhere"))
    with pytest.raises(InvalidError, match=r'Pod "B" is invalid: metadata.name: Invalid value: "B"') as caught:
        registry.create(pod("B"))
    assert [cause.field for cause in caught.value.causes] == ["metadata.name"]


def test_dry_run_stores_nothing(registry: Registry) -> None:
    before = registry.store.revision
    made = registry.create(pod(), dry_run=True)
    assert made.metadata.uid and not made.metadata.resource_version
    assert registry.store.revision == before
    stored = registry.create(pod())
    changed = registry.update(replace(stored, metadata=replace(stored.metadata, labels={"a": "b"})), dry_run=True)
    assert changed.metadata.labels == {"a": "b"}
    assert not registry.delete("pods", "default", "a", dry_run=True).gone
    assert registry.store.get(Pod, "default", "a") is stored


def test_update_keeps_status_and_raises_generation_for_the_spec_only(registry: Registry) -> None:
    made = registry.create(pod())
    registry.update_status(replace(made, status=PodStatus(phase="Running")))
    labelled = registry.update(pod(labels={"x": "y"}))
    assert labelled.status.phase == "Running"
    assert labelled.metadata.generation == 1
    assert labelled.metadata.uid == made.metadata.uid
    image = replace(labelled.spec.containers[0], image="other:1")
    spec = replace(labelled.spec, containers=(image, *labelled.spec.containers[1:]))
    assert registry.update(replace(labelled, spec=spec)).metadata.generation == 2


def test_update_refuses(registry: Registry) -> None:
    made = registry.create(pod())
    registry.update(pod(labels={"x": "y"}))
    with pytest.raises(ConflictError, match="the object has been modified"):
        registry.update(made)
    with pytest.raises(ConflictError, match="UID in precondition: other"):
        registry.update(pod(uid="other"))
    with pytest.raises(NotFoundError):
        registry.update(pod("b"))
    with pytest.raises(InvalidError, match=r"spec\.hostname: Forbidden"):
        changed = pod()
        registry.update(replace(changed, spec=replace(changed.spec, hostname="x")))


def test_update_status_changes_nothing_else(registry: Registry) -> None:
    made = registry.create(pod())
    sent = replace(made, spec=replace(made.spec, hostname="x"), status=PodStatus(phase="Running"))
    stored = registry.update_status(sent)
    assert stored.status.phase == "Running"
    assert stored.spec == made.spec
    with pytest.raises(ConflictError):
        registry.update_status(sent)


def test_a_pod_without_a_node_is_deleted_at_once(registry: Registry) -> None:
    registry.create(pod())
    assert registry.delete("pods", "default", "a").gone
    assert registry.store.count(Pod) == 0


def test_a_pod_of_a_node_that_does_not_exist_is_deleted_at_once(registry: Registry) -> None:
    """Nobody would ever finalize it. Before there is any node it waits, as its own may be about to come."""
    registry.create(pod())
    registry.bind("default", "a", "elsewhere")
    assert not registry.delete("pods", "default", "a").gone
    registry.create(Node(metadata=ObjectMeta(name="here")))
    assert registry.delete("pods", "default", "a").gone
    registry.create(pod())
    registry.bind("default", "a", "elsewhere")
    assert registry.delete("pods", "default", "a").gone


def test_graceful_deletion_waits_for_the_agent(registry: Registry) -> None:
    made = bound(registry)
    deletion = registry.delete(Pod, "default", "a")
    metadata = deletion.object.metadata
    assert not deletion.gone
    assert metadata.deletion_grace_period_seconds == 30
    assert metadata.generation == 2
    with pytest.raises(AlreadyExistsError, match="object is being deleted"):
        registry.create(pod())
    assert registry.finalize_pod("default", "a", made.metadata.uid)
    assert registry.store.count(Pod) == 0
    assert registry.finalize_pod("default", "a", made.metadata.uid)


def test_grace_can_be_shortened_but_not_lengthened(registry: Registry) -> None:
    bound(registry)
    first = registry.delete(Pod, "default", "a", DeleteOptions(grace_period_seconds=20)).object.metadata
    longer = registry.delete(Pod, "default", "a", DeleteOptions(grace_period_seconds=60)).object.metadata
    assert longer == first
    again = registry.delete(Pod, "default", "a").object.metadata
    assert again == first
    shorter = registry.delete(Pod, "default", "a", DeleteOptions(grace_period_seconds=5)).object.metadata
    assert shorter.deletion_grace_period_seconds == 5
    assert shorter.generation == first.generation
    assert first.deletion_timestamp and shorter.deletion_timestamp
    assert (parse_time(first.deletion_timestamp) - parse_time(shorter.deletion_timestamp)).total_seconds() == 15


@pytest.mark.parametrize(("grace", "expected"), [(0, 0), (-7, 1), (1, 1)])
def test_forced_and_odd_grace_periods(registry: Registry, grace: int, expected: int) -> None:
    bound(registry)
    deletion = registry.delete(Pod, "default", "a", DeleteOptions(grace_period_seconds=grace))
    assert not deletion.gone
    assert deletion.object.metadata.deletion_grace_period_seconds == expected


def test_a_pod_that_has_ended_needs_no_grace(registry: Registry) -> None:
    made = bound(registry)
    registry.update_status(replace(made, status=PodStatus(phase="Succeeded")))
    assert registry.delete(Pod, "default", "a").object.metadata.deletion_grace_period_seconds == 0


def test_finalizers_keep_a_pod(registry: Registry) -> None:
    made = bound(registry, finalizers=["a.b/c"])
    registry.delete(Pod, "default", "a")
    assert not registry.finalize_pod("default", "a", made.metadata.uid)
    current = registry.store.get(Pod, "default", "a")
    with pytest.raises(InvalidError, match="no new finalizers"):
        registry.update(replace(current, metadata=replace(current.metadata, finalizers=("a.b/c", "d.e/f"))))
    registry.update(replace(current, metadata=replace(current.metadata, finalizers=())))
    assert registry.finalize_pod("default", "a", made.metadata.uid)
    assert registry.store.count(Pod) == 0


def test_finalizers_of_a_pod_without_a_node(registry: Registry) -> None:
    registry.create(pod(finalizers=["a.b/c"]))
    assert not registry.delete(Pod, "default", "a").gone
    current = registry.store.get(Pod, "default", "a")
    registry.update(replace(current, metadata=replace(current.metadata, finalizers=())))
    assert registry.store.count(Pod) == 0


def test_finalize_checks_the_uid_and_that_it_was_asked_for(registry: Registry) -> None:
    made = bound(registry)
    assert registry.finalize_pod("default", "a", "another")
    with pytest.raises(ConflictError, match="not being deleted"):
        registry.finalize_pod("default", "a", made.metadata.uid)
    assert registry.store.count(Pod) == 1


def test_preconditions_of_a_delete(registry: Registry) -> None:
    made = registry.create(pod())
    for wanted in (Preconditions(uid="x"), Preconditions(resource_version="1")):
        with pytest.raises(ConflictError, match="Precondition failed"):
            registry.delete(Pod, "default", "a", DeleteOptions(preconditions=wanted))
    good = Preconditions(uid=made.metadata.uid, resource_version=made.metadata.resource_version)
    assert registry.delete(Pod, "default", "a", DeleteOptions(preconditions=good)).gone
    with pytest.raises(NotFoundError):
        registry.delete(Pod, "default", "a")


def test_bind(registry: Registry) -> None:
    assert bound(registry).spec.node_name == "here"
    with pytest.raises(ConflictError, match="already assigned"):
        registry.bind("default", "a", "there")


def test_an_empty_namespace_goes_at_once(registry: Registry) -> None:
    make_namespace(registry, "x")
    deletion = registry.delete(Namespace, "", "x")
    assert deletion.gone
    assert registry.store.find(Namespace, "", "x") is None


def test_a_namespace_waits_for_its_content(registry: Registry) -> None:
    make_namespace(registry, "x")
    made = bound(registry, namespace="x")
    registry.create(pod("free", "x"))
    about = ObjectReference(kind="Pod", name="a", namespace="x")
    registry.create(Event(metadata=ObjectMeta(name="e", namespace="x"), involved_object=about))
    deletion = registry.delete(Namespace, "", "x")
    assert not deletion.gone
    assert isinstance(deletion.object, Namespace)
    assert deletion.object.status.phase == "Terminating"
    assert [item.metadata.name for item in registry.store.list(Pod, "x").items] == ["a"]
    assert registry.store.get(Pod, "x", "a").metadata.deletion_timestamp
    with pytest.raises(ForbiddenError, match="because it is being terminated"):
        registry.create(pod("b", "x"))
    assert not registry.delete(Namespace, "", "x").gone
    registry.finalize_pod("x", "a", made.metadata.uid)
    assert registry.store.find(Namespace, "", "x") is None
    assert registry.store.count(Event) == 0


def test_a_namespace_s_deletion_goes_on_after_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.db")
    registry = Registry(store)
    make_namespace(registry, "x")
    made = bound(registry, namespace="x")
    registry.delete(Namespace, "", "x")
    store.close()
    again = Registry(Store(tmp_path / "store.db"))
    assert again.store.find(Namespace, "", "x") is not None
    again.finalize_pod("x", "a", made.metadata.uid)
    assert again.store.find(Namespace, "", "x") is None
    again.store.close()


def test_finalizers_of_a_namespace(registry: Registry) -> None:
    make_namespace(registry, "x", finalizers=("a.b/c",))
    assert not registry.delete(Namespace, "", "x").gone
    current = registry.store.get(Namespace, "", "x")
    registry.update(replace(current, metadata=replace(current.metadata, finalizers=())))
    assert registry.store.find(Namespace, "", "x") is None


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public"])
def test_namespaces_that_stay(registry: Registry, name: str) -> None:
    with pytest.raises(ForbiddenError, match="may not be deleted"):
        registry.delete(Namespace, "", name)


def test_nodes_are_created_with_their_status(registry: Registry) -> None:
    node = Node(metadata=ObjectMeta(name="here"))
    node = registry.create(replace(node, status=replace(node.status, capacity={"cpu": "2", "pods": "110"})))
    assert node.status.capacity == {"cpu": "2", "pods": "110"}
    assert registry.delete(Node, "", "here").gone
