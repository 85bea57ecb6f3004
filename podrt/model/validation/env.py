"""Environment variables and the fields they can be taken from."""

from __future__ import annotations

import re

from podrt.model.container import (
    Container,
    EnvVarSource,
    FileKeySelector,
    ObjectFieldSelector,
    ResourceFieldSelector,
)
from podrt.model.names import config_key_errors, env_name_errors, qualified_name_errors
from podrt.model.quantity import QuantityError, parse
from podrt.model.validation.causes import Causes

ENV_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
VOLUME_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
RESOURCES = (
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
)
DIVISORS = {
    "cpu": ("1", "1m"),
    "memory": ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"),
}
_SUBSCRIPT = re.compile(r"(metadata\.(?:labels|annotations))\['([^']*)'\]")


def environment(causes: Causes, field: str, container: Container) -> None:
    """``env`` and ``envFrom`` of one container."""
    for index, variable in enumerate(container.env):
        where = f"{field}.env[{index}]"
        if not variable.name:
            causes.required(f"{where}.name")
        else:
            causes.check(f"{where}.name", variable.name, env_name_errors(variable.name))
        if "\0" in variable.value:
            causes.invalid(f"{where}.value", "", "must not contain a zero byte")
        if variable.value_from is not None:
            _source(causes, f"{where}.valueFrom", variable.value_from, bool(variable.value))
    for index, source in enumerate(container.env_from):
        where = f"{field}.envFrom[{index}]"
        if source.prefix:
            causes.check(f"{where}.prefix", source.prefix, env_name_errors(source.prefix))
        given = [entry for entry in (source.config_map_ref, source.secret_ref) if entry is not None]
        if len(given) != 1:
            causes.invalid(where, "", "must specify exactly one of: `configMapRef` or `secretRef`")
        for entry in given:
            if not entry.name:
                causes.required(f"{where}.name")


def _source(causes: Causes, field: str, source: EnvVarSource, has_value: bool) -> None:
    given = [name for name in source.__struct_fields__ if getattr(source, name) is not None]
    if has_value and given:
        causes.invalid(field, "", "may not be specified when `value` is not empty")
    if not given:
        causes.invalid(
            field,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        )
    if len(given) > 1:
        causes.invalid(field, "", "may not have more than one field specified at a time")
    if source.field_ref is not None:
        field_ref(causes, f"{field}.fieldRef", source.field_ref, volume=False)
    if source.resource_field_ref is not None:
        resource_field_ref(causes, f"{field}.resourceFieldRef", source.resource_field_ref, volume=False)
    for name, selector in (("configMapKeyRef", source.config_map_key_ref), ("secretKeyRef", source.secret_key_ref)):
        if selector is None:
            continue
        if not selector.name:
            causes.required(f"{field}.{name}.name")
        if not selector.key:
            causes.required(f"{field}.{name}.key")
        else:
            causes.check(f"{field}.{name}.key", selector.key, config_key_errors(selector.key))
    if source.file_key_ref is not None:
        _file_key(causes, f"{field}.fileKeyRef", source.file_key_ref)


def _file_key(causes: Causes, field: str, selector: FileKeySelector) -> None:
    for name, value in (("volumeName", selector.volume_name), ("path", selector.path), ("key", selector.key)):
        if not value:
            causes.required(f"{field}.{name}")
    if selector.path.startswith("/") or ".." in selector.path.split("/"):
        causes.invalid(f"{field}.path", selector.path, "must be a relative path without '..'")


def field_ref(causes: Causes, field: str, selector: ObjectFieldSelector, *, volume: bool) -> None:
    """A downward API field: the Pod's own, by path or ``metadata.labels['key']``."""
    if selector.api_version not in ("", "v1"):
        causes.not_supported(f"{field}.apiVersion", selector.api_version, ("v1",))
    path = selector.field_path
    if not path:
        causes.required(f"{field}.fieldPath")
        return
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript is not None:
        causes.check(f"{field}.fieldPath", path, qualified_name_errors(subscript.group(2).lower()))
        return
    supported = VOLUME_FIELDS if volume else ENV_FIELDS
    if path not in supported:
        causes.not_supported(f"{field}.fieldPath", path, supported)


def resource_field_ref(causes: Causes, field: str, selector: ResourceFieldSelector, *, volume: bool) -> None:
    """A resource of a container; a volume must say of which."""
    if volume and not selector.container_name:
        causes.required(f"{field}.containerName")
    if not selector.resource:
        causes.required(f"{field}.resource")
        return
    name = selector.resource
    if name not in RESOURCES and not name.startswith(("limits.hugepages-", "requests.hugepages-")):
        causes.not_supported(f"{field}.resource", name, RESOURCES)
        return
    if selector.divisor in (None, "0"):
        return
    allowed = DIVISORS["cpu" if name.endswith(".cpu") else "memory"]
    try:
        fits = any(parse(str(selector.divisor)) == parse(entry) for entry in allowed)
    except QuantityError:
        fits = False
    if not fits:
        causes.not_supported(f"{field}.divisor", selector.divisor, allowed)
