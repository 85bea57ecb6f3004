"""Columns of configuration, storage and policy kinds, as kubectl prints them. See ``table`` for the frame."""

from __future__ import annotations

from typing import Any

from podrt.api.humantime import age
from podrt.model.base import ResourceList
from podrt.model.classes import PriorityClass, RuntimeClass
from podrt.model.configuration import ConfigMap, Secret, ServiceAccount
from podrt.model.csi import CSIDriver
from podrt.model.policy import LimitRange, ResourceQuota
from podrt.model.storage import DEFAULT_CLASS, PersistentVolume, PersistentVolumeClaim, StorageClass

UNSET = "<unset>"
_SHORT_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def access_modes(modes: tuple[str, ...]) -> str:
    """``RWO,ROX``, each once, in the order of the table above."""
    return ",".join(short for mode, short in _SHORT_MODES.items() if mode in modes)


def config_map(value: ConfigMap, now: float) -> list[Any]:
    return [value.metadata.name, len(value.data) + len(value.binary_data), age(value.metadata.creation_timestamp, now)]


def secret(value: Secret, now: float) -> list[Any]:
    return [value.metadata.name, value.type, len(value.data), age(value.metadata.creation_timestamp, now)]


def service_account(value: ServiceAccount, now: float) -> list[Any]:
    return [value.metadata.name, len(value.secrets), age(value.metadata.creation_timestamp, now)]


def limit_range(value: LimitRange, now: float) -> list[Any]:
    return [value.metadata.name, value.metadata.creation_timestamp or "<unknown>"]


def resource_quota(value: ResourceQuota, now: float) -> list[Any]:
    hard, used = value.status.hard or value.spec.hard, value.status.used
    limits = {name: text for name, text in hard.items() if name.startswith("limits.")}
    others = {name: text for name, text in hard.items() if name not in limits}
    return [
        value.metadata.name,
        _usage(others, used),
        _usage(limits, used),
        age(value.metadata.creation_timestamp, now),
    ]


def _usage(hard: ResourceList, used: ResourceList) -> str:
    return ", ".join(f"{name}: {used.get(name, '0')}/{hard[name]}" for name in sorted(hard))


def claim(value: PersistentVolumeClaim, now: float) -> list[Any]:
    bound = value.spec.volume_name != ""
    return [
        value.metadata.name,
        "Terminating" if value.metadata.deletion_timestamp else value.status.phase,
        value.spec.volume_name,
        value.status.capacity.get("storage", "") if bound else "",
        access_modes(value.status.access_modes) if bound else "",
        value.spec.storage_class_name or "",
        value.spec.volume_attributes_class_name or UNSET,
        age(value.metadata.creation_timestamp, now),
        value.spec.volume_mode or "<unset>",
    ]


def volume(value: PersistentVolume, now: float) -> list[Any]:
    about = value.spec.claim_ref
    return [
        value.metadata.name,
        value.spec.capacity.get("storage", ""),
        access_modes(value.spec.access_modes),
        value.spec.persistent_volume_reclaim_policy,
        "Terminating" if value.metadata.deletion_timestamp else value.status.phase,
        f"{about.namespace}/{about.name}" if about is not None else "",
        value.spec.storage_class_name,
        UNSET,
        value.status.reason,
        age(value.metadata.creation_timestamp, now),
        value.spec.volume_mode or "<unset>",
    ]


def storage_class(value: StorageClass, now: float) -> list[Any]:
    default = value.metadata.annotations.get(DEFAULT_CLASS) == "true"
    return [
        value.metadata.name + (" (default)" if default else ""),
        value.provisioner,
        value.reclaim_policy or "Delete",
        value.volume_binding_mode or "Immediate",
        str(bool(value.allow_volume_expansion)).lower(),
        age(value.metadata.creation_timestamp, now),
    ]


def priority_class(value: PriorityClass, now: float) -> list[Any]:
    return [
        value.metadata.name,
        value.value,
        str(value.global_default).lower(),
        age(value.metadata.creation_timestamp, now),
        value.preemption_policy or "",
    ]


def runtime_class(value: RuntimeClass, now: float) -> list[Any]:
    return [value.metadata.name, value.handler, age(value.metadata.creation_timestamp, now)]


def csi_driver(value: CSIDriver, now: float) -> list[Any]:
    spec = value.spec
    return [
        value.metadata.name,
        str(bool(spec.attach_required)).lower(),
        str(bool(spec.pod_info_on_mount)).lower(),
        str(bool(spec.storage_capacity)).lower(),
        UNSET,
        str(bool(spec.requires_republish)).lower(),
        ",".join(spec.volume_lifecycle_modes),
        age(value.metadata.creation_timestamp, now),
    ]
