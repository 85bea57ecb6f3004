"""From the engine's statuses to the CRI's messages: pure functions. Times are nanoseconds since the epoch."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cri_api.v1 import api_pb2 as api

from podrt.engine.signals import parse as parse_signal
from podrt.engine.specs import (
    ContainerState,
    ContainerStatus,
    IdMap,
    Mount,
    NamespaceMode,
    Propagation,
    Resources,
    SandboxState,
    SandboxStatus,
)
from podrt.errors import InvalidError
from podrt.image.reference import parse as parse_reference

_STATES = {
    ContainerState.CREATED: api.CONTAINER_CREATED,
    ContainerState.RUNNING: api.CONTAINER_RUNNING,
    ContainerState.EXITED: api.CONTAINER_EXITED,
    ContainerState.UNKNOWN: api.CONTAINER_UNKNOWN,
}
_MODES = {
    NamespaceMode.POD: api.POD,
    NamespaceMode.CONTAINER: api.CONTAINER,
    NamespaceMode.NODE: api.NODE,
}
_PROPAGATION = {
    Propagation.PRIVATE: api.PROPAGATION_PRIVATE,
    Propagation.HOST_TO_CONTAINER: api.PROPAGATION_HOST_TO_CONTAINER,
    Propagation.BIDIRECTIONAL: api.PROPAGATION_BIDIRECTIONAL,
}

ImageName = Callable[[ContainerStatus], str]
"""How an image is called: by the user if that is one of its names, else by its first."""


def nanoseconds(seconds: float) -> int:
    """0 stays 0: it has not happened."""
    return round(seconds * 1e9)


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Every label of ``selector`` is there with its value."""
    return all(labels.get(key) == value for key, value in selector.items())


# -- sandboxes


def sandbox_state(status: SandboxStatus) -> api.PodSandboxState.ValueType:
    return api.SANDBOX_READY if status.state is SandboxState.READY else api.SANDBOX_NOTREADY


def sandbox_metadata(status: SandboxStatus) -> Any:
    spec = status.spec
    return api.PodSandboxMetadata(name=spec.name, uid=spec.uid, namespace=spec.namespace, attempt=spec.attempt)


def sandbox(status: SandboxStatus) -> Any:
    """PodSandbox, an item of a list."""
    return api.PodSandbox(
        id=status.id,
        metadata=sandbox_metadata(status),
        state=sandbox_state(status),
        created_at=nanoseconds(status.created_at),
        labels=status.spec.labels,
        annotations=status.spec.annotations,
        runtime_handler=status.spec.runtime_handler,
    )


def sandbox_status(status: SandboxStatus) -> Any:
    """PodSandboxStatus. A sandbox that is not ready has no address any more, nor has one on the host's network."""
    spec = status.spec
    ips = status.ips if status.state is SandboxState.READY else ()
    network = api.PodSandboxNetworkStatus(
        ip=ips[0] if ips else "", additional_ips=[api.PodIP(ip=address) for address in ips[1:]]
    )
    options = api.NamespaceOption(network=_MODES[spec.network], pid=_MODES[spec.pid], ipc=_MODES[spec.ipc])
    if spec.uid_maps:
        options.userns_options.mode = api.POD
        options.userns_options.uids.extend(map(_id_mapping, spec.uid_maps))
        options.userns_options.gids.extend(map(_id_mapping, spec.gid_maps))
    return api.PodSandboxStatus(
        id=status.id,
        metadata=sandbox_metadata(status),
        state=sandbox_state(status),
        created_at=nanoseconds(status.created_at),
        network=network,
        linux=api.LinuxPodSandboxStatus(namespaces=api.Namespace(options=options)),
        labels=spec.labels,
        annotations=spec.annotations,
        runtime_handler=spec.runtime_handler,
    )


def _id_mapping(entry: IdMap) -> Any:
    return api.IDMapping(host_id=entry.outside, container_id=entry.inside, length=entry.count)


def sandboxes(found: Iterable[SandboxStatus], wanted: Any) -> list[Any]:
    """Those that the PodSandboxFilter lets through; its id is looked up by the caller."""
    return [
        sandbox(one)
        for one in found
        if (not wanted.HasField("state") or sandbox_state(one) == wanted.state.state)
        and matches(one.spec.labels, wanted.label_selector)
    ]


# -- containers


def container_metadata(status: ContainerStatus) -> Any:
    return api.ContainerMetadata(name=status.spec.name, attempt=status.spec.attempt)


def image_spec(status: ContainerStatus, name: ImageName) -> Any:
    return api.ImageSpec(image=name(status), user_specified_image=status.spec.user_image)


