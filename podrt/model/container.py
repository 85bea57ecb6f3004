"""Containers of a Pod, their probes and hooks (core/v1)."""

from __future__ import annotations

import msgspec

from podrt.model.base import Int32, Int64, IntOrString, Quantity, ResourceList, Struct, always, made
from podrt.model.security import SecurityContext


class ContainerPort(Struct, frozen=True, kw_only=True):
    name: str = ""
    host_port: Int32 = 0
    container_port: Int32 = always(0)
    protocol: str = ""
    """TCP, UDP or SCTP."""
    host_ip: str = ""


class ObjectFieldSelector(Struct, frozen=True, kw_only=True):
    api_version: str = ""
    field_path: str = always("")


class ResourceFieldSelector(Struct, frozen=True, kw_only=True):
    container_name: str = ""
    resource: str = always("")
    divisor: Quantity | None = None


class ConfigMapKeySelector(Struct, frozen=True, kw_only=True):
    name: str = ""
    key: str = always("")
    optional: bool | None = None


class SecretKeySelector(Struct, frozen=True, kw_only=True):
    name: str = ""
    key: str = always("")
    optional: bool | None = None


class FileKeySelector(Struct, frozen=True, kw_only=True):
    volume_name: str = always("")
    path: str = always("")
    key: str = always("")
    optional: bool | None = None


class EnvVarSource(Struct, frozen=True, kw_only=True):
    """Exactly one is set."""

    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    config_map_key_ref: ConfigMapKeySelector | None = None
    secret_key_ref: SecretKeySelector | None = None
    file_key_ref: FileKeySelector | None = None


class EnvVar(Struct, frozen=True, kw_only=True):
    name: str = always("")
    value: str = ""
    value_from: EnvVarSource | None = None


class ConfigMapEnvSource(Struct, frozen=True, kw_only=True):
    name: str = ""
    optional: bool | None = None


class SecretEnvSource(Struct, frozen=True, kw_only=True):
    name: str = ""
    optional: bool | None = None


class EnvFromSource(Struct, frozen=True, kw_only=True):
    prefix: str = ""
    config_map_ref: ConfigMapEnvSource | None = None
    secret_ref: SecretEnvSource | None = None


class ResourceClaim(Struct, frozen=True, kw_only=True):
    """A use of one of ``spec.resourceClaims``."""

    name: str = always("")
    request: str = ""


class ResourceRequirements(Struct, frozen=True, kw_only=True):
    limits: ResourceList = msgspec.field(default_factory=dict)
    requests: ResourceList = msgspec.field(default_factory=dict)
    claims: tuple[ResourceClaim, ...] = ()


class ContainerResizePolicy(Struct, frozen=True, kw_only=True):
    resource_name: str = always("")
    restart_policy: str = always("")
    """NotRequired or RestartContainer."""


class ContainerRestartRuleOnExitCodes(Struct, frozen=True, kw_only=True):
    operator: str = always("")
    """In or NotIn."""
    values: tuple[Int32, ...] = ()


class ContainerRestartRule(Struct, frozen=True, kw_only=True):
    action: str = always("")
    """Restart."""
    exit_codes: ContainerRestartRuleOnExitCodes | None = None


class VolumeMount(Struct, frozen=True, kw_only=True):
    name: str = always("")
    read_only: bool = False
    recursive_read_only: str | None = None
    """Disabled, IfPossible or Enabled."""
    mount_path: str = always("")
    sub_path: str = ""
    mount_propagation: str | None = None
    """None, HostToContainer or Bidirectional."""
    sub_path_expr: str = ""


class VolumeDevice(Struct, frozen=True, kw_only=True):
    name: str = always("")
    device_path: str = always("")


class ExecAction(Struct, frozen=True, kw_only=True):
    command: tuple[str, ...] = ()


class HTTPHeader(Struct, frozen=True, kw_only=True):
    name: str = always("")
    value: str = always("")


class HTTPGetAction(Struct, frozen=True, kw_only=True):
    path: str = ""
    port: IntOrString = always(0)
    host: str = ""
    scheme: str = ""
    """HTTP or HTTPS."""
    http_headers: tuple[HTTPHeader, ...] = ()


class TCPSocketAction(Struct, frozen=True, kw_only=True):
    port: IntOrString = always(0)
    host: str = ""


class GRPCAction(Struct, frozen=True, kw_only=True):
    port: Int32 = always(0)
    service: str | None = None


class SleepAction(Struct, frozen=True, kw_only=True):
    seconds: Int64 = always(0)


class Probe(Struct, frozen=True, kw_only=True):
    """Exactly one handler is set. Times are seconds."""

    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    initial_delay_seconds: Int32 = 0
    timeout_seconds: Int32 = 0
    period_seconds: Int32 = 0
    success_threshold: Int32 = 0
    failure_threshold: Int32 = 0
    termination_grace_period_seconds: Int64 | None = None


class LifecycleHandler(Struct, frozen=True, kw_only=True):
    """Exactly one is set."""

    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(Struct, frozen=True, kw_only=True):
    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None
    stop_signal: str | None = None


class Container(Struct, frozen=True, kw_only=True):
    """Also the type of init containers, where ``restart_policy: Always`` makes a sidecar."""

    name: str = always("")
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    ports: tuple[ContainerPort, ...] = ()
    env_from: tuple[EnvFromSource, ...] = ()
    env: tuple[EnvVar, ...] = ()
    resources: ResourceRequirements = made(ResourceRequirements)
    resize_policy: tuple[ContainerResizePolicy, ...] = ()
    restart_policy: str | None = None
    restart_policy_rules: tuple[ContainerRestartRule, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()
    volume_devices: tuple[VolumeDevice, ...] = ()
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    termination_message_path: str = ""
    termination_message_policy: str = ""
    """File or FallbackToLogsOnError."""
    image_pull_policy: str = ""
    """Always, IfNotPresent or Never."""
    security_context: SecurityContext | None = None
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False


class EphemeralContainer(Container, frozen=True, kw_only=True):
    """A debugging container added to a running Pod."""

    target_container_name: str = ""
