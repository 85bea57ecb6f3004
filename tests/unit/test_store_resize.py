"""The subresource ``resize`` at the registry: what may change, and what limits and quotas of a namespace say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from podrt.errors import ForbiddenError, InvalidError
from podrt.model.container import Container, ContainerResizePolicy, ResourceRequirements
from podrt.model.meta import ObjectMeta
from podrt.model.pod import Pod, PodSpec
from podrt.model.policy import LimitRange, LimitRangeItem, LimitRangeSpec, ResourceQuota, ResourceQuotaSpec
from podrt.store.objects import Registry
from podrt.store.store import Store

Amounts = dict[str, str]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    store = Store(tmp_path / "store.db")
    yield Registry(store)
    store.close()


def one(requests: Amounts, limits: Amounts | None = None, **fields: Any) -> Container:
    fields.setdefault("name", "c")
    return Container(image="i:1", resources=ResourceRequirements(requests=requests, limits=limits or {}), **fields)


def pod(*containers: Container, init: tuple[Container, ...] = (), **spec: Any) -> Pod:
    return Pod(
        metadata=ObjectMeta(name="p", namespace="default"),
        spec=PodSpec(containers=containers, init_containers=init, **spec),
    )


CPU = {"cpu": "100m"}


def test_only_resources_and_policies_count(registry: Registry) -> None:
    old = registry.create(pod(one(CPU)))
    policy = (ContainerResizePolicy(resource_name="cpu", restart_policy="NotRequired"),)
    sent = pod(one({"cpu": "200m"}, image_pull_policy="Never", resize_policy=policy), hostname="other")
    sent = replace(sent, metadata=replace(sent.metadata, labels={"a": "b"}))
    new = registry.resize(sent)
    container = new.spec.containers[0]
    assert (container.resources.requests, container.resize_policy) == ({"cpu": "200m"}, policy)
    assert container.image_pull_policy == old.spec.containers[0].image_pull_policy
    assert (new.spec.hostname, new.metadata.labels) == ("", {})
    assert new.metadata.generation == old.metadata.generation + 1
    assert registry.resize(new).metadata.resource_version == new.metadata.resource_version


SIDECAR: dict[str, Any] = {"name": "s", "restart_policy": "Always"}
STEP: dict[str, Any] = {"name": "s"}


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        (pod(one(CPU)), pod(one({})), "spec.containers[0].resources.requests"),
        (pod(one(CPU, CPU)), pod(one(CPU)), "spec.containers[0].resources.limits"),
        (pod(one(CPU)), pod(one(CPU | {"ephemeral-storage": "1Mi"})), "spec.containers[0].resources.requests"),
        (pod(one({})), pod(one(CPU)), "spec"),
        (pod(one(CPU)), pod(one({"cpu": "2"}, {"cpu": "1"})), "spec.containers[0].resources.requests"),
        (
            pod(one(CPU), init=(one(CPU, **STEP),)),
            pod(one(CPU), init=(one({"cpu": "1"}, **STEP),)),
            "spec.initContainers[0].resources",
        ),
        (pod(one(CPU), init=(one(CPU, **SIDECAR),)), pod(one(CPU), init=(one({"cpu": "1"}, **SIDECAR),)), ""),
        (
            pod(one(CPU), resources=ResourceRequirements(limits={"cpu": "1"})),
            pod(one({"cpu": "200m"})),
            "spec.resources",
        ),
    ],
)
def test_what_may_change(registry: Registry, old: Pod, new: Pod, field: str) -> None:
    registry.create(old)
    if not field:
        registry.resize(new)
        return
    with pytest.raises(InvalidError) as refused:
        registry.resize(new)
    assert field in {cause.field for cause in refused.value.causes}


def test_the_class_stays_guaranteed(registry: Registry) -> None:
    whole = {"cpu": "1", "memory": "1Gi"}
    registry.create(pod(one(whole, whole)))
    more = whole | {"cpu": "2"}
    with pytest.raises(InvalidError, match="Pod QOS Class may not change"):
        registry.resize(pod(one(whole, more)))
    registry.resize(pod(one(more, more)))


def test_limits_and_quota_of_the_namespace(registry: Registry) -> None:
    item = LimitRangeItem(type="Container", max={"cpu": "4"})
    registry.create(LimitRange(metadata=ObjectMeta(name="l"), spec=LimitRangeSpec(limits=(item,))))
    registry.create(ResourceQuota(metadata=ObjectMeta(name="q"), spec=ResourceQuotaSpec(hard={"requests.cpu": "2"})))
    registry.create(pod(one({"cpu": "1"}, {"cpu": "3"})))
    with pytest.raises(ForbiddenError, match="maximum cpu usage per Container is 4, but limit is 5"):
        registry.resize(pod(one({"cpu": "1"}, {"cpu": "5"})))
    with pytest.raises(ForbiddenError, match=r"exceeded quota: q, requested: requests.cpu=2500m"):
        registry.resize(pod(one({"cpu": "2500m"}, {"cpu": "3"})))
    registry.resize(pod(one({"cpu": "2"}, {"cpu": "3"})))
    assert registry.store.get(ResourceQuota, "default", "q").status.used == {"requests.cpu": "2"}
    registry.resize(pod(one({"cpu": "500m"}, {"cpu": "3"})))
    assert registry.store.get(ResourceQuota, "default", "q").status.used == {"requests.cpu": "500m"}
