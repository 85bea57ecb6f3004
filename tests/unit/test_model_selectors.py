"""Label and field selectors."""

from __future__ import annotations

import pytest

from podrt.errors import InvalidError, MalformedError
from podrt.model.container import Container
from podrt.model.event import Event, ObjectReference
from podrt.model.kinds import RESOURCES
from podrt.model.meta import LabelSelector, LabelSelectorRequirement, ObjectMeta
from podrt.model.pod import Pod, PodSpec
from podrt.model.selectors import FieldSelection, LabelSelection
from podrt.model.status import PodStatus

LABELS = {"app": "web", "tier": "front", "empty": "", "example.com/gen": "5"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app", True),
        ("!app", False),
        ("gone", False),
        ("!gone", True),
        ("! gone", True),
        ("app=web", True),
        ("app==web", True),
        ("app = web , tier = front", True),
        ("app=api", False),
        ("app!=web", False),
        ("app!=api", True),
        ("gone!=x", True),
        ("empty=", True),
        ("empty=,app=web", True),
        ("app=", False),
        ("app in (web,api)", True),
        ("app in (api)", False),
        ("app notin (api, db)", True),
        ("app notin (web)", False),
        ("gone notin (web)", True),
        ("gone in (web)", False),
        ("empty in (,x)", True),
        ("example.com/gen=5", True),
        ("example.com/gen>4", True),
        ("example.com/gen<5", False),
        ("app>4", False),
        ("app in (web),tier,!gone,example.com/gen>1", True),
    ],
)
def test_label_selectors(text: str, matches: bool) -> None:
    assert LabelSelection.parse(text).matches(LABELS) is matches


@pytest.mark.parametrize(
    "text",
    ["=web", "app=web,", ",app", "app in", "app in web", "app in (web", "app web", "!", "app=we b", "a b", "app=web;x",
     "app=web)", "app>x", "in (a)x", "app=a=b", "/x=1", "app=" + "a" * 64],
)  # fmt: skip
def test_bad_label_selectors_are_named(text: str) -> None:
    with pytest.raises(MalformedError, match="unable to parse label selector") as caught:
        LabelSelection.parse(text)
    assert caught.value.causes[0].field == "labelSelector"


def test_selector_objects() -> None:
    selector = LabelSelector(
        match_labels={"app": "web"},
        match_expressions=(
            LabelSelectorRequirement(key="tier", operator="In", values=("front", "back")),
            LabelSelectorRequirement(key="gone", operator="DoesNotExist"),
            LabelSelectorRequirement(key="app", operator="Exists"),
            LabelSelectorRequirement(key="tier", operator="NotIn", values=("db",)),
        ),
    )
    assert LabelSelection.of(selector).matches(LABELS)
    assert not LabelSelection.of(selector).matches({"app": "web"})
    with pytest.raises(InvalidError, match="Like"):
        LabelSelection.of(LabelSelector(match_expressions=(LabelSelectorRequirement(key="a", operator="Like"),)))


POD = Pod(
    metadata=ObjectMeta(name="a", namespace="n"),
    spec=PodSpec(containers=(Container(name="c"),), node_name="here", restart_policy="Never"),
    status=PodStatus(phase="Running", pod_ip="10.0.0.1"),
)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("metadata.name=a", True),
        ("metadata.name==a,metadata.namespace=n", True),
        ("metadata.name!=a", False),
        ("status.phase=Running,spec.nodeName=here,spec.restartPolicy=Never,status.podIP=10.0.0.1", True),
        ("status.phase!=Running", False),
        ("status.phase=", False),
        (r"metadata.name=a\,b", False),
    ],
)
def test_field_selectors_of_pods(text: str, matches: bool) -> None:
    assert FieldSelection.parse("pods", text).matches(POD) is matches


def test_field_selectors_of_events() -> None:
    event = Event(involved_object=ObjectReference(kind="Pod", name="a", uid="1"), reason="Pulled", type="Normal")
    text = "involvedObject.kind=Pod,involvedObject.name=a,involvedObject.uid=1,reason=Pulled,type=Normal"
    assert FieldSelection.parse("events", text).matches(event)
    assert not FieldSelection.parse("events", "type!=Normal").matches(event)


def test_every_resource_can_be_selected_by_name() -> None:
    for resource in RESOURCES:
        obj = resource.struct(metadata=ObjectMeta(name="a"))
        assert FieldSelection.parse(resource.name, "metadata.name=a").matches(obj)
        assert not FieldSelection.parse(resource.name, "metadata.name=b").matches(obj)


@pytest.mark.parametrize(
    ("resource", "text", "message"),
    [
        ("pods", "spec.image=x", '"spec.image" is not a known field selector'),
        ("nodes", "status.phase=x", "not a known field selector"),
        ("pods", "metadata.name", "not of the form"),
        ("pods", "metadata.name=a=b", "not of the form"),
        ("namespaces", "spec.nodeName=x", "not a known"),
    ],
)
def test_bad_field_selectors_are_named(resource: str, text: str, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        FieldSelection.parse(resource, text)
