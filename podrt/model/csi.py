"""CSIDriver (storage.k8s.io/v1), and how a PersistentVolume names a volume of one."""

from __future__ import annotations

import msgspec

from podrt.model.base import Struct, always, made
from podrt.model.meta import ListMeta, ObjectMeta

PERSISTENT, EPHEMERAL = "Persistent", "Ephemeral"


class SecretReference(Struct, frozen=True, kw_only=True):
    name: str = ""
    namespace: str = ""


class CSIPersistentVolumeSource(Struct, frozen=True, kw_only=True):
    driver: str = always("")
    volume_handle: str = always("")
    read_only: bool = False
    fs_type: str = ""
    volume_attributes: dict[str, str] = msgspec.field(default_factory=dict)
    node_stage_secret_ref: SecretReference | None = None
    node_publish_secret_ref: SecretReference | None = None


class CSIDriverSpec(Struct, frozen=True, kw_only=True):
    attach_required: bool | None = None
    pod_info_on_mount: bool | None = None
    volume_lifecycle_modes: tuple[str, ...] = ()
    """Persistent (the default) or Ephemeral."""
    storage_capacity: bool | None = None
    fs_group_policy: str | None = None
    """ReadWriteOnceWithFSType (the default), File or None."""
    requires_republish: bool | None = None
    se_linux_mount: bool | None = None


class CSIDriver(Struct, frozen=True, kw_only=True):
    api_version: str = always("storage.k8s.io/v1")
    kind: str = always("CSIDriver")
    metadata: ObjectMeta = made(ObjectMeta)
    spec: CSIDriverSpec = made(CSIDriverSpec)


class CSIDriverList(Struct, frozen=True, kw_only=True):
    api_version: str = always("storage.k8s.io/v1")
    kind: str = always("CSIDriverList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[CSIDriver, ...] = always(())
