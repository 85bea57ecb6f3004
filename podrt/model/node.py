"""Node (core/v1)."""

from __future__ import annotations

import msgspec

from podrt.model.base import Int32, Int64, ResourceList, Struct, Time, always, made
from podrt.model.meta import ListMeta, ObjectMeta
from podrt.model.scheduling import Taint


class NodeConfigSource(Struct, frozen=True, kw_only=True):
    """Removed from Kubernetes; read so that old manifests name a field that exists."""

    config_map: dict[str, str] | None = None


class NodeSpec(Struct, frozen=True, kw_only=True):
    pod_cidr: str = ""
    pod_cidrs: tuple[str, ...] = ()
    provider_id: str = ""
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()
    config_source: NodeConfigSource | None = None
    external_id: str = ""


class NodeCondition(Struct, frozen=True, kw_only=True):
    type: str = always("")
    status: str = always("")
    last_heartbeat_time: Time | None = None
    last_transition_time: Time | None = None
    reason: str = ""
    message: str = ""


class NodeAddress(Struct, frozen=True, kw_only=True):
    type: str = always("")
    """Hostname, InternalIP, ExternalIP, InternalDNS or ExternalDNS."""
    address: str = always("")


class DaemonEndpoint(Struct, frozen=True, kw_only=True):
    port: Int32 = msgspec.field(name="Port", default_factory=int)


class NodeDaemonEndpoints(Struct, frozen=True, kw_only=True):
    kubelet_endpoint: DaemonEndpoint | None = None


class NodeSwapStatus(Struct, frozen=True, kw_only=True):
    capacity: Int64 | None = None


class NodeSystemInfo(Struct, frozen=True, kw_only=True):
    machine_id: str = always("")
    system_uuid: str = always("")
    boot_id: str = always("")
    kernel_version: str = always("")
    os_image: str = always("")
    container_runtime_version: str = always("")
    kubelet_version: str = always("")
    kube_proxy_version: str = always("")
    operating_system: str = always("")
    architecture: str = always("")
    swap: NodeSwapStatus | None = None


class ContainerImage(Struct, frozen=True, kw_only=True):
    names: tuple[str, ...] = always(())
    size_bytes: Int64 = 0


class AttachedVolume(Struct, frozen=True, kw_only=True):
    name: str = always("")
    device_path: str = always("")


class NodeRuntimeHandlerFeatures(Struct, frozen=True, kw_only=True):
    recursive_read_only_mounts: bool | None = None
    user_namespaces: bool | None = None


class NodeRuntimeHandler(Struct, frozen=True, kw_only=True):
    name: str = always("")
    features: NodeRuntimeHandlerFeatures | None = None


class NodeFeatures(Struct, frozen=True, kw_only=True):
    supplemental_groups_policy: bool | None = None


class NodeStatus(Struct, frozen=True, kw_only=True):
    capacity: ResourceList = msgspec.field(default_factory=dict)
    allocatable: ResourceList = msgspec.field(default_factory=dict)
    phase: str = ""
    conditions: tuple[NodeCondition, ...] = ()
    addresses: tuple[NodeAddress, ...] = ()
    daemon_endpoints: NodeDaemonEndpoints = made(NodeDaemonEndpoints)
    node_info: NodeSystemInfo = made(NodeSystemInfo)
    images: tuple[ContainerImage, ...] = ()
    volumes_in_use: tuple[str, ...] = ()
    volumes_attached: tuple[AttachedVolume, ...] = ()
    runtime_handlers: tuple[NodeRuntimeHandler, ...] = ()
    features: NodeFeatures | None = None
    declared_features: tuple[str, ...] = ()


class Node(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("Node")
    metadata: ObjectMeta = made(ObjectMeta)
    spec: NodeSpec = made(NodeSpec)
    status: NodeStatus = made(NodeStatus)


class NodeList(Struct, frozen=True, kw_only=True):
    api_version: str = always("v1")
    kind: str = always("NodeList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[Node, ...] = always(())
