"""The Pod Security Standards: does a Pod keep to ``privileged``, ``baseline`` or ``restricted``? Pure.

The level of a namespace is in its labels ``pod-security.kubernetes.io/enforce``, ``warn`` and ``audit``. The checks are
those of the newest version of the standards; a ``-version`` label is read and has no further effect. Messages are
worded as the admission plugin of Kubernetes words them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from podrt.model.container import Container, LifecycleHandler, Probe
from podrt.model.pod import PodSpec
from podrt.model.security import (
    AppArmorProfile,
    PodSecurityContext,
    SeccompProfile,
    SecurityContext,
    SELinuxOptions,
    WindowsSecurityContextOptions,
)

LEVELS = ("privileged", "baseline", "restricted")
PREFIX = "pod-security.kubernetes.io/"
MODES = ("enforce", "audit", "warn")

CAPABILITIES = frozenset(
    [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
)
"""What ``baseline`` allows to be added."""
SYSCTLS = frozenset(
    [
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
    ]
)
SELINUX_TYPES = frozenset(("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"))
RESTRICTED_VOLUMES = frozenset(
    ["config_map", "csi", "downward_api", "empty_dir", "ephemeral", "persistent_volume_claim", "projected", "secret"]
)


class Level(NamedTuple):
    """What one mode of a namespace asks for."""

    name: str
    version: str = "latest"

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


def level(labels: Mapping[str, str], mode: str) -> Level:
    """The level of a namespace for ``enforce``, ``audit`` or ``warn``; without a label privileged.

    A label with an unknown level counts as restricted, as in Kubernetes: a typing error must not open the door.
    """
    name = labels.get(f"{PREFIX}{mode}", "privileged")
    version = labels.get(f"{PREFIX}{mode}-version", "latest")
    return Level(name if name in LEVELS else "restricted", version)


def violations(spec: PodSpec, name: str) -> list[str]:
    """What keeps a Pod from the level ``name``, one text each; [] if it may pass."""
    if name == "privileged":
        return []
    checks: list[_Check] = list(_BASELINE)
    if name == "restricted":
        checks = [check for check in checks if check is not _capabilities] + list(_RESTRICTED)
    return [text for check in checks for text in check(spec)]


def refusal(spec: PodSpec, wanted: Level) -> str:
    """``violates PodSecurity "restricted:latest": ...``, or "" if nothing is violated."""
    found = violations(spec, wanted.name)
    return f'violates PodSecurity "{wanted}": {", ".join(found)}' if found else ""


_Check = Callable[[PodSpec], Iterator[str]]


def _containers(spec: PodSpec) -> Iterator[Container]:
    yield from spec.init_containers
    yield from spec.containers
    yield from spec.ephemeral_containers


def _own(container: Container) -> SecurityContext:
    return container.security_context or SecurityContext()


def _shared(spec: PodSpec) -> PodSecurityContext:
    return spec.security_context or PodSecurityContext()


def _named(names: Iterable[str]) -> str:
    """``container "a"`` or ``containers "a", "b"``."""
    quoted = [f'"{name}"' for name in names]
    return f"container{'s' if len(quoted) > 1 else ''} {', '.join(quoted)}"


def _bad(spec: PodSpec, test: Callable[[Container], bool]) -> list[str]:
    return [container.name for container in _containers(spec) if test(container)]


# Baseline


def _host_namespaces(spec: PodSpec) -> Iterator[str]:
    fields = (("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc))
    if found := [f"{name}=true" for name, value in fields if value]:
        yield f"host namespaces ({', '.join(found)})"


def _privileged(spec: PodSpec) -> Iterator[str]:
    if names := _bad(spec, lambda one: bool(_own(one).privileged)):
        yield f"privileged ({_named(names)} must not set securityContext.privileged=true)"


def _added(container: Container) -> set[str]:
    capabilities = _own(container).capabilities
    return set(capabilities.add) if capabilities else set()


def _capabilities(spec: PodSpec) -> Iterator[str]:
    if names := _bad(spec, lambda one: bool(_added(one) - CAPABILITIES)):
        extra = sorted(set().union(*(_added(one) - CAPABILITIES for one in _containers(spec))))
        listed = ", ".join(f'"{one}"' for one in extra)
        text = f"must not include {listed} in securityContext.capabilities.add"
        yield f"non-default capabilities ({_named(names)} {text})"


def _host_paths(spec: PodSpec) -> Iterator[str]:
    if names := [volume.name for volume in spec.volumes if volume.host_path is not None]:
        listed = ", ".join(f'"{name}"' for name in names)
        yield f"hostPath volumes (volume{'s' if len(names) > 1 else ''} {listed})"


def _host_ports(spec: PodSpec) -> Iterator[str]:
    if names := _bad(spec, lambda one: any(port.host_port for port in one.ports)):
        ports = sorted({port.host_port for one in _containers(spec) for port in one.ports if port.host_port})
        yield f"hostPort ({_named(names)} must not set hostPort {', '.join(map(str, ports))})"


def _probe_hosts(spec: PodSpec) -> Iterator[str]:
    def asks_elsewhere(container: Container) -> bool:
        hooks = container.lifecycle
        handlers: list[Probe | LifecycleHandler | None] = [
            container.liveness_probe,
            container.readiness_probe,
            container.startup_probe,
            hooks.post_start if hooks else None,
            hooks.pre_stop if hooks else None,
        ]
        return any(
            (one.http_get is not None and one.http_get.host) or (one.tcp_socket is not None and one.tcp_socket.host)
            for one in handlers
            if one is not None
        )

    if names := _bad(spec, asks_elsewhere):
        yield f"probe or lifecycle host ({_named(names)} must not set the host of a probe or hook)"


def _profiles(spec: PodSpec, kind: str, unset: str) -> Iterator[str]:
    def unconfined(profile: SeccompProfile | AppArmorProfile | None) -> bool:
        return profile is not None and profile.type == "Unconfined"

    where = []
    if unconfined(getattr(_shared(spec), kind)):
        where.append("pod")
    if names := _bad(spec, lambda one: unconfined(getattr(_own(one), kind))):
        where.append(_named(names))
    if where:
        yield f"{unset} ({' and '.join(where)} must not set it to Unconfined)"


def _seccomp(spec: PodSpec) -> Iterator[str]:
    return _profiles(spec, "seccomp_profile", "seccompProfile")


def _app_armor(spec: PodSpec) -> Iterator[str]:
    return _profiles(spec, "app_armor_profile", "appArmorProfile")


def _selinux(spec: PodSpec) -> Iterator[str]:
    def bad(options: SELinuxOptions | None) -> bool:
        return options is not None and bool(options.type not in SELINUX_TYPES or options.user or options.role)

    where = ["pod"] if bad(_shared(spec).se_linux_options) else []
    if names := _bad(spec, lambda one: bad(_own(one).se_linux_options)):
        where.append(_named(names))
    if where:
        yield f"seLinuxOptions ({' and '.join(where)} set a forbidden type, user or role)"


def _host_process(spec: PodSpec) -> Iterator[str]:
    def wanted(options: WindowsSecurityContextOptions | None) -> bool:
        return options is not None and options.host_process is True

    where = ["pod"] if wanted(_shared(spec).windows_options) else []
    if names := _bad(spec, lambda one: wanted(_own(one).windows_options)):
        where.append(_named(names))
    if where:
        yield f"hostProcess ({' and '.join(where)} must not set securityContext.windowsOptions.hostProcess=true)"


def _proc_mount(spec: PodSpec) -> Iterator[str]:
    if spec.host_users is False:
        return
    if names := _bad(spec, lambda one: _own(one).proc_mount not in (None, "", "Default")):
        yield f"procMount ({_named(names)} must not set securityContext.procMount other than Default)"


def _sysctls(spec: PodSpec) -> Iterator[str]:
    if names := [one.name for one in _shared(spec).sysctls if one.name not in SYSCTLS]:
        yield f"forbidden sysctls ({', '.join(names)})"


_BASELINE: tuple[_Check, ...] = (
    _host_process,
    _host_namespaces,
    _privileged,
    _capabilities,
    _host_paths,
    _host_ports,
    _probe_hosts,
    _app_armor,
    _selinux,
    _proc_mount,
    _seccomp,
    _sysctls,
)


# Restricted


def _escalation(spec: PodSpec) -> Iterator[str]:
    if names := _bad(spec, lambda one: _own(one).allow_privilege_escalation is not False):
        text = "must set securityContext.allowPrivilegeEscalation=false"
        yield f"allowPrivilegeEscalation != false ({_named(names)} {text})"


def _few_capabilities(spec: PodSpec) -> Iterator[str]:
    def keeps(container: Container) -> bool:
        capabilities = _own(container).capabilities
        return capabilities is None or "ALL" not in capabilities.drop

    texts = []
    if names := _bad(spec, keeps):
        texts.append(f'{_named(names)} must set securityContext.capabilities.drop=["ALL"]')
    if names := _bad(spec, lambda one: bool(_added(one) - {"NET_BIND_SERVICE"})):
        extra = sorted(set().union(*(_added(one) - {"NET_BIND_SERVICE"} for one in _containers(spec))))
        listed = ", ".join(f'"{one}"' for one in extra)
        texts.append(f"{_named(names)} must not include {listed} in securityContext.capabilities.add")
    if texts:
        yield f"unrestricted capabilities ({'; '.join(texts)})"


def _volume_types(spec: PodSpec) -> Iterator[str]:
    names = []
    for volume in spec.volumes:
        sources = [name for name in volume.__struct_fields__ if name != "name" and getattr(volume, name) is not None]
        if any(source not in RESTRICTED_VOLUMES for source in sources):
            names.append(volume.name)
    if names:
        listed = ", ".join(f'"{name}"' for name in names)
        yield f"restricted volume types (volume{'s' if len(names) > 1 else ''} {listed} use a forbidden volume type)"


def _non_root(spec: PodSpec) -> Iterator[str]:
    shared = _shared(spec).run_as_non_root

    def may_be_root(container: Container) -> bool:
        own = _own(container).run_as_non_root
        return own is False or (own is None and shared is not True)

    if names := _bad(spec, may_be_root):
        yield f"runAsNonRoot != true (pod or {_named(names)} must set securityContext.runAsNonRoot=true)"


def _root_user(spec: PodSpec) -> Iterator[str]:
    where = ["pod"] if _shared(spec).run_as_user == 0 else []
    if names := _bad(spec, lambda one: _own(one).run_as_user == 0):
        where.append(_named(names))
    if where:
        yield f"runAsUser=0 ({' and '.join(where)} must not set runAsUser=0)"


def _explicit_seccomp(spec: PodSpec) -> Iterator[str]:
    good = ("RuntimeDefault", "Localhost")
    shared = _shared(spec).seccomp_profile

    def missing(container: Container) -> bool:
        profile = _own(container).seccomp_profile or shared
        return profile is None or (profile.type not in good and profile.type != "Unconfined")

    if names := _bad(spec, missing):
        text = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
        yield f"seccompProfile (pod or {_named(names)} {text})"


_RESTRICTED: tuple[_Check, ...] = (
    _volume_types,
    _escalation,
    _non_root,
    _root_user,
    _explicit_seccomp,
    _few_capabilities,
)
