"""Decoding: every wrong field named, nulls absent, strictness as asked, round trips."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podrt.errors import MalformedError
from podrt.model import codec
from podrt.model.base import Struct, wire_name
from podrt.model.codec import FieldValidation
from podrt.model.container import Container
from podrt.model.kinds import BY_NAME, RESOURCES
from podrt.model.meta import DeleteOptions, ObjectMeta
from podrt.model.pod import Pod, PodSpec
from podrt.model.security import PodSecurityContext, SecurityContext
from podrt.model.status import ContainerStatus, PodStatus


def pod(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "c", "image": "i"}], **spec},
    }


def decode(document: Any, validation: FieldValidation = FieldValidation.STRICT) -> Pod:
    obj = codec.decode(json.dumps(document), validation).object
    assert isinstance(obj, Pod)
    return obj


@pytest.mark.parametrize(
    ("struct", "count"),
    [
        (PodSpec, 42),
        (Container, 25),
        (SecurityContext, 12),
        (PodSecurityContext, 13),
        (PodStatus, 21),
        (ContainerStatus, 15),
    ],
)
def test_all_fields_of_the_api_are_there(struct: type[Struct], count: int) -> None:
    assert len(struct.__struct_fields__) == count


@pytest.mark.parametrize(
    ("attribute", "name"),
    [
        ("pod_ips", "podIPs"),
        ("host_ipc", "hostIPC"),
        ("set_hostname_as_fqdn", "setHostnameAsFQDN"),
        ("container_id", "containerID"),
        ("api_version", "apiVersion"),
        ("downward_api", "downwardAPI"),
        ("continue_", "continue"),
        ("target_wwns", "targetWWNs"),
        ("fields_v1", "fieldsV1"),
        ("uid", "uid"),
    ],
)
def test_wire_names(attribute: str, name: str) -> None:
    assert wire_name(attribute) == name


def test_all_errors_are_named_at_once() -> None:
    document = pod(hostNetwork="yes", foo=1, containers=[{"name": 5, "image": "i", "imagePolicy": "x"}])
    with pytest.raises(MalformedError) as caught:
        decode(document)
    fields = {cause.field for cause in caught.value.causes}
    assert fields == {"spec.hostNetwork", "spec.foo", "spec.containers[0].name", "spec.containers[0].imagePolicy"}
    for field in fields:
        assert field in str(caught.value)


def test_nulls_are_absent_fields() -> None:
    document = pod(hostNetwork=None, volumes=None, securityContext=None)
    document["metadata"]["creationTimestamp"] = None
    document["metadata"]["labels"] = {"a": None}
    obj = decode(document)
    assert obj.spec == decode(pod()).spec
    assert obj.metadata.labels == {"a": ""}


def test_warn_and_ignore_drop_and_strict_refuses() -> None:
    data = b"""
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
     "spec": {"image": "x", "containers": [{"name": "c", "image": "i", "image": "j"}]}}"""
    warned = codec.decode(data, FieldValidation.WARN)
    assert isinstance(warned.object, Pod)
    assert warned.object.spec.containers[0].image == "j"
    assert warned.warnings == (
        'unknown field "spec.image" (did you mean "spec.containers[0].image"?)',
        'duplicate field "spec.containers[0].image"',
    )
    assert codec.decode(data, FieldValidation.IGNORE) == (warned.object, ())
    with pytest.raises(MalformedError, match=r"strict decoding error: unknown field.*duplicate field"):
        codec.decode(data)


def test_wrong_types_are_errors_under_ignore_too() -> None:
    with pytest.raises(MalformedError, match=re.escape("spec.containers[0].tty")):
        decode(pod(containers=[{"name": "c", "tty": "true"}]), FieldValidation.IGNORE)


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ({"image": "x"}, "spec.containers[0].image"),
        ({"restartpolicy": "Never"}, "restartPolicy"),
        ({"restart_policy": "Never"}, "restartPolicy"),
        ({"volume": []}, "volumes"),
        ({"privileged": True}, "spec.containers[0].securityContext.privileged"),
        ({"containers": [{}, {"fsGroup": 1}]}, "spec.securityContext.fsGroup"),
        ({"containers": [{}, {"privileged": True}]}, "spec.containers[1].securityContext.privileged"),
        ({"containers": [{}, {"restartpolicy": "Never"}]}, "restartPolicy"),
        ({"containers": [{"resources": {"cpu": "1"}}]}, "limits.cpu"),
    ],
)
def test_hints_for_misplaced_fields(spec: dict[str, Any], hint: str) -> None:
    with pytest.raises(MalformedError, match=re.escape(f'did you mean "{hint}"?')):
        decode(pod(**spec))


def test_numbers_become_canonical_quantities_and_times_whole_seconds() -> None:
    document = pod(containers=[{"name": "c", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi", "x/y": 3}}}])
    document["metadata"]["creationTimestamp"] = "2026-01-02T03:04:05.678+02:00"
    obj = decode(document)
    assert obj.spec.containers[0].resources.limits == {"cpu": "500m", "memory": "1Gi", "x/y": "3"}
    assert obj.metadata.creation_timestamp == "2026-01-02T01:04:05Z"


def test_yaml_says_what_json_says() -> None:
    text = b"""
