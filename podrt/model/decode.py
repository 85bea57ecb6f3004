"""From a parsed document (dictionaries, lists, scalars) to typed structs, with *every* error found and named by its
path.

msgspec stops at the first error; users of Kubernetes are told all of them, and may ask for unknown fields to be
dropped. So a document from outside is first gone through by checkers built once from the structs' types: nulls are
dropped (absent, to Kubernetes), unknown and duplicate fields noted, wrong types reported, quantities made canonical.
What passes converts without error.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from podrt.errors import Cause
from podrt.model import quantity
from podrt.model.base import format_micro_time, format_time, parse_time

MAX_NODES = 200_000
"""Values in one document: a YAML file of aliases can name far more than it has bytes."""

MAX_HINTS = 20
"""Unknown fields of one document that are compared with known names; the rest are named without a hint."""

ABSENT: Any = object()


class Fields(dict[str, Any]):
    """A JSON or YAML mapping that remembers which of its keys were given twice."""

    __slots__ = ("duplicates",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.duplicates: tuple[str, ...] = ()
        if len(self) != len(pairs):
            seen: set[str] = set()
            twice = [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]
            self.duplicates = tuple(dict.fromkeys(twice))


@dataclass(slots=True)
class Findings:
    """What was wrong with a document. ``unknown`` and ``duplicate`` may be forgiven, ``wrong`` may not."""

    wrong: list[Cause] = field(default_factory=list)
    unknown: list[Cause] = field(default_factory=list)
    duplicate: list[Cause] = field(default_factory=list)
    nodes: int = 0

    def count(self) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise TooLargeError


class TooLargeError(Exception):
    """The document has more than MAX_NODES values."""


Checker = Callable[[Any, str, Findings], Any]
"""``(value, path, findings)`` -> the value made ready for msgspec.convert, or ABSENT."""

_JSON_NAMES = {
    bool: "bool",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
    Fields: "object",
    type(None): "null",
}


_NO_BREAKS = {10: None, 13: None}


def plain(text: str) -> str:
    """Text from outside as it may stand in a message, a path or a header: short and printable."""
    if text.isprintable() and len(text) <= 128:
        return text
    escaped = json.dumps(text)[1:-1]
    return escaped if len(escaped) <= 128 else f"{escaped[:128]}..."


def _wrong(findings: Findings, path: str, value: Any, wanted: str) -> Any:
    shown = ""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        shown = f" {value!r}" if isinstance(value, str) else f" {value}"
        shown = shown if len(shown) < 60 else f"{shown[:56]}..."
    kind = _JSON_NAMES.get(type(value), type(value).__name__)
    findings.wrong.append(Cause(path, f"cannot unmarshal {kind}{shown} into field {path} of type {wanted}"))
    return ABSENT


def _string(value: Any, path: str, findings: Findings) -> Any:
    findings.count()
    if not isinstance(value, str):
        return _wrong(findings, path, value, "string")
    # JSON can escape a lone half of a surrogate pair, which no UTF-8 text can hold.
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        findings.wrong.append(Cause(path, f"field {path} is not valid Unicode text"))
        return ABSENT
    return value


def _boolean(value: Any, path: str, findings: Findings) -> Any:
    findings.count()
    return value if isinstance(value, bool) else _wrong(findings, path, value, "bool")


def _integer(low: int, high: int) -> Checker:
    name = "int32" if high == 2**31 - 1 else "int64"

    def check(value: Any, path: str, findings: Findings) -> Any:
        findings.count()
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            return _wrong(findings, path, value, name)
        return value

    return check


def _quantity(value: Any, path: str, findings: Findings) -> Any:
    findings.count()
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return _wrong(findings, path, value, "quantity")
    try:
        return quantity.canonical(value if isinstance(value, str) else repr(value))
    except quantity.QuantityError as error:
        findings.wrong.append(Cause(path, f"field {path}: {value!r} is not a quantity: {error}"))
        return ABSENT


def _time(micro: bool) -> Checker:
    def check(value: Any, path: str, findings: Findings) -> Any:
        findings.count()
        if not isinstance(value, str):
            return _wrong(findings, path, value, "time")
        try:
            moment = parse_time(value)
        except ValueError as error:
            findings.wrong.append(Cause(path, f"field {path}: {error}"))
            return ABSENT
        return format_micro_time(moment) if micro else format_time(moment)

    return check


def _refuse_hidden(findings: Findings, path: str, value: Any, wanted: str) -> Any:
    """As :func:`_wrong`, without the value."""
    kind = _JSON_NAMES.get(type(value), type(value).__name__)
    findings.wrong.append(Cause(path, f"cannot unmarshal {kind} into field {path} of type {wanted}"))
    return ABSENT


def _base64(value: Any, path: str, findings: Findings) -> Any:
    findings.count()
    if not isinstance(value, str):
        return _refuse_hidden(findings, path, value, "[]uint8")
    try:
        # Line breaks are allowed, as YAML files have them.
        return base64.b64encode(base64.b64decode(value.translate(_NO_BREAKS), validate=True)).decode()
    except (binascii.Error, ValueError):
        findings.wrong.append(Cause(path, f"field {path}: illegal base64 data"))
        return ABSENT


def _hidden(value: Any, path: str, findings: Findings) -> Any:
    if isinstance(value, str):
        return _string(value, path, findings)
    findings.count()
    return _refuse_hidden(findings, path, value, "string")


def _int_or_string(value: Any, path: str, findings: Findings) -> Any:
    if isinstance(value, str):
        return _string(value, path, findings)
    findings.count()
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**31) <= value < 2**31:
        return _wrong(findings, path, value, "int-or-string")
    return value


def _anything(value: Any, path: str, findings: Findings) -> Any:
    """Content that is kept as sent: checked for size and for keys and text that can be stored."""
    if isinstance(value, dict):
        findings.count()
        for key in value:
            _string(key, _key_path(path, str(key)), findings)
        return {key: _anything(item, _key_path(path, str(key)), findings) for key, item in value.items()}
    if isinstance(value, list):
        findings.count()
        return [_anything(item, f"{path}[{index}]", findings) for index, item in enumerate(value)]
    if isinstance(value, str):
        return _string(value, path, findings)
    findings.count()
    return value


_TEXTS: tuple[Checker, ...] = (_string, _base64, _hidden)


def _mapping(item: Checker) -> Checker:
    def check(value: Any, path: str, findings: Findings) -> Any:
        findings.count()
        if not isinstance(value, dict):
            return _wrong(findings, path, value, "map[string]string" if item in _TEXTS else "object")
        _note_duplicates(value, path, findings)
        checked: dict[str, Any] = {}
        for key, entry in value.items():
            _string(key, _key_path(path, key), findings)
            # A null value of a map is its zero value, unlike a null field.
            result = "" if entry is None and item in _TEXTS else item(entry, _key_path(path, key), findings)
            if result is not ABSENT:
                checked[key] = result
        return checked

    return check


def _array(item: Checker) -> Checker:
    def check(value: Any, path: str, findings: Findings) -> Any:
        findings.count()
        if not isinstance(value, list):
            return _wrong(findings, path, value, "array")
        checked = [
            item({} if entry is None else entry, f"{path}[{index}]", findings) for index, entry in enumerate(value)
        ]
        return [entry for entry in checked if entry is not ABSENT]

    return check


def _struct(struct: type[msgspec.Struct]) -> Checker:
    fields: dict[str, Checker] = {}

    def check(value: Any, path: str, findings: Findings) -> Any:
        if not fields:
            # Built on first use: importing the model costs nothing for kinds that nobody sends.
            for entry in inspect.type_info(struct).fields:  # type: ignore[attr-defined]
                fields[entry.encode_name] = _checker(entry.type)
        findings.count()
        if not isinstance(value, dict):
            return _wrong(findings, path or "(the document)", value, struct.__name__)
        _note_duplicates(value, path, findings)
        checked: dict[str, Any] = {}
        for key, entry in value.items():
            known = fields.get(key)
            where = f"{path}.{plain(key)}" if path else plain(key)
            if known is None:
                hint = _hint(struct, key, path) if len(findings.unknown) < MAX_HINTS and len(key) <= 64 else ""
                findings.unknown.append(Cause(where, f'unknown field "{where}"{hint}'))
            elif entry is not None:
                result = known(entry, where, findings)
                if result is not ABSENT:
                    checked[key] = result
        return checked

    return check


def _note_duplicates(value: dict[str, Any], path: str, findings: Findings) -> None:
    for key in getattr(value, "duplicates", ()):
        where = f"{path}.{plain(key)}" if path else plain(key)
        findings.duplicate.append(Cause(where, f'duplicate field "{where}"', "FieldValueDuplicate"))


def _key_path(path: str, key: str) -> str:
    return f"{path}.{plain(key)}" if key.isidentifier() else f"{path}[{plain(key)}]"


_SCALARS: dict[str, Checker] = {
    "quantity": _quantity,
    "time": _time(False),
    "microtime": _time(True),
    "base64": _base64,
    "hidden": _hidden,
}


def _checker(info: inspect.Type) -> Checker:
    """The checker of one field's type."""
    if isinstance(info, inspect.Metadata):
        scalar = (info.extra or {}).get("scalar")
        if scalar:
            return _SCALARS[scalar]
        return _checker(info.type)
    if isinstance(info, inspect.UnionType):
        types = [entry for entry in info.types if not isinstance(entry, inspect.NoneType)]
        return _checker(types[0]) if len(types) == 1 else _int_or_string
    if isinstance(info, inspect.StructType):
        return struct_checker(info.cls)
    if isinstance(info, inspect.VarTupleType):
        return _array(_checker(info.item_type))
    if isinstance(info, inspect.DictType):
        return _mapping(_checker(info.value_type))
    if isinstance(info, inspect.IntType):
        return _integer(info.ge if info.ge is not None else -(2**63), info.le if info.le is not None else 2**63 - 1)
    if isinstance(info, inspect.BoolType):
        return _boolean
    if isinstance(info, inspect.StrType):
        return _string
    if isinstance(info, inspect.AnyType):
        return _anything
    raise TypeError(f"no checker for {info}")


