"""Reads Kubernetes objects in protobuf: kubectl sends what its ``create`` commands make in it and does not fall back.

A body is the four bytes ``k8s\\0``, then ``runtime.Unknown`` (1: apiVersion and kind, 2: the object). ``protobuf.json``
has the messages: field number -> name in JSON and type, where ``?`` marks what may be unset (Go's clients send all
other fields always, so there an empty value means an unset one), ``[]`` a list, ``{}`` a map, and an empty name a
message whose fields belong to the one around it. A field that is not in the table is refused by number rather than
dropped. Numbers, names and types are those of the field tags in k8s.io/api and apimachinery; protobuf's encoding guide
has the wire.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from podrt.api.status import UnsupportedMediaTypeError
from podrt.errors import MalformedError
from podrt.model.kinds import BY_KIND, Resource
from podrt.model.tokens import API_VERSION as TOKENS

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\0"
_MAX_DEPTH = 40
"""Of messages in messages; a Pod's deepest field is at about 15."""

_UNSTORED = ((TOKENS, "TokenRequest"),)
"""Kinds that are only asked with."""

Wire = int | bytes
Fields = dict[str, tuple[str, str]]


def readable(resource: Resource) -> bool:
    """Whether objects of this resource can be read from protobuf."""
    return resource.kind in _messages()


def document(data: bytes) -> dict[str, Any]:
    """The object in a protobuf body as the document that JSON would have given.

    Raises UnsupportedMediaTypeError for another kind or an unknown field, MalformedError for what is no protobuf.
    """
    if not data.startswith(_MAGIC):
        raise MalformedError("the body is no protobuf of Kubernetes: it does not begin with k8s")
    envelope = dict(_fields(data[len(_MAGIC) :]))
    kind = dict(_fields(_bytes(envelope.get(1, b""))))
    version, name = _text(kind.get(1, b"")), _text(kind.get(2, b""))
    resource = BY_KIND.get((version, name))
    if (version, name) not in _UNSTORED and (resource is None or not readable(resource)):
        raise UnsupportedMediaTypeError(f"{version} {name} is not read from protobuf: send JSON or YAML")
    return {"apiVersion": version, "kind": name} | _message(name, _bytes(envelope.get(2, b"")), name, 0)


@functools.cache
def _messages() -> dict[str, Fields]:
    found: dict[str, Fields] = json.loads((Path(__file__).parent / "protobuf.json").read_bytes())
    return found


def _message(kind: str, data: bytes, path: str, depth: int) -> dict[str, Any]:
    """One message as JSON has it, without what is unset."""
    if depth > _MAX_DEPTH:
        raise MalformedError(f"the protobuf body is nested too deep, at {path}")
    table = _messages()[kind]
    found: dict[str, Any] = {}
    for number, value in _fields(data):
        if str(number) not in table:
            # A status and the like are always sent, with nothing in them.
            if _blank(value):
                continue
            raise UnsupportedMediaTypeError(f"{path}: field {number} is not read from protobuf: send JSON or YAML")
        name, wanted = table[str(number)]
        if not name:
            found |= _message(wanted.removesuffix("?"), _bytes(value), path, depth + 1)
            continue
        below = f"{path}.{name}"
        if wanted.endswith("[]"):
            found.setdefault(name, []).append(_value(wanted[:-2], value, below, depth))
        elif wanted.endswith("{}"):
            entry = dict(_fields(_bytes(value)))
            key = _text(entry.get(1, b""))
            found.setdefault(name, {})[key] = _value(wanted[:-2], entry.get(2, b""), below, depth)
        else:
            read = _value(wanted.removesuffix("?"), value, below, depth)
            if read is not None and (read or wanted.endswith("?")):
                found[name] = read
    return found


def _value(wanted: str, value: Wire, path: str, depth: int) -> Any:
    reader = _SCALARS.get(wanted)
    return reader(value) if reader else _message(wanted, _bytes(value), path, depth + 1)


def _flag(value: Wire) -> bool:
    return bool(_number(value))


def _number(value: Wire) -> int:
    if not isinstance(value, int):
        raise MalformedError("the protobuf body has a text or message where a number belongs")
    return value - (1 << 64) if value >= 1 << 63 else value


def _base64(value: Wire) -> str:
    return base64.b64encode(_bytes(value)).decode()


def _quantity(value: Wire) -> str:
    return _text(dict(_fields(_bytes(value))).get(1, b""))


def _int_or_string(value: Wire) -> int | str:
    """1: whether it is a text, 2: the number, 3: the text."""
    parts = dict(_fields(_bytes(value)))
    return _text(parts.get(3, b"")) if parts.get(1) else _number(parts.get(2, 0))


def _time(value: Wire) -> str | None:
    """1: seconds, 2: nanoseconds since the epoch, which objects don't keep. A zero time is an empty message."""
    parts = dict(_fields(_bytes(value)))
    if not parts:
        return None
    try:
        moment = datetime.fromtimestamp(_number(parts.get(1, 0)), UTC)
    except (ValueError, OverflowError, OSError):
        raise MalformedError("the protobuf body has a time that no calendar knows") from None
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _blank(value: Wire) -> bool:
    """Whether there is nothing in it: zero, no text, or a message with only such fields."""
    if not value:
        return True
    try:
        return not isinstance(value, int) and all(_blank(inner) for _, inner in _fields(value))
    except (MalformedError, RecursionError):
        return False


def _fields(data: bytes) -> Iterator[tuple[int, Wire]]:
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


def _bytes(value: Wire) -> bytes:
    if isinstance(value, int):
        raise MalformedError("the protobuf body has a number where a message belongs")
    return value


def _text(value: Wire) -> str:
    try:
        return _bytes(value).decode()
    except UnicodeDecodeError:
        raise MalformedError("the protobuf body has text that is not UTF-8") from None


_SCALARS: dict[str, Callable[[Wire], Any]] = {
    "text": _text,
    "flag": _flag,
    "int": _number,
    "bytes": _base64,
    "quantity": _quantity,
    "intstr": _int_or_string,
    "time": _time,
}
