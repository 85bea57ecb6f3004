"""What objects use of a ResourceQuota. Pure; the rules and words are those of Kubernetes' quota evaluators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from podrt.model.kinds import Object, resource_of
from podrt.model.pod import Pod
from podrt.model.policy import ResourceQuota, ScopedResourceSelectorRequirement
from podrt.model.quantity import Quantity, parse
from podrt.model.resources import pod_limits, pod_requests, qos_class
from podrt.model.storage import PersistentVolumeClaim

Usage = Mapping[str, Quantity]
ZERO, ONE = parse("0"), parse("1")
COUNTED = ("configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "secrets", "services")
"""Kinds that can be counted by their bare name, too."""
_PLAIN = ("cpu", "memory", "ephemeral-storage")
_STORAGE_CLASS = ".storageclass.storage.k8s.io/"


def usage(obj: Object) -> dict[str, Quantity]:
    """Everything that a quota may count of one object."""
    resource = resource_of(obj)
    used = {f"count/{resource.qualified}": ONE}
    if resource.name in COUNTED and not resource.group:
        used[resource.name] = ONE
    if isinstance(obj, Pod) and obj.status.phase not in ("Succeeded", "Failed"):
        used["pods"] = ONE
        for name, quantity in pod_requests(obj.spec).items():
            used[f"requests.{name}"] = quantity
            if name in _PLAIN or name.startswith("hugepages-"):
                used[name] = quantity
        limits = pod_limits(obj.spec)
        used |= {f"limits.{name}": quantity for name, quantity in limits.items() if name in _PLAIN}
    elif isinstance(obj, PersistentVolumeClaim):
        storage = parse(obj.spec.resources.requests.get("storage", "0"))
        used["requests.storage"] = storage
        if obj.spec.storage_class_name:
            used[f"{obj.spec.storage_class_name}{_STORAGE_CLASS}requests.storage"] = storage
            used[f"{obj.spec.storage_class_name}{_STORAGE_CLASS}persistentvolumeclaims"] = ONE
    return used


def matches(quota: ResourceQuota, obj: Object) -> bool:
    """Whether an object is in a quota's scopes; one with scopes counts Pods alone."""
    selector = quota.spec.scope_selector
    terms = [
        *(ScopedResourceSelectorRequirement(scope_name=scope, operator="Exists") for scope in quota.spec.scopes),
        *(selector.match_expressions if selector is not None else ()),
    ]
    if not terms:
        return True
    return isinstance(obj, Pod) and all(_in_scope(term, obj) for term in terms)


def _in_scope(term: ScopedResourceSelectorRequirement, pod: Pod) -> bool:
    if term.scope_name == "PriorityClass":
        name = pod.spec.priority_class_name
        if term.operator in ("Exists", "DoesNotExist"):
            return bool(name) == (term.operator == "Exists")
        return (name in term.values) == (term.operator == "In")
    limited = pod.spec.active_deadline_seconds is not None
    best_effort = qos_class(pod.spec) == "BestEffort"
    return {
        "Terminating": limited,
        "NotTerminating": not limited,
        "BestEffort": best_effort,
        "NotBestEffort": not best_effort,
    }.get(term.scope_name, False)


def total(quota: ResourceQuota, objects: Iterable[Object]) -> dict[str, Quantity]:
    """What all objects of the namespace use of the resources that a quota limits."""
    used = dict.fromkeys(quota.spec.hard, ZERO)
    for obj in objects:
        if matches(quota, obj):
            for name, quantity in usage(obj).items():
                if name in used:
                    used[name] = used[name] + quantity
    return used


def refusal(quota: ResourceQuota, obj: Object, used: Usage) -> str:
    """Why one more object is too much for a quota; "" if it is not."""
    if not matches(quota, obj):
        return ""
    wanted = usage(obj)
    if isinstance(obj, Pod) and (missing := _unspecified(quota, obj)):
        return f"failed quota: {quota.metadata.name}: must specify {missing}"
    over = [
        name
        for name, text in sorted(quota.spec.hard.items())
        if name in wanted and wanted[name].value > 0 and parse(text) < used[name] + wanted[name]
    ]
    if not over:
        return ""
    parts = (
        ("requested", {name: wanted[name] for name in over}),
        ("used", {name: used[name] for name in over}),
        ("limited", {name: parse(quota.spec.hard[name]) for name in over}),
    )
    shown = (f"{title}: {','.join(f'{name}={amount}' for name, amount in table.items())}" for title, table in parts)
    return f"exceeded quota: {quota.metadata.name}, {', '.join(shown)}"


def _unspecified(quota: ResourceQuota, pod: Pod) -> str:
    """``limits.cpu for: a,b; requests.memory for: a``: a quota of cpu or memory wants every container to say."""
    if pod.spec.resources is not None:
        return ""
    found: list[str] = []
    for name in sorted(quota.spec.hard):
        kind, _, plain = name.rpartition(".")
        if plain not in ("cpu", "memory") or kind not in ("", "requests", "limits"):
            continue
        silent = [
            one.name
            for one in (*pod.spec.containers, *pod.spec.init_containers)
            if plain not in (one.resources.limits if kind == "limits" else one.resources.requests)
        ]
        if silent:
            found.append(f"{name} for: {','.join(silent)}")
    return "; ".join(found)
