"""Volumes and where they are mounted."""

from __future__ import annotations

import re

from podrt.model.base import wire_name
from podrt.model.container import Container, VolumeMount
from podrt.model.names import config_key_errors, dns_label_errors, dns_subdomain_errors
from podrt.model.validation.causes import Causes
from podrt.model.validation.env import field_ref, resource_field_ref
from podrt.model.validation.resources import amount
from podrt.model.volume import (
    LIVE_SOURCES,
    REMOVED_SOURCES,
    DownwardAPIVolumeFile,
    EmptyDirVolumeSource,
    HostPathVolumeSource,
    KeyToPath,
    ProjectedVolumeSource,
    Volume,
)

HOST_PATH_TYPES = (
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)
_HUGE = re.compile(r"HugePages(-[0-9]+([KMGTPE]i)?)?")
MAX_MODE = 0o777
SOURCES = LIVE_SOURCES + REMOVED_SOURCES


def volumes(causes: Causes, field: str, values: tuple[Volume, ...]) -> dict[str, Volume]:
    """All volumes of a Pod. The known ones by name."""
    known: dict[str, Volume] = {}
    for index, volume in enumerate(values):
        where = f"{field}[{index}]"
        if not volume.name:
            causes.required(f"{where}.name")
        else:
            causes.check(f"{where}.name", volume.name, dns_label_errors(volume.name))
        if volume.name in known:
            causes.duplicate(f"{where}.name", volume.name)
        _source(causes, where, volume)
        known.setdefault(volume.name, volume)
    return known


def _source(causes: Causes, field: str, volume: Volume) -> None:
    given = [name for name in SOURCES if getattr(volume, name) is not None]
    if not given:
        causes.required(field, "must specify a volume type")
    for name in given[1:]:
        causes.forbidden(f"{field}.{wire_name(name)}", "may not specify more than 1 volume type")
    if volume.host_path is not None:
        _host_path(causes, f"{field}.hostPath", volume.host_path)
    if volume.empty_dir is not None:
        _empty_dir(causes, f"{field}.emptyDir", volume.empty_dir)
    if volume.secret is not None:
        if not volume.secret.secret_name:
            causes.required(f"{field}.secret.secretName")
        _keys(causes, f"{field}.secret", volume.secret.items, volume.secret.default_mode)
    if volume.config_map is not None:
        if not volume.config_map.name:
            causes.required(f"{field}.configMap.name")
        _keys(causes, f"{field}.configMap", volume.config_map.items, volume.config_map.default_mode)
    if volume.downward_api is not None:
        _mode(causes, f"{field}.downwardAPI.defaultMode", volume.downward_api.default_mode)
        _downward(causes, f"{field}.downwardAPI.items", volume.downward_api.items)
    if volume.projected is not None:
        _projected(causes, f"{field}.projected", volume.projected)
    _cluster_sources(causes, field, volume)


def _cluster_sources(causes: Causes, field: str, volume: Volume) -> None:
    if volume.persistent_volume_claim is not None and not volume.persistent_volume_claim.claim_name:
        causes.required(f"{field}.persistentVolumeClaim.claimName")
    if volume.ephemeral is not None and volume.ephemeral.volume_claim_template is None:
        causes.required(f"{field}.ephemeral.volumeClaimTemplate")
    if volume.image is not None:
        if not volume.image.reference:
            causes.required(f"{field}.image.reference")
        causes.one_of(f"{field}.image.pullPolicy", volume.image.pull_policy, ("Always", "IfNotPresent", "Never"))
    if volume.nfs is not None:
        if not volume.nfs.server:
            causes.required(f"{field}.nfs.server")
        if not volume.nfs.path.startswith("/"):
            causes.invalid(f"{field}.nfs.path", volume.nfs.path, "must be an absolute path")
    if volume.csi is not None:
        if not volume.csi.driver:
            causes.required(f"{field}.csi.driver")
        else:
            causes.check(f"{field}.csi.driver", volume.csi.driver, dns_subdomain_errors(volume.csi.driver.lower()))
    if volume.iscsi is not None:
        for name, value in (("targetPortal", volume.iscsi.target_portal), ("iqn", volume.iscsi.iqn)):
            if not value:
                causes.required(f"{field}.iscsi.{name}")
        causes.between(f"{field}.iscsi.lun", volume.iscsi.lun, 0, 255)
    if volume.fc is not None and not volume.fc.target_wwns and not volume.fc.wwids:
        causes.required(f"{field}.fc.targetWWNs", "must specify either targetWWNs or wwids")


