"""From the CRI's messages to the engine's specs: pure functions.

What the engine checks by itself (sysctls, capabilities, log paths, destinations of mounts) is left to it; refused here
is what the CRI alone knows, and what podrt can't do. Every error is an InvalidError or UnsupportedError that names the
field.
"""

from __future__ import annotations

import ipaddress
import posixpath
from typing import Any

from cri_api.v1 import api_pb2 as api

from podrt.cri.own import OWNER
from podrt.engine.labels import Labels, Options, labels
from podrt.engine.specs import IdMap, NamespaceMode, PortMapping, Protocol, Resources, SandboxSpec
from podrt.errors import InvalidError, UnsupportedError
from podrt.linux.selinux import Defaults

DEFAULT_HANDLER = "podrt"
USERNS_HANDLER = "podrt-userns"
HANDLERS = ("", DEFAULT_HANDLER, USERNS_HANDLER)
"""What RuntimeClasses may name. "" and ``podrt`` are one; the other gives every sandbox a user namespace."""

_MODES: dict[int, NamespaceMode] = {
    api.POD: NamespaceMode.POD,
    api.CONTAINER: NamespaceMode.CONTAINER,
    api.NODE: NamespaceMode.NODE,
}
_ID_END = 1 << 32


def sandbox_spec(
    config: Any,
    handler: str,
    own_maps: tuple[IdMap, ...] = (),
    selinux: Defaults | None = None,
    own_level: str = "",
) -> SandboxSpec:
    """What RunPodSandbox's ``config`` asks for; ``own_maps`` are for a sandbox of the handler with user namespaces
    whose ``config`` brings none. ``selinux`` is what this machine has of it, ``own_level`` for one that says no level.
    """
    if not config.HasField("metadata"):
        raise InvalidError("config.metadata: required")
    metadata = config.metadata
    for field in ("name", "namespace", "uid"):
        if not getattr(metadata, field):
            raise InvalidError(f"config.metadata.{field}: required")
    if handler not in HANDLERS:
        raise InvalidError(f"no runtime handler {handler!r}: there are {', '.join(HANDLERS[1:])}, and the empty one")
    security = config.linux.security_context
    options = security.namespace_options
    network = _namespace("network", options.network, (NamespaceMode.POD, NamespaceMode.NODE))
    uid_maps, gid_maps = user_namespace(options)
    if not uid_maps and handler == USERNS_HANDLER:
        uid_maps = gid_maps = own_maps
    unconfined = api.NODE in (options.pid, options.ipc)
    found = selinux_labels(security.selinux_options, selinux, own_level, unconfined=unconfined)
    return SandboxSpec(
        name=metadata.name,
        namespace=metadata.namespace,
        uid=metadata.uid,
        attempt=metadata.attempt,
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        hostname="" if network is NamespaceMode.NODE else config.hostname,
        log_directory=config.log_directory,
        network=network,
        pid=_namespace("pid", options.pid, tuple(_MODES.values())),
        ipc=_namespace("ipc", options.ipc, (NamespaceMode.POD, NamespaceMode.NODE)),
        uid_maps=uid_maps,
        gid_maps=gid_maps,
        dns_servers=tuple(config.dns_config.servers),
        dns_searches=tuple(config.dns_config.searches),
        dns_options=tuple(config.dns_config.options),
        port_mappings=() if network is NamespaceMode.NODE else tuple(_ports(config.port_mappings)),
        sysctls=dict(config.linux.sysctls),
        cgroup_parent=_cgroup_parent(config.linux.cgroup_parent),
        resources=pod_resources(config.linux.resources, config.linux.overhead),
        owner=OWNER,
        mount_label=found.file,
        runtime_handler=handler,
        privileged=security.privileged,
    )


def _namespace(kind: str, value: int, allowed: tuple[NamespaceMode, ...]) -> NamespaceMode:
    mode = _MODES.get(value)
    if mode not in allowed:
        names = ", ".join(one.name for one in allowed)
        given = api.NamespaceMode.Name(value) if value in api.NamespaceMode.values() else str(value)
        raise InvalidError(f"namespace_options.{kind}: a sandbox takes {names}, not {given}")
    assert mode is not None
    return mode


def user_namespace(options: Any) -> tuple[tuple[IdMap, ...], tuple[IdMap, ...]]:
    """The uid and gid maps of ``namespace_options.userns_options``; none with the host's user namespace.

    One row each, as a kubelet gives them, with the container's id 0 in it: its root must be someone.
    """
    if not options.HasField("userns_options"):
        return (), ()
    given = options.userns_options
    where = "namespace_options.userns_options"
    if given.mode == api.NODE:
        if given.uids or given.gids:
            raise InvalidError(f"{where}: with mode NODE there are no mappings")
        return (), ()
    if given.mode != api.POD:
        name = api.NamespaceMode.Name(given.mode) if given.mode in api.NamespaceMode.values() else str(given.mode)
        raise UnsupportedError(f"{where}: mode {name} is not supported, only POD and NODE are")
    return _id_maps(f"{where}.uids", given.uids), _id_maps(f"{where}.gids", given.gids)


def _id_maps(where: str, mappings: Any) -> tuple[IdMap, ...]:
    if len(mappings) != 1:
        raise InvalidError(f"{where}: exactly one mapping is supported, not {len(mappings)}")
    return id_map(where, mappings[0])


