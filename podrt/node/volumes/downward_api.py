"""downwardAPI: fields of the Pod, and resources of its containers, as files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from podrt.model.pod import Pod
from podrt.model.volume import DownwardAPIVolumeFile
from podrt.node.env import pod_field
from podrt.node.resources import resource_field
from podrt.node.volumes.errors import Unavailable
from podrt.node.volumes.payload import File, Payload

_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
_ESCAPES |= {'"': '\\"', "\\": "\\\\"}


def files(
    pod: Pod, items: Iterable[DownwardAPIVolumeFile], default_mode: int, allocatable: Mapping[str, str]
) -> Payload:
    """One file for each item. Raises Unavailable for a container that the Pod doesn't have."""
    found: Payload = {}
    for item in items:
        mode = default_mode if item.mode is None else item.mode
        found[item.path] = File(_content(pod, item, allocatable).encode(), mode)
    return found


def _content(pod: Pod, item: DownwardAPIVolumeFile, allocatable: Mapping[str, str]) -> str:
    if item.field_ref is not None:
        path = item.field_ref.field_path
        if path == "metadata.labels":
            return pairs(pod.metadata.labels)
        if path == "metadata.annotations":
            return pairs(pod.metadata.annotations)
        return pod_field(pod, path, f"volume file {item.path}", (), ())
    assert item.resource_field_ref is not None
    name = item.resource_field_ref.container_name
    everyone = (*pod.spec.containers, *pod.spec.init_containers)
    container = next((one for one in everyone if one.name == name), None)
    if container is None:
        raise Unavailable(f"container {name} not found")
    return resource_field(pod, container, item.resource_field_ref, allocatable)


def pairs(table: Mapping[str, str]) -> str:
    """``key="value"`` lines by key, quoted as Go's %q: the format that Kubernetes documents."""
    return "\n".join(f"{key}={quoted(table[key])}" for key in sorted(table))


def quoted(text: str) -> str:
    """A Go string literal."""
    return '"' + "".join(_ESCAPES.get(char) or _shown(char) for char in text) + '"'


def _shown(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