def _host_path(causes: Causes, field: str, source: HostPathVolumeSource) -> None:
    if not source.path:
        causes.required(f"{field}.path")
    elif ".." in source.path.split("/"):
        causes.invalid(f"{field}.path", source.path, "must not contain '..'")
    elif not source.path.startswith("/"):
        causes.invalid(
            f"{field}.path", source.path, "must be an absolute path: there is no directory it could start in"
        )
    no_zero(causes, f"{field}.path", source.path)
    causes.one_of(f"{field}.type", source.type, HOST_PATH_TYPES)


def _empty_dir(causes: Causes, field: str, source: EmptyDirVolumeSource) -> None:
    if source.medium not in ("", "Memory") and not _HUGE.fullmatch(source.medium):
        causes.not_supported(f"{field}.medium", source.medium, ("", "HugePages", "Memory"))
    amount(causes, f"{field}.sizeLimit", source.size_limit)


def _mode(causes: Causes, field: str, mode: int | None) -> None:
    if mode is not None and not 0 <= mode <= MAX_MODE:
        causes.invalid(field, mode, "must be a number between 0 and 0777 (octal), both inclusive")


def _keys(causes: Causes, field: str, items: tuple[KeyToPath, ...], default_mode: int | None) -> None:
    _mode(causes, f"{field}.defaultMode", default_mode)
    for index, item in enumerate(items):
        where = f"{field}.items[{index}]"
        if not item.key:
            causes.required(f"{where}.key")
        else:
            causes.check(f"{where}.key", item.key, config_key_errors(item.key))
        _file_path(causes, f"{where}.path", item.path)
        _mode(causes, f"{where}.mode", item.mode)


def _downward(causes: Causes, field: str, items: tuple[DownwardAPIVolumeFile, ...]) -> None:
    for index, item in enumerate(items):
        where = f"{field}[{index}]"
        _file_path(causes, f"{where}.path", item.path)
        _mode(causes, f"{where}.mode", item.mode)
        if (item.field_ref is None) == (item.resource_field_ref is None):
            causes.invalid(where, item.path, "exactly one of fieldRef and resourceFieldRef must be set")
        if item.field_ref is not None:
            field_ref(causes, f"{where}.fieldRef", item.field_ref, volume=True)
        if item.resource_field_ref is not None:
            resource_field_ref(causes, f"{where}.resourceFieldRef", item.resource_field_ref, volume=True)


def _projected(causes: Causes, field: str, source: ProjectedVolumeSource) -> None:
    _mode(causes, f"{field}.defaultMode", source.default_mode)
    for index, entry in enumerate(source.sources):
        where = f"{field}.sources[{index}]"
        given = [name for name in entry.__struct_fields__ if getattr(entry, name) is not None]
        if not given:
            causes.required(where, "must specify a volume projection source")
        for name in given[1:]:
            causes.forbidden(f"{where}.{wire_name(name)}", "may not specify more than 1 volume type")
        if entry.secret is not None:
            if not entry.secret.name:
                causes.required(f"{where}.secret.name")
            _keys(causes, f"{where}.secret", entry.secret.items, None)
        if entry.config_map is not None:
            if not entry.config_map.name:
                causes.required(f"{where}.configMap.name")
            _keys(causes, f"{where}.configMap", entry.config_map.items, None)
        if entry.downward_api is not None:
            _downward(causes, f"{where}.downwardAPI.items", entry.downward_api.items)
        if entry.service_account_token is not None:
            token = entry.service_account_token
            _file_path(causes, f"{where}.serviceAccountToken.path", token.path)
            if token.expiration_seconds is not None and token.expiration_seconds < 600:
                causes.invalid(
                    f"{where}.serviceAccountToken.expirationSeconds",
                    token.expiration_seconds,
                    "may not specify a duration less than 10 minutes",
                )


