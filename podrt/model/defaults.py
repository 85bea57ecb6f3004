"""What the API fills in: Kubernetes' defaults of a Pod, and the metadata of a new object.

Pure functions from struct to struct; an object that has its defaults comes back equal. Defaults that only mean
something in a cluster (not-ready tolerations) are left out; what hangs on other objects (account, priority) is given
at admission.
"""

from __future__ import annotations

import random
import uuid
from typing import TypeVar

from msgspec.structs import replace

from podrt.model.base import format_time, now
from podrt.model.container import (
    Container,
    EnvVar,
    HTTPGetAction,
    Lifecycle,
    LifecycleHandler,
    Probe,
    ResourceRequirements,
)
from podrt.model.meta import ObjectMeta
from podrt.model.namespace import Namespace, NamespaceSpec
from podrt.model.pod import Pod, PodSpec
from podrt.model.resources import pod_requests, qos_class
from podrt.model.security import PodSecurityContext
from podrt.model.volume import LIVE_SOURCES, REMOVED_SOURCES, EmptyDirVolumeSource, Volume

C = TypeVar("C", bound=Container)

NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' letters for generated names: no vowels and no look-alikes, so that no words come out."""
SUFFIX_LENGTH = 5
GENERATE_NAME_LENGTH = 63 - SUFFIX_LENGTH
FILE_MODE = 0o644


def new_metadata(metadata: ObjectMeta, generation: int = 1) -> ObjectMeta:
    """The metadata of an object at its creation: name from generateName, uid, creationTimestamp, generation.

    Kinds whose spec nobody acts on have no generation (0).
    """
    name = metadata.name
    if not name and metadata.generate_name:
        suffix = "".join(random.choices(NAME_ALPHABET, k=SUFFIX_LENGTH))
        name = metadata.generate_name[:GENERATE_NAME_LENGTH] + suffix
    return replace(
        metadata,
        name=name,
        uid=str(uuid.uuid4()),
        creation_timestamp=format_time(now()),
        generation=generation,
        deletion_timestamp=None,
        deletion_grace_period_seconds=None,
        self_link="",
    )


def pull_policy(image: str) -> str:
    """Always for ``latest`` or no tag at all, else IfNotPresent."""
    if "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def pod(value: Pod) -> Pod:
    """All defaults of a Pod, without its metadata and status."""
    return replace(value, spec=pod_spec(value.spec))


def new_pod_status(value: Pod) -> Pod:
    """The status of a Pod at its creation: Pending, with its QoS class. A status that was sent is dropped."""
    fresh = Pod().status
    return replace(value, status=replace(fresh, phase="Pending", qos_class=qos_class(value.spec)))


def namespace(value: Namespace) -> Namespace:
    """The ``kubernetes`` finalizer, and the label with its own name."""
    labels = value.metadata.labels
    if value.metadata.name:
        labels = {**labels, "kubernetes.io/metadata.name": value.metadata.name}
    metadata = replace(value.metadata, labels=labels)
    spec = value.spec if value.spec.finalizers else NamespaceSpec(finalizers=("kubernetes",))
    phase = value.status.phase or "Active"
    return replace(value, metadata=metadata, spec=spec, status=replace(value.status, phase=phase))


def pod_spec(spec: PodSpec) -> PodSpec:
    """All defaults of a PodSpec."""
    account = spec.service_account_name or spec.service_account
    grace = spec.termination_grace_period_seconds
    filled = replace(
        spec,
        volumes=tuple(map(volume, spec.volumes)),
        init_containers=tuple(container(entry, spec.host_network) for entry in spec.init_containers),
        containers=tuple(container(entry, spec.host_network) for entry in spec.containers),
        ephemeral_containers=tuple(container(entry, spec.host_network) for entry in spec.ephemeral_containers),
        restart_policy=spec.restart_policy or "Always",
        termination_grace_period_seconds=30 if grace is None else grace,
        dns_policy=spec.dns_policy or "ClusterFirst",
        service_account_name=account,
        service_account=account,
        security_context=spec.security_context or PodSecurityContext(),
        scheduler_name=spec.scheduler_name or "default-scheduler",
        enable_service_links=True if spec.enable_service_links is None else spec.enable_service_links,
    )
    return filled if spec.resources is None else replace(filled, resources=_pod_level(filled, spec.resources))


