"""The three patch formats that change an object's JSON form: pure functions over plain values.

JSON patch is RFC 6902, merge patch RFC 7386, strategic merge patch is Kubernetes' own (``strategic``). None of them
changes its arguments. Server-side apply is not among them: it needs the ownership of every field, which podrt does not
keep.

Errors: MalformedError where the patch itself is not of its format, InvalidError where it does not fit the object.
"""

from __future__ import annotations

import copy
from typing import Any

from podrt.errors import Cause, InvalidError, MalformedError

JSON = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

MAX_OPERATIONS = 10_000
"""As in Kubernetes: a longer JSON patch is refused."""


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def json_patch(target: Any, operations: Any) -> Any:
    """RFC 6902: all operations or none."""
    if not isinstance(operations, list):
        raise MalformedError("a JSON patch must be a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise MalformedError(f"a JSON patch may have at most {MAX_OPERATIONS} operations, not {len(operations)}")
    document = copy.deepcopy(target)
    for index, operation in enumerate(operations):
        document = _apply(document, operation, index)
    return document


def _apply(document: Any, operation: Any, index: int) -> Any:
    if not isinstance(operation, dict):
        raise MalformedError(f"[{index}] of the JSON patch is not an object")
    name = operation.get("op")
    path = _pointer(operation, "path", index)
    match name:
        case "add":
            return _add(document, path, copy.deepcopy(_value(operation, index)), index)
        case "remove":
            return _remove(document, path, index)
        case "replace":
            _find(document, path, index)
            return _set(document, path, copy.deepcopy(_value(operation, index)), index)
        case "move":
            source = _pointer(operation, "from", index)
            if path[: len(source)] == source and len(path) > len(source):
                raise MalformedError(f"[{index}] of the JSON patch moves a value into itself")
            value = _find(document, source, index)
            return _add(_remove(document, source, index), path, value, index)
        case "copy":
            source = _pointer(operation, "from", index)
            return _add(document, path, copy.deepcopy(_find(document, source, index)), index)
        case "test":
            expected = _value(operation, index)
            found = _find(document, path, index)
            if not _equal(found, expected):
                raise _misfit(index, path, "the test failed: the value is another")
            return document
    raise MalformedError(f"[{index}].op of the JSON patch: {name!r} is none of add, remove, replace, move, copy, test")


def _equal(left: Any, right: Any) -> bool:
    """JSON equality: unlike Python's, true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)


def _pointer(operation: dict[str, Any], key: str, index: int) -> list[str]:
    text = operation.get(key)
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise MalformedError(
            f"[{index}].{key} of the JSON patch must be a JSON pointer such as /spec/containers/0/image"
        )
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _value(operation: dict[str, Any], index: int) -> Any:
    if "value" not in operation:
        raise MalformedError(f"[{index}].value of the JSON patch is missing")
    return operation["value"]


def _misfit(index: int, path: list[str], why: str) -> InvalidError:
    where = "/" + "/".join(part.replace("~", "~0").replace("/", "~1") for part in path)
    message = f"[{index}] of the JSON patch does not fit the object at {where}: {why}"
    return InvalidError(message, [Cause(field=where, message=why)])


def _find(document: Any, path: list[str], index: int) -> Any:
    for depth, part in enumerate(path):
        if isinstance(document, dict):
            if part not in document:
                raise _misfit(index, path[: depth + 1], "no such value")
            document = document[part]
        elif isinstance(document, list):
            document = document[_position(part, len(document) - 1, index, path[: depth + 1])]
        else:
            raise _misfit(index, path[: depth + 1], "no such value")
    return document


def _position(part: str, last: int, index: int, path: list[str]) -> int:
    if not (part.isascii() and part.isdigit()) or (part != "0" and part.startswith("0")) or len(part) > 9:
        raise _misfit(index, path, "not an index of a list")
    if int(part) > last:
        raise _misfit(index, path, "the list is shorter")
    return int(part)


def _add(document: Any, path: list[str], value: Any, index: int) -> Any:
    if not path:
        return value
    parent = _find(document, path[:-1], index)
    if isinstance(parent, list):
        at = len(parent) if path[-1] == "-" else _position(path[-1], len(parent), index, path)
        parent.insert(at, value)
    elif isinstance(parent, dict):
        parent[path[-1]] = value
    else:
        raise _misfit(index, path, "its parent is neither an object nor a list")
    return document


def _set(document: Any, path: list[str], value: Any, index: int) -> Any:
    if not path:
        return value
    parent = _find(document, path[:-1], index)
    parent[int(path[-1]) if isinstance(parent, list) else path[-1]] = value
    return document


def _remove(document: Any, path: list[str], index: int) -> Any:
    if not path:
        raise _misfit(index, path, "the whole object can't be removed")
    _find(document, path, index)
    parent = _find(document, path[:-1], index)
    del parent[int(path[-1]) if isinstance(parent, list) else path[-1]]
    return document