def _file_path(causes: Causes, field: str, path: str) -> None:
    if not path:
        causes.required(field)
        return
    local_descending_path(causes, field, path)
    if path.startswith(".."):
        causes.invalid(field, path, "must not start with '..'")


def local_descending_path(causes: Causes, field: str, path: str) -> None:
    """A relative path that stays below where it starts."""
    if path.startswith("/"):
        causes.invalid(field, path, "must be a relative path")
    if ".." in path.split("/"):
        causes.invalid(field, path, "must not contain '..'")
    no_zero(causes, field, path)


def no_zero(causes: Causes, field: str, text: str) -> None:
    """No system call takes text with a zero byte in it."""
    if "\0" in text:
        causes.invalid(field, text.replace("\0", "\\0"), "must not contain a zero byte")


def mounts(causes: Causes, field: str, container: Container, known: dict[str, Volume]) -> None:
    """``volumeMounts`` and ``volumeDevices`` of one container."""
    paths: set[str] = set()
    for index, mount in enumerate(container.volume_mounts):
        where = f"{field}.volumeMounts[{index}]"
        if not mount.name:
            causes.required(f"{where}.name")
        elif mount.name not in known:
            causes.not_found(f"{where}.name", mount.name)
        if not mount.mount_path:
            causes.required(f"{where}.mountPath")
        elif not mount.mount_path.startswith("/"):
            causes.invalid(f"{where}.mountPath", mount.mount_path, "must be an absolute path")
        elif ":" in mount.mount_path:
            causes.invalid(f"{where}.mountPath", mount.mount_path, "must not contain ':'")
        no_zero(causes, f"{where}.mountPath", mount.mount_path)
        plain = mount.mount_path.rstrip("/") or "/"
        if mount.mount_path and plain in paths:
            causes.invalid(f"{where}.mountPath", mount.mount_path, "must be unique")
        paths.add(plain)
        _mount_options(causes, where, mount, container)
    devices: set[str] = set()
    for index, device in enumerate(container.volume_devices):
        where = f"{field}.volumeDevices[{index}]"
        volume = known.get(device.name)
        if volume is None:
            causes.not_found(f"{where}.name", device.name)
        elif volume.persistent_volume_claim is None and volume.ephemeral is None:
            text = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            causes.invalid(f"{where}.name", device.name, text)
        if any(mount.name == device.name for mount in container.volume_mounts):
            causes.invalid(f"{where}.name", device.name, "must not already exist in volumeMounts")
        if not device.device_path:
            causes.required(f"{where}.devicePath")
        elif ".." in device.device_path.split("/"):
            causes.invalid(f"{where}.devicePath", device.device_path, "must not contain '..'")
        elif device.device_path in devices or device.device_path in paths:
            causes.invalid(f"{where}.devicePath", device.device_path, "must be unique")
        devices.add(device.device_path)
        no_zero(causes, f"{where}.devicePath", device.device_path)


def _mount_options(causes: Causes, field: str, mount: VolumeMount, container: Container) -> None:
    if mount.sub_path and mount.sub_path_expr:
        causes.invalid(f"{field}.subPathExpr", mount.sub_path_expr, "subPathExpr and subPath are mutually exclusive")
    if mount.sub_path:
        local_descending_path(causes, f"{field}.subPath", mount.sub_path)
    if mount.sub_path_expr:
        local_descending_path(causes, f"{field}.subPathExpr", mount.sub_path_expr)
    propagation = mount.mount_propagation
    causes.one_of(f"{field}.mountPropagation", propagation, ("Bidirectional", "HostToContainer", "None"))
    privileged = container.security_context is not None and container.security_context.privileged
    if propagation == "Bidirectional" and not privileged:
        causes.forbidden(
            f"{field}.mountPropagation", "Bidirectional mount propagation is available only to privileged containers"
        )
    recursive = mount.recursive_read_only
    causes.one_of(f"{field}.recursiveReadOnly", recursive, ("Disabled", "Enabled", "IfPossible"))
    if recursive in ("Enabled", "IfPossible"):
        if not mount.read_only:
            causes.forbidden(f"{field}.recursiveReadOnly", "may only be specified when readOnly is true")
        if propagation not in (None, "None"):
            causes.forbidden(
                f"{field}.recursiveReadOnly", "may only be specified when mountPropagation is None or not specified"
            )
