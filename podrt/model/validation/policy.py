"""LimitRanges and ResourceQuotas."""

from __future__ import annotations

from podrt.model.base import ResourceList
from podrt.model.names import dns_subdomain_errors, qualified_name_errors
from podrt.model.policy import LimitRange, LimitRangeItem, ResourceQuota
from podrt.model.quantity import QuantityError, parse
from podrt.model.validation.causes import Causes
from podrt.model.validation.meta import object_meta
from podrt.model.validation.resources import amount

TYPES = ("Container", "PersistentVolumeClaim", "Pod")
SCOPES = ("BestEffort", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating")
OPERATORS = ("DoesNotExist", "Exists", "In", "NotIn")


def limit_range(value: LimitRange) -> Causes:
    causes = Causes()
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=True)
    seen: set[str] = set()
    for index, item in enumerate(value.spec.limits):
        field = f"spec.limits[{index}]"
        if item.type not in TYPES and "/" not in item.type:
            causes.not_supported(f"{field}.type", item.type, TYPES)
        if item.type in seen:
            causes.duplicate(f"{field}.type", item.type)
        seen.add(item.type)
        _item(causes, field, item)
    return causes


def _item(causes: Causes, field: str, item: LimitRangeItem) -> None:
    parts = {
        "max": item.max,
        "min": item.min,
        "default": item.default,
        "defaultRequest": item.default_request,
        "maxLimitRequestRatio": item.max_limit_request_ratio,
    }
    if any(not _amounts(causes, f"{field}.{name}", part) for name, part in parts.items()):
        return
    if item.type == "Pod":
        for name in ("default", "defaultRequest"):
            if parts[name]:
                causes.forbidden(f"{field}.{name}", "may not be specified when `type` is 'Pod'")
    # Each must not be above the next, as far as they are given.
    order = ("min", "defaultRequest", "default", "max")
    for low_index, low in enumerate(order):
        for high in order[low_index + 1 :]:
            for name in parts[low].keys() & parts[high].keys():
                below, above = parts[low][name], parts[high][name]
                if parse(below) > parse(above):
                    causes.invalid(
                        f"{field}.{low}[{name}]", below, f"{low} value {below} is greater than {high} value {above}"
                    )


def _amounts(causes: Causes, field: str, amounts: ResourceList) -> bool:
    before = len(causes)
    for name, text in amounts.items():
        causes.check(f"{field}[{name}]", name, qualified_name_errors(name))
        amount(causes, f"{field}[{name}]", text)
    return len(causes) == before


def resource_quota(value: ResourceQuota) -> Causes:
    causes = Causes()
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=True)
    for name, text in value.spec.hard.items():
        field = f"spec.hard[{name}]"
        causes.check(field, name, qualified_name_errors(name))
        amount(causes, field, text)
        try:
            whole = parse(text).value.denominator == 1
        except QuantityError:
            continue
        if not whole and (name == "pods" or "count/" in name or name in ("configmaps", "secrets", "services")):
            causes.invalid(field, text, "must be an integer")
    for scope in value.spec.scopes:
        if scope not in SCOPES:
            causes.not_supported("spec.scopes", scope, SCOPES)
    if {"BestEffort", "NotBestEffort"} <= set(value.spec.scopes):
        causes.invalid("spec.scopes", "BestEffort, NotBestEffort", "conflicting scopes")
    if {"Terminating", "NotTerminating"} <= set(value.spec.scopes):
        causes.invalid("spec.scopes", "Terminating, NotTerminating", "conflicting scopes")
    selector = value.spec.scope_selector
    for index, term in enumerate(selector.match_expressions if selector is not None else ()):
        field = f"spec.scopeSelector.matchExpressions[{index}]"
        if term.scope_name not in SCOPES:
            causes.not_supported(f"{field}.scopeName", term.scope_name, SCOPES)
        causes.one_of(f"{field}.operator", term.operator, OPERATORS, required=True)
        if term.operator in ("In", "NotIn") and not term.values:
            causes.required(f"{field}.values", "must be at least one scope value when `operator` is 'In' or 'NotIn'")
    return causes
