"""LimitRange and ResourceQuota at admission: defaults, refusals in Kubernetes' words, and what is used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from podrt.errors import ForbiddenError
from podrt.model.classes import PriorityClass
from podrt.model.configuration import ConfigMap, ServiceAccount
from podrt.model.container import Container, ResourceRequirements
from podrt.model.meta import ObjectMeta
from podrt.model.pod import Pod, PodSpec
from podrt.model.policy import (
    LimitRange,
    LimitRangeItem,
    LimitRangeSpec,
    ResourceQuota,
    ResourceQuotaSpec,
    ScopedResourceSelectorRequirement,
    ScopeSelector,
)
from podrt.model.storage import PersistentVolumeClaim
from podrt.model.volume import PersistentVolumeClaimSpec, VolumeResourceRequirements
from podrt.store.objects import Registry
from podrt.store.store import Store


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    store = Store(tmp_path / "store.db")
    yield Registry(store)
    store.close()


def pod(
    name: str = "p", requests: dict[str, str] | None = None, limits: dict[str, str] | None = None, **spec: Any
) -> Pod:
    resources = ResourceRequirements(requests=requests or {}, limits=limits or {})
    one = Container(name="c", image="i:1", resources=resources)
    return Pod(metadata=ObjectMeta(name=name, namespace="default"), spec=PodSpec(containers=(one,), **spec))


def limit(registry: Registry, **item: Any) -> None:
    item.setdefault("type", "Container")
    spec = LimitRangeSpec(limits=(LimitRangeItem(**item),))
    registry.create(LimitRange(metadata=ObjectMeta(name=f"l{registry.store.revision}"), spec=spec))


def quota(registry: Registry, hard: dict[str, str], **spec: Any) -> None:
    registry.create(ResourceQuota(metadata=ObjectMeta(name="q"), spec=ResourceQuotaSpec(hard=hard, **spec)))


def used(registry: Registry) -> dict[str, str]:
    return registry.store.get(ResourceQuota, "default", "q").status.used


def refused(registry: Registry, obj: Any) -> str:
    with pytest.raises(ForbiddenError) as caught:
        registry.create(obj)
    return str(caught.value)


def test_defaults_of_containers(registry: Registry) -> None:
    limit(registry, default={"cpu": "500m", "memory": "64Mi"}, default_request={"cpu": "100m"})
    made = registry.create(pod())
    assert made.spec.containers[0].resources.limits == {"cpu": "500m", "memory": "64Mi"}
    assert made.spec.containers[0].resources.requests == {"cpu": "100m", "memory": "64Mi"}
    assert made.status.qos_class == "Burstable"
    note = made.metadata.annotations["kubernetes.io/limit-ranger"]
    assert note == "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c"
    own = registry.create(pod("own", limits={"cpu": "1", "memory": "1Gi"}))
    assert own.spec.containers[0].resources.requests == {"cpu": "1", "memory": "1Gi"}
    assert own.status.qos_class == "Guaranteed" and not own.metadata.annotations


@pytest.mark.parametrize(
    ("item", "requests", "limits", "message"),
    [
        ({"min": {"cpu": "100m"}}, {}, {}, None),
        ({"min": {"cpu": "100m"}}, {"cpu": "50m"}, {}, "minimum cpu usage per Container is 100m, but request is 50m"),
        ({"max": {"cpu": "1"}}, {}, {"cpu": "2"}, "maximum cpu usage per Container is 1, but limit is 2"),
        (
            {"max_limit_request_ratio": {"cpu": "2"}},
            {"cpu": "1"},
            {"cpu": "4"},
            "cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000",
        ),
        (
            {"type": "Pod", "max": {"memory": "1Gi"}},
            {},
            {},
            "maximum memory usage per Pod is 1Gi.  No limit is specified",
        ),
        (
            {"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "500m"}},
            {"cpu": "100m"},
            {"cpu": "2"},
            "[minimum cpu usage per Pod is 500m, but request is 100m, maximum cpu usage per Pod is 1, but limit is 2]",
        ),
    ],
)
def test_limits(registry: Registry, item: Any, requests: Any, limits: Any, message: str | None) -> None:
    limit(registry, **item)
    if message is None:
        registry.create(pod(requests=requests, limits=limits))
    else:
        assert refused(registry, pod(requests=requests, limits=limits)) == f'pods "p" is forbidden: {message}'


def claim(name: str, size: str) -> PersistentVolumeClaim:
    spec = PersistentVolumeClaimSpec(
        access_modes=("ReadWriteOnce",),
        resources=VolumeResourceRequirements(requests={"storage": size}),
        storage_class_name="local",
    )
    return PersistentVolumeClaim(metadata=ObjectMeta(name=name), spec=spec)


def test_limits_and_quota_of_claims(registry: Registry) -> None:
    limit(registry, type="PersistentVolumeClaim", max={"storage": "2Gi"}, min={"storage": "1Mi"})
    text = (
        'persistentvolumeclaims "big" is forbidden: '
        "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"
    )
    assert refused(registry, claim("big", "3Gi")) == text
    quota(registry, {"requests.storage": "3Gi", "local.storageclass.storage.k8s.io/persistentvolumeclaims": "5"})
    registry.create(claim("a", "2Gi"))
    assert "requested: requests.storage=2Gi, used: requests.storage=2Gi, limited: requests.storage=3Gi" in refused(
        registry, claim("b", "2Gi")
    )
    assert used(registry)["local.storageclass.storage.k8s.io/persistentvolumeclaims"] == "1"


def test_a_quota_counts_and_refuses(registry: Registry) -> None:
    quota(registry, {"pods": "2", "requests.cpu": "1", "count/configmaps": "1"})
    assert used(registry) == {"pods": "0", "requests.cpu": "0", "count/configmaps": "0"}
    registry.create(pod("a", {"cpu": "600m"}))
    assert used(registry)["pods"] == "1" and used(registry)["requests.cpu"] == "600m"
    expected = "exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1"
    assert refused(registry, pod("b", {"cpu": "500m"})) == f'pods "b" is forbidden: {expected}'
    assert refused(registry, pod("b")) == 'pods "b" is forbidden: failed quota: q: must specify requests.cpu for: c'
    registry.create(pod("b", {"cpu": "100m"}))
    assert "requested: pods=1, used: pods=2, limited: pods=2" in refused(registry, pod("c", {"cpu": "1m"}))
    registry.create(ConfigMap(metadata=ObjectMeta(name="one")))
    assert "count/configmaps=1" in refused(registry, ConfigMap(metadata=ObjectMeta(name="two")))
    registry.create(ConfigMap(metadata=ObjectMeta(name="two", namespace="kube-public")))
    registry.create(ServiceAccount(metadata=ObjectMeta(name="uncounted")))


def test_what_has_ended_or_gone_is_given_back(registry: Registry) -> None:
    quota(registry, {"pods": "1", "count/pods": "3"})
    made = registry.create(pod("a"))
    registry.store.update(replace(made, status=replace(made.status, phase="Succeeded")))
    assert used(registry) == {"pods": "0", "count/pods": "1"}
    registry.create(pod("b"))
    registry.delete(Pod, "default", "a")
    assert used(registry) == {"pods": "1", "count/pods": "1"}


@pytest.mark.parametrize(
    ("spec", "counted"),
    [
        ({"scopes": ("BestEffort",)}, {"plain", "deadline"}),
        ({"scopes": ("NotBestEffort",)}, {"cpu"}),
        ({"scopes": ("Terminating", "BestEffort")}, {"deadline"}),
        ({"scopes": ("NotTerminating",)}, {"plain", "cpu"}),
    ],
)
def test_scopes(registry: Registry, spec: dict[str, Any], counted: set[str]) -> None:
    quota(registry, {"pods": "9"}, **spec)
    for one in (pod("plain"), pod("cpu", {"cpu": "1"}), pod("deadline", active_deadline_seconds=9)):
        before = int(used(registry)["pods"])
        registry.create(one)
        assert int(used(registry)["pods"]) - before == int(one.metadata.name in counted), one.metadata.name


@pytest.mark.parametrize(
    ("operator", "values", "counted"),
    [("In", ("high",), 1), ("NotIn", ("high",), 1), ("Exists", (), 1), ("In", ("x",), 0)],
)
def test_scope_of_priority_classes(registry: Registry, operator: str, values: tuple[str, ...], counted: int) -> None:
    term = ScopedResourceSelectorRequirement(scope_name="PriorityClass", operator=operator, values=values)
    quota(registry, {"pods": "9"}, scope_selector=ScopeSelector(match_expressions=(term,)))
    registry.create(PriorityClass(metadata=ObjectMeta(name="high"), value=5))
    registry.create(pod("plain"))
    registry.create(pod("high", priority_class_name="high"))
    assert int(used(registry)["pods"]) == counted


def test_a_dry_run_asks_too(registry: Registry) -> None:
    quota(registry, {"pods": "0"})
    with pytest.raises(ForbiddenError):
        registry.create(pod(), dry_run=True)


def test_every_namespace_has_its_default_account(registry: Registry) -> None:
    for name in ("default", "kube-system"):
        assert registry.store.find(ServiceAccount, name, "default") is not None
    registry.delete(ServiceAccount, "default", "default")
    assert registry.store.find(ServiceAccount, "default", "default") is not None


def test_a_pod_needs_the_account_that_it_names(registry: Registry) -> None:
    text = refused(registry, pod(service_account_name="robot"))
    assert text == (
        'pods "p" is forbidden: error looking up service account default/robot: serviceaccount "robot" not found'
    )
    registry.create(ServiceAccount(metadata=ObjectMeta(name="robot")))
    registry.create(pod(service_account_name="robot"))
