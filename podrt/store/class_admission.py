"""What a new Pod gets of the classes that it names: priority and preemption policy of its PriorityClass, overhead,
placement and user namespace of its RuntimeClass.

A class counts when the Pod is made: changing or deleting it changes no Pod that is there.
"""

from __future__ import annotations

from msgspec.structs import replace

from podrt.model.classes import (
    DEFAULT_PREEMPTION,
    HANDLERS,
    SYSTEM_PRIORITIES,
    USERNS_HANDLER,
    PriorityClass,
    RuntimeClass,
    Scheduling,
)
from podrt.model.meta import ObjectMeta
from podrt.model.pod import Pod, PodSpec
from podrt.model.quantity import parse
from podrt.store.store import Store


class Refused(Exception):
    """Why the Pod is forbidden."""


def first_priority_classes() -> tuple[PriorityClass, ...]:
    """Those of every server."""
    descriptions = {
        "system-node-critical": "Used for system critical pods that must not be moved from their current node.",
        "system-cluster-critical": "Used for system critical pods that must run in the cluster, but can be moved to "
        "another node if necessary.",
    }
    return tuple(
        PriorityClass(metadata=ObjectMeta(name=name), value=value, description=descriptions[name])
        for name, value in SYSTEM_PRIORITIES.items()
    )


def first_runtime_classes() -> tuple[RuntimeClass, ...]:
    """One for each handler of this node, named after it. Users may delete them and make others."""
    return tuple(RuntimeClass(metadata=ObjectMeta(name=name), handler=name) for name in HANDLERS)


def with_classes(store: Store, pod: Pod, sent: PodSpec) -> Pod:
    """``pod`` (with its defaults) with what its classes give; ``sent`` is the spec before the defaults. Raises
    Refused.
    """
    spec = _with_runtime(store, _with_priority(store, pod.spec, sent))
    return pod if spec is pod.spec else replace(pod, spec=spec)


def check_default(store: Store, one: PriorityClass) -> None:
    """Only one PriorityClass is the default. Raises Refused."""
    if not one.global_default:
        return
    for other in store.list(PriorityClass).items:
        if other.global_default and other.metadata.name != one.metadata.name:
            name = other.metadata.name
            raise Refused(f"PriorityClass {name} is already marked as default. Only one default can exist")


def _with_priority(store: Store, spec: PodSpec, sent: PodSpec) -> PodSpec:
    found = _priority_class(store, spec.priority_class_name)
    value = found.value if found is not None else 0
    policy = (found.preemption_policy if found is not None else None) or DEFAULT_PREEMPTION
    told = "priority admission controller computed {} from the given PriorityClass name"
    if sent.priority is not None and sent.priority != value:
        text = f"the integer value of priority ({sent.priority}) must not be provided in pod spec; "
        raise Refused(text + told.format(value))
    if sent.preemption_policy and sent.preemption_policy != policy:
        text = f"the string value of PreemptionPolicy ({sent.preemption_policy}) must not be provided in pod spec; "
        raise Refused(text + told.format(policy))
    name = found.metadata.name if found is not None else ""
    if (spec.priority, spec.preemption_policy, spec.priority_class_name) == (value, policy, name):
        return spec
    return replace(spec, priority=value, preemption_policy=policy, priority_class_name=name)


def _priority_class(store: Store, name: str) -> PriorityClass | None:
    """The class of a name; of "" the default class, if there is one. Raises Refused."""
    if name:
        found = store.find(PriorityClass, "", name)
        if found is None:
            raise Refused(f"no PriorityClass with name {name} was found")
        return found
    if store.count(PriorityClass) <= len(SYSTEM_PRIORITIES):
        return None  # The system's own are never the default; most Pods are made in this state.
    defaults = [one for one in store.list(PriorityClass).items if one.global_default]
    return min(defaults, key=lambda one: one.value, default=None)


def _with_runtime(store: Store, spec: PodSpec) -> PodSpec:
    name = spec.runtime_class_name
    if name is None:
        if spec.overhead:
            raise Refused("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
        return spec
    found = store.find(RuntimeClass, "", name)
    if found is None:
        raise Refused(f'pod rejected: RuntimeClass "{name}" not found')
    spec = _with_overhead(spec, found)
    if found.scheduling is not None:
        spec = _with_scheduling(spec, found.scheduling)
    if found.handler == USERNS_HANDLER:
        if spec.host_users:
            text = f"pod rejected: hostUsers must not be true: RuntimeClass {name} gives a user namespace"
            raise Refused(text)
        spec = replace(spec, host_users=False)
    return spec


def _with_overhead(spec: PodSpec, found: RuntimeClass) -> PodSpec:
    fixed = found.overhead.pod_fixed if found.overhead is not None else {}
    if not spec.overhead:
        return replace(spec, overhead=fixed) if fixed else spec
    if not fixed:
        raise Refused("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
    amounts = [{name: parse(text).value for name, text in one.items()} for one in (spec.overhead, fixed)]
    if amounts[0] != amounts[1]:
        raise Refused("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
    return spec


def _with_scheduling(spec: PodSpec, wanted: Scheduling) -> PodSpec:
    for key, value in wanted.node_selector.items():
        if spec.node_selector.get(key, value) != value:
            raise Refused(
                f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                f"pod.spec.nodeSelector[{key}] = {spec.node_selector[key]}"
            )
    added = tuple(one for one in wanted.tolerations if one not in spec.tolerations)
    selector = {**spec.node_selector, **wanted.node_selector}
    return replace(spec, node_selector=selector, tolerations=(*spec.tolerations, *added))
