"""Volumes of a Pod (core/v1): the 13 live sources typed, the 17 removed or deprecated ones known by name."""

from __future__ import annotations

from typing import Any

import msgspec

from podrt.model.base import Int32, Int64, Quantity, ResourceList, Struct, always, made
from podrt.model.container import ObjectFieldSelector, ResourceFieldSelector
from podrt.model.meta import LabelSelector, ObjectMeta


class LocalObjectReference(Struct, frozen=True, kw_only=True):
    name: str = ""


class KeyToPath(Struct, frozen=True, kw_only=True):
    key: str = always("")
    path: str = always("")
    mode: Int32 | None = None


class HostPathVolumeSource(Struct, frozen=True, kw_only=True):
    path: str = always("")
    type: str | None = None
    """"" (no check), DirectoryOrCreate, Directory, FileOrCreate, File, Socket, CharDevice or BlockDevice."""


class EmptyDirVolumeSource(Struct, frozen=True, kw_only=True):
    medium: str = ""
    """"" (disk), Memory, HugePages or HugePages-<size>."""
    size_limit: Quantity | None = None


class SecretVolumeSource(Struct, frozen=True, kw_only=True):
    secret_name: str = ""
    items: tuple[KeyToPath, ...] = ()
    default_mode: Int32 | None = None
    optional: bool | None = None


class ConfigMapVolumeSource(Struct, frozen=True, kw_only=True):
    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    default_mode: Int32 | None = None
    optional: bool | None = None


class DownwardAPIVolumeFile(Struct, frozen=True, kw_only=True):
    path: str = always("")
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    mode: Int32 | None = None


class DownwardAPIVolumeSource(Struct, frozen=True, kw_only=True):
    items: tuple[DownwardAPIVolumeFile, ...] = ()
    default_mode: Int32 | None = None


class SecretProjection(Struct, frozen=True, kw_only=True):
    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: bool | None = None


class ConfigMapProjection(Struct, frozen=True, kw_only=True):
    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: bool | None = None


class DownwardAPIProjection(Struct, frozen=True, kw_only=True):
    items: tuple[DownwardAPIVolumeFile, ...] = ()


class ServiceAccountTokenProjection(Struct, frozen=True, kw_only=True):
    audience: str = ""
    expiration_seconds: Int64 | None = None
    path: str = always("")


class ClusterTrustBundleProjection(Struct, frozen=True, kw_only=True):
    name: str | None = None
    signer_name: str | None = None
    label_selector: LabelSelector | None = None
    optional: bool | None = None
    path: str = always("")


class PodCertificateProjection(Struct, frozen=True, kw_only=True):
    signer_name: str = ""
    key_type: str = ""
    max_expiration_seconds: Int32 | None = None
    credential_bundle_path: str = ""
    key_path: str = ""
    certificate_chain_path: str = ""
    user_annotations: dict[str, str] = msgspec.field(default_factory=dict)


class VolumeProjection(Struct, frozen=True, kw_only=True):
    """Exactly one is set."""

    secret: SecretProjection | None = None
    downward_api: DownwardAPIProjection | None = None
    config_map: ConfigMapProjection | None = None
    service_account_token: ServiceAccountTokenProjection | None = None
    cluster_trust_bundle: ClusterTrustBundleProjection | None = None
    pod_certificate: PodCertificateProjection | None = None


class ProjectedVolumeSource(Struct, frozen=True, kw_only=True):
    sources: tuple[VolumeProjection, ...] = ()
    default_mode: Int32 | None = None


class ImageVolumeSource(Struct, frozen=True, kw_only=True):
    reference: str = ""
    pull_policy: str = ""


class PersistentVolumeClaimVolumeSource(Struct, frozen=True, kw_only=True):
    claim_name: str = always("")
    read_only: bool = False


class TypedLocalObjectReference(Struct, frozen=True, kw_only=True):
    api_group: str | None = None
    kind: str = always("")
    name: str = always("")


class TypedObjectReference(Struct, frozen=True, kw_only=True):
    api_group: str | None = None
    kind: str = always("")
    name: str = always("")
    namespace: str | None = None


class VolumeResourceRequirements(Struct, frozen=True, kw_only=True):
    limits: ResourceList = msgspec.field(default_factory=dict)
    requests: ResourceList = msgspec.field(default_factory=dict)