apiVersion: v1
kind: Pod
metadata:
  name: a
  labels: {1: "x", yes: "y"}
  annotations: {day: 2026-01-02, version: "1.0"}
spec:
  hostNetwork: yes
  containers: [{name: c, image: i}]
"""
    obj = codec.decode(text, content_type="application/yaml").object
    assert obj.metadata.labels == {"1": "x", "true": "y"}
    assert obj.metadata.annotations == {"day": "2026-01-02", "version": "1.0"}
    assert isinstance(obj, Pod)
    assert obj.spec.host_network


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: [", "not valid YAML"),
        (b"a: 1\n---\nb: 2", "2"),
        (b"", "got 0"),
        (b"[1]: 2", "key must be text"),
        (b"!!python/object:os.system x", "not valid YAML"),
        (b"kind: Pod\napiVersion: v1\nkind: Pod\nspec: {}", 'duplicate field "kind"'),
        (b"\xff", "UTF-8"),
        (b"a: \x00", "not valid YAML"),
    ],
)
def test_bad_yaml(text: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        codec.decode(text, content_type="application/yaml")


def test_a_bomb_of_aliases_is_refused_quickly() -> None:
    lines = ["a0: &a0 {managedFields: [x]}"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    text = "\n".join(lines) + "\napiVersion: v1\nkind: Pod\nmetadata: {managedFields: [{fieldsV1: {f: *a8}}]}\n"
    with pytest.raises(MalformedError, match="too many values"):
        codec.decode(text.encode(), content_type="application/yaml")


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "apiVersion"),
        ({"apiVersion": "v1"}, "kind"),
        ({"apiVersion": "v1", "kind": "Nope"}, "kind"),
        ({"apiVersion": "apps/v1", "kind": "Pod"}, "kind"),
    ],
)
def test_kinds_that_are_not_there(document: dict[str, Any], field: str) -> None:
    with pytest.raises(MalformedError) as caught:
        codec.decode_document(document)
    assert caught.value.causes[0].field == field


def test_the_kind_of_the_request_fills_in_and_is_checked() -> None:
    document = {"metadata": {"name": "a"}}
    assert codec.decode_document(dict(document), expected=BY_NAME["pods"]).object.kind == "Pod"
    with pytest.raises(MalformedError, match="does not match"):
        codec.decode_document({**document, "kind": "Node"}, expected=BY_NAME["pods"])


def test_names_from_outside_can_not_break_a_header_or_flood_it() -> None:
    document = pod(**{"a\r\nSet-Cookie: x": 1, "\ud800": 2, **{f"x{number}": 1 for number in range(5000)}})
    warnings = codec.decode(json.dumps(document), FieldValidation.WARN).warnings
    assert warnings[0] == 'unknown field "spec.a\\r\\nSet-Cookie: x"'
    assert len(warnings) == 51
    assert warnings[-1] == "and 4952 more unknown or duplicate fields"
    assert all(text.isprintable() for text in warnings)


def test_options_and_other_structs_decode_the_same_way() -> None:
    options, _ = codec.convert(DeleteOptions, {"kind": "DeleteOptions", "gracePeriodSeconds": 5})
    assert options.grace_period_seconds == 5
    with pytest.raises(MalformedError, match="gracePeriodSecond"):
        codec.convert(DeleteOptions, {"gracePeriodSecond": 5})


def test_what_clients_need_is_encoded_even_when_zero() -> None:
    status = msgspec.json.decode(codec.encode(ContainerStatus(name="c")))
    assert status == {
        "name": "c",
        "state": {},
        "lastState": {},
        "ready": False,
        "restartCount": 0,
        "image": "",
        "imageID": "",
    }
    assert codec.to_document(Pod(metadata=ObjectMeta(name="a"))) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {"containers": []},
        "status": {},
    }


def test_structs_can_not_be_changed() -> None:
    with pytest.raises(AttributeError):
        Pod().metadata.name = "x"  # type: ignore[misc]


def test_every_kind_has_a_checker_and_a_list() -> None:
    for resource in RESOURCES:
        document = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": "a"}}
        obj = codec.decode_document(document).object
        version = {"resourceVersion": "7"}
        head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": version}
        listed = msgspec.json.decode(msgspec.json.encode(head | {"items": [obj]}), type=resource.list_struct)
        assert listed.items == (obj,)
        assert listed.metadata.resource_version == "7"


NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)
CONTAINERS = st.fixed_dictionaries(
    {"name": NAMES},
    optional={
        "image": st.text(max_size=10).filter(lambda text: text.isprintable()),
        "command": st.lists(st.text(max_size=5, alphabet=st.characters(codec="utf-8")), min_size=1, max_size=3),
        "tty": st.just(True),
        "env": st.lists(st.fixed_dictionaries({"name": NAMES}, optional={"value": NAMES}), min_size=1, max_size=3),
        "ports": st.lists(st.fixed_dictionaries({"containerPort": st.integers(1, 65535)}), min_size=1, max_size=2),
        "securityContext": st.fixed_dictionaries(
            {}, optional={"runAsUser": st.integers(0, 2**31), "privileged": st.booleans()}
        ),
        "livenessProbe": st.fixed_dictionaries({"httpGet": st.fixed_dictionaries({"port": st.integers(1, 9) | NAMES})}),
    },
)


@given(st.lists(CONTAINERS, max_size=3), st.dictionaries(NAMES, NAMES, max_size=3))
def test_what_is_decoded_encodes_to_the_same(containers: list[dict[str, Any]], labels: dict[str, str]) -> None:
    document = pod(containers=containers)
    document["metadata"]["labels"] = labels
    obj = decode(document)
    again = msgspec.json.decode(codec.encode(obj), type=Pod)
    assert again == obj
    assert decode(codec.to_document(obj)) == obj


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
PLACES = ["metadata", "spec", "containers", "name", "env", "ports", "volumes", "labels", "status", "kind"]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(PLACES) | ANY_TEXT,
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON_VALUES, st.sampled_from(FieldValidation))
def test_any_document_is_an_object_or_malformed(value: Any, validation: FieldValidation) -> None:
    """Nothing from outside raises anything else, whatever it is."""
    try:
        obj = codec.decode_document(value, validation, BY_NAME["pods"]).object
    except MalformedError as error:
        # What can't be encoded couldn't be answered either.
        json.dumps([str(error), error.causes], ensure_ascii=False).encode()
        return
    assert isinstance(obj, Pod)
    codec.encode(obj)
