"""Pod and PodTemplateSpec (core/v1): all 42 fields of PodSpec, implemented or not (see ``support``)."""

from __future__ import annotations

import msgspec

from podrt.model.base import Int32, Int64, ResourceList, Struct, always, made
from podrt.model.container import Container, EphemeralContainer, ResourceRequirements
from podrt.model.meta import ListMeta, ObjectMeta
from podrt.model.scheduling import (
    Affinity,
    PodSchedulingGate,
    PodSchedulingGroup,
    Toleration,
    TopologySpreadConstraint,
)
from podrt.model.security import PodSecurityContext
from podrt.model.status import PodStatus
from podrt.model.volume import LocalObjectReference, Volume


class HostAlias(Struct, frozen=True, kw_only=True):
    ip: str = always("")
    hostnames: tuple[str, ...] = ()


class PodDNSConfigOption(Struct, frozen=True, kw_only=True):
    name: str = ""
    value: str | None = None


class PodDNSConfig(Struct, frozen=True, kw_only=True):
    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[PodDNSConfigOption, ...] = ()


class PodReadinessGate(Struct, frozen=True, kw_only=True):
    condition_type: str = always("")


class PodOS(Struct, frozen=True, kw_only=True):
    name: str = always("")


class PodResourceClaim(Struct, frozen=True, kw_only=True):
    name: str = always("")
    resource_claim_name: str | None = None
    resource_claim_template_name: str | None = None


class PodSpec(Struct, frozen=True, kw_only=True):
    volumes: tuple[Volume, ...] = ()
    init_containers: tuple[Container, ...] = ()
    containers: tuple[Container, ...] = always(())
    ephemeral_containers: tuple[EphemeralContainer, ...] = ()
    restart_policy: str = ""
    """Always, OnFailure or Never."""
    termination_grace_period_seconds: Int64 | None = None
    active_deadline_seconds: Int64 | None = None
    dns_policy: str = ""
    """ClusterFirst, ClusterFirstWithHostNet, Default or None."""
    node_selector: dict[str, str] = msgspec.field(default_factory=dict)
    service_account_name: str = ""
    service_account: str = ""
    automount_service_account_token: bool | None = None
    node_name: str = ""
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_process_namespace: bool | None = None
    security_context: PodSecurityContext | None = None
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    hostname: str = ""
    subdomain: str = ""
    affinity: Affinity | None = None
    scheduler_name: str = ""
    tolerations: tuple[Toleration, ...] = ()
    host_aliases: tuple[HostAlias, ...] = ()
    priority_class_name: str = ""
    priority: Int32 | None = None
    dns_config: PodDNSConfig | None = None
    readiness_gates: tuple[PodReadinessGate, ...] = ()
    runtime_class_name: str | None = None
    enable_service_links: bool | None = None
    preemption_policy: str | None = None
    overhead: ResourceList = msgspec.field(default_factory=dict)
    topology_spread_constraints: tuple[TopologySpreadConstraint, ...] = ()
    set_hostname_as_fqdn: bool | None = None
    os: PodOS | None = None
    host_users: bool | None = None
    scheduling_gates: tuple[PodSchedulingGate, ...] = ()
    resource_claims: tuple[PodResourceClaim, ...] = ()
    resources: ResourceRequirements | None = None
    hostname_override: str | None = None
    scheduling_group: PodSchedulingGroup | None = None


class Pod(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("Pod")
    metadata: ObjectMeta = made(ObjectMeta)
    spec: PodSpec = made(PodSpec)
    status: PodStatus = made(PodStatus)


class PodList(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("PodList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[Pod, ...] = always(())


class PodTemplateSpec(Struct, frozen=True, kw_only=True):
    metadata: ObjectMeta = made(ObjectMeta)
    spec: PodSpec = made(PodSpec)


class PodTemplate(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("PodTemplate")
    metadata: ObjectMeta = made(ObjectMeta)
    template: PodTemplateSpec = made(PodTemplateSpec)
