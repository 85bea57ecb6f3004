"""Placement as tables, and the scheduler over a real store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from podrt.errors import ConflictError, InvalidError
from podrt.model.container import Container, ContainerPort, ResourceRequirements
from podrt.model.event import Event, ObjectReference
from podrt.model.meta import LabelSelector, ObjectMeta
from podrt.model.node import Node, NodeSpec, NodeStatus
from podrt.model.pod import Pod, PodSpec
from podrt.model.scheduling import (
    Affinity,
    Binding,
    NodeAffinity,
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    PodAffinity,
    PodAffinityTerm,
    PodSchedulingGate,
    Taint,
    Toleration,
    TopologySpreadConstraint,
)
from podrt.node.placement import ANTI_AFFINITY, EXISTING_ANTI_AFFINITY, PORTS, Space, demand, unfit, victims
from podrt.node.scheduler import Scheduler
from podrt.store.events import EventRecorder
from podrt.store.objects import Registry
from podrt.store.store import Store

HOST = "kubernetes.io/hostname"


def node(taints: tuple[Taint, ...] = (), *, unschedulable: bool = False, **labels: str) -> Node:
    return Node(
        metadata=ObjectMeta(name="n", labels={HOST: "n", **labels}),
        spec=NodeSpec(taints=taints, unschedulable=unschedulable),
        status=NodeStatus(allocatable={"cpu": "2", "memory": "1Gi", "pods": "3"}),
    )


def pod(
    name: str = "p",
    *,
    cpu: str = "",
    memory: str = "",
    port: int = 0,
    ip: str = "",
    labels: dict[str, str] | None = None,
    namespace: str = "default",
    created: str = "2026-01-01T00:00:00Z",
    **spec: Any,
) -> Pod:
    requests = {key: value for key, value in (("cpu", cpu), ("memory", memory)) if value}
    ports = (ContainerPort(container_port=80, host_port=port, host_ip=ip),) if port else ()
    one = Container(name="c", image="i", resources=ResourceRequirements(requests=requests), ports=ports)
    meta = ObjectMeta(name=name, namespace=namespace, uid=name, labels=labels or {}, creation_timestamp=created)
    return Pod(metadata=meta, spec=PodSpec(containers=(one,), **spec))


def space(*pods: Pod) -> Space:
    amounts: dict[str, int] = {}
    for one in pods:
        for name, amount in demand(one).amounts.items():
            amounts[name] = amounts.get(name, 0) + amount
    return Space(amounts, [port for one in pods for port in demand(one).ports], len(pods), pods)


def reasons(one: Pod, *others: Pod, on: Node | None = None) -> list[str]:
    return unfit(one, demand(one), on or node(), space(*others))


@pytest.mark.parametrize(
    ("one", "others", "found"),
    [
        (pod(cpu="2", memory="1Gi"), (), []),
        (pod(cpu="2001m"), (), ["Insufficient cpu"]),
        (pod(cpu="1"), (pod("a", cpu="1500m"),), ["Insufficient cpu"]),
        (pod(cpu="500m"), (pod("a", cpu="1500m"),), []),
        (pod(cpu="3", memory="2Gi"), (), ["Insufficient cpu", "Insufficient memory"]),
        (pod(), (pod("a"), pod("b"), pod("c")), ["Too many pods"]),
        (pod(port=80), (pod("a", port=80),), [PORTS]),
        (pod(port=80), (pod("a", port=81),), []),
        (pod(port=80, ip="127.0.0.1"), (pod("a", port=80),), [PORTS]),
        (pod(port=80, ip="127.0.0.1"), (pod("a", port=80, ip="0.0.0.0"),), [PORTS]),
        (pod(port=80, ip="127.0.0.1"), (pod("a", port=80, ip="192.0.2.1"),), []),
    ],
)
def test_resources(one: Pod, others: tuple[Pod, ...], found: list[str]) -> None:
    assert reasons(one, *others) == found


TAINT = Taint(key="k", value="v", effect="NoSchedule")


@pytest.mark.fields("spec.tolerations")
@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        (None, False),
        (Toleration(key="k", value="v"), True),
        (Toleration(key="k", operator="Equal", value="v", effect="NoSchedule"), True),
        (Toleration(key="k", value="w"), False),
        (Toleration(key="k", operator="Exists"), True),
        (Toleration(operator="Exists"), True),
        (Toleration(key="k", operator="Exists", effect="NoExecute"), False),
        (Toleration(key="other", operator="Exists"), False),
    ],
)
def test_taints(toleration: Toleration | None, fits: bool) -> None:
    one = pod(tolerations=(toleration,) if toleration else ())
    assert reasons(one, on=node((TAINT,))) == ([] if fits else ["node(s) had untolerated taint {k: v}"])
    assert reasons(one, on=node((Taint(key="k", value="v", effect="PreferNoSchedule"),))) == []


def test_a_cordoned_node() -> None:
    cordoned = node(unschedulable=True)
    assert reasons(pod(), on=cordoned) == ["node(s) were unschedulable"]
    tolerant = pod(tolerations=(Toleration(key="node.kubernetes.io/unschedulable", operator="Exists"),))
    assert reasons(tolerant, on=cordoned) == []


def required(*expressions: NodeSelectorRequirement, fields: tuple[NodeSelectorRequirement, ...] = ()) -> Affinity:
    term = NodeSelectorTerm(match_expressions=expressions, match_fields=fields)
    selector = NodeSelector(node_selector_terms=(term,))
    return Affinity(node_affinity=NodeAffinity(required_during_scheduling_ignored_during_execution=selector))


def need(key: str, operator: str, *values: str) -> NodeSelectorRequirement:
    return NodeSelectorRequirement(key=key, operator=operator, values=values)


@pytest.mark.fields("spec.affinity")
@pytest.mark.parametrize(
    ("spec", "fits"),
    [
        ({"node_selector": {"disk": "ssd"}}, True),
        ({"node_selector": {"disk": "hdd"}}, False),
        ({"node_selector": {"none": ""}}, False),
        ({"affinity": required(need("disk", "In", "ssd", "nvme"))}, True),
        ({"affinity": required(need("disk", "NotIn", "ssd"))}, False),
        ({"affinity": required(need("none", "NotIn", "ssd"))}, True),
        ({"affinity": required(need("disk", "Exists"), need("none", "DoesNotExist"))}, True),
        ({"affinity": required(need("none", "Exists"))}, False),
        ({"affinity": required(need("size", "Gt", "7"))}, True),
        ({"affinity": required(need("size", "Lt", "8"))}, False),
        ({"affinity": required(need("disk", "Gt", "8"))}, False),
        ({"affinity": required(fields=(need("metadata.name", "In", "n"),))}, True),
        ({"affinity": required(fields=(need("metadata.name", "In", "m"),))}, False),
        ({"affinity": required()}, False),
    ],
)
def test_node_selection(spec: dict[str, Any], fits: bool) -> None:
    found = reasons(pod(**spec), on=node(disk="ssd", size="8"))
    assert found == ([] if fits else ["node(s) didn't match Pod's node affinity/selector"])


def near(key: str = HOST, **labels: str) -> PodAffinity:
    term = PodAffinityTerm(label_selector=LabelSelector(match_labels=labels), topology_key=key)
    return PodAffinity(required_during_scheduling_ignored_during_execution=(term,))


@pytest.mark.fields("spec.affinity")
def test_pod_affinity() -> None:
    wants = pod(affinity=Affinity(pod_affinity=near(app="db")))
    refused = ["node(s) didn't match pod affinity rules"]
    assert reasons(wants) == refused
    assert reasons(wants, pod("db", labels={"app": "db"})) == []
    assert reasons(wants, pod("db", labels={"app": "db"}, namespace="other")) == refused
    assert reasons(pod(affinity=Affinity(pod_affinity=near(app="db")), labels={"app": "db"})) == []
    assert reasons(pod(affinity=Affinity(pod_affinity=near("zone", app="db")), labels={"app": "db"})) == refused


def test_pod_anti_affinity_both_ways() -> None:
    lonely = pod("lonely", affinity=Affinity(pod_anti_affinity=near(app="web")))
    web = pod("web", labels={"app": "web"})
    assert reasons(lonely, web) == [ANTI_AFFINITY]
    assert reasons(web, lonely) == [EXISTING_ANTI_AFFINITY]
    assert reasons(lonely, pod("other")) == []
    far = pod("far", affinity=Affinity(pod_anti_affinity=near("zone", app="web")))
    assert reasons(far, web) == []


@pytest.mark.fields("spec.topologySpreadConstraints")
@pytest.mark.parametrize(
    ("domains", "key", "others", "fits"),
    [(None, HOST, 2, True), (2, HOST, 0, True), (2, HOST, 1, False), (None, "zone", 0, False)],
)
def test_topology_spread(domains: int | None, key: str, others: int, fits: bool) -> None:
    constraint = TopologySpreadConstraint(
        max_skew=1,
        topology_key=key,
        when_unsatisfiable="DoNotSchedule",
        label_selector=LabelSelector(match_labels={"a": "b"}),
        min_domains=domains,
    )
    one = pod(labels={"a": "b"}, topology_spread_constraints=(constraint,))
    found = reasons(one, *(pod(f"o{index}", labels={"a": "b"}) for index in range(others)))
    assert (found == []) is fits


def chosen(one: Pod, *others: Pod) -> list[str]:
    demands = {other.metadata.uid: demand(other) for other in others}
    return sorted(pod.metadata.name for pod in victims(one, demand(one), node(), space(*others), demands))


@pytest.mark.fields("spec.preemptionPolicy", "spec.priority")
def test_preemption_takes_the_least_important_and_no_more_than_needed() -> None:
    low = pod("low", cpu="1", priority=1)
    high = pod("high", cpu="1", priority=5)
    assert chosen(pod(cpu="1", priority=10), low, high) == ["low"]
    assert chosen(pod(cpu="2", priority=10), low, high) == ["high", "low"]
    assert chosen(pod(cpu="1", priority=3), low, high) == ["low"]
    assert chosen(pod(cpu="1", priority=1), low, high) == []
    assert chosen(pod(cpu="3", priority=10), low, high) == []
    assert chosen(pod(cpu="1", priority=10, preemption_policy="Never"), low, high) == []
    small = pod("small", cpu="100m", priority=1)
    assert chosen(pod(cpu="1500m", priority=10), small, pod("big", cpu="1900m", priority=2)) == ["big"]


# The scheduler


class Harness:
    def __init__(self, path: Path) -> None:
        self.store = Store(path / "store.db")
        self.registry = Registry(self.store)
        self.placed: list[str] = []
        recorder = EventRecorder(self.store, "default-scheduler")
        self.scheduler = Scheduler(self.registry, recorder, "n", self.take)
        self.store.create(node())
        self.store.subscribe(lambda change: self.scheduler.note(change.old, change.new), Pod)  # type: ignore[arg-type]

    def take(self, one: Pod) -> None:
        self.placed.append(one.metadata.name)
        spec = msgspec.structs.replace(one.spec, node_name="n")
        self.store.update(msgspec.structs.replace(one, spec=spec))

    def messages(self) -> list[str]:
        return [event.message for event in self.store.list(Event).items]


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path)
    yield made
    made.store.close()


def test_a_pod_that_does_not_fit_waits_and_starts_as_soon_as_it_fits(harness: Harness) -> None:
    harness.store.create(pod("first", cpu="1500m"))
    harness.store.create(pod("second", cpu="1"))
    assert harness.placed == ["first"]
    waiting = harness.store.get(Pod, "default", "second")
    condition = waiting.status.conditions[0]
    assert (condition.type, condition.status, condition.reason) == ("PodScheduled", "False", "Unschedulable")
    expected = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 "
    assert condition.message == f"{expected}Preemption is not helpful for scheduling."
    assert harness.messages() == [condition.message]
    harness.store.delete(Pod, "default", "first")
    assert harness.placed == ["first", "second"]


def test_a_finished_pod_gives_its_place_back(harness: Harness) -> None:
    harness.store.create(pod("first", cpu="2"))
    harness.store.create(pod("second", cpu="2"))

    def finish(one: Pod) -> Pod:
        return msgspec.structs.replace(one, status=msgspec.structs.replace(one.status, phase="Succeeded"))

    harness.store.modify(Pod, "default", "first", finish)
    assert harness.placed == ["first", "second"]


@pytest.mark.fields("spec.schedulingGates")
def test_gates_hold_a_pod_back(harness: Harness) -> None:
    gated = harness.store.create(pod("gated", scheduling_gates=(PodSchedulingGate(name="x"),)))
    assert harness.placed == []
    assert harness.store.get(Pod, "default", "gated").status.conditions[0].reason == "SchedulingGated"
    assert harness.messages() == []
    spec = msgspec.structs.replace(gated.spec, scheduling_gates=())
    harness.store.modify(Pod, "default", "gated", lambda one: msgspec.structs.replace(one, spec=spec))
    assert harness.placed == ["gated"]


@pytest.mark.fields("spec.schedulerName")
def test_a_pod_of_another_scheduler_waits_until_that_one_binds_it(harness: Harness) -> None:
    made = harness.store.create(pod("foreign", scheduler_name="mine"))
    harness.scheduler.retry()
    assert harness.placed == [] and harness.messages() == []
    assert harness.store.get(Pod, "default", "foreign").status == made.status
    node = Binding(metadata=ObjectMeta(annotations={"by": "mine"}), target=ObjectReference(kind="Node", name="here"))
    bound = harness.registry.bind_as_asked("default", "foreign", node)
    assert bound.spec.node_name == "here" and bound.metadata.annotations == {"by": "mine"}
    assert [(one.type, one.status) for one in bound.status.conditions] == [("PodScheduled", "True")]
    with pytest.raises(ConflictError, match='pod foreign is already assigned to node "here"'):
        harness.registry.bind_as_asked("default", "foreign", node)


@pytest.mark.parametrize(
    ("binding", "error", "words"),
    [
        (Binding(), InvalidError, "target.name: Required value"),
        (Binding(target=ObjectReference(kind="Pod", name="here")), InvalidError, "target.kind: Unsupported value"),
        (Binding(target=ObjectReference(name="here")), ConflictError, "has non-empty .spec.schedulingGates"),
    ],
)
def test_bindings_that_are_refused(harness: Harness, binding: Binding, error: type[Exception], words: str) -> None:
    harness.store.create(pod("gated", scheduling_gates=(PodSchedulingGate(name="x"),)))
    with pytest.raises(error, match=re.escape(words)):
        harness.registry.bind_as_asked("default", "gated", binding)


def test_the_most_important_goes_first(harness: Harness) -> None:
    harness.store.create(pod("first", cpu="2"))
    harness.store.create(pod("low", cpu="2", priority=0))
    harness.store.create(pod("high", cpu="2", priority=0, preemption_policy="Never"))
    harness.store.modify(
        Pod,
        "default",
        "high",
        lambda one: msgspec.structs.replace(one, spec=msgspec.structs.replace(one.spec, priority=9)),
    )
    harness.store.delete(Pod, "default", "first")
    assert harness.placed == ["first", "high"]


@pytest.mark.fields("status.nominatedNodeName")
def test_preemption_deletes_with_grace_and_tells(harness: Harness) -> None:
    harness.store.create(pod("low", cpu="2"))
    harness.store.create(pod("high", cpu="2", priority=5))
    low = harness.store.get(Pod, "default", "low")
    assert low.metadata.deletion_timestamp is not None
    assert any(message.startswith("Preempted by pod") for message in harness.messages())
    assert harness.store.get(Pod, "default", "high").status.nominated_node_name == low.spec.node_name
    assert low.status.nominated_node_name == ""
    harness.registry.finalize_pod("default", "low", low.metadata.uid)
    assert harness.placed == ["low", "high"]
