"""What is in a volume of files: names to bytes and modes, collected from ConfigMaps and Secrets. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, TypeVar

from podrt.model.configuration import ConfigMap, Secret
from podrt.model.kinds import Object
from podrt.model.volume import KeyToPath
from podrt.node.volumes.errors import Unavailable

T = TypeVar("T", bound=Object)


class Objects(Protocol):
    """The part of the store that volumes and the environment read."""

    def find(self, kind: type[T], namespace: str, name: str) -> T | None: ...


class File(NamedTuple):
    data: bytes
    mode: int
    uid: int = 0

    def __repr__(self) -> str:
        """Without the bytes, which may be a Secret's."""
        return f"File({len(self.data)} bytes, {self.mode:#o})"


Payload = dict[str, File]
"""Relative path to file."""


def chosen(
    content: Mapping[str, bytes], items: Iterable[KeyToPath], default_mode: int, optional: bool, what: str
) -> Payload:
    """The files of one object: all keys, or those that ``items`` names. ``what``: config or secret.

    Raises Unavailable for a key that is missing and not optional.
    """
    listed = tuple(items)
    if not listed:
        return {key: File(data, default_mode) for key, data in content.items()}
    files: Payload = {}
    for item in listed:
        if item.key not in content:
            if optional:
                continue
            raise Unavailable(f"references non-existent {what} key: {item.key}")
        files[item.path] = File(content[item.key], default_mode if item.mode is None else item.mode)
    return files


def config_map(
    objects: Objects, namespace: str, name: str, items: Iterable[KeyToPath], default_mode: int, optional: bool | None
) -> Payload:
    """The files of a ConfigMap. Raises Unavailable."""
    found = objects.find(ConfigMap, namespace, name)
    if found is None:
        if optional:
            return {}
        raise Unavailable(f'configmap "{name}" not found')
    return chosen(found.content(), items, default_mode, bool(optional), "config")


def secret(
    objects: Objects, namespace: str, name: str, items: Iterable[KeyToPath], default_mode: int, optional: bool | None
) -> Payload:
    """The files of a Secret. Raises Unavailable."""
    found = objects.find(Secret, namespace, name)
    if found is None:
        if optional:
            return {}
        raise Unavailable(f'secret "{name}" not found')
    return chosen(found.content(), items, default_mode, bool(optional), "secret")
