"""A container's environment: ``envFrom``, then ``env`` in order, ``$(VAR)``, keys of objects, and the downward API.

The rules of expansion are Kubernetes': ``$(VAR)`` takes an earlier variable, ``$$`` stands for ``$``, an unknown or
broken reference stays as it is written. No message shows a value that came from a Secret or a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from podrt.errors import Cause, InvalidError
from podrt.model.configuration import ConfigMap, Secret
from podrt.model.container import Container, EnvFromSource, EnvVar
from podrt.model.kinds import Object
from podrt.model.pod import Pod
from podrt.node import env_file
from podrt.node.resources import resource_field

T = TypeVar("T", bound=Object)

REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
_MAP_FIELD = re.compile(r"metadata\.(labels|annotations)\['([^']*)'\]")


def expand(text: str, values: Mapping[str, str]) -> str:
    """``text`` with its ``$(NAME)`` references replaced from ``values``."""

    def one(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return "$"
        return values.get(name, match.group(0))

    return REFERENCE.sub(one, text) if "$" in text else text


class Objects(Protocol):
    """The part of the store that is read here."""

    def find(self, kind: type[T], namespace: str, name: str) -> T | None: ...


class Volumes(Protocol):
    """Where the Pod's volumes lie."""

    def path_of(self, name: str) -> Path | None: ...


class _Nothing:
    """No objects and no volumes, where a caller has none."""

    def find(self, kind: type[T], namespace: str, name: str) -> T | None:
        return None

    def path_of(self, name: str) -> Path | None:
        return None


NOTHING = _Nothing()


class _Missing(Exception):
    """A source that does not exist; its ``optional`` decides whether that matters."""


def environment(
    pod: Pod,
    container: Container,
    *,
    host_ips: Sequence[str],
    pod_ips: Sequence[str],
    allocatable: Mapping[str, str],
    objects: Objects = NOTHING,
    volumes: Volumes = NOTHING,
) -> dict[str, str]:
    """The variables of ``container``, in order. Raises InvalidError in the kubelet's words."""
    values: dict[str, str] = {}
    for source in container.env_from:
        values |= _all_keys(pod, source, objects)
    for index, variable in enumerate(container.env):
        where = f"spec.containers{{{container.name}}}.env[{index}]"
        if variable.value_from is None:
            values[variable.name] = expand(variable.value, values)
            continue
        try:
            found = _from_object(pod, variable, objects, volumes)
        except _Missing as error:
            if _optional(variable):
                continue
            raise InvalidError(str(error)) from None
        if found is None:
            found = _from_pod(pod, container, variable, where, host_ips, pod_ips, allocatable)
        values[variable.name] = found
    return values


def _all_keys(pod: Pod, source: EnvFromSource, objects: Objects) -> dict[str, str]:
    namespace = pod.metadata.namespace
    reference = source.config_map_ref or source.secret_ref
    if reference is None:
        return {}
    kind: type[ConfigMap] | type[Secret] = ConfigMap if source.config_map_ref is not None else Secret
    try:
        content = _content(objects, kind, namespace, reference.name)
    except _Missing as error:
        if reference.optional:
            return {}
        raise InvalidError(str(error)) from None
    what = f'{kind.__name__.lower()} "{reference.name}"'
    return {source.prefix + key: _text(data, key, what) for key, data in sorted(content.items())}


def _content(objects: Objects, kind: type[ConfigMap] | type[Secret], namespace: str, name: str) -> dict[str, bytes]:
    found = objects.find(kind, namespace, name)
    if found is None:
        raise _Missing(f'{kind.__name__.lower()} "{name}" not found')
    # A ConfigMap's binaryData is for files only.
    return {key: text.encode() for key, text in found.data.items()} if isinstance(found, ConfigMap) else found.content()


def _text(data: bytes, key: str, what: str) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InvalidError(f"key {key} of {what} is not UTF-8 text, which a variable has to be: mount it as a file")
    return text


def _from_object(pod: Pod, variable: EnvVar, objects: Objects, volumes: Volumes) -> str | None:
    """The value from a ConfigMap, Secret or file; None for other sources. Raises _Missing, InvalidError."""
    source, namespace = variable.value_from, pod.metadata.namespace
    assert source is not None
    if source.file_key_ref is not None:
        reference = source.file_key_ref
        try:
            return env_file.value(volumes.path_of(reference.volume_name), reference)
        except KeyError as error:
            raise _Missing(error.args[0]) from None
    selector = source.config_map_key_ref or source.secret_key_ref
    if selector is None:
        return None
    kind: type[ConfigMap] | type[Secret] = ConfigMap if source.config_map_key_ref is not None else Secret
    content = _content(objects, kind, namespace, selector.name)
    if selector.key not in content:
        raise _Missing(f"couldn't find key {selector.key} in {kind.__name__} {namespace}/{selector.name}")
    return _text(content[selector.key], selector.key, f'{kind.__name__.lower()} "{selector.name}"')


def _optional(variable: EnvVar) -> bool:
    source = variable.value_from
    assert source is not None
    selector = source.config_map_key_ref or source.secret_key_ref or source.file_key_ref
    return bool(selector is not None and selector.optional)


def _from_pod(
    pod: Pod,
    container: Container,
    variable: EnvVar,
    where: str,
    host_ips: Sequence[str],
    pod_ips: Sequence[str],
    allocatable: Mapping[str, str],
) -> str:
    source = variable.value_from
    assert source is not None
    if source.field_ref is not None:
        return pod_field(pod, source.field_ref.field_path, f"{where}.valueFrom.fieldRef", host_ips, pod_ips)
    assert source.resource_field_ref is not None
    return resource_field(pod, container, source.resource_field_ref, allocatable)


def pod_field(pod: Pod, path: str, where: str, host_ips: Sequence[str], pod_ips: Sequence[str]) -> str:
    """The value of a downward API field. Raises InvalidError for one that does not exist."""
    if match := _MAP_FIELD.fullmatch(path):
        table = pod.metadata.labels if match.group(1) == "labels" else pod.metadata.annotations
        return table.get(match.group(2), "")
    simple = {
        "metadata.name": pod.metadata.name,
        "metadata.namespace": pod.metadata.namespace,
        "metadata.uid": pod.metadata.uid,
        "spec.nodeName": pod.spec.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name or "default",
        "status.hostIP": host_ips[0] if host_ips else "",
        "status.hostIPs": ",".join(host_ips),
        "status.podIP": pod_ips[0] if pod_ips else "",
        "status.podIPs": ",".join(pod_ips),
    }
    try:
        return simple[path]
    except KeyError:
        known = ", ".join(sorted(simple))
        message = (
            f"unknown field path {path!r}; use one of {known}, metadata.labels['<key>'], metadata.annotations['<key>']"
        )
        raise InvalidError(f"{where}.fieldPath: {message}", [Cause(f"{where}.fieldPath", message)]) from None
