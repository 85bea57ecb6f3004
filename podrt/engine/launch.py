"""From records to :class:`~podrt.supervisor.protocol.LaunchSpec`: all that a child will do, decided beforehand.

Each function appends the descriptors that the launch needs to ``fds``; the caller sends and closes them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from podrt.engine import command, confinement, image_mounts, trees
from podrt.engine.records import SandboxRecord
from podrt.engine.rootfs import Bind, Request, plan
from podrt.engine.specs import ContainerSpec, IdMap, Mount, NamespaceMode, SandboxSpec, Security
from podrt.engine.state import Container, Machine, Sandbox
from podrt.errors import ConflictError, InvalidError
from podrt.linux import abi, mount_table, namespace
from podrt.linux import mount as ops
from podrt.supervisor.protocol import Credentials, LaunchSpec, Log, Stdio
from podrt.supervisor.wire import sealed_memfd

SHARED_FILES = (("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf"))
_PAUSE_USER = 65535
_TTY_GROUP = 5


def outside(maps: Sequence[IdMap], inside: int) -> int:
    """The host's id of ``inside``; ``inside`` itself without maps. Raises InvalidError if it is not mapped."""
    if not maps:
        return inside
    for entry in maps:
        if entry.inside <= inside < entry.inside + entry.count:
            return entry.outside + inside - entry.inside
    raise InvalidError(f"id {inside} is not mapped in the sandbox's user namespace; map at least 0-65535")


def rows(maps: Sequence[IdMap]) -> tuple[tuple[int, int, int], ...]:
    return tuple((entry.inside, entry.outside, entry.count) for entry in maps)


def namespace_kinds(record: SandboxRecord) -> tuple[str, ...]:
    """Which namespaces a sandbox has of its own, but for the PID namespace. hostNetwork goes with the host's name."""
    spec = record.spec
    kinds: list[str] = []
    if spec.uid_maps or spec.gid_maps:
        kinds.append("user")
    if spec.network != NamespaceMode.NODE:
        kinds += ["net", "uts"]
    if spec.ipc != NamespaceMode.NODE:
        kinds.append("ipc")
    return tuple(kinds)


def namespaces(record: SandboxRecord, sysctls: tuple[tuple[str, str], ...]) -> LaunchSpec:
    """The process that makes a sandbox's namespaces, hands them over and ends. Pure."""
    kinds = namespace_kinds(record)
    return LaunchSpec(
        id=f"{record.id}/namespaces",
        kind="namespaces",
        unshare=kinds,
        uid_map=rows(record.spec.uid_maps),
        gid_map=rows(record.spec.gid_maps),
        hostname=record.spec.hostname if "uts" in kinds else "",
        sysctls=sysctls,
        loopback_up="net" in kinds,
        report_namespaces=kinds,
    )


def pid_mode(shared: SandboxSpec, spec: ContainerSpec) -> NamespaceMode:
    """Which PID namespace a container gets. Raises InvalidError for its sandbox's where that has none."""
    if spec.pid is None or spec.pid is shared.pid:
        return shared.pid
    if spec.pid is NamespaceMode.POD:
        if shared.pid is NamespaceMode.CONTAINER:
            raise InvalidError(
                f"container {spec.name}: its sandbox has no PID namespace to share, for it was made with pid CONTAINER"
            )
        return shared.pid
    return spec.pid


def join(record: SandboxRecord, fds: list[int], *, pid: bool = True) -> tuple[tuple[str, int], ...]:
    """Open a sandbox's pinned namespaces. Raises FileNotFoundError if one is no longer pinned."""
    joined = []
    for kind in ("user", "net", "uts", "ipc", "pid") if pid else ("user", "net", "uts", "ipc"):
        path = record.namespaces.get(kind)
        if path:
            fds.append(namespace.open_pinned(path))
            joined.append((kind, len(fds) - 1))
    return tuple(joined)


def cgroup(machine: Machine, path: str, fds: list[int]) -> dict[str, Any]:
    """How the child gets into its cgroup: it is born in that of cgroup2, and enters those of v1 itself."""
    entered = {"cgroup_tasks": tuple(machine.cgroups.tasks_files(path))}
    if (fd := machine.cgroups.open_fd(path)) < 0:
        return entered
    fds.append(fd)
    return {**entered, "cgroup_fd": len(fds) - 1}


