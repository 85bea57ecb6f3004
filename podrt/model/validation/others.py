"""Namespaces, Nodes, Events and Bindings."""

from __future__ import annotations

from podrt.model.event import Event
from podrt.model.names import dns_label_errors, dns_subdomain_errors, qualified_name_errors
from podrt.model.namespace import Namespace
from podrt.model.node import Node
from podrt.model.pod import Pod
from podrt.model.scheduling import Binding
from podrt.model.validation.causes import Causes
from podrt.model.validation.meta import object_meta
from podrt.model.validation.resources import resource_list
from podrt.model.validation.scheduling import EFFECTS


def namespace(value: Namespace) -> Causes:
    causes = Causes()
    object_meta(causes, value.metadata, dns_label_errors, namespaced=False)
    return causes


def node(value: Node) -> Causes:
    causes = Causes()
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=False)
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(value.spec.taints):
        field = f"spec.taints[{index}]"
        causes.check(f"{field}.key", taint.key, qualified_name_errors(taint.key))
        causes.one_of(f"{field}.effect", taint.effect, EFFECTS, required=True)
        if (taint.key, taint.effect) in seen:
            causes.duplicate(field, taint.key)
        seen.add((taint.key, taint.effect))
    resource_list(causes, "status.capacity", {k: v for k, v in value.status.capacity.items() if k != "pods"})
    resource_list(causes, "status.allocatable", {k: v for k, v in value.status.allocatable.items() if k != "pods"})
    return causes


def event(value: Event) -> Causes:
    causes = Causes()
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=True)
    about = value.involved_object
    if about.namespace not in ("", value.metadata.namespace) or (
        not about.namespace and value.metadata.namespace not in ("default", "kube-system")
    ):
        causes.invalid("involvedObject.namespace", about.namespace, "does not match event.namespace")
    if len(value.message.encode()) > 32 * 1024:
        causes.too_long("message", 32 * 1024)
    causes.at_least("count", value.count, 0)
    return causes


def pod_binding(value: Binding, pod: Pod) -> Causes:
    """A Binding for a Pod."""
    causes = Causes()
    if value.metadata.name not in ("", pod.metadata.name):
        causes.invalid("metadata.name", value.metadata.name, f"must be the Pod's: {pod.metadata.name}")
    if value.target.kind not in ("", "Node"):
        causes.not_supported("target.kind", value.target.kind, ("Node", "<empty>"))
    if not value.target.name:
        causes.required("target.name")
    return causes
