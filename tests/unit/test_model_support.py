"""The table of support, and the page that is made of it: no field is dropped in silence, each has a test."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from podrt.errors import InvalidError
from podrt.model import codec, defaults, support, validation
from podrt.model.kinds import BY_NAME
from podrt.model.pod import Pod
from podrt.model.resources import pod_requests
from podrt.model.support import TABLE, State
from podrt.model.volume import REMOVED_SOURCES, Volume
from podrt.store.objects import Registry
from podrt.store.store import Store
from tests.framework import fields
from tests.framework.malformed import GOOD

SELINUX = {"level": "s0"}
REMOVED = {
    wire
    for attribute, wire in zip(Volume.__struct_fields__, Volume.__struct_encode_fields__, strict=True)
    if attribute in REMOVED_SOURCES
}
REFUSED: dict[str, Any] = {
    "spec.resourceClaims": [{"name": "c", "resourceClaimName": "x"}],
    "spec.resources": {"limits": {"cpu": "1"}},
    "spec.schedulingGroup": {"podGroupName": "g"},
    "spec.volumes[].projected.sources[].clusterTrustBundle": {"name": "b", "path": "p"},
    "spec.volumes[].projected.sources[].podCertificate": {"signerName": "a/b", "keyType": "ED25519"},
    "spec.volumes[].iscsi": {"targetPortal": "h", "iqn": "iqn.2001-04.com.example:x", "lun": 0},
    "spec.volumes[].fc": {"wwids": ["x"]},
    "spec.containers[].resources.claims": [{"name": "c"}],
    "spec.containers[].resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
    **{f"spec.volumes[].{name}": {"any": "thing"} for name in REMOVED},
}
"""A value of each refused field."""
LABELS: dict[str, Any] = {
    "spec.securityContext.seLinuxOptions": SELINUX,
    "spec.securityContext.seLinuxChangePolicy": "Recursive",
    "spec.containers[].securityContext.seLinuxOptions": SELINUX,
}
ACCEPTED: dict[str, Any] = {
    "spec.enableServiceLinks": False,
}


def document(path: str, value: Any) -> dict[str, Any]:
    """A good Pod with the field set."""
    found: dict[str, Any] = json.loads(json.dumps(GOOD))
    found["metadata"]["namespace"] = "default"
    if path.startswith("spec.volumes[]."):
        found["spec"]["volumes"] = [{"name": "data"}]
    place: Any = found
    *parents, last = path.split(".")
    for step in parents:
        name = step.removesuffix("[]")
        found_there = place.setdefault(name, [{}] if step.endswith("[]") else {})
        place = found_there[0] if step.endswith("[]") else found_there
    place[last] = value
    return found


def decoded(path: str, value: Any) -> Pod:
    obj = codec.decode_document(document(path, value)).object
    assert isinstance(obj, Pod)
    return defaults.pod(obj)


def at(path: str) -> str:
    return path.replace("[]", "[0]")


def states(state: State) -> set[str]:
    return {path for path, entry in TABLE.items() if entry.state is state and ".startupProbe." not in path}


def test_every_refused_field_has_a_value_here() -> None:
    assert REFUSED.keys() - states(State.SUPPORTED) == states(State.REFUSED)
    assert ACCEPTED.keys() - states(State.SUPPORTED) == states(State.ACCEPTED)


@pytest.mark.parametrize("path", [path for path in REFUSED if path in states(State.REFUSED)])
def test_every_refused_field_is_refused_by_name(path: str, tmp_path: Path) -> None:
    pod = decoded(path, REFUSED[path])
    assert at(path) in {cause.field for cause in support.unsupported(pod.spec)}
    body = json.dumps(document(path, REFUSED[path])).encode()
    with contextlib.closing(Store(tmp_path / "store.db")) as store, pytest.raises(InvalidError) as caught:
        Registry(store).create(codec.decode(body, expected=BY_NAME["pods"]).object)
    assert at(path) in str(caught.value)


@pytest.mark.parametrize("path", LABELS)
def test_selinux_is_for_kernels_that_have_it(path: str, tmp_path: Path) -> None:
    pod = decoded(path, LABELS[path])
    assert support.unsupported(pod.spec, selinux=True) == []
    body = json.dumps(document(path, LABELS[path])).encode()
    sent = codec.decode(body, expected=BY_NAME["pods"]).object
    with contextlib.closing(Store(tmp_path / "without.db")) as store, pytest.raises(InvalidError) as caught:
        Registry(store).create(sent)
    assert at(path) in str(caught.value) and "no SELinux" in str(caught.value)
    with contextlib.closing(Store(tmp_path / "with.db")) as store:
        assert Registry(store, selinux=True).create(sent).metadata.uid


@pytest.mark.parametrize("path", [path for path in ACCEPTED if path in states(State.ACCEPTED)])
def test_what_is_accepted_is_kept(path: str) -> None:
    pod = decoded(path, ACCEPTED[path])
    assert validation.validate(pod) == [] and support.unsupported(pod.spec) == []
    stored = json.loads(codec.encode(pod))
    assert stored["spec"][path.partition(".")[2]] == ACCEPTED[path]


@pytest.mark.fields("spec.overhead")
def test_overhead_is_asked_for_too() -> None:
    plain = decoded("spec.containers[].resources", {"requests": {"cpu": "1"}})
    body = document("spec.containers[].resources", {"requests": {"cpu": "1"}})
    body["spec"]["overhead"] = {"cpu": "250m"}
    pod = codec.decode_document(body).object
    assert isinstance(pod, Pod)
    assert str(pod_requests(plain.spec)["cpu"]) == "1"
    assert str(pod_requests(pod.spec)["cpu"]) == "1250m"


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, {"cpu": "250m", "memory": "1Gi"}),
        ({"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}}, {"cpu": "500m"}),
    ],
)
def test_what_a_pod_requests_where_it_has_a_limit(resources: dict[str, Any], expected: dict[str, str]) -> None:
    body = document("spec.resources", resources)
    body["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "250m"}}
    pod = codec.decode_document(body).object
    assert isinstance(pod, Pod)
    filled = defaults.pod(pod).spec.resources
    assert filled is not None and filled.requests == expected


@pytest.mark.fields("spec.os")
def test_only_linux() -> None:
    assert validation.validate(decoded("spec.os", {"name": "linux"})) == []
    assert {cause.field for cause in validation.validate(decoded("spec.os", {"name": "windows"}))} & {
        "spec.os.name",
        "spec.os",
    }


@pytest.mark.fields("spec.securityContext.windowsOptions", "spec.containers[].securityContext.windowsOptions")
@pytest.mark.parametrize("part", ["spec.securityContext", "spec.containers[].securityContext"])
def test_windows_options_are_taken_unless_the_pod_is_for_linux(part: str, tmp_path: Path) -> None:
    path = f"{part}.windowsOptions"
    options = {"runAsUserName": "DOMAIN\\ContainerUser", "gmsaCredentialSpecName": "spec-a"}
    body = document(path, options)
    with contextlib.closing(Store(tmp_path / "store.db")) as store:
        taken = Registry(store).create(codec.decode_document(body).object)
        stored = json.loads(codec.encode(taken))["spec"]
    assert options in (stored["securityContext"].get("windowsOptions"), _own_options(stored))
    body["spec"]["os"] = {"name": "linux"}
    pod = codec.decode_document(body).object
    assert isinstance(pod, Pod)
    assert [(cause.field, cause.reason) for cause in validation.validate(defaults.pod(pod))] == [
        (at(path), "FieldValueForbidden")
    ]


def _own_options(spec: dict[str, Any]) -> Any:
    return spec["containers"][0].get("securityContext", {}).get("windowsOptions")


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("ContainerUser", True),
        ("NT AUTHORITY\\SYSTEM", True),
        ("corp.example.com\\web", True),
        ("", False),
        ("a\\b\\c", False),
        ("\\user", False),
        ("DOMAIN\\", False),
        ("bell\x07", False),
        (". .", False),
        ("a@b", False),
        ("x" * 105, False),
    ],
)
def test_names_of_windows_users(name: str, good: bool) -> None:
    pod = decoded("spec.securityContext.windowsOptions", {"runAsUserName": name})
    fields_named = [cause.field for cause in validation.validate(pod)]
    assert fields_named == ([] if good else ["spec.securityContext.windowsOptions.runAsUserName"])


def test_host_process_is_for_all_containers_and_the_hosts_network() -> None:
    body = document("spec.containers[].securityContext", {"windowsOptions": {"hostProcess": True}})
    pod = codec.decode_document(body).object
    assert isinstance(pod, Pod)
    assert {cause.field for cause in validation.validate(defaults.pod(pod))} == {"spec", "spec.hostNetwork"}


@pytest.mark.fields("spec.serviceAccount", "spec.serviceAccountName")
@pytest.mark.parametrize("name", ["serviceAccount", "serviceAccountName"])
def test_both_names_of_the_service_account(name: str) -> None:
    spec = decoded(f"spec.{name}", "robot").spec
    assert (spec.service_account, spec.service_account_name) == ("robot", "robot")


@pytest.mark.fields("spec.containers[].ports[].protocol")
@pytest.mark.parametrize(("protocol", "refused"), [("TCP", False), ("UDP", False), ("SCTP", True)])
def test_protocols(protocol: str, refused: bool) -> None:
    pod = decoded("spec.containers[].ports", [{"containerPort": 1, "protocol": protocol}])
    assert [cause.field for cause in support.unsupported(pod.spec)] == (
        ["spec.containers[0].ports[0].protocol"] if refused else []
    )


# The page


def test_there_are_176_fields() -> None:
    assert len(fields.rows()) == len(set(fields.rows())) == 176
    assert all(fields.known(path) is not None for path in fields.rows())


def test_markers_name_fields_that_exist() -> None:
    assert [(field, test) for field, test in fields.markers() if fields.known(field) is None] == []


def test_every_supported_field_has_a_test() -> None:
    """Mark one with @pytest.mark.fields("spec...") and run make docs."""
    shown = fields.evidence()
    everything = (*fields.rows(), *fields.below())
    assert [path for path in everything if _supported(path) and path not in shown] == []


def _supported(path: str) -> bool:
    entry = fields.known(path)
    return entry is not None and entry.state is State.SUPPORTED
