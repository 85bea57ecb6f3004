"""From a ContainerConfig to the engine's ContainerSpec: pure functions. See :mod:`podrt.cri.convert`."""

from __future__ import annotations

import posixpath
from typing import Any

from cri_api.v1 import api_pb2 as api

from podrt.cri.convert import USERNS_HANDLER, id_map, resources, selinux_labels, user_namespace
from podrt.engine.labels import level_of
from podrt.engine.specs import (
    ContainerSpec,
    Device,
    Mount,
    NamespaceMode,
    Propagation,
    SandboxSpec,
    SeccompKind,
    Security,
)
from podrt.errors import InvalidError, UnsupportedError
from podrt.linux.selinux import Defaults

_PROPAGATION = {
    api.PROPAGATION_PRIVATE: Propagation.PRIVATE,
    api.PROPAGATION_HOST_TO_CONTAINER: Propagation.HOST_TO_CONTAINER,
    api.PROPAGATION_BIDIRECTIONAL: Propagation.BIDIRECTIONAL,
}
_PID = {
    api.POD: NamespaceMode.POD,
    api.CONTAINER: NamespaceMode.CONTAINER,
    api.NODE: NamespaceMode.NODE,
    api.TARGET: NamespaceMode.CONTAINER,
}


def container_spec(config: Any, sandbox: SandboxSpec, selinux: Defaults | None = None) -> ContainerSpec:
    """What CreateContainer's ``config`` asks for in ``sandbox``, on a machine with this SELinux."""
    if not config.HasField("metadata") or not config.metadata.name:
        raise InvalidError("config.metadata.name: required")
    if not config.image.image:
        raise InvalidError("config.image.image: required")
    if config.CDI_devices:
        names = ", ".join(one.name for one in config.CDI_devices)
        raise UnsupportedError(f"config.CDI_devices: {names}: podrt does not support the Container Device Interface")
    context = config.linux.security_context
    target = _target(context.namespace_options)
    return ContainerSpec(
        name=config.metadata.name,
        attempt=config.metadata.attempt,
        image=config.image.image,
        user_image=config.image.user_specified_image,
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        command=_plain("command", config.command),
        args=_plain("args", config.args),
        working_dir=config.working_dir,
        env=tuple((_variable(index, one.key), _value(index, one.value)) for index, one in enumerate(config.envs)),
        mounts=tuple(_mount(f"config.mounts[{index}]", one, sandbox) for index, one in enumerate(config.mounts)),
        devices=tuple(
            Device(
                host_path=one.host_path,
                container_path=one.container_path or one.host_path,
                permissions=_permissions(f"config.devices[{index}]", one.permissions),
            )
            for index, one in enumerate(config.devices)
        ),
        log_path=config.log_path,
        stdin=config.stdin,
        stdin_once=config.stdin_once,
        tty=config.tty,
        resources=resources(config.linux.resources),
        oom_score_adj=_oom_score(config.linux.resources.oom_score_adj),
        security=security(context, sandbox, selinux),
        stop_signal=signal_name(config.stop_signal),
        target=target,
        pid=_pid(context),
    )


def _plain(field: str, words: Any) -> tuple[str, ...]:
    for word in words:
        if "\0" in word:
            raise InvalidError(f"config.{field}: {word!r} has a NUL byte in it")
    return tuple(words)


def _variable(index: int, name: str) -> str:
    if not name or "=" in name or "\0" in name:
        raise InvalidError(f"config.envs[{index}].key: {name!r} is not the name of a variable")
    return name


def _value(index: int, value: str) -> str:
    if "\0" in value:
        raise InvalidError(f"config.envs[{index}].value: has a NUL byte in it")
    return value