def _pod_level(spec: PodSpec, given: ResourceRequirements) -> ResourceRequirements:
    """The Pod's own resources: where it has only a limit, it requests what its containers do, else the limit."""
    asked = pod_requests(replace(spec, resources=None, overhead={}))
    requests = {name: str(asked.get(name, limit)) for name, limit in given.limits.items()}
    return replace(given, requests=requests | given.requests)


def container(value: C, host_network: bool = False) -> C:
    """All defaults of a container. On the host's network every port is a host port."""
    ports = tuple(
        replace(
            port,
            protocol=port.protocol or "TCP",
            host_port=port.host_port or (port.container_port if host_network else 0),
        )
        for port in value.ports
    )
    return replace(
        value,
        ports=ports,
        env=tuple(map(env_var, value.env)),
        resources=resources(value.resources),
        liveness_probe=probe(value.liveness_probe),
        readiness_probe=probe(value.readiness_probe),
        startup_probe=probe(value.startup_probe),
        lifecycle=lifecycle(value.lifecycle),
        termination_message_path=value.termination_message_path or "/dev/termination-log",
        termination_message_policy=value.termination_message_policy or "File",
        image_pull_policy=value.image_pull_policy or pull_policy(value.image),
    )


def resources(value: ResourceRequirements) -> ResourceRequirements:
    """Requests that are not given are the limits."""
    missing = {name: limit for name, limit in value.limits.items() if name not in value.requests}
    return replace(value, requests={**value.requests, **missing}) if missing else value


def env_var(value: EnvVar) -> EnvVar:
    source = value.value_from
    if source is None:
        return value
    if source.field_ref is not None and not source.field_ref.api_version:
        source = replace(source, field_ref=replace(source.field_ref, api_version="v1"))
    if source.resource_field_ref is not None and source.resource_field_ref.divisor is None:
        source = replace(source, resource_field_ref=replace(source.resource_field_ref, divisor="0"))
    return replace(value, value_from=source)


def http_get(value: HTTPGetAction | None) -> HTTPGetAction | None:
    return None if value is None else replace(value, path=value.path or "/", scheme=value.scheme or "HTTP")


def probe(value: Probe | None) -> Probe | None:
    """Period 10 s, timeout 1 s, success 1, failure 3."""
    if value is None:
        return None
    grpc = value.grpc
    return replace(
        value,
        http_get=http_get(value.http_get),
        grpc=grpc if grpc is None or grpc.service is not None else replace(grpc, service=""),
        timeout_seconds=value.timeout_seconds or 1,
        period_seconds=value.period_seconds or 10,
        success_threshold=value.success_threshold or 1,
        failure_threshold=value.failure_threshold or 3,
    )


def lifecycle(value: Lifecycle | None) -> Lifecycle | None:
    if value is None:
        return None
    return replace(value, post_start=_handler(value.post_start), pre_stop=_handler(value.pre_stop))


def _handler(value: LifecycleHandler | None) -> LifecycleHandler | None:
    return None if value is None else replace(value, http_get=http_get(value.http_get))


def volume(value: Volume) -> Volume:
    """Modes 0644, ``type: ""`` of a hostPath, and ``emptyDir: {}`` where there is no source."""
    if all(getattr(value, source) is None for source in LIVE_SOURCES + REMOVED_SOURCES):
        return replace(value, empty_dir=EmptyDirVolumeSource())
    changes: dict[str, object] = {}
    for source in ("secret", "config_map", "downward_api", "projected"):
        entry = getattr(value, source)
        if entry is not None and entry.default_mode is None:
            changes[source] = replace(entry, default_mode=FILE_MODE)
    if value.host_path is not None and value.host_path.type is None:
        changes["host_path"] = replace(value.host_path, type="")
    if value.image is not None and not value.image.pull_policy:
        changes["image"] = replace(value.image, pull_policy=pull_policy(value.image.reference))
    if value.iscsi is not None and not value.iscsi.iscsi_interface:
        changes["iscsi"] = replace(value.iscsi, iscsi_interface="default")
    return replace(value, **changes) if changes else value