def pause(machine: Machine, sandbox: Sandbox, cgroup_path: str, fds: list[int]) -> LaunchSpec:
    """PID 1 of a shared PID namespace: a root with nothing but its binary, no capability, not root."""
    record = sandbox.record
    joined = join(record, fds)
    tree = mount_table.clone_tree(machine.pause_root, recursive=False)
    fds.append(tree)
    mount_table.set_tree(tree, read_only=True, propagation=abi.MS_PRIVATE)
    root = str(machine.pause_root)
    operations = (ops.Propagation("/", abi.MS_REC | abi.MS_SLAVE), ops.Root(root, len(fds) - 1), ops.Pivot(root))
    mapped = all(
        any(entry.inside <= _PAUSE_USER < entry.inside + entry.count for entry in maps)
        for maps in (record.spec.uid_maps, record.spec.gid_maps)
        if maps
    )
    return LaunchSpec(
        id=f"{record.id}/pause",
        kind="pause",
        **cgroup(machine, cgroup_path, fds),
        join=joined,
        unshare=("mnt", "cgroup", "pid"),
        uid_map=rows(record.spec.uid_maps),
        gid_map=rows(record.spec.gid_maps),
        mounts=tuple(tuple(ops.encode(operation)) for operation in operations),
        root=root,
        report_namespaces=("pid",),
        oom_score_adj=-998,
        credentials=Credentials(
            user=f"{_PAUSE_USER}:{_PAUSE_USER}" if mapped else "0:0", merge_image_groups=False, no_new_privs=True
        ),
        argv=("/pause",),
        seccomp_fd=_seccomp(machine, Security(), (), fds),
    )


def container(machine: Machine, sandbox: Sandbox, unit: Container, fds: list[int]) -> LaunchSpec:
    """A container's first process. Raises InvalidError, OSError for what its spec names and the host doesn't have."""
    spec = unit.record.spec
    shared = sandbox.record.spec
    mode = pid_mode(shared, spec)
    joined = join(sandbox.record, fds, pid=mode is NamespaceMode.POD)
    user_namespace_fd = next((fds[index] for kind, index in joined if kind == "user"), -1)
    images = image_mounts.open_all(machine, unit, user_namespace_fd, fds)
    request = rootfs_request(machine, sandbox, unit, images)
    mounts = plan(request)
    first = len(fds)
    trees.open_sources(mounts.sources, fds, user_namespace_fd)
    operations = [_shifted(operation, first) for operation in mounts.operations]
    own_pid = mode is NamespaceMode.CONTAINER
    if spec.target and own_pid:
        fds.append(_pid_namespace_of(machine, spec))
        joined = (*joined, ("pid", len(fds) - 1))
        own_pid = False
    credentials = confinement.credentials_of(spec.security, unit.record.command.user)
    return LaunchSpec(
        id=unit.id,
        kind="container",
        **cgroup(machine, unit.record.cgroup, fds),
        join=joined,
        unshare=("mnt", "cgroup", "pid") if own_pid else ("mnt", "cgroup"),
        uid_map=rows(shared.uid_maps),
        gid_map=rows(shared.gid_maps),
        mounts=tuple(tuple(ops.encode(operation)) for operation in operations),
        root=request.root,
        oom_score_adj=spec.oom_score_adj,
        rlimits=command.rlimits(spec.rlimits),
        stdio=stdio(unit),
        log=log(machine, unit),
        terminal=spec.tty,
        credentials=credentials,
        apparmor=confinement.apparmor_profile(machine, spec.security),
        label=spec.security.process_label,
        cwd=unit.record.command.cwd,
        argv=unit.record.command.argv,
        env=unit.record.command.env,
        seccomp_fd=_seccomp(machine, spec.security, credentials.bounding, fds),
    )


def _pid_namespace_of(machine: Machine, spec: ContainerSpec) -> int:
    """A descriptor of the PID namespace of the container's target. Raises ConflictError if it does not run."""
    target = machine.containers.get(spec.target)
    process = target.record.process if target is not None else None
    try:
        if target is None or process is None or target.pidfd < 0:
            raise ProcessLookupError
        found = namespace.open_of(process.pid, "pid")
        # The pid was still the target's when it was opened, or this fails.
        try:
            signal.pidfd_send_signal(target.pidfd, 0)
        except ProcessLookupError:
            os.close(found)
            raise
    except (ProcessLookupError, FileNotFoundError) as error:
        raise ConflictError(
            f"container {spec.name}: its target {spec.target[:12]} does not run, so its processes can't be joined"
        ) from error
    return found


def stdio(unit: Container) -> Stdio:
    spec = unit.record.spec
    if spec.tty:
        return Stdio("terminal", stdin_once=spec.stdin_once)
    return Stdio(
        "fifo",
        stdin=unit.fifo("stdin") if spec.stdin else None,
        stdout=unit.fifo("stdout"),
        stderr=unit.fifo("stderr"),
        stdin_once=spec.stdin_once,
    )


def log(machine: Machine, unit: Container) -> Log | None:
    if not unit.record.log_path:
        return None
    if machine.sandbox(unit.record.sandbox_id).record.spec.owner:
        # A kubelet rotates by itself: it renames the file and says so.
        return Log(unit.record.log_path, 0, 1)
    return Log(unit.record.log_path, machine.config.log_max_bytes, machine.config.log_max_files)