def _mount(where: str, given: Any, sandbox: SandboxSpec) -> Mount:
    if given.propagation not in _PROPAGATION:
        raise InvalidError(f"{where}.propagation: {given.propagation} is unknown")
    if given.recursive_read_only:
        if not given.readonly:
            raise InvalidError(f"{where}.recursive_read_only: readonly must be set, too")
        if given.propagation != api.PROPAGATION_PRIVATE:
            raise InvalidError(f"{where}.recursive_read_only: propagation must be PROPAGATION_PRIVATE")
    image = given.image.image
    if image and given.host_path:
        raise InvalidError(f"{where}: host_path and image are both set")
    if image and given.propagation != api.PROPAGATION_PRIVATE:
        raise InvalidError(f"{where}: an image is mounted with PROPAGATION_PRIVATE only")
    if not image and not given.host_path.startswith("/"):
        raise InvalidError(f"{where}.host_path: must be an absolute path, not {given.host_path!r}")
    if not given.container_path:
        raise InvalidError(f"{where}.container_path: required")
    return Mount(
        source="" if image else given.host_path,
        destination=posixpath.normpath(f"/{given.container_path.lstrip('/')}"),
        read_only=given.readonly or bool(image),
        recursive_read_only=given.recursive_read_only,
        propagation=_PROPAGATION[given.propagation],
        create=not image,
        idmap=_idmapped(where, given, sandbox),
        image=image,
        image_path=given.image_sub_path,
        relabel=given.selinux_relabel and not image,
    )


def _idmapped(where: str, given: Any, sandbox: SandboxSpec) -> bool:
    """Whether the mount's files shall be shown with mapped ids: if it says so, and always with the handler that gives
    user namespaces by itself, of which a kubelet knows nothing.
    """
    if not given.uidMappings and not given.gidMappings:
        return sandbox.runtime_handler == USERNS_HANDLER or bool(given.image.image)
    for field, mappings, maps in (
        ("uidMappings", given.uidMappings, sandbox.uid_maps),
        ("gidMappings", given.gidMappings, sandbox.gid_maps),
    ):
        if len(mappings) != 1 or id_map(f"{where}.{field}", mappings[0]) != maps:
            raise InvalidError(f"{where}.{field}: must be the one mapping of the sandbox's user namespace")
    return True


def _permissions(where: str, given: str) -> str:
    if set(given) - set("rwm"):
        raise InvalidError(f"{where}.permissions: may have r, w and m, not {given!r}")
    return given or "rwm"


def _oom_score(value: int) -> int:
    if not -1000 <= value <= 1000:
        raise InvalidError(f"config.linux.resources.oom_score_adj: -1000 to 1000, not {value}")
    return int(value)


def _target(options: Any) -> str:
    if options.pid != api.TARGET:
        return ""
    if not options.target_id:
        raise InvalidError("namespace_options.target_id: required with pid TARGET")
    return str(options.target_id)


def _pid(context: Any) -> NamespaceMode | None:
    """None where nothing is said: people leave out what they have said of the sandbox."""
    if not context.HasField("namespace_options"):
        return None
    options = context.namespace_options
    if options.pid not in _PID:
        raise InvalidError(f"namespace_options.pid: {options.pid} is unknown")
    return _PID[options.pid]


def security(context: Any, sandbox: SandboxSpec, selinux: Defaults | None = None) -> Security:
    """LinuxContainerSecurityContext. Raises InvalidError, UnsupportedError."""
    unconfined = context.privileged or NamespaceMode.NODE in (sandbox.pid, sandbox.ipc)
    own_level = level_of(sandbox.mount_label)
    found = selinux_labels(context.selinux_options, selinux, own_level, unconfined=unconfined)
    if context.privileged and not sandbox.privileged:
        raise InvalidError("security_context.privileged: the sandbox is not privileged, so no container of it can be")
    _check_user_namespace(context.namespace_options, sandbox)
    kind, profile = _seccomp(context)
    return Security(
        privileged=context.privileged,
        user=_user(context),
        group=str(context.run_as_group.value) if context.HasField("run_as_group") else "",
        supplemental_groups=tuple(context.supplemental_groups),
        merge_image_groups=context.supplemental_groups_policy != api.Strict,
        add_capabilities=tuple(context.capabilities.add_capabilities),
        drop_capabilities=tuple(context.capabilities.drop_capabilities),
        add_ambient_capabilities=tuple(context.capabilities.add_ambient_capabilities),
        read_only_root=context.readonly_rootfs,
        no_new_privs=context.no_new_privs,
        seccomp=kind,
        seccomp_profile=profile,
        apparmor=_apparmor(context),
        masked_paths=_paths("masked_paths", context.masked_paths),
        read_only_paths=_paths("readonly_paths", context.readonly_paths),
        process_label=found.process,
        mount_label=found.file,
    )


