"""Requests and limits as the kernel wants them: OOM score, cpu shares and quota, memory. Pure functions.

Numbers are the kubelet's: shares = milliCPU * 1024 / 1000 within [2, 262144], quota = milliCPU * period / 1000 of at
least 1000 us, period 100 ms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from podrt.engine.specs import Resources
from podrt.model.container import Container, ResourceFieldSelector
from podrt.model.pod import Pod, PodSpec
from podrt.model.quantity import Quantity
from podrt.model.resources import pod_limits, pod_requests, qos_class

PERIOD_US = 100_000
MIN_QUOTA_US = 1_000
MIN_SHARES, MAX_SHARES = 2, 262_144
GUARANTEED_OOM, BEST_EFFORT_OOM = -997, 1000


def parse(text: str) -> Fraction:
    """The exact value of a quantity. Raises ValueError; the API has refused such text before."""
    return Quantity.parse(text).value


def milli(text: str) -> int:
    """Thousandths, rounded up: ``100m`` -> 100, ``1`` -> 1000."""
    return math.ceil(parse(text) * 1000)


def whole(text: str) -> int:
    """Units, rounded up: bytes of ``1Ki`` -> 1024."""
    return math.ceil(parse(text))


def cpu_shares(milli_cpu: int) -> int:
    return max(MIN_SHARES, min(MAX_SHARES, milli_cpu * 1024 // 1000))


def cpu_quota(milli_cpu: int) -> int:
    """Microseconds in each period; 0 for no limit."""
    return max(MIN_QUOTA_US, milli_cpu * PERIOD_US // 1000) if milli_cpu else 0


def oom_score_adj(spec: PodSpec, container: Container, node_memory: int) -> int:
    """The kernel's OOM adjustment of a container; ``node_memory`` in bytes."""
    qos = qos_class(spec)
    if qos == "Guaranteed":
        return GUARANTEED_OOM
    if qos == "BestEffort":
        return BEST_EFFORT_OOM
    request = container.resources.requests.get("memory") or container.resources.limits.get("memory") or "0"
    score = 1000 - (1000 * whole(request)) // max(node_memory, 1)
    return min(max(score, 3), BEST_EFFORT_OOM - 1)


def container_resources(container: Container, pids_limit: int) -> Resources:
    """Limits of one container's cgroup."""
    limits, requests = container.resources.limits, container.resources.requests
    request = requests.get("cpu") or limits.get("cpu")
    return Resources(
        cpu_shares=cpu_shares(milli(request) if request else 0),
        cpu_quota=cpu_quota(milli(limits["cpu"])) if "cpu" in limits else 0,
        cpu_period=PERIOD_US,
        memory_limit=whole(limits["memory"]) if "memory" in limits else 0,
        pids_limit=pids_limit,
    )


def differing(container: Container, actual: Resources) -> frozenset[str]:
    """Of ``cpu`` and ``memory``: what a running container has otherwise than its spec says."""
    wanted = container_resources(container, 0)
    cpu = (wanted.cpu_shares, wanted.cpu_quota) != (actual.cpu_shares, actual.cpu_quota)
    memory = wanted.memory_limit != actual.memory_limit
    return frozenset(name for name, is_so in (("cpu", cpu), ("memory", memory)) if is_so)


def needs_restart(container: Container, actual: Resources) -> bool:
    """Whether its resizePolicy says that the container gets what it is to have by a restart."""
    names = {one.resource_name for one in container.resize_policy if one.restart_policy == "RestartContainer"}
    return bool(names) and bool(names & differing(container, actual))


def pod_resources(spec: PodSpec) -> Resources:
    """Limits of the Pod's cgroup: sums; a limit only where every container has one."""
    requests, limits = pod_requests(spec), pod_limits(spec)
    cpu = requests.get("cpu") or limits.get("cpu")
    return Resources(
        cpu_shares=cpu_shares(math.ceil(cpu.value * 1000) if cpu else 0),
        cpu_quota=cpu_quota(math.ceil(limits["cpu"].value * 1000)) if "cpu" in limits else 0,
        cpu_period=PERIOD_US,
        memory_limit=int(limits["memory"]) if "memory" in limits else 0,
    )


def resource_field(
    pod: Pod, container: Container, selector: ResourceFieldSelector, allocatable: Mapping[str, str]
) -> str:
    """The value of a ``resourceFieldRef``, divided by its divisor and rounded up.

    A limit that is not set is the node's allocatable, a request that is not set is 0 (or the limit).
    """
    target = next((one for one in pod.spec.containers if one.name == selector.container_name), container)
    kind, _, name = selector.resource.partition(".")
    limits, requests = target.resources.limits, target.resources.requests
    if kind == "limits":
        value = limits.get(name) or allocatable.get(name, "0")
    else:
        value = requests.get(name) or limits.get(name, "0")
    divisor = parse(selector.divisor) if selector.divisor else parse("1")
    return str(math.ceil(parse(value) / (divisor or 1)))
