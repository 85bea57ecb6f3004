"""The client's half of ``apply``: a three-way strategic merge patch, computed without the server's schema.

``create_patch(original, modified, current)`` gives what turns the live object (``current``) into the file
(``modified``): what the file sets and the object lacks or has otherwise, and a deletion for what the last applied file
(``original``) set and this one doesn't. What others set is left alone. Lists that are merged by a key are known by
name, as in ``patchMergeKey`` of the Kubernetes API types; other lists are replaced whole.
See https://kubernetes.io/docs/reference/using-api/declarative-config (merging changes to type fields).
"""

from __future__ import annotations

from typing import Any

_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "imagePullSecrets": ("name",),
    "secrets": ("name",),
    "hostAliases": ("ip",),
    "resourceClaims": ("name",),
    "schedulingGates": ("name",),
    "topologySpreadConstraints": ("topologyKey",),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
    # containerPort in a container, port in a Service: the first that the elements have.
    "ports": ("containerPort", "port"),
}
_RETAIN = {"volumes"}
"""Lists whose elements keep one member of a union (patchStrategy retainKeys)."""


def merge_key(field: str, *lists: Any) -> str | None:
    """The key by which the list ``field`` is merged; None if it is replaced whole."""
    elements = [element for items in lists if isinstance(items, list) for element in items]
    for key in _KEYS.get(field, ()):
        if elements and all(isinstance(element, dict) and key in element for element in elements):
            return key
    return None


def create_patch(original: dict[str, Any], modified: dict[str, Any], current: dict[str, Any]) -> dict[str, Any]:
    """The patch; empty if there is nothing to do."""
    return _object(original, modified, current)


def _object(original: Any, modified: dict[str, Any], current: Any) -> dict[str, Any]:
    before = original if isinstance(original, dict) else {}
    live = current if isinstance(current, dict) else {}
    patch: dict[str, Any] = {}
    for field, value in modified.items():
        if value is None:
            if field in live:
                patch[field] = None
        elif isinstance(value, dict) and isinstance(live.get(field), dict):
            inner = _object(before.get(field), value, live[field])
            if inner:
                patch[field] = inner
        elif isinstance(value, list) and isinstance(live.get(field), list):
            patch |= _list(field, before.get(field), value, live[field])
        elif field not in live or live[field] != value:
            patch[field] = value
    for field in before:
        if field not in modified and field in live:
            patch[field] = None
    return patch


def _list(field: str, original: Any, modified: list[Any], current: list[Any]) -> dict[str, Any]:
    key = merge_key(field, modified, current)
    if key is None:
        return {} if modified == current else {field: modified}
    if _has_twins(modified, key) or _has_twins(current, key):
        return {} if modified == current else {field: [*modified, {"$patch": "replace"}]}
    live = {element[key]: element for element in current}
    before = {e[key]: e for e in original if isinstance(e, dict) and key in e} if isinstance(original, list) else {}
    wanted = [element[key] for element in modified]
    changes: list[dict[str, Any]] = []
    for element in modified:
        if element[key] not in live:
            changes.append(element)
            continue
        inner = _object(before.get(element[key]), element, live[element[key]])
        if inner:
            change = inner | {key: element[key]}
            if field in _RETAIN:
                change["$retainKeys"] = sorted(element)
            changes.append(change)
    changes += [{key: name, "$patch": "delete"} for name in before if name not in wanted and name in live]
    ordered = [name for name in live if name in wanted] == [name for name in wanted if name in live]
    if not changes and ordered:
        return {}
    order = {f"$setElementOrder/{field}": [{key: name} for name in wanted]}
    return order | ({field: changes} if changes else {})


def _has_twins(items: list[Any], key: str) -> bool:
    """Two elements of one key (a port by TCP and by UDP): merging by that key would lose one of them."""
    names = [element[key] for element in items]
    return any(names.count(name) > 1 for name in names)