def container(status: ContainerStatus, name: ImageName) -> Any:
    """Container, an item of a list."""
    return api.Container(
        id=status.id,
        pod_sandbox_id=status.sandbox_id,
        metadata=container_metadata(status),
        image=image_spec(status, name),
        image_ref=status.image_ref,
        image_id=status.image_id,
        state=_STATES[status.state],
        created_at=nanoseconds(status.created_at),
        labels=status.spec.labels,
        annotations=status.spec.annotations,
    )


def containers(found: Iterable[ContainerStatus], wanted: Any, name: ImageName) -> list[Any]:
    """Those that the ContainerFilter lets through; its ids are looked up by the caller."""
    return [
        container(one, name)
        for one in found
        if (not wanted.HasField("state") or _STATES[one.state] == wanted.state.state)
        and matches(one.spec.labels, wanted.label_selector)
    ]


def container_status(status: ContainerStatus, name: ImageName) -> Any:
    """ContainerStatus."""
    spec = status.spec
    return api.ContainerStatus(
        id=status.id,
        metadata=container_metadata(status),
        state=_STATES[status.state],
        created_at=nanoseconds(status.created_at),
        started_at=nanoseconds(status.started_at),
        finished_at=nanoseconds(status.finished_at),
        exit_code=status.exit_code,
        image=image_spec(status, name),
        image_ref=status.image_ref,
        image_id=status.image_id,
        reason=status.reason,
        message=status.message,
        labels=spec.labels,
        annotations=spec.annotations,
        mounts=[_mount(one) for one in spec.mounts],
        log_path=status.log_path,
        resources=api.ContainerResources(linux=resources(spec.resources, spec.oom_score_adj)),
        user=_user(status),
        stop_signal=signal_number(status.stop_signal),
    )


def _mount(mount: Mount) -> Any:
    found = api.Mount(
        container_path=mount.destination,
        host_path=mount.source,
        readonly=mount.read_only,
        recursive_read_only=mount.recursive_read_only,
        propagation=_PROPAGATION[mount.propagation],
    )
    if mount.image:
        found.image.image = mount.image
        found.image_sub_path = mount.image_path
    return found


def resources(limits: Resources, oom_score_adj: int) -> Any:
    """LinuxContainerResources."""
    return api.LinuxContainerResources(
        cpu_period=limits.cpu_period,
        cpu_quota=limits.cpu_quota,
        cpu_shares=limits.cpu_shares,
        memory_limit_in_bytes=limits.memory_limit,
        memory_swap_limit_in_bytes=limits.memory_swap,
        oom_score_adj=oom_score_adj,
        cpuset_cpus=limits.cpuset_cpus,
        cpuset_mems=limits.cpuset_mems,
        hugepage_limits=[api.HugepageLimit(page_size=size, limit=limit) for size, limit in limits.hugepages.items()],
        unified=limits.unified,
    )


def _user(status: ContainerStatus) -> Any:
    """Who the first process is; unknown before it has started."""
    if status.uid is None or status.gid is None:
        return None
    linux = api.LinuxContainerUser(uid=status.uid, gid=status.gid, supplemental_groups=status.groups)
    return api.ContainerUser(linux=linux)


def signal_number(text: str) -> api.Signal.ValueType:
    """The enumeration Signal for ``SIGTERM``, ``15``, ``SIGRTMIN+3``; RUNTIME_DEFAULT for what it has not."""
    try:
        number = parse_signal(text)
    except InvalidError:
        return api.RUNTIME_DEFAULT
    above = number - signal.SIGRTMIN
    if above < 0:
        name = signal.Signals(number).name
    elif above <= 15:
        name = f"SIGRTMINPLUS{above}" if above else "SIGRTMIN"
    else:
        below = signal.SIGRTMAX - number
        name = f"SIGRTMAXMINUS{below}" if below else "SIGRTMAX"
    return api.Signal.Value(name) if name in api.Signal.keys() else api.RUNTIME_DEFAULT  # noqa: SIM118


@functools.lru_cache(maxsize=4096)
def _full_name(reference: str) -> str:
    """``nginx`` -> ``docker.io/library/nginx:latest``; "" for what is no name. Kept: lists ask for the same
    ones again and again.
    """
    try:
        return str(parse_reference(reference)) if reference else ""
    except InvalidError:
        return ""


def image_name(names: Sequence[str], status: ContainerStatus) -> str:
    """``status.spec.image`` for an image without a name."""
    for wanted in (status.spec.user_image, status.spec.image):
        if (full := _full_name(wanted)) in names:
            return full
    return names[0] if names else status.spec.image
