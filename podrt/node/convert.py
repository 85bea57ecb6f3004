"""From a Pod to the engine's specs: pure functions.

Whatever is decided here about a Pod's security follows the container's security context first, then the Pod's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from podrt.config import Config
from podrt.engine import idranges
from podrt.engine.labels import Labels
from podrt.engine.specs import (
    ContainerSpec,
    ContainerState,
    Device,
    Mount,
    NamespaceMode,
    PortMapping,
    Protocol,
    SandboxSpec,
    SeccompKind,
    Security,
)
from podrt.errors import ConflictError, InvalidError
from podrt.model.container import Container, EphemeralContainer
from podrt.model.pod import Pod
from podrt.model.security import AppArmorProfile, PodSecurityContext, SecurityContext
from podrt.node import facts, qos, resources
from podrt.node.actions import StartContainer
from podrt.node.env import expand

HOSTNAME_LENGTH = 64
"""The kernel's limit (uname(2))."""
_NO_LABELS = Labels()


def log_directory(config: Config, pod: Pod) -> str:
    """``<log_dir>/<namespace>_<name>_<uid>``."""
    meta = pod.metadata
    return str(config.log_dir / f"{meta.namespace}_{meta.name}_{meta.uid}")


def hostname(pod: Pod, node_name: str) -> str:
    """The name in the Pod's UTS namespace: ``spec.hostname``, else the Pod's name, at most 63 characters."""
    if pod.spec.host_network:
        return node_name
    if pod.spec.hostname_override is not None:
        return pod.spec.hostname_override
    return (pod.spec.hostname or pod.metadata.name)[:63].rstrip("-.")


def domain(pod: Pod, config: Config) -> str:
    """The Pod's domain for its FQDN; "" without a subdomain, or with a name that stands for itself."""
    if not pod.spec.subdomain or pod.spec.hostname_override is not None:
        return ""
    return f"{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{config.cluster_domain}"


def kernel_name(pod: Pod, config: Config, node_name: str) -> str:
    """What ``hostname`` prints: the FQDN with ``setHostnameAsFQDN``. Raises InvalidError if that is too long."""
    name, rest = hostname(pod, node_name), domain(pod, config)
    if not pod.spec.set_hostname_as_fqdn or pod.spec.host_network or not rest:
        return name
    full = f"{name}.{rest}"
    if len(full) > HOSTNAME_LENGTH:
        raise InvalidError(
            f"setHostnameAsFQDN: {full} has {len(full)} characters, {HOSTNAME_LENGTH} is the most of a host name: "
            "shorten spec.hostname or spec.subdomain"
        )
    return full


def sandbox_spec(
    pod: Pod,
    config: Config,
    attempt: int,
    node_name: str,
    id_slot: int,
    page_sizes: Sequence[str] = (),
    labels: Labels = _NO_LABELS,
) -> SandboxSpec:
    """What RunPodSandbox is given. ``id_slot`` chooses the id range of a Pod with ``hostUsers: false``; ``labels`` are
    those of SELinux."""
    spec, meta = pod.spec, pod.metadata
    context = spec.security_context or PodSecurityContext()
    maps = idranges.maps(id_slot) if spec.host_users is False else ()
    servers, searches, options = _dns(pod)
    return SandboxSpec(
        name=meta.name,
        namespace=meta.namespace,
        uid=meta.uid,
        attempt=attempt,
        labels={
            **meta.labels,
            facts.POD_NAME_LABEL: meta.name,
            facts.POD_NAMESPACE_LABEL: meta.namespace,
            facts.POD_UID_LABEL: meta.uid,
        },
        hostname=kernel_name(pod, config, node_name),
        log_directory=log_directory(config, pod),
        network=NamespaceMode.NODE if spec.host_network else NamespaceMode.POD,
        pid=_pid_mode(pod),
        ipc=NamespaceMode.NODE if spec.host_ipc else NamespaceMode.POD,
        uid_maps=maps,
        gid_maps=maps,
        dns_servers=servers,
        dns_searches=searches,
        dns_options=options,
        port_mappings=_ports(pod),
        sysctls={sysctl.name: sysctl.value for sysctl in context.sysctls},
        cgroup_parent=qos.pod_cgroup(pod, config.cgroup_root),
        resources=resources.pod_resources(spec, page_sizes),
        mount_label=labels.file,
    )


def _pid_mode(pod: Pod) -> NamespaceMode:
    if pod.spec.host_pid:
        return NamespaceMode.NODE
    return NamespaceMode.POD if pod.spec.share_process_namespace else NamespaceMode.CONTAINER


def _dns(pod: Pod) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """(servers, searches, options) of dnsConfig; all empty: the host's resolv.conf.

    There is no cluster DNS on one machine yet, so ClusterFirst is the host's resolv.conf as the kubelet does without a
    cluster DNS address; dnsConfig adds to it. With None dnsConfig is all there is.
    """
    config = pod.spec.dns_config
    if config is None:
        return (), (), ()
    options = tuple(f"{one.name}:{one.value}" if one.value is not None else one.name for one in config.options)
    return config.nameservers, config.searches, options


