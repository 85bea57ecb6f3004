"""Strategic merge patch: like a merge patch, but lists of named things are merged item by item.

Which list merges by which key comes from the type of its items (``_MERGE_KEYS``), found by walking the model's structs
along with the patch; a part of the patch that the model doesn't know is merged like a plain merge patch, and decoding
the result then reports the unknown field by name. Source: "Use a JSON merge patch" and "strategic-merge-patch.md" of
the Kubernetes documentation.

Directives: ``$patch: replace|delete|merge``, ``$deleteFromPrimitiveList/<field>``, ``$setElementOrder/<field>``,
``$retainKeys``.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import msgspec

from podrt.errors import MalformedError

# patchMergeKey of the Kubernetes types, by the type of the list's items. A type that is not here replaces the whole
# list.
_MERGE_KEYS = {
    "Container": "name",
    "ContainerPort": "containerPort",
    "DeploymentCondition": "type",
    "EnvVar": "name",
    "EphemeralContainer": "name",
    "HostAlias": "ip",
    "HostIP": "ip",
    "JobCondition": "type",
    "LocalObjectReference": "name",
    "NamespaceCondition": "type",
    "NodeAddress": "type",
    "NodeCondition": "type",
    "OwnerReference": "uid",
    "PodCondition": "type",
    "PodIP": "ip",
    "PodResourceClaim": "name",
    "PodResourceClaimStatus": "name",
    "PodSchedulingGate": "name",
    "TopologySpreadConstraint": "topologyKey",
    "Volume": "name",
    "VolumeDevice": "devicePath",
    "VolumeMount": "mountPath",
    "WorkloadCondition": "type",
}
# Lists of scalars that merge as sets.
_MERGED_SETS = {("ObjectMeta", "finalizers"), ("NodeSpec", "podCIDRs")}

_ORDER = "$setElementOrder/"
_DELETE = "$deleteFromPrimitiveList/"
_PATCH = "$patch"
_RETAIN = "$retainKeys"


class _Field(NamedTuple):
    struct: type[msgspec.Struct] | None = None
    """The struct of the value, or of the items of a list."""
    merge_key: str = ""
    """Of a list of objects that merges by key."""
    merge_set: bool = False


_UNKNOWN = _Field()


def strategic_merge(target: dict[str, Any], patch: Any, struct: type[msgspec.Struct] | None) -> dict[str, Any]:
    """``target`` with ``patch`` merged in; ``struct`` is the model's type of both. Raises MalformedError for a bad
    directive.
    """
    if not isinstance(patch, dict):
        raise MalformedError("a strategic merge patch must be an object")
    return _merge_object(target, patch, struct)


def _merge_object(target: dict[str, Any], patch: dict[str, Any], struct: type[msgspec.Struct] | None) -> dict[str, Any]:
    patch = dict(patch)
    match patch.pop(_PATCH, "merge"):
        case "replace":
            return patch
        case "delete":
            return {}
        case "merge":
            pass
        case other:
            raise MalformedError(f"$patch must be replace, delete or merge, not {other!r}")
    result = _retain(target, patch)
    fields = _fields(struct) if struct else {}
    for key, value in patch.items():
        if key.startswith(_DELETE):
            name = key.removeprefix(_DELETE)
            if isinstance(result.get(name), list):
                drop = _list(value, key)
                result[name] = [item for item in result[name] if item not in drop]
        elif not key.startswith(_ORDER):
            _merge_field(result, key, value, fields.get(key, _UNKNOWN))
    for key, value in patch.items():
        if key.startswith(_ORDER):
            name = key.removeprefix(_ORDER)
            if isinstance(result.get(name), list):
                result[name] = _reorder(result[name], _list(value, key), target.get(name), fields.get(name, _UNKNOWN))
    return result


def _retain(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """$retainKeys lists every key that may stay; those of the patch must be among them."""
    if _RETAIN not in patch:
        return dict(target)
    keep = _list(patch.pop(_RETAIN), _RETAIN)
    stray = [key for key, value in patch.items() if value is not None and key not in keep and not key.startswith("$")]
    if stray:
        raise MalformedError(f"$retainKeys does not list {stray[0]!r}, which the patch sets")
    return {key: value for key, value in target.items() if key in keep}


def _merge_field(result: dict[str, Any], key: str, value: Any, field: _Field) -> None:
    old = result.get(key)
    if value is None:
        result.pop(key, None)
    elif isinstance(value, dict):
        # Merged into nothing where there was nothing, so that directives inside never reach the object.
        result[key] = _merge_object(old if isinstance(old, dict) else {}, value, field.struct)
    elif isinstance(value, list) and field.merge_key:
        result[key] = _merge_list(old if isinstance(old, list) else [], value, field)
    elif isinstance(value, list) and field.merge_set:
        known = old if isinstance(old, list) else []
        result[key] = known + [item for item in value if item not in known]
    else:
        result[key] = value


def _merge_list(target: list[Any], patch: list[Any], field: _Field) -> list[Any]:
    key_of = _key_of(field.merge_key)
    if any(isinstance(item, dict) and item.get(_PATCH) == "replace" for item in patch):
        return [item for item in patch if not (isinstance(item, dict) and item.get(_PATCH) == "replace")]
    merged = list(target)
    given: list[Any] = []
    for item in patch:
        key = key_of(item)
        if item.get(_PATCH) == "delete":
            merged = [old for old in merged if key_of(old) != key]
            continue
        given.append(item)
        for position, old in enumerate(merged):
            if key_of(old) == key:
                merged[position] = _merge_object(old, item, field.struct)
                break
        else:
            merged.append(_merge_object({}, item, field.struct))
    return _interleave(merged, given, target, key_of)


def _reorder(merged: list[Any], order: list[Any], before: Any, field: _Field) -> list[Any]:
    key_of = _key_of(field.merge_key) if field.merge_key else _itself
    return _interleave(merged, order, before if isinstance(before, list) else [], key_of)


def _interleave(merged: list[Any], order: list[Any], before: list[Any], key_of: Callable[[Any], Hashable]) -> list[Any]:
    """The items named by ``order`` in that order; the others keep their place relative to those, as they stood
    ``before``.
    """
    wanted = {key_of(item): position for position, item in reversed(list(enumerate(order)))}
    stood = {key_of(item): position for position, item in reversed(list(enumerate(before)))}
    named = sorted((item for item in merged if key_of(item) in wanted), key=lambda item: wanted[key_of(item)])
    others = [item for item in merged if key_of(item) not in wanted]
    result: list[Any] = []
    while named and others:
        left, right = stood.get(key_of(others[0])), stood.get(key_of(named[0]))
        result.append((others if left is not None and right is not None and left < right else named).pop(0))
    return result + named + others


def _key_of(merge_key: str) -> Callable[[Any], Hashable]:
    def key(item: Any) -> Hashable:
        if not isinstance(item, dict):
            raise MalformedError(f"items of a list that is merged by {merge_key!r} must be objects")
        if merge_key not in item:
            raise MalformedError(f"an item of a list that is merged by {merge_key!r} does not have it: {sorted(item)}")
        value = item[merge_key]
        if isinstance(value, dict | list):
            raise MalformedError(f"{merge_key!r}, by which a list is merged, must be a plain value")
        return typing.cast(Hashable, value)

    return key


def _itself(item: Any) -> Hashable:
    if isinstance(item, dict | list):
        raise MalformedError("$setElementOrder of this list must hold plain values")
    return typing.cast(Hashable, item)


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise MalformedError(f"{key} must be a list")
    return value


@functools.cache
def _fields(struct: type[msgspec.Struct]) -> dict[str, _Field]:
    """How each field of a struct merges, by its JSON name."""
    return {
        field.encode_name: _field(struct.__name__, field.encode_name, field.type)
        for field in msgspec.structs.fields(struct)
    }


def _field(owner: str, name: str, annotation: Any) -> _Field:
    (inner, *_) = [part for part in _parts(annotation) if part is not types.NoneType]
    if typing.get_origin(inner) in (tuple, list):
        item = typing.get_args(inner)[0]
        if isinstance(item, type) and issubclass(item, msgspec.Struct):
            return _Field(struct=item, merge_key=_MERGE_KEYS.get(item.__name__, ""))
        return _Field(merge_set=(owner, name) in _MERGED_SETS)
    if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
        return _Field(struct=inner)
    return _UNKNOWN


def _parts(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)