class PersistentVolumeClaimSpec(Struct, frozen=True, kw_only=True):
    access_modes: tuple[str, ...] = ()
    selector: LabelSelector | None = None
    resources: VolumeResourceRequirements = made(VolumeResourceRequirements)
    volume_name: str = ""
    storage_class_name: str | None = None
    volume_mode: str | None = None
    data_source: TypedLocalObjectReference | None = None
    data_source_ref: TypedObjectReference | None = None
    volume_attributes_class_name: str | None = None


class PersistentVolumeClaimTemplate(Struct, frozen=True, kw_only=True):
    metadata: ObjectMeta = made(ObjectMeta)
    spec: PersistentVolumeClaimSpec = made(PersistentVolumeClaimSpec)


class EphemeralVolumeSource(Struct, frozen=True, kw_only=True):
    volume_claim_template: PersistentVolumeClaimTemplate | None = None


class NFSVolumeSource(Struct, frozen=True, kw_only=True):
    server: str = always("")
    path: str = always("")
    read_only: bool = False


class ISCSIVolumeSource(Struct, frozen=True, kw_only=True):
    target_portal: str = always("")
    iqn: str = always("")
    lun: Int32 = always(0)
    iscsi_interface: str = ""
    fs_type: str = ""
    read_only: bool = False
    portals: tuple[str, ...] = ()
    chap_auth_discovery: bool = False
    chap_auth_session: bool = False
    secret_ref: LocalObjectReference | None = None
    initiator_name: str | None = None


class FCVolumeSource(Struct, frozen=True, kw_only=True):
    target_wwns: tuple[str, ...] = ()
    lun: Int32 | None = None
    fs_type: str = ""
    read_only: bool = False
    wwids: tuple[str, ...] = ()


class CSIVolumeSource(Struct, frozen=True, kw_only=True):
    driver: str = always("")
    read_only: bool | None = None
    fs_type: str | None = None
    volume_attributes: dict[str, str] = msgspec.field(default_factory=dict)
    node_publish_secret_ref: LocalObjectReference | None = None


class Volume(Struct, frozen=True, kw_only=True):
    """A name and exactly one source (none at all means ``emptyDir: {}``)."""

    name: str = always("")
    host_path: HostPathVolumeSource | None = None
    empty_dir: EmptyDirVolumeSource | None = None
    secret: SecretVolumeSource | None = None
    config_map: ConfigMapVolumeSource | None = None
    downward_api: DownwardAPIVolumeSource | None = None
    projected: ProjectedVolumeSource | None = None
    image: ImageVolumeSource | None = None
    persistent_volume_claim: PersistentVolumeClaimVolumeSource | None = None
    ephemeral: EphemeralVolumeSource | None = None
    nfs: NFSVolumeSource | None = None
    iscsi: ISCSIVolumeSource | None = None
    fc: FCVolumeSource | None = None
    csi: CSIVolumeSource | None = None
    # Removed from Kubernetes or moved to CSI drivers: any content is read, and support.py refuses it by name.
    gce_persistent_disk: dict[str, Any] | None = None
    aws_elastic_block_store: dict[str, Any] | None = None
    git_repo: dict[str, Any] | None = None
    glusterfs: dict[str, Any] | None = None
    rbd: dict[str, Any] | None = None
    flex_volume: dict[str, Any] | None = None
    cinder: dict[str, Any] | None = None
    cephfs: dict[str, Any] | None = None
    flocker: dict[str, Any] | None = None
    azure_file: dict[str, Any] | None = None
    vsphere_volume: dict[str, Any] | None = None
    quobyte: dict[str, Any] | None = None
    azure_disk: dict[str, Any] | None = None
    photon_persistent_disk: dict[str, Any] | None = None
    portworx_volume: dict[str, Any] | None = None
    scale_io: dict[str, Any] | None = msgspec.field(name="scaleIO", default=None)
    storageos: dict[str, Any] | None = None


LIVE_SOURCES = (
    "host_path",
    "empty_dir",
    "secret",
    "config_map",
    "downward_api",
    "projected",
    "image",
    "persistent_volume_claim",
    "ephemeral",
    "nfs",
    "iscsi",
    "fc",
    "csi",
)
REMOVED_SOURCES = tuple(name for name in Volume.__struct_fields__ if name not in LIVE_SOURCES and name != "name")
