"""In-place resize: may a Pod have what its spec asks for now, and what is to be written for it? Pure functions.

The spec says what is wanted, the status (``containerStatuses[].resources``) what a container has. A wish that fits on
the node is carried out, one that doesn't leaves the Pod as it is: Deferred while other Pods are in the way, Infeasible
if the node is too small. Words and order are the kubelet's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from podrt.engine.specs import Resources
from podrt.model.container import Container, ResourceRequirements
from podrt.model.pod import Pod
from podrt.model.resources import pod_requests
from podrt.model.status import PodCondition
from podrt.node import resources
from podrt.node.order import Role, containers

PENDING, IN_PROGRESS = "PodResizePending", "PodResizeInProgress"


class Refusal(NamedTuple):
    reason: str
    """Deferred or Infeasible."""
    message: str


class Problem(NamedTuple):
    """A condition that is to be told. ``type``: PENDING or IN_PROGRESS."""

    type: str
    reason: str = ""
    message: str = ""


def given(pod: Pod) -> Pod:
    """The Pod with the resources that its containers have been given, where the status tells them."""
    status = pod.status
    had = {one.name: one.resources for one in (*status.init_container_statuses, *status.container_statuses)}
    spec = pod.spec

    def one(container: Container) -> Container:
        before = had.get(container.name)
        return container if before is None or before == container.resources else replace(container, resources=before)

    mains = tuple(one(container) for container in spec.containers)
    inits = tuple(one(entry) if entry.restart_policy == "Always" else entry for entry in spec.init_containers)
    if mains == spec.containers and inits == spec.init_containers:
        return pod
    return replace(pod, spec=replace(spec, containers=mains, init_containers=inits))


def refusal(pod: Pod, others: Iterable[Pod], allocatable: Mapping[str, str]) -> Refusal | None:
    """Why a Pod of this node can't have what its spec asks for beside ``others``; None if it can."""
    wanted = _amounts(pod)
    capacity = {"cpu": resources.milli(allocatable.get("cpu", "0")), "memory": resources.whole(allocatable["memory"])}
    for name, amount in wanted.items():
        if amount > capacity[name]:
            text = f"Node didn't have enough capacity: {name}, requested: {amount}, capacity: {capacity[name]}"
            return Refusal("Infeasible", text)
    used = [_amounts(given(other)) for other in others if _counts(pod, other)]
    for name, amount in wanted.items():
        taken = sum(one[name] for one in used)
        if amount + taken > capacity[name]:
            head = f"Node didn't have enough resource: {name}"
            return Refusal("Deferred", f"{head}, requested: {amount}, used: {taken}, capacity: {capacity[name]}")
    return None


def _counts(pod: Pod, other: Pod) -> bool:
    elsewhere = other.spec.node_name != pod.spec.node_name or other.metadata.uid == pod.metadata.uid
    return not elsewhere and other.status.phase not in ("Succeeded", "Failed")


def _amounts(pod: Pod) -> dict[str, int]:
    """Thousandths of a CPU, bytes."""
    found = pod_requests(pod.spec)
    return {
        "cpu": math.ceil(found["cpu"].value * 1000) if "cpu" in found else 0,
        "memory": math.ceil(found["memory"].value) if "memory" in found else 0,
    }


def resizable(pod: Pod) -> dict[str, Container]:
    """The containers whose resources can change, by name."""
    return {spec.name: spec for role, spec in containers(pod) if role in (Role.MAIN, Role.SIDECAR)}


def between(old: Resources, new: Resources) -> Resources:
    """The larger of both limits: what a Pod's cgroup has while its containers' limits change. 0 is no limit."""

    def larger(one: int, other: int) -> int:
        return max(one, other) if one and other else 0

    return replace(
        new,
        cpu_shares=max(old.cpu_shares, new.cpu_shares),
        cpu_quota=larger(old.cpu_quota, new.cpu_quota),
        memory_limit=larger(old.memory_limit, new.memory_limit),
    )


def with_limits(old: Resources, new: Resources) -> Resources:
    """The old limits with cpu and memory of the new ones."""
    return replace(
        old,
        cpu_shares=new.cpu_shares,
        cpu_quota=new.cpu_quota,
        cpu_period=new.cpu_period,
        memory_limit=new.memory_limit,
    )


def has(wanted: ResourceRequirements, actual: Resources, differing: frozenset[str]) -> ResourceRequirements:
    """What a running container really has, where it is not (yet) what it is to have."""
    limits = dict(wanted.limits)
    if "memory" in differing and actual.memory_limit and "memory" in limits:
        limits["memory"] = str(actual.memory_limit)
    if "cpu" in differing and actual.cpu_quota > 0 and "cpu" in limits:
        limits["cpu"] = f"{actual.cpu_quota * 1000 // actual.cpu_period}m"
    return wanted if limits == wanted.limits else replace(wanted, limits=limits)


def conditions(pod: Pod, problem: Problem | None, stamp: str) -> tuple[PodCondition, ...]:
    """The Pod's conditions with those of a resize as they are now."""
    before = {one.type: one for one in pod.status.conditions}
    kept = tuple(one for one in pod.status.conditions if one.type not in (PENDING, IN_PROGRESS))
    if problem is None:
        return kept
    old = before.get(problem.type)
    condition = PodCondition(
        type=problem.type,
        status="True",
        observed_generation=pod.metadata.generation,
        last_transition_time=old.last_transition_time if old is not None else stamp,
        reason=problem.reason,
        message=problem.message,
    )
    return (*kept, condition)