def _check_user_namespace(options: Any, sandbox: SandboxSpec) -> None:
    """A container is in its sandbox's. With the handler that chose the maps, a kubelet doesn't know of them."""
    if not options.HasField("userns_options"):
        return
    asked = user_namespace(options)
    unknown = sandbox.runtime_handler == USERNS_HANDLER and asked == ((), ())
    if asked != (sandbox.uid_maps, sandbox.gid_maps) and not unknown:
        raise InvalidError("namespace_options.userns_options: must be those of the sandbox")


def _user(context: Any) -> str:
    """A name goes before a number, as in containerd; a group needs one of them."""
    user = context.run_as_username
    if not user and context.HasField("run_as_user"):
        if context.run_as_user.value < 0:
            raise InvalidError(f"security_context.run_as_user: {context.run_as_user.value} is not a uid")
        user = str(context.run_as_user.value)
    if context.HasField("run_as_group"):
        if context.run_as_group.value < 0:
            raise InvalidError(f"security_context.run_as_group: {context.run_as_group.value} is not a gid")
        if not user:
            raise InvalidError("security_context.run_as_group: needs run_as_user or run_as_username beside it")
    return str(user)


def _seccomp(context: Any) -> tuple[SeccompKind, str]:
    """Nothing said is unconfined in the CRI: a kubelet says what it wants. The string is the older field."""
    if context.HasField("seccomp"):
        given = context.seccomp
        if given.profile_type == api.SecurityProfile.RuntimeDefault:
            return SeccompKind.RUNTIME_DEFAULT, ""
        if given.profile_type == api.SecurityProfile.Unconfined:
            return SeccompKind.UNCONFINED, ""
        return SeccompKind.LOCALHOST, _profile("security_context.seccomp.localhost_ref", given.localhost_ref)
    old = context.seccomp_profile_path
    if old in ("", "unconfined"):
        return SeccompKind.UNCONFINED, ""
    if old in ("runtime/default", "docker/default"):
        return SeccompKind.RUNTIME_DEFAULT, ""
    if not old.startswith("localhost/"):
        raise InvalidError(f"security_context.seccomp_profile_path: {old!r} is not a profile")
    return SeccompKind.LOCALHOST, _profile("security_context.seccomp_profile_path", old.removeprefix("localhost/"))


def _profile(where: str, given: str) -> str:
    """The path of a file; older kubelets put ``localhost/`` before it in the newer field, too."""
    path = given.removeprefix("localhost/")
    if not path:
        raise InvalidError(f"{where}: the path of a profile is missing")
    if not path.startswith("/"):
        raise InvalidError(f"{where}: must be an absolute path, not {path!r}")
    return path


def _apparmor(context: Any) -> str:
    if context.HasField("apparmor"):
        given = context.apparmor
        if given.profile_type == api.SecurityProfile.RuntimeDefault:
            return "runtime/default"
        if given.profile_type == api.SecurityProfile.Unconfined:
            return "unconfined"
        name = given.localhost_ref.removeprefix("localhost/")
        if not name:
            raise InvalidError("security_context.apparmor.localhost_ref: the name of a profile is missing")
        return str(name)
    old = context.apparmor_profile
    if old in ("", "unconfined", "runtime/default"):
        return str(old)
    if not old.startswith("localhost/") or old == "localhost/":
        raise InvalidError(f"security_context.apparmor_profile: {old!r} is not a profile")
    return str(old.removeprefix("localhost/"))


def _paths(field: str, given: Any) -> tuple[str, ...]:
    for path in given:
        if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise InvalidError(f"security_context.{field}: {path!r} is not an absolute path")
    return tuple(dict.fromkeys(posixpath.normpath(path) for path in given))


def signal_name(number: int) -> str:
    """``SIGRTMINPLUS3`` of the enumeration Signal -> ``SIGRTMIN+3``; "" for the image's."""
    if number == api.RUNTIME_DEFAULT:
        return ""
    if number not in api.Signal.values():
        raise InvalidError(f"config.stop_signal: {number} is unknown")
    return str(api.Signal.Name(number)).replace("PLUS", "+").replace("MINUS", "-")
