"""Which Pod goes first when the node runs short of something, and what it is told. Pure; order and words of a kubelet.

First those that use more than they request, among these the least important, among these the one that is furthest above
its request. Static Pods and those of a system priority are never chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from podrt.model.pod import Pod
from podrt.model.quantity import Quantity
from podrt.model.resources import pod_requests
from podrt.model.scheduling import Taint
from podrt.node import resources
from podrt.node.static_pods import SOURCE

SYSTEM_CRITICAL = 2_000_000_000
MEMORY, STORAGE = "memory", "ephemeral-storage"
PRESSURE = {MEMORY: "MemoryPressure", STORAGE: "DiskPressure"}
"""Resource to the condition of the node."""
TAINTS = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
}


class Signal(NamedTuple):
    """One thing that the node has to have some of. Bytes."""

    resource: str
    available: int
    capacity: int
    threshold: str
    """A quantity, or percents of the capacity."""

    def met(self) -> bool:
        """Is there too little?"""
        return self.available < amount(self.threshold, self.capacity)


class Usage(NamedTuple):
    """What one Pod uses of the resource that is short. Bytes."""

    pod: Pod
    used: int
    containers: Mapping[str, int] = {}


def amount(threshold: str, capacity: int) -> int:
    """Bytes of ``100Mi`` or ``10%``."""
    if threshold.endswith("%"):
        return math.floor(capacity * float(threshold[:-1]) / 100)
    return resources.whole(threshold)


def pressure_taints(conditions: Iterable[str]) -> tuple[Taint, ...]:
    """What keeps Pods away from a node with these conditions."""
    return tuple(Taint(key=TAINTS[name], effect="NoSchedule") for name in sorted(conditions))


def critical(pod: Pod) -> bool:
    """Whether a Pod is never evicted."""
    return SOURCE in pod.metadata.annotations or (pod.spec.priority or 0) >= SYSTEM_CRITICAL


def request(pod: Pod, resource: str) -> int:
    """Bytes that the whole Pod requests."""
    found = pod_requests(pod.spec).get(resource)
    return math.ceil(found.value) if found is not None else 0


def rank(usages: Iterable[Usage], resource: str) -> list[Usage]:
    """Those that may be evicted, in the order in which they are."""

    def place(one: Usage) -> tuple[bool, int, int]:
        above = one.used - request(one.pod, resource)
        return above <= 0, one.pod.spec.priority or 0, -above

    return sorted((one for one in usages if not critical(one.pod)), key=place)


def message(signal: Signal, chosen: Usage) -> str:
    """What an evicted Pod is told."""
    parts = [
        f"The node was low on resource: {signal.resource}. ",
        f"Threshold quantity: {_binary(amount(signal.threshold, signal.capacity))}, "
        f"available: {_binary(signal.available)}. ",
    ]
    for spec in chosen.pod.spec.containers:
        used = chosen.containers.get(spec.name, 0)
        asked = spec.resources.requests.get(signal.resource, "0")
        if used > resources.whole(asked):
            parts.append(
                f"Container {spec.name} was using {_binary(used)}, request is {asked}, "
                f"has larger consumption of {signal.resource}. "
            )
    return "".join(parts)


def _binary(count: int) -> str:
    return str(Quantity.bytes(count // 1024 * 1024))
