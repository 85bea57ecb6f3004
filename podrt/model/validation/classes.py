"""PriorityClasses and RuntimeClasses."""

from __future__ import annotations

from podrt.model.classes import (
    HIGHEST_PRIORITY,
    SYSTEM_PREFIX,
    SYSTEM_PRIORITIES,
    PriorityClass,
    RuntimeClass,
    Scheduling,
)
from podrt.model.names import dns_label_errors, dns_subdomain_errors
from podrt.model.validation.causes import Causes
from podrt.model.validation.meta import label_map, object_meta
from podrt.model.validation.resources import resource_list
from podrt.model.validation.scheduling import tolerations

_IMMUTABLE = "field is immutable"


def priority_class(value: PriorityClass) -> Causes:
    causes = Causes()
    name = value.metadata.name
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=False)
    if name.startswith(SYSTEM_PREFIX):
        why = ""
        if name not in SYSTEM_PRIORITIES:
            why = f"{name} is not a known system priority class"
        elif value.value != SYSTEM_PRIORITIES[name]:
            why = f"value of {name} PriorityClass must be {SYSTEM_PRIORITIES[name]}"
        elif value.global_default:
            why = f"globalDefault of {name} PriorityClass must be false"
        if why:
            text = "priority class names with 'system-' prefix are reserved for system use only. error: "
            causes.forbidden("metadata.name", text + why)
    elif value.value > HIGHEST_PRIORITY:
        causes.forbidden("value", f"maximum allowed value of a user defined priority is {HIGHEST_PRIORITY}")
    causes.one_of("preemptionPolicy", value.preemption_policy, ("Never", "PreemptLowerPriority"), required=True)
    return causes


def priority_class_update(causes: Causes, new: PriorityClass, old: PriorityClass) -> None:
    if new.value != old.value:
        causes.forbidden("value", "may not be changed in an update.")
    if new.preemption_policy != old.preemption_policy:
        causes.invalid("preemptionPolicy", new.preemption_policy, _IMMUTABLE)


def runtime_class(value: RuntimeClass) -> Causes:
    causes = Causes()
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=False)
    causes.check("handler", value.handler, dns_label_errors(value.handler))
    if value.overhead is not None:
        resource_list(causes, "overhead.podFixed", value.overhead.pod_fixed)
    scheduling = value.scheduling or Scheduling()
    label_map(causes, "scheduling.nodeSelector", scheduling.node_selector)
    tolerations(causes, "scheduling.tolerations", scheduling.tolerations)
    return causes


def runtime_class_update(causes: Causes, new: RuntimeClass, old: RuntimeClass) -> None:
    if new.handler != old.handler:
        causes.invalid("handler", new.handler, _IMMUTABLE)