def id_map(where: str, mapping: Any) -> tuple[IdMap, ...]:
    """One IDMapping. Raises InvalidError if it doesn't map root, or leaves the range of ids."""
    if mapping.container_id != 0 or mapping.length < 1:
        raise InvalidError(f"{where}: id 0 of the container must be mapped")
    if mapping.host_id + mapping.length > _ID_END:
        raise InvalidError(f"{where}: ids end at {_ID_END - 1}")
    return (IdMap(inside=mapping.container_id, outside=mapping.host_id, count=mapping.length),)


def _ports(mappings: Any) -> list[PortMapping]:
    """Those with a host port; the others only tell what the containers listen on."""
    found = []
    for index, one in enumerate(mappings):
        if one.host_port == 0:
            continue
        where = f"config.port_mappings[{index}]"
        if not 0 < one.host_port < 65536 or not 0 < one.container_port < 65536:
            raise InvalidError(f"{where}: ports are 1 to 65535, not {one.host_port} to {one.container_port}")
        if one.protocol not in api.Protocol.values():
            raise InvalidError(f"{where}.protocol: {one.protocol} is unknown")
        if one.host_ip:
            try:
                ipaddress.ip_address(one.host_ip)
            except ValueError as error:
                raise InvalidError(f"{where}.host_ip: {one.host_ip!r} is not an address") from error
        protocol = Protocol(api.Protocol.Name(one.protocol))
        found.append(
            PortMapping(
                container_port=one.container_port,
                host_port=one.host_port,
                protocol=protocol,
                host_ip=one.host_ip,
            )
        )
    return found


def _cgroup_parent(given: str) -> str:
    """``kubepods/pod1/`` -> ``/kubepods/pod1``; the root of the hierarchies means none."""
    if not given.strip("/"):
        return ""
    path = posixpath.normpath(f"/{given.lstrip('/')}")
    if ".." in given.split("/"):
        raise InvalidError(f"config.linux.cgroup_parent: {given!r} has .. in it")
    return path


def resources(given: Any, period: int = 0) -> Resources:
    """LinuxContainerResources but for ``oom_score_adj``, which is not of the cgroup. ``period`` as in pod_resources."""
    return Resources(
        cpu_shares=max(given.cpu_shares, 0),
        cpu_quota=given.cpu_quota,
        cpu_period=given.cpu_period or period or Resources().cpu_period,
        memory_limit=given.memory_limit_in_bytes,
        memory_swap=given.memory_swap_limit_in_bytes,
        cpuset_cpus=given.cpuset_cpus,
        cpuset_mems=given.cpuset_mems,
        hugepages={one.page_size: one.limit for one in given.hugepage_limits},
        unified=dict(given.unified),
        oom_group=False,  # a kubelet says by ``unified`` what it wants
    )


def pod_resources(given: Any, overhead: Any, period: int = 0) -> Resources:
    """The Pod's limits: what its containers have together, and what the runtime may take on top of it.

    ``period`` is that of the CPU quota where ``given`` names none (microseconds, 0: the default).
    """
    base, more = resources(given, period), resources(overhead)
    quota = base.cpu_quota
    if quota > 0 and more.cpu_quota > 0:
        quota += more.cpu_quota * base.cpu_period // more.cpu_period
    return Resources(
        cpu_shares=base.cpu_shares + more.cpu_shares if base.cpu_shares else 0,
        cpu_quota=quota,
        cpu_period=base.cpu_period,
        memory_limit=base.memory_limit + max(more.memory_limit, 0) if base.memory_limit > 0 else base.memory_limit,
        memory_swap=base.memory_swap,
        cpuset_cpus=base.cpuset_cpus,
        cpuset_mems=base.cpuset_mems,
        hugepages=base.hugepages,
        unified=base.unified,
    )


def changed(current: Resources, given: Any) -> Resources:
    """UpdateContainerResources: what is not set stays as it is."""
    return _changed(current, resources(given, current.cpu_period))


def pod_changed(current: Resources, given: Any, overhead: Any) -> Resources:
    """UpdatePodSandboxResources: what ``given`` does not set stays, with the overhead that is in it already.

    What it sets takes the place of both, so ``overhead`` must come with it each time, as a kubelet has it.
    """
    return _changed(current, pod_resources(given, overhead, current.cpu_period))


def _changed(current: Resources, new: Resources) -> Resources:
    """``new`` where it is set; its CPU period always is."""
    return Resources(
        cpu_shares=new.cpu_shares or current.cpu_shares,
        cpu_quota=new.cpu_quota or current.cpu_quota,
        cpu_period=new.cpu_period,
        memory_limit=new.memory_limit or current.memory_limit,
        memory_swap=new.memory_swap or _kept_swap(current, new.memory_limit),
        pids_limit=current.pids_limit,
        cpuset_cpus=new.cpuset_cpus or current.cpuset_cpus,
        cpuset_mems=new.cpuset_mems or current.cpuset_mems,
        hugepages=current.hugepages | new.hugepages,
        unified={**current.unified, **new.unified},
        oom_group=current.oom_group,
    )


def _kept_swap(current: Resources, memory_limit: int) -> int:
    """The limit of memory and swap where only that of memory changes: the swap on top of it stays as it was."""
    swap = current.memory_swap - current.memory_limit
    if memory_limit > 0 and current.memory_limit > 0 and swap >= 0:
        return memory_limit + swap
    return current.memory_swap


def selinux_labels(given: Any, defaults: Defaults | None, own_level: str, *, unconfined: bool) -> Labels:
    """The labels of ``selinux_options``. None where the kernel has no SELinux: a cluster gives one manifest to nodes of
    all kinds, and every runtime passes over what the node can't have.
    """
    if defaults is None:
        return Labels()
    options = Options(given.user, given.role, given.type, given.level)
    return labels(options, defaults, own_level, unconfined=unconfined)
