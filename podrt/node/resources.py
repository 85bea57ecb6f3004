"""Requests and limits as the kernel wants them: OOM score, cpu shares and quota, memory. Pure functions.

Numbers are the kubelet's: shares = milliCPU * 1024 / 1000 within [2, 262144], quota = milliCPU * period / 1000 of at
least 1000 us, period 100 ms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from podrt.engine.specs import Resources
from podrt.model.container import Container, ResourceFieldSelector
from podrt.model.pod import Pod, PodSpec
from podrt.model.quantity import parse
from podrt.model.resources import pod_limits, pod_requests, qos_class

PERIOD_US = 100_000
MIN_QUOTA_US = 1_000
MIN_SHARES, MAX_SHARES = 2, 262_144
HUGE = "hugepages-"
GUARANTEED_OOM, BEST_EFFORT_OOM = -997, 1000


def milli(text: str) -> int:
    """Thousandths, rounded up: ``100m`` -> 100, ``1`` -> 1000."""
    return parse(text).milli_value


def whole(text: str) -> int:
    """Units, rounded up: bytes of ``1Ki`` -> 1024."""
    return int(parse(text))


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
    score = 1000 - (1000 * (whole(request) + _part_of_the_rest(spec))) // max(node_memory, 1)
    return min(max(score, 3), BEST_EFFORT_OOM - 1)


def _part_of_the_rest(spec: PodSpec) -> int:
    """Each container's part of the memory that the Pod itself requests beyond its containers."""
    if spec.resources is None or "memory" not in spec.resources.requests:
        return 0
    running = [*spec.containers, *(one for one in spec.init_containers if one.restart_policy == "Always")]
    asked = sum(whole(one.resources.requests.get("memory", "0")) for one in running)
    return max(whole(spec.resources.requests["memory"]) - asked, 0) // len(running)


def container_resources(
    container: Container, pids_limit: int, spec: PodSpec | None = None, page_sizes: Iterable[str] = ()
) -> Resources:
    """Limits of one container's cgroup. What it has no limit of has that of ``spec.resources``.

    ``page_sizes``: of the huge pages that the node has; of those that it doesn't ask for it gets none.
    """
    shared = spec.resources.limits if spec is not None and spec.resources is not None else {}
    own, requests = container.resources.limits, container.resources.requests
    limits = {**shared, **own}
    request = requests.get("cpu") or own.get("cpu")
    return Resources(
        cpu_shares=cpu_shares(milli(request) if request else 0),
        cpu_quota=cpu_quota(milli(limits["cpu"])) if "cpu" in limits else 0,
        cpu_period=PERIOD_US,
        memory_limit=whole(limits["memory"]) if "memory" in limits else 0,
        pids_limit=pids_limit,
        hugepages=huge_pages({name: whole(text) for name, text in limits.items()}, page_sizes),
    )


def huge_pages(limits: Mapping[str, int], page_sizes: Iterable[str]) -> dict[str, int]:
    """Page size (``2Mi``) to bytes, of limits by resource name (``hugepages-2Mi``)."""
    asked = {name.removeprefix(HUGE): size for name, size in limits.items() if name.startswith(HUGE)}
    return dict.fromkeys(page_sizes, 0) | asked


def page_sizes(allocatable: Mapping[str, str]) -> tuple[str, ...]:
    """The sizes of the huge pages that a node has some of."""
    return tuple(name.removeprefix(HUGE) for name, text in allocatable.items() if name.startswith(HUGE) and whole(text))


def differing(container: Container, actual: Resources) -> frozenset[str]:
    """Of ``cpu`` and ``memory``: what a running container has otherwise than its spec says."""
    wanted = container_resources(container, 0)
    # A limit can't be taken away; without one of its own a container may have the Pod's.
    cpu = wanted.cpu_shares != actual.cpu_shares or wanted.cpu_quota not in (0, actual.cpu_quota)
    memory = wanted.memory_limit not in (0, actual.memory_limit)
    return frozenset(name for name, is_so in (("cpu", cpu), ("memory", memory)) if is_so)


def needs_restart(container: Container, actual: Resources) -> bool:
    """Whether its resizePolicy says that the container gets what it is to have by a restart."""
    names = {one.resource_name for one in container.resize_policy if one.restart_policy == "RestartContainer"}
    return bool(names) and bool(names & differing(container, actual))


def pod_resources(spec: PodSpec, page_sizes: Iterable[str] = ()) -> Resources:
    """Limits of the Pod's cgroup: sums, or those of ``spec.resources``; a limit only where every container has one."""
    requests, limits = pod_requests(spec), pod_limits(spec)
    cpu = requests.get("cpu") or limits.get("cpu")
    return Resources(
        cpu_shares=cpu_shares(cpu.milli_value if cpu else 0),
        cpu_quota=cpu_quota(limits["cpu"].milli_value) if "cpu" in limits else 0,
        cpu_period=PERIOD_US,
        memory_limit=int(limits["memory"]) if "memory" in limits else 0,
        # Of huge pages a request is the limit.
        hugepages=huge_pages({name: int(quantity) for name, quantity in requests.items()}, page_sizes),
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
        shared = pod.spec.resources.limits if pod.spec.resources is not None else {}
        value = limits.get(name) or shared.get(name) or allocatable.get(name, "0")
    else:
        value = requests.get(name) or limits.get(name, "0")
    divisor = parse(selector.divisor or "1").value
    return str(math.ceil(parse(value).value / (divisor or 1)))