@cache
def struct_checker(struct: type[msgspec.Struct]) -> Checker:
    """The checker of a struct type."""
    return _struct(struct)


# Hints for fields that are put in the wrong place or spelled wrong.

_PLACES: dict[str, str] = {
    "containers": "spec.containers",
    "initContainers": "spec.initContainers",
    "volumes": "spec.volumes",
    "restartPolicy": "spec.restartPolicy",
    "hostNetwork": "spec.hostNetwork",
    "nodeSelector": "spec.nodeSelector",
    "labels": "metadata.labels",
    "annotations": "metadata.annotations",
    "name": "metadata.name",
    "namespace": "metadata.namespace",
    "image": "spec.containers[0].image",
    "command": "spec.containers[0].command",
    "args": "spec.containers[0].args",
    "env": "spec.containers[0].env",
    "ports": "spec.containers[0].ports",
    "resources": "spec.containers[0].resources",
    "volumeMounts": "spec.containers[0].volumeMounts",
    "imagePullPolicy": "spec.containers[0].imagePullPolicy",
    "livenessProbe": "spec.containers[0].livenessProbe",
    "readinessProbe": "spec.containers[0].readinessProbe",
    "startupProbe": "spec.containers[0].startupProbe",
    "lifecycle": "spec.containers[0].lifecycle",
    "workingDir": "spec.containers[0].workingDir",
    "tty": "spec.containers[0].tty",
    "stdin": "spec.containers[0].stdin",
    "privileged": "spec.containers[0].securityContext.privileged",
    "capabilities": "spec.containers[0].securityContext.capabilities",
    "fsGroup": "spec.securityContext.fsGroup",
    "sysctls": "spec.securityContext.sysctls",
    "cpu": "spec.containers[0].resources.limits.cpu",
    "memory": "spec.containers[0].resources.limits.memory",
}
_POD_ONLY = frozenset({"containers", "initContainers", "volumes", "restartPolicy", "hostNetwork", "nodeSelector"})
_POD_STRUCTS = frozenset({"Pod", "PodSpec", "Container", "EphemeralContainer", "PodSecurityContext", "SecurityContext"})


def _hint(struct: type[msgspec.Struct], key: str, path: str) -> str:
    """ " (did you mean ...?)" where that can be told cheaply, else ""."""
    names = struct.__struct_encode_fields__
    by_case = {name.lower(): name for name in names}
    spelled = by_case.get(key.lower().replace("_", "").replace("-", ""))
    if spelled is None and len(key) > 3:
        close = difflib.get_close_matches(key, names, n=1, cutoff=0.8)
        spelled = close[0] if close else None
    if spelled is not None:
        return f' (did you mean "{spelled}"?)'
    place = _PLACES.get(key)
    if struct.__name__ not in _POD_STRUCTS and not (struct.__name__ == "ObjectMeta" and key in _POD_ONLY):
        place = {"cpu": "limits.cpu", "memory": "limits.memory"}.get(key) if "Resource" in struct.__name__ else None
        return f' (did you mean "{place}"?)' if place else ""
    if place is None or place == (f"{path}.{key}" if path else key):
        return ""
    # Inside a container the place is in that very container, not in the first one.
    container = path.partition("]")[0] + "]" if "ontainers[" in path else ""
    if container and place.startswith("spec.containers[0]"):
        place = container + place.removeprefix("spec.containers[0]")
    return f' (did you mean "{place}"?)'
