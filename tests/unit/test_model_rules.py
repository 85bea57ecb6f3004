"""Defaults, validation of good Pods and of updates, the table of support, QoS."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from podrt.errors import Cause
from podrt.model import codec, defaults, support, validation
from podrt.model.base import Struct
from podrt.model.container import Container, EphemeralContainer, Lifecycle, Probe
from podrt.model.event import Event, ObjectReference
from podrt.model.meta import DeleteOptions, ObjectMeta
from podrt.model.namespace import Namespace
from podrt.model.node import Node
from podrt.model.pod import Pod, PodSpec
from podrt.model.resources import pod_limits, pod_requests, qos_class
from podrt.model.security import PodSecurityContext, SecurityContext
from podrt.model.volume import LIVE_SOURCES, REMOVED_SOURCES, Volume
from tests.framework.malformed import GOOD


def load(**spec: Any) -> Pod:
    """A Pod with its defaults, in namespace default."""
    document = json.loads(json.dumps(GOOD))
    document["metadata"]["namespace"] = "default"
    document["spec"].update(spec)
    obj = codec.decode_document(document).object
    assert isinstance(obj, Pod)
    return defaults.pod(obj)


def container(**fields: Any) -> dict[str, Any]:
    return {"name": "c", "image": "busybox", **fields}


# Defaults


def test_defaults_of_a_pod() -> None:
    spec = load(containers=[container(ports=[{"containerPort": 80}])], volumes=[{"name": "v"}]).spec
    assert spec.restart_policy == "Always"
    assert spec.dns_policy == "ClusterFirst"
    assert spec.scheduler_name == "default-scheduler"
    assert spec.security_context == PodSecurityContext()
    assert spec.enable_service_links is True
    assert spec.volumes[0].empty_dir is not None
    (first,) = spec.containers
    assert first.ports[0].protocol == "TCP"
    assert first.termination_message_path == "/dev/termination-log"
    assert first.termination_message_policy == "File"


def test_defaults_are_stable_and_keep_zeros() -> None:
    pod = load(terminationGracePeriodSeconds=0, enableServiceLinks=False)
    assert defaults.pod(pod) == pod
    assert pod.spec.termination_grace_period_seconds == 0
    assert pod.spec.enable_service_links is False


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.2", "IfNotPresent"),
        ("host:5000/nginx", "Always"),
        ("host:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:" + "0" * 64, "IfNotPresent"),
        ("nginx:latest@sha256:" + "0" * 64, "IfNotPresent"),
    ],
)
def test_pull_policy_by_tag(image: str, policy: str) -> None:
    assert defaults.pull_policy(image) == policy


def test_requests_from_limits_and_ports_of_the_host() -> None:
    pod = load(
        hostNetwork=True,
        containers=[
            container(ports=[{"containerPort": 80}], resources={"limits": {"cpu": 1}, "requests": {"memory": 1}})
        ],
    )
    (first,) = pod.spec.containers
    assert first.resources.requests == {"cpu": "1", "memory": "1"}
    assert first.ports[0].host_port == 80


def test_probe_and_source_defaults() -> None:
    pod = load(
        containers=[
            container(
                livenessProbe={"httpGet": {"port": 80}},
                readinessProbe={"grpc": {"port": 80}},
                env=[
                    {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                ],
            )
        ],
        volumes=[{"name": "s", "secret": {"secretName": "x"}}, {"name": "h", "hostPath": {"path": "/"}}],
    )
    (first,) = pod.spec.containers
    liveness, readiness = first.liveness_probe, first.readiness_probe
    assert liveness is not None and readiness is not None
    assert (liveness.period_seconds, liveness.timeout_seconds) == (10, 1)
    assert (liveness.success_threshold, liveness.failure_threshold) == (1, 3)
    assert liveness.http_get is not None and liveness.http_get.path == "/" and liveness.http_get.scheme == "HTTP"
    assert readiness.grpc is not None and readiness.grpc.service == ""
    assert msgspec.json.encode(first.env[0]) == (
        b'{"name":"A","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"status.podIP"}}}'
    )
    assert b'"divisor":"0"' in msgspec.json.encode(first.env[1])
    assert pod.spec.volumes[0].secret is not None and pod.spec.volumes[0].secret.default_mode == 0o644
    assert pod.spec.volumes[1].host_path is not None and pod.spec.volumes[1].host_path.type == ""


def test_new_metadata() -> None:
    sent = ObjectMeta(generate_name="a" * 70 + "-", deletion_grace_period_seconds=3, generation=9)
    metadata = defaults.new_metadata(sent)
    assert re.fullmatch(r"a{58}[bcdfghjklmnpqrstvwxz2456789]{5}", metadata.name)
    assert metadata.generation == 1
    assert metadata.deletion_grace_period_seconds is None
    assert re.fullmatch(r"[0-9a-f-]{36}", metadata.uid)
    assert metadata.creation_timestamp and metadata.creation_timestamp.endswith("Z")
    assert defaults.new_metadata(ObjectMeta(name="x", generate_name="y")).name == "x"


# Validation


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"hostNetwork": True, "hostPID": True, "hostIPC": True},
        {"hostUsers": False},
        {"hostname": "a", "subdomain": "b", "hostAliases": [{"ip": "::1", "hostnames": ["a.b", "c"]}]},
        {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1", "::1"], "searches": ["a.b.", ".", "_x.y"]}},
        {"dnsConfig": {"options": [{"name": "ndots", "value": "5"}, {"name": "edns0"}]}},
        {"tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoSchedule"}]},
        {"nodeSelector": {"kubernetes.io/os": "linux"}, "affinity": {}, "priorityClassName": "high"},
        {"os": {"name": "linux"}, "shareProcessNamespace": True},
        {"securityContext": {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]}},
        {"securityContext": {"sysctls": [{"name": "kernel/shmmax", "value": "1"}], "supplementalGroups": [0, 5]}},
        {"securityContext": {"runAsNonRoot": True, "runAsUser": 5, "seccompProfile": {"type": "Unconfined"}}},
        {"activeDeadlineSeconds": 5, "terminationGracePeriodSeconds": 0},
        {"containers": [container(ports=[{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}])]},
        {"containers": [container(ports=[{"containerPort": 1, "hostPort": 9, "hostIP": "127.0.0.1"}])]},
        {"containers": [container(env=[{"name": "a.b-c", "value": "$(A)\n"}, {"name": "1"}])]},
        {
            "containers": [
                container(env=[{"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}])
            ]
        },
        {"containers": [container(resources={"limits": {"example.com/gpu": 1, "ephemeral-storage": "1Gi"}})]},
        {"containers": [container(securityContext={"capabilities": {"add": ["ALL"], "drop": ["CAP_NET_RAW"]}})]},
        {"containers": [container(securityContext={"privileged": True, "runAsUser": 0})]},
        {"containers": [container(tty=True, stdin=True, stdinOnce=True, workingDir="/tmp")]},
        {"volumes": [{"name": "data", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]},
        {"volumes": [{"name": "data", "hostPath": {"path": "/", "type": "DirectoryOrCreate"}}]},
    ],
)
def test_good_pods_are_accepted(spec: dict[str, Any]) -> None:
    pod = load(**spec)
    assert validation.validate(pod) == []
    assert support.unsupported(pod.spec) == []


def fields(causes: list[Cause]) -> set[tuple[str, str]]:
    return {(cause.field, cause.reason) for cause in causes}


UPDATES: list[tuple[dict[str, Any], dict[str, Any], set[tuple[str, str]]]] = [
    ({}, {}, set()),
    ({}, {"activeDeadlineSeconds": 5}, set()),
    ({"activeDeadlineSeconds": 5}, {"activeDeadlineSeconds": 4}, set()),
    (
        {"activeDeadlineSeconds": 5},
        {"activeDeadlineSeconds": 6},
        {("spec.activeDeadlineSeconds", "FieldValueInvalid")},
    ),
    ({"activeDeadlineSeconds": 5}, {}, {("spec.activeDeadlineSeconds", "FieldValueInvalid")}),
    ({}, {"tolerations": [{"operator": "Exists"}]}, set()),
    ({"tolerations": [{"operator": "Exists"}]}, {}, {("spec.tolerations", "FieldValueForbidden")}),
    ({"schedulingGates": [{"name": "a"}]}, {}, set()),
    ({}, {"schedulingGates": [{"name": "a"}]}, {("spec.schedulingGates", "FieldValueForbidden")}),
    ({}, {"hostname": "x"}, {("spec.hostname", "FieldValueForbidden")}),
    ({}, {"nodeName": "x"}, {("spec.nodeName", "FieldValueForbidden")}),
    ({}, {"terminationGracePeriodSeconds": 7}, {("spec.terminationGracePeriodSeconds", "FieldValueForbidden")}),
    ({}, {"containers": [container()]}, {("spec.containers", "FieldValueForbidden")}),
    ({"containers": [container()]}, {"containers": [container(image="other")]}, set()),
    (
        {"containers": [container()]},
        {"containers": [container(command=["x"], tty=True)]},
        {("spec.containers[0].command", "FieldValueForbidden"), ("spec.containers[0].tty", "FieldValueForbidden")},
    ),
    (
        {"containers": [container()]},
        {"containers": [container(image="")]},
        {("spec.containers[0].image", "FieldValueRequired")},
    ),
]


@pytest.mark.parametrize(("before", "after", "expected"), UPDATES)
def test_updates_of_a_live_pod(before: dict[str, Any], after: dict[str, Any], expected: set[tuple[str, str]]) -> None:
    old = load(**({"volumes": []} if "containers" in before else {}), **before)
    new = load(**({"volumes": []} if "containers" in before else {}), **after)
    if "image" in str(expected):
        new = replace(new, spec=replace(new.spec, containers=(replace(old.spec.containers[0], image=""),)))
    elif after.get("containers") and after["containers"][0].get("image") == "other":
        first = replace(old.spec.containers[0], image="other")
        new = replace(new, spec=replace(new.spec, containers=(first,)))
    assert fields(validation.validate_update(new, old)) == expected


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"uid": "x"}, "metadata.uid"),
        ({"creation_timestamp": "2020-01-01T00:00:00Z"}, "metadata.creationTimestamp"),
        ({"namespace": "other"}, "metadata.namespace"),
        ({"finalizers": ("a.b/c",)}, "metadata.finalizers"),
    ],
)
def test_metadata_that_can_not_change(change: dict[str, Any], field: str) -> None:
    old = load()
    old = replace(old, metadata=replace(old.metadata, deletion_timestamp="2020-01-01T00:00:00Z"))
    new = replace(old, metadata=replace(old.metadata, **change))
    assert [cause.field for cause in validation.validate_update(new, old)] == [field]


def test_other_kinds() -> None:
    assert fields(validation.validate(Namespace(metadata=ObjectMeta(name="a.b")))) == {
        ("metadata.name", "FieldValueInvalid")
    }
    assert validation.validate(Node(metadata=ObjectMeta(name="a.b"))) == []
    assert fields(validation.validate(Node(metadata=ObjectMeta(name="a", namespace="b")))) == {
        ("metadata.namespace", "FieldValueForbidden")
    }
    event = Event(metadata=ObjectMeta(name="e", namespace="a"), involved_object=ObjectReference(namespace="b"))
    assert fields(validation.validate(event)) == {("involvedObject.namespace", "FieldValueInvalid")}
    assert fields(validation.validate_delete_options(DeleteOptions(propagation_policy="Now"))) == {
        ("propagationPolicy", "FieldValueNotSupported")
    }


# Support


@pytest.mark.parametrize(
    ("struct", "prefix"),
    [
        (PodSpec, "spec"),
        (PodSecurityContext, "spec.securityContext"),
        (Container, "spec.containers[]"),
        (EphemeralContainer, "spec.containers[]"),
        (SecurityContext, "spec.containers[].securityContext"),
        (Volume, "spec.volumes[]"),
        (Probe, "spec.containers[].livenessProbe"),
        (Lifecycle, "spec.containers[].lifecycle"),
    ],
)
def test_no_field_is_missing_from_the_table(struct: type[Struct], prefix: str) -> None:
    missing = {f"{prefix}.{name}" for name in struct.__struct_encode_fields__} - support.TABLE.keys()
    assert not missing


def test_the_table_names_only_fields_that_exist() -> None:
    known = {name for struct in (PodSpec, Container, SecurityContext) for name in struct.__struct_encode_fields__}
    assert {name.split(".")[1].removesuffix("[]") for name in support.TABLE} <= known
    assert len(LIVE_SOURCES) == 13
    assert len(REMOVED_SOURCES) == 17


def test_what_is_accepted_says_why() -> None:
    silent = [name for name, entry in support.TABLE.items() if entry.state is support.State.ACCEPTED and not entry.note]
    assert not silent


def test_every_refused_field_is_named() -> None:
    pod = load(
        schedulingGroup={"podGroupName": "g"},
        securityContext={
            "fsGroup": 0,
            "seccompProfile": {"type": "Localhost", "localhostProfile": "a"},
            "seLinuxOptions": {"level": "s0"},
        },
    )
    assert {cause.field for cause in support.unsupported(pod.spec)} == {
        "spec.schedulingGroup",
        "spec.securityContext.seLinuxOptions",
    }


# Resources

CPU1 = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ([{}], "BestEffort"),
        ([{"limits": {"example.com/x": "1"}}], "BestEffort"),
        ([{"limits": {"cpu": "0"}}], "BestEffort"),
        ([{"requests": {"cpu": "1"}}], "Burstable"),
        ([{"limits": CPU1}], "Guaranteed"),
        ([{"limits": CPU1, "requests": {"cpu": "1000m", "memory": "1024Mi"}}], "Guaranteed"),
        ([{"limits": CPU1, "requests": {"cpu": "500m"}}], "Burstable"),
        ([{"limits": {"cpu": "1"}}], "Burstable"),
        ([{"limits": CPU1}, {}], "Burstable"),
    ],
)
def test_qos_class(resources: list[dict[str, Any]], expected: str) -> None:
    entries = [container(name=f"c{index}", resources=entry) for index, entry in enumerate(resources)]
    assert qos_class(load(volumes=[], containers=entries).spec) == expected


def test_requests_of_the_whole_pod() -> None:
    spec = load(
        volumes=[],
        containers=[
            container(name="a", resources={"limits": {"cpu": 1}}),
            container(name="b", resources={"requests": {"cpu": "500m"}}),
        ],
        initContainers=[
            container(name="s", restartPolicy="Always", resources={"requests": {"cpu": "250m", "memory": "1Mi"}}),
            container(name="i", resources={"requests": {"cpu": 3}}),
        ],
    ).spec
    assert {name: str(total) for name, total in pod_requests(spec).items()} == {"cpu": "3250m", "memory": "1Mi"}
    assert pod_limits(spec) == {}