def exec_(machine: Machine, sandbox: Sandbox, unit: Container, argv: Sequence[str], fds: list[int]) -> LaunchSpec:
    """A further process in a running container, with its environment, user and limits; stdio is the caller's to set.

    Raises ProcessLookupError if the container's process is gone.
    """
    process = unit.record.process
    if process is None or unit.pidfd < 0:
        raise ProcessLookupError(f"container {unit.record.spec.name} has no process")
    spec = unit.record.spec
    shared = sandbox.record.spec
    joined = []
    kinds = ["user"] if shared.uid_maps or shared.gid_maps else []
    for kind in (*kinds, "net", "uts", "ipc", "pid", "cgroup", "mnt"):
        fds.append(namespace.open_of(process.pid, kind))
        joined.append((kind, len(fds) - 1))
    # The pid was still the container's when the last was opened, or this fails.
    signal.pidfd_send_signal(unit.pidfd, 0)
    credentials = confinement.credentials_of(spec.security, unit.record.command.user)
    return LaunchSpec(
        id=f"{unit.id}/exec/{unit.execs}",
        kind="exec",
        **cgroup(machine, unit.record.cgroup, fds),
        join=tuple(joined),
        uid_map=rows(shared.uid_maps),
        gid_map=rows(shared.gid_maps),
        oom_score_adj=spec.oom_score_adj,
        rlimits=command.rlimits(spec.rlimits),
        credentials=credentials,
        apparmor=confinement.apparmor_profile(machine, spec.security),
        label=spec.security.process_label,
        cwd=unit.record.command.cwd,
        argv=tuple(argv),
        env=unit.record.command.env,
        seccomp_fd=_seccomp(machine, spec.security, credentials.bounding, fds),
    )


def _seccomp(machine: Machine, security: Security, capabilities: tuple[str, ...], fds: list[int]) -> int | None:
    program = confinement.seccomp_program(machine, security, capabilities)
    if program is None:
        return None
    fds.append(sealed_memfd("podrt-seccomp", program))
    return len(fds) - 1


def _shifted(operation: Any, first: int) -> Any:
    """Indexes of the plan's sources become indexes of the message's descriptors."""
    if isinstance(operation, ops.BindTree):
        return operation._replace(fd=operation.fd + first)
    if isinstance(operation, ops.Overlay) and operation.lower_fds:
        return operation._replace(lower_fds=tuple(index + first for index in operation.lower_fds))
    return operation


def rootfs_request(
    machine: Machine, sandbox: Sandbox, unit: Container, images: Mapping[str, image_mounts.Opened]
) -> Request:
    """Look at the host for what the mount plan hangs on."""
    record = unit.record
    spec = record.spec
    shared = sandbox.record.spec
    user_namespace = bool(shared.uid_maps or shared.gid_maps)
    devices = trees.nodes(spec.devices)
    if spec.security.privileged and not user_namespace:
        devices = (*trees.host_devices(), *devices)
    return Request(
        name=spec.name,
        root=str(unit.storage / "root"),
        layers=record.layers,
        upper=str(unit.storage / "upper"),
        work=str(unit.storage / "work"),
        hierarchies=trees.own_hierarchies(machine.hierarchies, record.cgroup, bind=user_namespace),
        binds=trees.look_at(spec.name, spec.mounts, images),
        files=tuple(_shared_file(sandbox, name, destination) for name, destination in SHARED_FILES),
        shm="/dev/shm" if shared.ipc == NamespaceMode.NODE else str(sandbox.shm),
        devices=devices,
        terminal=spec.tty,
        privileged=spec.security.privileged,
        unmasked_proc=spec.security.unmasked_proc,
        masked_paths=spec.security.masked_paths,
        read_only_paths=spec.security.read_only_paths,
        read_only_root=spec.security.read_only_root,
        user_namespace=user_namespace,
        root_uid=outside(shared.uid_maps, 0),
        root_gid=outside(shared.gid_maps, 0),
        tty_gid=outside(shared.gid_maps, _TTY_GROUP),
        label=spec.security.mount_label,
    )


def _shared_file(sandbox: Sandbox, name: str, destination: str) -> Bind:
    source = os.fspath(sandbox.files / name)
    return Bind(mount=Mount(source=source, destination=destination), directory=False)


def check(machine: Machine, spec: ContainerSpec) -> None:
    """All that can be wrong with a container's spec and needs no kernel object to see. Raises InvalidError."""
    plan(
        Request(
            name=spec.name,
            root="/",
            layers=(),
            upper="",
            work="",
            binds=trees.look_at(spec.name, spec.mounts),
            devices=trees.nodes(spec.devices),
        )
    )
    confinement.check_labels(f"container {spec.name}", spec.security.process_label, spec.security.mount_label)
    command.rlimits(spec.rlimits)
    confinement.check(machine, spec)
