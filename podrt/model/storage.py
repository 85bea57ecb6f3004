"""PersistentVolume, PersistentVolumeClaim (core/v1) and StorageClass (storage.k8s.io/v1).

Of a PersistentVolume's sources those are here that this machine can serve: ``local``, ``hostPath``, ``nfs`` and
``csi``.
"""

from __future__ import annotations

import msgspec

from podrt.model.base import ResourceList, Struct, Time, always, made
from podrt.model.csi import CSIPersistentVolumeSource
from podrt.model.event import ObjectReference
from podrt.model.meta import ListMeta, ObjectMeta
from podrt.model.scheduling import NodeSelector
from podrt.model.volume import HostPathVolumeSource, NFSVolumeSource, PersistentVolumeClaimSpec

LOCAL_PROVISIONER = "podrt.dev/local"
"""Makes a directory of this machine for each claim."""
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"


class PersistentVolumeClaimCondition(Struct, frozen=True, kw_only=True):
    type: str = always("")
    status: str = always("")
    last_probe_time: Time | None = None
    last_transition_time: Time | None = None
    reason: str = ""
    message: str = ""


class PersistentVolumeClaimStatus(Struct, frozen=True, kw_only=True):
    phase: str = ""
    """Pending, Bound or Lost."""
    access_modes: tuple[str, ...] = ()
    capacity: ResourceList = msgspec.field(default_factory=dict)
    conditions: tuple[PersistentVolumeClaimCondition, ...] = ()


class PersistentVolumeClaim(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("PersistentVolumeClaim")
    metadata: ObjectMeta = made(ObjectMeta)
    spec: PersistentVolumeClaimSpec = made(PersistentVolumeClaimSpec)
    status: PersistentVolumeClaimStatus = made(PersistentVolumeClaimStatus)


class PersistentVolumeClaimList(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("PersistentVolumeClaimList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[PersistentVolumeClaim, ...] = always(())


class LocalVolumeSource(Struct, frozen=True, kw_only=True):
    path: str = always("")
    fs_type: str | None = None


class VolumeNodeAffinity(Struct, frozen=True, kw_only=True):
    required: NodeSelector | None = None


class PersistentVolumeSpec(Struct, frozen=True, kw_only=True):
    capacity: ResourceList = msgspec.field(default_factory=dict)
    host_path: HostPathVolumeSource | None = None
    local: LocalVolumeSource | None = None
    nfs: NFSVolumeSource | None = None
    csi: CSIPersistentVolumeSource | None = None
    access_modes: tuple[str, ...] = ()
    claim_ref: ObjectReference | None = None
    persistent_volume_reclaim_policy: str = ""
    """Retain, Delete or Recycle (refused)."""
    storage_class_name: str = ""
    mount_options: tuple[str, ...] = ()
    volume_mode: str | None = None
    node_affinity: VolumeNodeAffinity | None = None


class PersistentVolumeStatus(Struct, frozen=True, kw_only=True):
    phase: str = ""
    """Pending, Available, Bound, Released or Failed."""
    message: str = ""
    reason: str = ""
    last_phase_transition_time: Time | None = None


class PersistentVolume(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("PersistentVolume")
    metadata: ObjectMeta = made(ObjectMeta)
    spec: PersistentVolumeSpec = made(PersistentVolumeSpec)
    status: PersistentVolumeStatus = made(PersistentVolumeStatus)


class PersistentVolumeList(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("PersistentVolumeList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[PersistentVolume, ...] = always(())


class StorageClass(Struct, frozen=True, kw_only=True):
    api_version: str = always("storage.k8s.io/v1")
    kind: str = always("StorageClass")
    metadata: ObjectMeta = made(ObjectMeta)
    provisioner: str = always("")
    parameters: dict[str, str] = msgspec.field(default_factory=dict)
    reclaim_policy: str | None = None
    mount_options: tuple[str, ...] = ()
    allow_volume_expansion: bool | None = None
    volume_binding_mode: str | None = None
    """Immediate or WaitForFirstConsumer."""


class StorageClassList(Struct, frozen=True, kw_only=True):
    api_version: str = always("storage.k8s.io/v1")
    kind: str = always("StorageClassList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[StorageClass, ...] = always(())
