"""PersistentVolumes, their claims, and storage classes."""

from __future__ import annotations

import msgspec

from podrt.model.csi import CSIDriver
from podrt.model.names import dns_subdomain_errors
from podrt.model.quantity import QuantityError, parse
from podrt.model.storage import PersistentVolume, PersistentVolumeClaim, StorageClass
from podrt.model.validation.causes import Causes
from podrt.model.validation.meta import label_selector, object_meta
from podrt.model.validation.resources import amount
from podrt.model.volume import PersistentVolumeClaimSpec

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
MODES = ("Block", "Filesystem")
POLICIES = ("Delete", "Retain")
_SOURCES = ("host_path", "local", "nfs", "csi")


def claim(value: PersistentVolumeClaim) -> Causes:
    causes = Causes()
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=True)
    claim_spec(causes, "spec", value.spec)
    return causes


def claim_spec(causes: Causes, field: str, spec: PersistentVolumeClaimSpec) -> None:
    """Also of an ephemeral volume's template."""
    if not spec.access_modes:
        causes.required(f"{field}.accessModes", "at least 1 access mode is required")
    _access_modes(causes, field, spec.access_modes)
    label_selector(causes, f"{field}.selector", spec.selector)
    if "storage" not in spec.resources.requests:
        causes.required(f"{field}.resources[storage]")
    _storage(causes, f"{field}.resources.requests.storage", spec.resources.requests.get("storage"))
    if spec.storage_class_name:
        name = spec.storage_class_name
        causes.check(f"{field}.storageClassName", name, dns_subdomain_errors(name))
    causes.one_of(f"{field}.volumeMode", spec.volume_mode, MODES)
    for name, source in (("dataSource", spec.data_source), ("dataSourceRef", spec.data_source_ref)):
        if source is not None:
            causes.forbidden(f"{field}.{name}", "not supported by podrt: volumes start empty")


def _access_modes(causes: Causes, field: str, modes: tuple[str, ...]) -> None:
    for mode in modes:
        if mode not in ACCESS_MODES:
            causes.not_supported(f"{field}.accessModes", mode, ACCESS_MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        causes.forbidden(f"{field}.accessModes", "may not use ReadWriteOncePod with other access modes")


def _storage(causes: Causes, field: str, text: str | None) -> None:
    amount(causes, field, text)
    try:
        if text is not None and parse(text).value == 0:
            causes.invalid(field, text, "must be greater than zero")
    except QuantityError:
        pass


def claim_update(causes: Causes, new: PersistentVolumeClaim, old: PersistentVolumeClaim) -> None:
    """The spec stays, but for the size, which only grows, and what binding fills in."""
    allowed = msgspec.structs.replace(
        old.spec,
        resources=new.spec.resources,
        volume_name=new.spec.volume_name if not old.spec.volume_name else old.spec.volume_name,
        storage_class_name=old.spec.storage_class_name or new.spec.storage_class_name,
    )
    if new.spec != allowed:
        causes.forbidden(
            "spec", "spec is immutable after creation except resources.requests and volumeAttributesClassName"
        )
    before, after = (one.spec.resources.requests.get("storage") for one in (old, new))
    if before is not None and after is not None and parse(after) < parse(before):
        causes.forbidden("spec.resources.requests.storage", "field can not be less than previous value")


def volume(value: PersistentVolume) -> Causes:
    causes = Causes()
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=False)
    spec = value.spec
    if "storage" not in spec.capacity:
        causes.required("spec.capacity", "must specify storage")
    _storage(causes, "spec.capacity[storage]", spec.capacity.get("storage"))
    if not spec.access_modes:
        causes.required("spec.accessModes")
    _access_modes(causes, "spec", spec.access_modes)
    causes.one_of("spec.volumeMode", spec.volume_mode, MODES)
    if spec.volume_mode == "Block" and spec.local is None:
        causes.forbidden("spec.volumeMode", "not supported by podrt: only of local volumes, not of hostPath and nfs")
    if spec.volume_mode == "Block" and spec.local is not None and spec.local.fs_type is not None:
        causes.invalid("spec.local.fsType", spec.local.fs_type, "may not specify fsType when volumeMode is Block")
    causes.one_of("spec.persistentVolumeReclaimPolicy", spec.persistent_volume_reclaim_policy, POLICIES, required=True)
    given = [name for name in _SOURCES if getattr(spec, name) is not None]
    if len(given) != 1:
        causes.required("spec", "must specify one of: hostPath, local, nfs, csi")
    for name, source in (("hostPath", spec.host_path), ("local", spec.local)):
        if source is None:
            continue
        if not source.path.startswith("/") or ".." in source.path.split("/") or "\0" in source.path:
            causes.invalid(f"spec.{name}.path", source.path, "must be an absolute path without '..'")
    if spec.nfs is not None and not (spec.nfs.server and spec.nfs.path.startswith("/")):
        causes.required("spec.nfs", "must specify server and an absolute path")
    if spec.csi is not None:
        driver_name(causes, "spec.csi.driver", spec.csi.driver)
        if not spec.csi.volume_handle:
            causes.required("spec.csi.volumeHandle")
    return causes


def driver_name(causes: Causes, field: str, name: str) -> None:
    if not name:
        causes.required(field)
    elif len(name) > 63:
        causes.too_long(field, 63)
    else:
        causes.check(field, name, dns_subdomain_errors(name.lower()))


def csi_driver(value: CSIDriver) -> Causes:
    causes = Causes()
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=False)
    driver_name(causes, "metadata.name", value.metadata.name)
    for index, mode in enumerate(value.spec.volume_lifecycle_modes):
        causes.one_of(f"spec.volumeLifecycleModes[{index}]", mode, ("Ephemeral", "Persistent"), required=True)
    policies = ("File", "None", "ReadWriteOnceWithFSType")
    causes.one_of("spec.fsGroupPolicy", value.spec.fs_group_policy, policies, required=True)
    if value.spec.requires_republish:
        causes.forbidden("spec.requiresRepublish", "not supported by podrt: volumes are published once for each Pod")
    return causes


def csi_driver_update(causes: Causes, new: CSIDriver, old: CSIDriver) -> None:
    if new.spec.volume_lifecycle_modes != old.spec.volume_lifecycle_modes:
        modes = ", ".join(new.spec.volume_lifecycle_modes)
        causes.invalid("spec.volumeLifecycleModes", modes, "field is immutable")


def volume_update(causes: Causes, new: PersistentVolume, old: PersistentVolume) -> None:
    for name in _SOURCES:
        if getattr(new.spec, name) != getattr(old.spec, name):
            causes.forbidden("spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation")
            break
    if new.spec.volume_mode != old.spec.volume_mode:
        causes.invalid("spec.volumeMode", new.spec.volume_mode, "field is immutable")


def storage_class(value: StorageClass) -> Causes:
    causes = Causes()
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=False)
    if not value.provisioner:
        causes.required("provisioner")
    causes.one_of("reclaimPolicy", value.reclaim_policy, POLICIES, required=True)
    causes.one_of("volumeBindingMode", value.volume_binding_mode, ("Immediate", "WaitForFirstConsumer"), required=True)
    return causes


def storage_class_update(causes: Causes, new: StorageClass, old: StorageClass) -> None:
    for name, after, before in (
        ("parameters", new.parameters, old.parameters),
        ("provisioner", new.provisioner, old.provisioner),
        ("reclaimPolicy", new.reclaim_policy, old.reclaim_policy),
        ("volumeBindingMode", new.volume_binding_mode, old.volume_binding_mode),
    ):
        if after != before:
            causes.forbidden(name, "updates to this field are forbidden.")
