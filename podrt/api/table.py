"""``as=Table``: the columns that kubectl and podrt print, one function per kind, and the meta/v1 Table around the rows.

A column of priority 1 is shown with ``-o wide``. Cells are finished text or numbers; ages are counted from the moment
of the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from podrt.api import table_more, table_workloads
from podrt.api.humantime import age
from podrt.api.podstatus import summarize
from podrt.model.event import Event
from podrt.model.kinds import Object
from podrt.model.namespace import Namespace
from podrt.model.node import Node
from podrt.model.pod import Pod

NONE = "<none>"


class Column(NamedTuple):
    name: str
    wide: bool = False
    type: str = "string"
    description: str = ""

    def definition(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "type": self.type,
            "format": "name" if self.name == "Name" else "",
            "description": self.description,
            "priority": int(self.wide),
        }


@dataclass(frozen=True, slots=True)
class Printer:
    """How one kind is printed. ``cells`` takes the object and the time now, and returns one cell for each column."""

    columns: tuple[Column, ...]
    cells: Callable[[Any, float], list[Any]]

    def definitions(self) -> list[dict[str, Any]]:
        return [column.definition() for column in self.columns]


def _pod(pod: Pod, now: float) -> list[Any]:
    summary = summarize(pod, now)
    gates = [gate.condition_type for gate in pod.spec.readiness_gates]
    met = {condition.type for condition in pod.status.conditions if condition.status == "True"}
    return [
        pod.metadata.name,
        f"{summary.ready}/{summary.total}",
        summary.status,
        summary.restarts,
        age(pod.metadata.creation_timestamp, now),
        pod.status.pod_ip or NONE,
        pod.spec.node_name or NONE,
        pod.status.nominated_node_name or NONE,
        f"{len(met.intersection(gates))}/{len(gates)}" if gates else NONE,
    ]


def _namespace(namespace: Namespace, now: float) -> list[Any]:
    return [
        namespace.metadata.name,
        namespace.status.phase or "Active",
        age(namespace.metadata.creation_timestamp, now),
    ]


_ROLE = "node-role.kubernetes.io/"


def _node(node: Node, now: float) -> list[Any]:
    words = [
        condition.type if condition.status == "True" else f"Not{condition.type}"
        for condition in node.status.conditions
        if condition.type == "Ready"
    ] or ["Unknown"]
    if node.spec.unschedulable:
        words.append("SchedulingDisabled")
    roles = [label.removeprefix(_ROLE) for label in node.metadata.labels if label.startswith(_ROLE)]
    addresses = {address.type: address.address for address in reversed(node.status.addresses)}
    info = node.status.node_info
    return [
        node.metadata.name,
        ",".join(words),
        ",".join(sorted(filter(None, roles))) or NONE,
        age(node.metadata.creation_timestamp, now),
        info.kubelet_version,
        addresses.get("InternalIP", NONE),
        addresses.get("ExternalIP", NONE),
        info.os_image or "<unknown>",
        info.kernel_version or "<unknown>",
        info.container_runtime_version or "<unknown>",
    ]


def _event(event: Event, now: float) -> list[Any]:
    first = event.first_timestamp or event.event_time
    last = event.last_timestamp or first
    count = event.count or 1
    if event.series is not None:
        last = event.series.last_observed_time or last
        count = event.series.count or count
    about = event.involved_object
    source = event.source.component or event.reporting_component
    host = event.source.host or event.reporting_instance
    return [
        age(last, now),
        event.type,
        event.reason,
        f"{about.kind.lower()}/{about.name}" if about.name else about.kind.lower(),
        about.field_path,
        f"{source}, {host}" if host else source,
        event.message.strip(),
        age(first, now),
        count,
        event.metadata.name,
    ]


PRINTERS: dict[str, Printer] = {
    "pods": Printer(
        (
            Column("Name"),
            Column("Ready", description="Ready containers of all containers."),
            Column("Status"),
            Column("Restarts"),
            Column("Age"),
            Column("IP", wide=True),
            Column("Node", wide=True),
            Column("Nominated Node", wide=True),
            Column("Readiness Gates", wide=True),
        ),
        _pod,
    ),
    "namespaces": Printer((Column("Name"), Column("Status"), Column("Age")), _namespace),
    "nodes": Printer(
        (
            Column("Name"),
            Column("Status"),
            Column("Roles"),
            Column("Age"),
            Column("Version"),
            Column("Internal-IP", wide=True),
            Column("External-IP", wide=True),
            Column("OS-Image", wide=True),
            Column("Kernel-Version", wide=True),
            Column("Container-Runtime", wide=True),
        ),
        _node,
    ),
    "events": Printer(
        (
            Column("Last Seen"),
            Column("Type"),
            Column("Reason"),
            Column("Object"),
            Column("Subobject", wide=True),
            Column("Source", wide=True),
            Column("Message"),
            Column("First Seen", wide=True),
            Column("Count", wide=True, type="integer"),
            Column("Name", wide=True),
        ),
        _event,
    ),
    "configmaps": Printer((Column("Name"), Column("Data", type="integer"), Column("Age")), table_more.config_map),
    "secrets": Printer(
        (Column("Name"), Column("Type"), Column("Data", type="integer"), Column("Age")), table_more.secret
    ),
    "serviceaccounts": Printer(
        (Column("Name"), Column("Secrets", type="integer"), Column("Age")), table_more.service_account
    ),
    "limitranges": Printer((Column("Name"), Column("Created At")), table_more.limit_range),
    "resourcequotas": Printer(
        (Column("Name"), Column("Request"), Column("Limit"), Column("Age")), table_more.resource_quota
    ),
    "persistentvolumeclaims": Printer(
        (
            Column("Name"),
            Column("Status"),
            Column("Volume"),
            Column("Capacity"),
            Column("Access Modes"),
            Column("StorageClass"),
            Column("VolumeAttributesClass"),
            Column("Age"),
            Column("VolumeMode", wide=True),
        ),
        table_more.claim,
    ),
    "persistentvolumes": Printer(
        (
            Column("Name"),
            Column("Capacity"),
            Column("Access Modes"),
            Column("Reclaim Policy"),
            Column("Status"),
            Column("Claim"),
            Column("StorageClass"),
            Column("VolumeAttributesClass"),
            Column("Reason"),
            Column("Age"),
            Column("VolumeMode", wide=True),
        ),
        table_more.volume,
    ),
    "storageclasses": Printer(
        (
            Column("Name"),
            Column("Provisioner"),
            Column("ReclaimPolicy"),
            Column("VolumeBindingMode"),
            Column("AllowVolumeExpansion"),
            Column("Age"),
        ),
        table_more.storage_class,
    ),
    "deployments": Printer(
        (
            Column("Name"),
            Column("Ready"),
            Column("Up-to-date"),
            Column("Available"),
            Column("Age"),
            Column("Containers", wide=True),
            Column("Images", wide=True),
            Column("Selector", wide=True),
        ),
        table_workloads.deployment,
    ),
    "replicasets": Printer(
        (
            Column("Name"),
            Column("Desired", type="integer"),
            Column("Current", type="integer"),
            Column("Ready", type="integer"),
            Column("Age"),
            Column("Containers", wide=True),
            Column("Images", wide=True),
            Column("Selector", wide=True),
        ),
        table_workloads.replica_set,
    ),
    "statefulsets": Printer(
        (
            Column("Name"),
            Column("Ready"),
            Column("Age"),
            Column("Containers", wide=True),
            Column("Images", wide=True),
        ),
        table_workloads.stateful_set,
    ),
    "daemonsets": Printer(
        (
            Column("Name"),
            Column("Desired", type="integer"),
            Column("Current", type="integer"),
            Column("Ready", type="integer"),
            Column("Up-to-date", type="integer"),
            Column("Available", type="integer"),
            Column("Node Selector"),
            Column("Age"),
            Column("Containers", wide=True),
            Column("Images", wide=True),
            Column("Selector", wide=True),
        ),
        table_workloads.daemon_set,
    ),
    "controllerrevisions": Printer(
        (
            Column("Name"),
            Column("Controller"),
            Column("Revision", type="integer"),
            Column("Age"),
        ),
        table_workloads.controller_revision,
    ),
    "jobs": Printer(
        (
            Column("Name"),
            Column("Status"),
            Column("Completions"),
            Column("Duration"),
            Column("Age"),
            Column("Containers", wide=True),
            Column("Images", wide=True),
            Column("Selector", wide=True),
        ),
        table_workloads.job,
    ),
    "cronjobs": Printer(
        (
            Column("Name"),
            Column("Schedule"),
            Column("Timezone"),
            Column("Suspend"),
            Column("Active", type="integer"),
            Column("Last Schedule"),
            Column("Age"),
            Column("Containers", wide=True),
            Column("Images", wide=True),
            Column("Selector", wide=True),
        ),
        table_workloads.cron_job,
    ),
    "priorityclasses": Printer(
        (
            Column("Name"),
            Column("Value", type="integer"),
            Column("Global-Default", type="boolean"),
            Column("Age"),
            Column("PreemptionPolicy"),
        ),
        table_more.priority_class,
    ),
    "csidrivers": Printer(
        (
            Column("Name"),
            Column("AttachRequired"),
            Column("PodInfoOnMount"),
            Column("StorageCapacity"),
            Column("TokenRequests"),
            Column("RequiresRepublish"),
            Column("Modes"),
            Column("Age"),
        ),
        table_more.csi_driver,
    ),
    "runtimeclasses": Printer((Column("Name"), Column("Handler"), Column("Age")), table_more.runtime_class),
}


def table(
    resource: str,
    objects: Iterable[Object],
    *,
    include: str = "Metadata",
    revision: str = "",
    continue_: str = "",
    remaining: int | None = None,
    now: float | None = None,
) -> dict[str, Any]:
    """A meta/v1 Table, ready to be encoded. ``include`` is the query's ``includeObject``: None, Metadata or Object."""
    printer = PRINTERS[resource]
    moment = time.time() if now is None else now
    metadata: dict[str, Any] = {"resourceVersion": revision}
    if continue_:
        metadata |= {"continue": continue_, "remainingItemCount": remaining}
    return envelope(
        printer.definitions(),
        [{"cells": printer.cells(obj, moment), "object": _shown(obj, include)} for obj in objects],
        metadata,
    )


def envelope(columns: list[dict[str, Any]], rows: list[dict[str, Any]], metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    }


def _shown(obj: Object, include: str) -> Any:
    if include == "None":
        return None
    if include == "Object":
        return obj
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj.metadata}
