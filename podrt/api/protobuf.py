"""Just enough protobuf to read Namespaces, ConfigMaps and Secrets: kubectl 1.32 and later send ``create namespace`` and
the like in it and do not fall back.

A body is the four bytes ``k8s\\0``, then ``runtime.Unknown`` (1: apiVersion and kind, 2: the object). Other kinds, and
fields that are not in the tables below, are refused by number rather than dropped. Source: ``generated.proto`` of
k8s.io/api and apimachinery; protobuf's encoding guide.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

from podrt.api.status import UnsupportedMediaTypeError
from podrt.errors import MalformedError

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\0"

_META_TEXT = {1: "name", 2: "generateName", 3: "namespace"}
_META_MAPS = {11: "labels", 12: "annotations"}


def document(data: bytes) -> dict[str, Any]:
    """The object in a protobuf body as the document that JSON would have given.

    Raises UnsupportedMediaTypeError for another kind or an unknown field, MalformedError for what is no protobuf.
    """
    if not data.startswith(_MAGIC):
        raise MalformedError("the body is no protobuf of Kubernetes: it does not begin with k8s")
    envelope = dict(_fields(data[len(_MAGIC) :]))
    kind = dict(_fields(_bytes(envelope.get(1, b""))))
    version, name = _text(kind.get(1, b"")), _text(kind.get(2, b""))
    readers = KINDS.get(name) if version == "v1" else None
    if readers is None:
        known = ", ".join(KINDS)
        raise UnsupportedMediaTypeError(
            f"protobuf is read for v1 {known} only, not {version} {name}: send JSON or YAML"
        )
    found: dict[str, Any] = {"apiVersion": version, "kind": name}
    for number, value in _fields(_bytes(envelope.get(2, b""))):
        if number == 1:
            found["metadata"] = _metadata(_bytes(value))
        elif number in readers:
            readers[number](found, value)
        elif not _blank(value):
            # A Namespace's 2 is the spec, 3 the status: kubectl sends both with nothing in them.
            raise _unknown(f"{name} field {number}")
    return found


Reader = Callable[[dict[str, Any], "int | bytes"], None]


def _into_map(field: str, convert: Callable[[int | bytes], str]) -> Reader:
    """Entries of a map come one by one, as messages of key (1) and value (2)."""

    def read(found: dict[str, Any], value: int | bytes) -> None:
        entry = dict(_fields(_bytes(value)))
        found.setdefault(field, {})[_text(entry.get(1, b""))] = convert(entry.get(2, b""))

    return read


def _into_text(field: str) -> Reader:
    def read(found: dict[str, Any], value: int | bytes) -> None:
        found[field] = _text(value)

    return read


def _into_flag(field: str) -> Reader:
    def read(found: dict[str, Any], value: int | bytes) -> None:
        found[field] = bool(value)

    return read


def _metadata(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, value in _fields(data):
        if number in _META_TEXT:
            found[_META_TEXT[number]] = _text(value)
        elif number in _META_MAPS:
            entry = dict(_fields(_bytes(value)))
            found.setdefault(_META_MAPS[number], {})[_text(entry.get(1, b""))] = _text(entry.get(2, b""))
        elif not _blank(value):
            # An empty creationTimestamp, generation 0 and the like are always sent.
            raise _unknown(f"metadata field {number}")
    return found


def _blank(value: int | bytes) -> bool:
    """Whether there is nothing in it: zero, no text, or a message with only such fields."""
    if not value:
        return True
    try:
        return not isinstance(value, int) and all(_blank(inner) for _, inner in _fields(value))
    except MalformedError:
        return False


def _unknown(what: str) -> UnsupportedMediaTypeError:
    return UnsupportedMediaTypeError(f"{what} is not read from protobuf: send JSON or YAML")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a message; numbers for varints, bytes for what has a length."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield number, value
        elif wire == 2:
            length, position = _varint(data, position)
            if position + length > len(data):
                raise MalformedError("the protobuf body is cut short")
            yield number, data[position : position + length]
            position += length
        else:
            raise MalformedError(
                f"the protobuf body has a field of wire type {wire}, which Kubernetes does not use here"
            )


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise MalformedError("the protobuf body is cut short")
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return value, position


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise MalformedError("the protobuf body has a number where a message belongs")
    return value


def _text(value: int | bytes) -> str:
    try:
        return _bytes(value).decode()
    except UnicodeDecodeError:
        raise MalformedError("the protobuf body has text that is not UTF-8") from None


def _base64(value: int | bytes) -> str:
    return base64.b64encode(_bytes(value)).decode()


KINDS: dict[str, dict[int, Reader]] = {
    "Namespace": {},
    "ConfigMap": {2: _into_map("data", _text), 3: _into_map("binaryData", _base64), 4: _into_flag("immutable")},
    "Secret": {
        2: _into_map("data", _base64),
        3: _into_text("type"),
        4: _into_map("stringData", _text),
        5: _into_flag("immutable"),
    },
}
"""The fields that are read, besides metadata (1)."""
