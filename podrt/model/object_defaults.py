"""Defaults of the kinds that are not Pods or Namespaces; pure functions from struct to struct."""

from __future__ import annotations

import base64
from typing import TypeVar

from msgspec.structs import replace

from podrt.model.apps import DaemonSet, Deployment, ReplicaSet, StatefulSet
from podrt.model.batch import CronJob, Job
from podrt.model.classes import DEFAULT_PREEMPTION, PriorityClass
from podrt.model.configuration import Secret
from podrt.model.csi import PERSISTENT, CSIDriver, CSIDriverSpec
from podrt.model.kinds import Object
from podrt.model.meta import ObjectMeta
from podrt.model.policy import LimitRange, LimitRangeItem, ResourceQuota
from podrt.model.storage import (
    CLAIM_FINALIZER,
    VOLUME_FINALIZER,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
)
from podrt.model.volume import PersistentVolumeClaimSpec

T = TypeVar("T", bound=Object)
WITH_STATUS = (
    PersistentVolume,
    PersistentVolumeClaim,
    ResourceQuota,
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
)
"""Kinds whose status is written by the server alone, through the subresource."""


def with_defaults(obj: T) -> T:
    """An object with its defaults; equal if it has them already, or if its kind has none here."""
    new: object = obj
    if isinstance(obj, Secret):
        new = _secret(obj)
    elif isinstance(obj, LimitRange):
        new = replace(obj, spec=replace(obj.spec, limits=tuple(map(_limits, obj.spec.limits))))
    elif isinstance(obj, PersistentVolumeClaim):
        new = _claim(obj)
    elif isinstance(obj, PersistentVolume):
        new = _volume(obj)
    elif isinstance(obj, StorageClass):
        new = replace(
            obj,
            reclaim_policy=obj.reclaim_policy or "Delete",
            volume_binding_mode=obj.volume_binding_mode or "Immediate",
        )
    elif isinstance(obj, CSIDriver):
        new = replace(obj, spec=_csi_driver(obj.spec))
    elif isinstance(obj, PriorityClass):
        new = replace(obj, preemption_policy=obj.preemption_policy or DEFAULT_PREEMPTION)
    else:
        from podrt.model.workload_defaults import RULES  # which needs claim_spec of this file

        rule = RULES.get(type(obj))
        new = rule(obj) if rule is not None else obj
    return new  # type: ignore[return-value]


def _csi_driver(spec: CSIDriverSpec) -> CSIDriverSpec:
    return replace(
        spec,
        attach_required=True if spec.attach_required is None else spec.attach_required,
        pod_info_on_mount=bool(spec.pod_info_on_mount),
        storage_capacity=bool(spec.storage_capacity),
        fs_group_policy=spec.fs_group_policy or "ReadWriteOnceWithFSType",
        volume_lifecycle_modes=spec.volume_lifecycle_modes or (PERSISTENT,),
        requires_republish=bool(spec.requires_republish),
        se_linux_mount=bool(spec.se_linux_mount),
    )


def fresh_status(obj: T) -> T:
    """Without the status that came with a new object."""
    if isinstance(obj, WITH_STATUS):
        return replace(obj, status=type(obj)().status)
    return obj


def _secret(secret: Secret) -> Secret:
    """``stringData`` over ``data``; type Opaque."""
    texts = {key: base64.b64encode(text.encode()).decode() for key, text in secret.string_data.items()}
    return replace(secret, data={**secret.data, **texts}, string_data={}, type=secret.type or "Opaque")


def _limits(item: LimitRangeItem) -> LimitRangeItem:
    """Of containers: the default limit is the maximum, the default request the default limit or the minimum."""
    if item.type != "Container":
        return item
    limits = {**item.max, **item.default}
    return replace(item, default=limits, default_request={**item.min, **limits, **item.default_request})


def claim_spec(spec: PersistentVolumeClaimSpec) -> PersistentVolumeClaimSpec:
    """Filesystem unless said otherwise. The class is chosen at admission, as it depends on what classes there are."""
    return replace(spec, volume_mode=spec.volume_mode or "Filesystem")


def _claim(claim: PersistentVolumeClaim) -> PersistentVolumeClaim:
    status = replace(claim.status, phase=claim.status.phase or "Pending")
    metadata = _protected(claim.metadata, CLAIM_FINALIZER)
    return replace(claim, metadata=metadata, spec=claim_spec(claim.spec), status=status)


def _volume(volume: PersistentVolume) -> PersistentVolume:
    spec = replace(
        volume.spec,
        volume_mode=volume.spec.volume_mode or "Filesystem",
        persistent_volume_reclaim_policy=volume.spec.persistent_volume_reclaim_policy or "Retain",
    )
    status = replace(volume.status, phase=volume.status.phase or "Pending")
    return replace(volume, metadata=_protected(volume.metadata, VOLUME_FINALIZER), spec=spec, status=status)


def _protected(metadata: ObjectMeta, finalizer: str) -> ObjectMeta:
    """Kept while it is in use; ``node.claims`` takes the finalizer away."""
    if finalizer in metadata.finalizers or metadata.deletion_timestamp is not None:
        return metadata
    return replace(metadata, finalizers=(*metadata.finalizers, finalizer))