def _ports(pod: Pod) -> tuple[PortMapping, ...]:
    if pod.spec.host_network:
        return ()
    return tuple(
        PortMapping(
            container_port=port.container_port,
            host_port=port.host_port,
            protocol=Protocol(port.protocol or "TCP"),
            host_ip=port.host_ip,
        )
        for container in (*pod.spec.init_containers, *pod.spec.containers)
        for port in container.ports
        if port.host_port
    )


def container_spec(
    pod: Pod,
    container: Container,
    start: StartContainer,
    *,
    image_id: str,
    environment: Mapping[str, str],
    mounts: Sequence[Mount],
    devices: Sequence[Device] = (),
    config: Config,
    node_memory: int,
    page_sizes: Sequence[str] = (),
    labels: Labels = _NO_LABELS,
) -> ContainerSpec:
    """What CreateContainer is given."""
    meta = pod.metadata
    return ContainerSpec(
        name=container.name,
        attempt=start.attempt,
        image=image_id,
        labels={
            facts.POD_NAME_LABEL: meta.name,
            facts.POD_NAMESPACE_LABEL: meta.namespace,
            facts.POD_UID_LABEL: meta.uid,
            facts.CONTAINER_NAME_LABEL: container.name,
        },
        annotations={facts.LEVEL_ANNOTATION: str(start.level), facts.IMAGE_ANNOTATION: container.image},
        command=tuple(expand(word, environment) for word in container.command),
        args=tuple(expand(word, environment) for word in container.args),
        working_dir=container.working_dir,
        env=tuple(environment.items()),
        mounts=tuple(mounts),
        devices=tuple(devices),
        log_path=f"{container.name}/{start.attempt}.log",
        stdin=container.stdin,
        stdin_once=container.stdin_once,
        tty=container.tty,
        resources=resources.container_resources(container, config.pids_limit, pod.spec, page_sizes),
        oom_score_adj=resources.oom_score_adj(pod.spec, container, node_memory),
        security=security(pod, container, labels),
        stop_signal=(container.lifecycle.stop_signal or "") if container.lifecycle else "",
    )


def targeted(container: Container, spec: ContainerSpec, known: facts.Facts) -> ContainerSpec:
    """With the container whose processes a debugging container shall see. Raises ConflictError if it does not run."""
    name = container.target_container_name if isinstance(container, EphemeralContainer) else ""
    if not name:
        return spec
    run = known.newest(name)
    if run is None or run.state is not ContainerState.RUNNING:
        raise ConflictError(f"targetContainerName: container {name} does not run")
    return replace(spec, target=run.id)


def security(pod: Pod, container: Container, labels: Labels = _NO_LABELS) -> Security:
    """The container's security context over the Pod's."""
    shared = pod.spec.security_context or PodSecurityContext()
    own = container.security_context or SecurityContext()
    privileged = bool(own.privileged)
    user = own.run_as_user if own.run_as_user is not None else shared.run_as_user
    group = own.run_as_group if own.run_as_group is not None else shared.run_as_group
    non_root = own.run_as_non_root if own.run_as_non_root is not None else shared.run_as_non_root
    profile = own.seccomp_profile or shared.seccomp_profile
    fs_group = (shared.fs_group,) if shared.fs_group is not None else ()
    capabilities = own.capabilities
    return Security(
        privileged=privileged,
        user="" if user is None else str(user),
        group="" if group is None else str(group),
        supplemental_groups=(*shared.supplemental_groups, *fs_group),
        merge_image_groups=shared.supplemental_groups_policy != "Strict",
        run_as_non_root=bool(non_root),
        add_capabilities=capabilities.add if capabilities else (),
        drop_capabilities=capabilities.drop if capabilities else (),
        read_only_root=bool(own.read_only_root_filesystem),
        no_new_privs=own.allow_privilege_escalation is False,
        seccomp=SeccompKind(profile.type) if profile and not privileged else _default_seccomp(privileged),
        seccomp_profile=(profile.localhost_profile or "") if profile else "",
        apparmor=_apparmor(own.app_armor_profile or shared.app_armor_profile),
        unmasked_proc=own.proc_mount == "Unmasked",
        process_label=labels.process,
        mount_label=labels.file,
    )


def _apparmor(profile: AppArmorProfile | None) -> str:
    """The engine's name for a profile; "" where the Pod says nothing."""
    if profile is None:
        return ""
    names = {"RuntimeDefault": "runtime/default", "Unconfined": "unconfined"}
    return names.get(profile.type, profile.localhost_profile or "")


def refuse_root(chosen: Security, image_user: str) -> None:
    """The kubelet's check before it creates a container with runAsNonRoot. Raises InvalidError.

    The API refuses runAsUser 0; here it is about the image's user. Another name than root is looked up at the launch.
    """
    name = image_user.partition(":")[0]
    is_root = name in ("", "root") or (name.isdecimal() and int(name) == 0)
    if chosen.run_as_non_root and not chosen.user and is_root:
        raise InvalidError("container has runAsNonRoot and image will run as root")


def _default_seccomp(privileged: bool) -> SeccompKind:
    """RuntimeDefault where the Pod says nothing: safer than the kubelet's own default, Unconfined."""
    return SeccompKind.UNCONFINED if privileged else SeccompKind.RUNTIME_DEFAULT
