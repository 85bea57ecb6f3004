"""The observed state of a Pod and its containers (core/v1)."""

from __future__ import annotations

import msgspec

from podrt.model.base import Int32, Int64, Quantity, ResourceList, Struct, Time, always, made
from podrt.model.container import ResourceRequirements


class HostIP(Struct, frozen=True, kw_only=True):
    ip: str = always("")


class PodIP(Struct, frozen=True, kw_only=True):
    ip: str = always("")


class PodCondition(Struct, frozen=True, kw_only=True):
    type: str = always("")
    observed_generation: Int64 = 0
    status: str = always("")
    """True, False or Unknown."""
    last_probe_time: Time | None = always(None)
    last_transition_time: Time | None = always(None)
    reason: str = ""
    message: str = ""


class ContainerStateWaiting(Struct, frozen=True, kw_only=True):
    reason: str = ""
    message: str = ""


class ContainerStateRunning(Struct, frozen=True, kw_only=True):
    started_at: Time | None = always(None)


class ContainerStateTerminated(Struct, frozen=True, kw_only=True):
    exit_code: Int32 = always(0)
    signal: Int32 = 0
    reason: str = ""
    message: str = ""
    started_at: Time | None = always(None)
    finished_at: Time | None = always(None)
    container_id: str = ""


class ContainerState(Struct, frozen=True, kw_only=True):
    """At most one is set; none means waiting."""

    waiting: ContainerStateWaiting | None = None
    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None


class ImageVolumeStatus(Struct, frozen=True, kw_only=True):
    image_ref: str = always("")


class VolumeStatus(Struct, frozen=True, kw_only=True):
    image: ImageVolumeStatus | None = None


class VolumeMountStatus(Struct, frozen=True, kw_only=True):
    name: str = always("")
    mount_path: str = always("")
    read_only: bool = False
    recursive_read_only: str | None = None
    volume_status: VolumeStatus | None = None


class LinuxContainerUser(Struct, frozen=True, kw_only=True):
    uid: Int64 = always(0)
    gid: Int64 = always(0)
    supplemental_groups: tuple[Int64, ...] = ()


class ContainerUser(Struct, frozen=True, kw_only=True):
    linux: LinuxContainerUser | None = None


class ResourceHealth(Struct, frozen=True, kw_only=True):
    resource_id: str = always("")
    health: str = ""
    message: str | None = None


class ResourceStatus(Struct, frozen=True, kw_only=True):
    name: str = always("")
    resources: tuple[ResourceHealth, ...] = ()


class ContainerStatus(Struct, frozen=True, kw_only=True):
    name: str = always("")
    state: ContainerState = made(ContainerState)
    last_state: ContainerState = made(ContainerState)
    ready: bool = always(False)
    restart_count: Int32 = always(0)
    image: str = always("")
    image_id: str = always("")
    container_id: str = ""
    started: bool | None = None
    allocated_resources: ResourceList = msgspec.field(default_factory=dict)
    resources: ResourceRequirements | None = None
    volume_mounts: tuple[VolumeMountStatus, ...] = ()
    user: ContainerUser | None = None
    allocated_resources_status: tuple[ResourceStatus, ...] = ()
    stop_signal: str | None = None


class PodResourceClaimStatus(Struct, frozen=True, kw_only=True):
    name: str = always("")
    resource_claim_name: str | None = None


class ContainerExtendedResourceRequest(Struct, frozen=True, kw_only=True):
    container_name: str = always("")
    resource_name: str = always("")
    request_name: str = always("")


class PodExtendedResourceClaimStatus(Struct, frozen=True, kw_only=True):
    request_mappings: tuple[ContainerExtendedResourceRequest, ...] = always(())
    resource_claim_name: str = always("")


class NodeAllocatableResourceClaimStatus(Struct, frozen=True, kw_only=True):
    """Alpha; podrt never writes it."""

    resource_claim_name: str = always("")
    containers: tuple[str, ...] = ()
    resources: dict[str, Quantity] = msgspec.field(default_factory=dict)


class PodStatus(Struct, frozen=True, kw_only=True):
    observed_generation: Int64 = 0
    phase: str = ""
    """Pending, Running, Succeeded, Failed or Unknown."""
    conditions: tuple[PodCondition, ...] = ()
    message: str = ""
    reason: str = ""
    nominated_node_name: str = ""
    host_ip: str = ""
    host_ips: tuple[HostIP, ...] = ()
    pod_ip: str = ""
    pod_ips: tuple[PodIP, ...] = ()
    start_time: Time | None = None
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    ephemeral_container_statuses: tuple[ContainerStatus, ...] = ()
    qos_class: str = ""
    """Guaranteed, Burstable or BestEffort."""
    resize: str = ""
    resource_claim_statuses: tuple[PodResourceClaimStatus, ...] = ()
    extended_resource_claim_status: PodExtendedResourceClaimStatus | None = None
    allocated_resources: ResourceList = msgspec.field(default_factory=dict)
    resources: ResourceRequirements | None = None
    node_allocatable_resource_claim_statuses: tuple[NodeAllocatableResourceClaimStatus, ...] = ()
