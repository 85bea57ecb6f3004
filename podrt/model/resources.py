"""What a Pod asks for: QoS class, requests and limits of the whole Pod. Pure, for defaults, status and cgroups."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from podrt.model.base import ResourceList
from podrt.model.container import ResourceRequirements
from podrt.model.pod import PodSpec
from podrt.model.quantity import Quantity, parse

COMPUTE = ("cpu", "memory")


def qos_class(spec: PodSpec) -> str:
    """Guaranteed, Burstable or BestEffort, from cpu and memory only; pod-level resources count alone if given."""
    if spec.resources is not None and (spec.resources.limits or spec.resources.requests):
        given = [spec.resources]
    else:
        given = [container.resources for container in (*spec.containers, *spec.init_containers)]
    if not any(_nonzero(entry.limits, name) or _nonzero(entry.requests, name) for entry in given for name in COMPUTE):
        return "BestEffort"
    return "Guaranteed" if all(map(_guaranteed, given)) else "Burstable"


def _guaranteed(entry: ResourceRequirements) -> bool:
    for name in COMPUTE:
        if not _nonzero(entry.limits, name):
            return False
        request = entry.requests.get(name)
        if request is not None and parse(request) != parse(entry.limits[name]):
            return False
    return True


def _nonzero(amounts: ResourceList, name: str) -> bool:
    return name in amounts and parse(amounts[name]).value != 0


def pod_requests(spec: PodSpec) -> dict[str, Quantity]:
    """What the whole Pod requests: containers and sidecars together, or the largest init step if that is more; and
    the overhead.
    """
    totals = _total(spec, lambda entry: entry.requests or {})
    _add(totals, spec.overhead)
    return totals


def pod_limits(spec: PodSpec) -> dict[str, Quantity]:
    """The sum of limits; a resource that some container has no limit of is left out, as then the Pod has none."""
    totals = _total(spec, lambda entry: entry.limits or {})
    _add(totals, {name: text for name, text in spec.overhead.items() if name in totals})
    running = [*spec.containers, *(entry for entry in spec.init_containers if entry.restart_policy == "Always")]
    pod_level = spec.resources.limits if spec.resources is not None else {}
    everywhere = {name for name in totals if name in pod_level or all(name in c.resources.limits for c in running)}
    return {name: total for name, total in totals.items() if name in everywhere}


def _total(spec: PodSpec, amounts: Callable[[ResourceRequirements], ResourceList]) -> dict[str, Quantity]:
    totals = _sum(amounts(container.resources) for container in spec.containers)
    sidecars: dict[str, Quantity] = {}
    peaks: dict[str, Quantity] = {}
    for container in spec.init_containers:
        own = amounts(container.resources)
        if container.restart_policy == "Always":
            _add(totals, own)
            _add(sidecars, own)
            step = dict(sidecars)
        else:
            step = dict(sidecars)
            _add(step, own)
        for name, quantity in step.items():
            peaks[name] = max(peaks[name], quantity) if name in peaks else quantity
    for name, quantity in peaks.items():
        totals[name] = max(totals[name], quantity) if name in totals else quantity
    if spec.resources is not None:
        totals |= {name: parse(text) for name, text in amounts(spec.resources).items()}
    return totals


def _sum(lists: Iterable[ResourceList]) -> dict[str, Quantity]:
    totals: dict[str, Quantity] = {}
    for entry in lists:
        _add(totals, entry)
    return totals


def _add(totals: dict[str, Quantity], amounts: ResourceList) -> None:
    for name, text in amounts.items():
        quantity = parse(text)
        totals[name] = totals[name] + quantity if name in totals else quantity
