"""ConfigMaps, Secrets, claims, volumes, limits and quotas: decoding, defaults, validation and their rules of update."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podrt.api.table import table
from podrt.errors import InvalidError, MalformedError
from podrt.model import codec
from podrt.model.configuration import ConfigMap, Secret
from podrt.model.kinds import Object
from podrt.model.policy import LimitRange, ResourceQuota
from podrt.model.storage import PersistentVolume, PersistentVolumeClaim, StorageClass
from podrt.store.objects import Registry
from podrt.store.store import Store

SECRET_TEXT = "hunter2-do-not-show"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    store = Store(tmp_path / "store.db")
    yield Registry(store)
    store.close()


def read(kind: str, api_version: str = "v1", name: str = "x", **fields: Any) -> Object:
    document = {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "default"}} | fields
    if kind in ("PersistentVolume", "StorageClass"):
        del document["metadata"]["namespace"]
    return codec.decode(json.dumps(document), validation=codec.FieldValidation.STRICT).object


def refused(registry: Registry, obj: Object) -> str:
    with pytest.raises(InvalidError) as caught:
        registry.create(obj)
    return str(caught.value)


def test_string_data_becomes_data(registry: Registry) -> None:
    made = registry.create(read("Secret", data={"a": "YQ==", "b": "Yg=="}, stringData={"b": "new"}))
    assert isinstance(made, Secret)
    assert (made.content(), made.string_data, made.type) == ({"a": b"a", "b": b"new"}, {}, "Opaque")


def test_base64_is_made_canonical_and_line_breaks_go(registry: Registry) -> None:
    made = registry.create(read("Secret", data={"a": "aGVs\nbG8="}))
    assert isinstance(made, Secret) and made.data == {"a": "aGVsbG8="}


@pytest.mark.parametrize(
    "part", [{"data": {"k": SECRET_TEXT}}, {"data": {"k": 12345678}}, {"stringData": {"k": 12345678}}]
)
def test_a_wrong_secret_is_refused_without_its_value(part: dict[str, Any]) -> None:
    with pytest.raises(MalformedError) as caught:
        read("Secret", **part)
    shown = str(caught.value) + repr(caught.value.causes)
    assert ".k" in shown and SECRET_TEXT not in shown and "12345678" not in shown


def test_a_secret_does_not_show_itself(registry: Registry) -> None:
    made = registry.create(read("Secret", stringData={"key": SECRET_TEXT}))
    assert isinstance(made, Secret)
    assert made.data["key"] not in repr(made) + str(made) and "key" in repr(made)


@pytest.mark.parametrize("key", ["..", ".", "../x", "a/b", "..data", "", "a b", "x" * 254])
@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
def test_keys_that_are_no_file_names_are_refused(registry: Registry, kind: str, key: str) -> None:
    field = "data" if kind == "ConfigMap" else "stringData"
    assert "data[" in refused(registry, read(kind, **{field: {key: "x"}}))


def test_size_and_doubles(registry: Registry) -> None:
    assert "Too long" in refused(registry, read("ConfigMap", data={"a": "x" * 2**20, "b": "x"}))
    assert "Too long" in refused(registry, read("Secret", stringData={"a": "x" * 2**20, "b": "x"}))
    assert "duplicate of key" in refused(registry, read("ConfigMap", data={"a": "x"}, binaryData={"a": "YQ=="}))
    assert "data[tls.key]" in refused(registry, read("Secret", type="kubernetes.io/tls", stringData={"tls.crt": "x"}))


def test_immutable(registry: Registry) -> None:
    registry.create(read("ConfigMap", data={"a": "1"}, immutable=True))
    registry.update(read("ConfigMap", data={"a": "1"}, immutable=True))
    for change in ({"data": {"a": "2"}, "immutable": True}, {"data": {"a": "1"}}):
        with pytest.raises(InvalidError, match="field is immutable when `immutable` is set"):
            registry.update(read("ConfigMap", **change))
    registry.create(read("Secret", stringData={"a": "1"}, immutable=True))
    with pytest.raises(InvalidError, match="immutable"):
        registry.update(read("Secret", stringData={"a": "2"}, immutable=True))
    with pytest.raises(InvalidError, match="type"):
        registry.update(read("Secret", stringData={"a": "1"}, immutable=True, type="other"))


CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}


def test_claims(registry: Registry) -> None:
    made = registry.create(read("PersistentVolumeClaim", spec=CLAIM, status={"phase": "Bound"}))
    assert isinstance(made, PersistentVolumeClaim)
    assert (made.status.phase, made.spec.volume_mode) == ("Pending", "Filesystem")
    assert made.metadata.finalizers == ("kubernetes.io/pvc-protection",)
    bigger = CLAIM | {"resources": {"requests": {"storage": "2Gi"}}}
    registry.update(read("PersistentVolumeClaim", spec=bigger))
    with pytest.raises(InvalidError, match="less than previous"):
        registry.update(read("PersistentVolumeClaim", spec=CLAIM))
    with pytest.raises(InvalidError, match="spec is immutable after creation"):
        registry.update(read("PersistentVolumeClaim", spec=bigger | {"accessModes": ["ReadOnlyMany"]}))
    wrong = read("PersistentVolumeClaim", name="y", spec={"accessModes": ["Often"], "volumeMode": "Raw"})
    message = refused(registry, wrong)
    for part in ("resources[storage]", 'Unsupported value: "Often"', "volumeMode: Unsupported value"):
        assert part in message


def test_volumes_and_classes(registry: Registry) -> None:
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "local": {"path": "/data"}}
    made = registry.create(read("PersistentVolume", spec=spec))
    assert isinstance(made, PersistentVolume) and made.spec.persistent_volume_reclaim_policy == "Retain"
    assert "must specify one of" in refused(registry, read("PersistentVolume", name="y", spec=spec | {"local": None}))
    with pytest.raises(InvalidError, match="persistentvolumesource is immutable"):
        registry.update(read("PersistentVolume", spec=spec | {"local": {"path": "/other"}}))
    made_class = registry.create(read("StorageClass", "storage.k8s.io/v1", provisioner="podrt.dev/local"))
    assert isinstance(made_class, StorageClass)
    assert (made_class.reclaim_policy, made_class.volume_binding_mode) == ("Delete", "Immediate")


def test_limit_ranges_and_quotas(registry: Registry) -> None:
    item = {
        "type": "Container",
        "max": {"cpu": "2"},
        "default": {"memory": "1Gi"},
        "min": {"cpu": "1m", "memory": "1Mi"},
    }
    made = registry.create(read("LimitRange", spec={"limits": [item]}))
    assert isinstance(made, LimitRange)
    assert made.spec.limits[0].default == {"cpu": "2", "memory": "1Gi"}
    assert made.spec.limits[0].default_request == {"cpu": "2", "memory": "1Gi"}
    crossed = {"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}
    assert "min value 2 is greater than max value 1" in refused(
        registry, read("LimitRange", name="y", spec={"limits": [crossed]})
    )
    assert "Unsupported value" in refused(
        registry, read("ResourceQuota", spec={"hard": {"pods": "1"}, "scopes": ["Odd"]})
    )
    assert "must be an integer" in refused(registry, read("ResourceQuota", spec={"hard": {"pods": "1500m"}}))
    quota = registry.create(
        read("ResourceQuota", name="y", spec={"hard": {"pods": "4"}}, status={"used": {"pods": "9"}})
    )
    assert isinstance(quota, ResourceQuota) and quota.status.used.get("pods", "0") == "0"


@pytest.mark.parametrize(
    ("obj", "cells"),
    [
        (read("ConfigMap", data={"a": "1"}, binaryData={"b": "YQ=="}), ["x", 2, "<unknown>"]),
        (read("Secret", data={"a": "YQ=="}, type="Opaque"), ["x", "Opaque", 1, "<unknown>"]),
        (read("PersistentVolumeClaim", spec=CLAIM), ["x", "", "", "", "", "", "<unset>", "<unknown>", "<unset>"]),
        (
            read("ResourceQuota", status={"hard": {"pods": "4", "limits.cpu": "2"}, "used": {"pods": "1"}}),
            ["x", "pods: 1/4", "limits.cpu: 0/2", "<unknown>"],
        ),
        (
            read("StorageClass", "storage.k8s.io/v1", provisioner="p", reclaimPolicy="Retain"),
            ["x", "p", "Retain", "Immediate", "false", "<unknown>"],
        ),
    ],
)
def test_columns(obj: Object, cells: list[Any]) -> None:
    resource = {"Secret": "secrets", "ConfigMap": "configmaps", "StorageClass": "storageclasses"}.get(
        obj.kind, obj.kind.lower() + "s"
    )
    assert table(resource, [obj])["rows"][0]["cells"] == cells


def test_a_config_map_knows_its_bytes() -> None:
    made = read("ConfigMap", data={"a": "ä"}, binaryData={"b": "/w=="})
    assert isinstance(made, ConfigMap) and made.content() == {"a": "ä".encode(), "b": b"\xff"}


@pytest.mark.parametrize(
    ("source", "field"),
    [
        ({"local": {"path": "/dev/sdb"}}, ""),
        ({"local": {"path": "/dev/sdb", "fsType": "ext4"}}, "spec.local.fsType"),
        ({"hostPath": {"path": "/dev/sdb"}}, "spec.volumeMode"),
    ],
)
def test_block_volumes(registry: Registry, source: dict[str, Any], field: str) -> None:
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "volumeMode": "Block", **source}
    volume = read("PersistentVolume", name="b", spec=spec)
    if not field:
        registry.create(volume)
        return
    with pytest.raises(InvalidError) as caught:
        registry.create(volume)
    assert [cause.field for cause in caught.value.causes] == [field]
