"""PriorityClass and RuntimeClass: the objects, and what a new Pod gets of the classes that it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from podrt.api.table import table
from podrt.errors import ForbiddenError, InvalidError
from podrt.model import defaults
from podrt.model.classes import Overhead, PriorityClass, RuntimeClass, Scheduling
from podrt.model.container import Container
from podrt.model.meta import ObjectMeta
from podrt.model.pod import Pod, PodSpec
from podrt.model.resources import pod_requests
from podrt.model.scheduling import Toleration
from podrt.store.objects import Registry
from podrt.store.store import Store


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    store = Store(tmp_path / "store.db")
    yield Registry(store)
    store.close()


def pod(name: str = "p", **spec: Any) -> Pod:
    one = Container(name="c", image="i:1")
    return Pod(metadata=ObjectMeta(name=name, namespace="default"), spec=PodSpec(containers=(one,), **spec))


def priority_class(registry: Registry, name: str, value: int, **more: Any) -> PriorityClass:
    return registry.create(PriorityClass(metadata=ObjectMeta(name=name), value=value, **more))


def runtime_class(registry: Registry, name: str, handler: str = "podrt", **more: Any) -> RuntimeClass:
    return registry.create(RuntimeClass(metadata=ObjectMeta(name=name), handler=handler, **more))


def refused(registry: Registry, obj: Any) -> str:
    with pytest.raises(ForbiddenError) as caught:
        registry.create(obj)
    return str(caught.value)


# Priorities


@pytest.mark.fields("spec.priorityClassName", "spec.priority", "spec.preemptionPolicy")
def test_a_class_gives_priority_and_policy(registry: Registry) -> None:
    priority_class(registry, "batch", -5, preemption_policy="Never")
    made = registry.create(pod(priority_class_name="batch")).spec
    assert (made.priority, made.preemption_policy) == (-5, "Never")
    plain = registry.create(pod("plain")).spec
    assert (plain.priority, plain.preemption_policy, plain.priority_class_name) == (0, "PreemptLowerPriority", "")


@pytest.mark.parametrize(
    ("name", "priority"), [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)]
)
def test_built_in_priority_classes(registry: Registry, name: str, priority: int) -> None:
    assert registry.create(pod(priority_class_name=name)).spec.priority == priority
    with pytest.raises(ForbiddenError, match="this is a system priority class and cannot be deleted"):
        registry.delete(PriorityClass, "", name)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"priority_class_name": "none"}, 'pods "p" is forbidden: no PriorityClass with name none was found'),
        ({"priority": 7}, "the integer value of priority (7) must not be provided in pod spec"),
        ({"priority_class_name": "high", "priority": 7}, "controller computed 100 from the given PriorityClass name"),
        ({"preemption_policy": "Never"}, "the string value of PreemptionPolicy (Never) must not be provided"),
    ],
)
def test_what_a_pod_may_not_say_of_its_priority(registry: Registry, spec: dict[str, Any], why: str) -> None:
    priority_class(registry, "high", 100)
    assert why in refused(registry, pod(**spec))
    registry.create(pod("same", priority_class_name="high", priority=100))


def test_the_default_class(registry: Registry) -> None:
    priority_class(registry, "normal", 10, global_default=True)
    made = registry.create(pod()).spec
    assert (made.priority, made.priority_class_name) == (10, "normal")
    why = "PriorityClass normal is already marked as default. Only one default can exist"
    assert why in refused(registry, PriorityClass(metadata=ObjectMeta(name="b"), value=1, global_default=True))
    other = priority_class(registry, "other", 1)
    with pytest.raises(ForbiddenError, match="already marked as default"):
        registry.update(replace(other, global_default=True))


def test_a_pod_keeps_its_priority(registry: Registry) -> None:
    """The class goes and the Pod is sent again without what it was given, as `replace -f` does."""
    priority_class(registry, "high", 100)
    made = registry.create(pod(priority_class_name="high"))
    registry.delete(PriorityClass, "", "high")
    again = replace(made, spec=replace(made.spec, priority=None, preemption_policy=None))
    assert registry.update(again).spec.priority == 100


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (PriorityClass(metadata=ObjectMeta(name="system-mine"), value=1), "metadata.name"),
        (PriorityClass(metadata=ObjectMeta(name="big"), value=1_000_000_001), "value"),
        (PriorityClass(metadata=ObjectMeta(name="odd"), value=1, preemption_policy="Always"), "preemptionPolicy"),
        (RuntimeClass(metadata=ObjectMeta(name="r"), handler="A b"), "handler"),
        (
            RuntimeClass(metadata=ObjectMeta(name="r"), handler="a", overhead=Overhead(pod_fixed={"cpu": "-1"})),
            "overhead.podFixed.cpu",
        ),
    ],
)
def test_classes_that_are_wrong(registry: Registry, value: Any, field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        registry.create(value)
    assert {cause.field for cause in caught.value.causes} & {field, field.replace(".cpu", "[cpu]")}


def test_what_of_a_class_never_changes(registry: Registry) -> None:
    one = priority_class(registry, "high", 100)
    for changed in (replace(one, value=1), replace(one, preemption_policy="Never")):
        with pytest.raises(InvalidError):
            registry.update(changed)
    assert registry.update(replace(one, description="now told")).description == "now told"
    two = registry.store.get(RuntimeClass, "", "podrt")
    with pytest.raises(InvalidError, match="field is immutable"):
        registry.update(replace(two, handler="other"))


def test_how_classes_are_listed(registry: Registry) -> None:
    shown = table("priorityclasses", registry.store.list(PriorityClass).items)
    assert [row["cells"][:3] for row in shown["rows"]] == [
        ["system-cluster-critical", 2_000_000_000, "false"],
        ["system-node-critical", 2_000_001_000, "false"],
    ]
    shown = table("runtimeclasses", registry.store.list(RuntimeClass).items)
    assert [row["cells"][:2] for row in shown["rows"]] == [["podrt", "podrt"], ["podrt-userns", "podrt-userns"]]


def test_a_template_says_nothing_of_priority() -> None:
    """Or the number in it would be refused in each Pod that is made of it."""
    spec = defaults.pod_spec(pod(priority_class_name="high").spec)
    assert (spec.priority, spec.preemption_policy) == (None, None)


# Runtimes


def test_a_runtime_class_has_to_be_there(registry: Registry) -> None:
    assert 'pod rejected: RuntimeClass "kata" not found' in refused(registry, pod(runtime_class_name="kata"))
    registry.create(pod(runtime_class_name="podrt"))


@pytest.mark.fields("spec.overhead", "spec.runtimeClassName")
def test_overhead_of_a_class_is_asked_for_too(registry: Registry) -> None:
    runtime_class(registry, "heavy", overhead=Overhead(pod_fixed={"cpu": "250m", "memory": "64Mi"}))
    made = registry.create(pod(runtime_class_name="heavy")).spec
    assert made.overhead == {"cpu": "250m", "memory": "64Mi"}
    assert str(pod_requests(made)["cpu"]) == "250m"
    registry.create(pod("same", runtime_class_name="heavy", overhead={"cpu": "0.25", "memory": "64Mi"}))
    text = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
    assert text in refused(registry, pod("other", runtime_class_name="heavy", overhead={"cpu": "1"}))


@pytest.mark.parametrize("name", [None, "podrt"])
def test_overhead_is_the_classs_to_give(registry: Registry, name: str | None) -> None:
    text = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
    assert text in refused(registry, pod(runtime_class_name=name, overhead={"cpu": "1"}))


def test_where_a_runtime_class_places(registry: Registry) -> None:
    toleration = Toleration(key="special", operator="Exists")
    scheduling = Scheduling(node_selector={"disk": "fast"}, tolerations=(toleration,))
    runtime_class(registry, "special", scheduling=scheduling)
    made = registry.create(pod(runtime_class_name="special", node_selector={"zone": "a"})).spec
    assert made.node_selector == {"disk": "fast", "zone": "a"} and toleration in made.tolerations
    text = refused(registry, pod("other", runtime_class_name="special", node_selector={"disk": "slow"}))
    assert "conflict: runtimeClass.scheduling.nodeSelector[disk] = fast; pod.spec.nodeSelector[disk] = slow" in text


@pytest.mark.fields("spec.runtimeClassName", "spec.hostUsers")
def test_a_handler_that_gives_a_user_namespace(registry: Registry) -> None:
    assert registry.create(pod(runtime_class_name="podrt-userns")).spec.host_users is False
    text = refused(registry, pod("other", runtime_class_name="podrt-userns", host_users=True))
    assert "hostUsers must not be true" in text


def test_deleted_classes_stay_away_while_there_are_others(registry: Registry) -> None:
    registry.delete(RuntimeClass, "", "podrt-userns")
    Registry(registry.store)
    assert [one.metadata.name for one in registry.store.list(RuntimeClass).items] == ["podrt"]
