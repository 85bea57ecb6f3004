"""LimitRanges applied to Pods and claims: defaults of containers, and what is outside of the limits. Pure.

The words are those of Kubernetes' LimitRanger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from msgspec.structs import replace

from podrt.model.container import Container, ResourceRequirements
from podrt.model.pod import Pod
from podrt.model.policy import LimitRange, LimitRangeItem
from podrt.model.quantity import Quantity, parse
from podrt.model.resources import pod_limits, pod_requests
from podrt.model.storage import PersistentVolumeClaim

C = TypeVar("C", bound=Container)
ANNOTATION = "kubernetes.io/limit-ranger"
Amounts = Mapping[str, Quantity]


def with_defaults(pod: Pod, ranges: Iterable[LimitRange]) -> Pod:
    """A Pod whose containers have the default requests and limits; an annotation tells what was filled in."""
    notes: list[str] = []
    for entry in ranges:
        for item in entry.spec.limits:
            if item.type == "Container" and (item.default or item.default_request):
                spec = replace(
                    pod.spec,
                    containers=tuple(_filled(one, item, "container", notes) for one in pod.spec.containers),
                    init_containers=tuple(
                        _filled(one, item, "init container", notes) for one in pod.spec.init_containers
                    ),
                )
                pod = replace(pod, spec=spec)
    if not notes:
        return pod
    annotations = {**pod.metadata.annotations, ANNOTATION: f"LimitRanger plugin set: {'; '.join(notes)}"}
    return replace(pod, metadata=replace(pod.metadata, annotations=annotations))


def _filled(container: C, item: LimitRangeItem, what: str, notes: list[str]) -> C:
    old = container.resources
    requests = {**item.default_request, **old.requests}
    limits = {**item.default, **old.limits}
    for kind, before, after in (("request", old.requests, requests), ("limit", old.limits, limits)):
        if new := sorted(after.keys() - before.keys()):
            notes.append(f"{', '.join(new)} {kind} for {what} {container.name}")
    return replace(container, resources=ResourceRequirements(limits=limits, requests=requests, claims=old.claims))


def violations(obj: Pod | PersistentVolumeClaim, ranges: Iterable[LimitRange]) -> list[str]:
    """What is outside of the limits of a namespace."""
    found: list[str] = []
    for entry in ranges:
        for item in entry.spec.limits:
            if isinstance(obj, PersistentVolumeClaim):
                if item.type == "PersistentVolumeClaim":
                    requests = _parsed(obj.spec.resources.requests)
                    found += _bounds(item, requests, {}, limits_count=False)
            elif item.type == "Container":
                for one in (*obj.spec.containers, *obj.spec.init_containers):
                    found += _bounds(item, _parsed(one.resources.requests), _parsed(one.resources.limits))
            elif item.type == "Pod":
                found += _bounds(item, pod_requests(obj.spec), pod_limits(obj.spec))
    return list(dict.fromkeys(found))


def _parsed(amounts: Mapping[str, str]) -> Amounts:
    return {name: parse(text) for name, text in amounts.items()}


def _bounds(item: LimitRangeItem, requests: Amounts, limits: Amounts, *, limits_count: bool = True) -> Iterable[str]:
    for name, text in item.min.items():
        head, bound = f"minimum {name} usage per {item.type} is {text}", parse(text)
        if name not in requests:
            yield f"{head}.  No request is specified"
        elif requests[name] < bound:
            yield f"{head}, but request is {requests[name]}"
        elif name in limits and limits[name] < bound:
            yield f"{head}, but limit is {limits[name]}"
    for name, text in item.max.items():
        head, bound = f"maximum {name} usage per {item.type} is {text}", parse(text)
        if name not in limits and limits_count:
            yield f"{head}.  No limit is specified"
        elif name in limits and bound < limits[name]:
            yield f"{head}, but limit is {limits[name]}"
        elif name in requests and bound < requests[name]:
            yield f"{head}, but request is {requests[name]}"
    for name, text in item.max_limit_request_ratio.items():
        head = f"{name} max limit to request ratio per {item.type} is {text}"
        if name not in requests or requests[name].value == 0:
            yield f"{head}, but no request is specified or request is 0"
        elif name not in limits or limits[name].value == 0:
            yield f"{head}, but no limit is specified or limit is 0"
        elif (ratio := limits[name].value / requests[name].value) > parse(text).value:
            yield f"{head}, but provided ratio is {float(ratio):.6f}"
