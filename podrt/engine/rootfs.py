"""The mounts of a container as a list: a pure function from plain facts to operations of :mod:`podrt.linux.mount`.

What needs the host (which file kind a source is, which devices there are) is found out by :mod:`podrt.engine.trees`
before, so that this can be tested with tables. Nothing here opens a file: a bind names its source by an index into
:attr:`Plan.sources`, which the caller opens in that order.

Order: the root, then all file systems and binds by the depth of their destination (a bind onto /a comes before one
onto /a/b, and the spec's mounts replace a standard one of the same destination), devices, masks, read-only paths, the
pivot. The list of standard mounts, masked and read-only paths is that of containerd and docker, which Kubernetes
documents under ``procMount``.

User namespaces: everything is mounted by the host's root before the user namespace is entered, so sysfs and proc need
no bind of the host's (cgroup does: the cgroup namespace is made after the user namespace); layers and volumes come
through idmapped clones (the upper directory belongs to the sandbox's root itself), and file systems that take an
owner get the outside id of the sandbox's root."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from podrt.engine.specs import Mount, Propagation
from podrt.errors import Cause, InvalidError
from podrt.linux import abi, mount_console, mount_cover, mount_nodes
from podrt.linux import mount as ops

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
_LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
)
_TTY_GROUP = 5
_PLAIN = abi.MOUNT_ATTR_NOSUID | abi.MOUNT_ATTR_NODEV | abi.MOUNT_ATTR_NOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A device node to make in the container."""

    path: str
    kind: str
    """``c`` or ``b``."""
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A spec's mount whose source was looked at."""

    mount: Mount
    directory: bool
    tree: int = -1
    """A descriptor of the detached tree, where there is no source to clone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A tree to open: ``open_tree(path, OPEN_TREE_CLONE)`` with these attributes, in the order of the plan."""

    path: str
    recursive: bool = True
    read_only: bool = False
    recursive_read_only: bool = False
    propagation: Propagation = Propagation.PRIVATE
    idmap: bool = False
    tree: int = -1
    """This tree, as it is, instead of a clone of ``path``."""
    plain: bool = False
    """nosuid, nodev and noexec, which a copy otherwise takes from the host's mount."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """One cgroup mount of the host: v1 with its controllers as the mount option, or ``cgroup2``."""

    name: str
    """Below /sys/fs/cgroup; "" for the mount there itself (cgroup v2 alone)."""
    fstype: str
    options: tuple[str, ...] = ()
    source: str = ""
    """Not empty: bind this directory of the hierarchy, the container's own cgroup, instead of mounting it anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """All that the mounts of one container hang on."""

    name: str
    """The container's, for messages."""
    root: str
    """A directory of the host, the mount point of the overlay."""
    layers: tuple[str, ...]
    """Top first."""
    upper: str
    work: str
    hierarchies: tuple[Hierarchy, ...] = ()
    """Those in which the container has a cgroup of its own: another would show it the host's."""
    binds: tuple[Bind, ...] = ()
    """The spec's mounts."""
    files: tuple[Bind, ...] = ()
    """hosts, hostname, resolv.conf; each is left out where the spec mounts its destination."""
    shm: str = ""
    """The sandbox's /dev/shm on the host, or the host's own; "" for none."""
    devices: tuple[Node, ...] = ()
    """Beyond the standard ones."""
    terminal: bool = False
    privileged: bool = False
    unmasked_proc: bool = False
    masked_paths: tuple[str, ...] | None = None
    read_only_paths: tuple[str, ...] | None = None
    """Both instead of the standard ones if not None."""
    read_only_root: bool = False
    user_namespace: bool = False
    root_uid: int = 0
    root_gid: int = 0
    """The outside ids of the container's root."""
    tty_gid: int = _TTY_GROUP
    """The outside id of group 5."""
    label: str = ""
    """The SELinux label of all files of the container's own."""


@dataclass(slots=True)
class Plan:
    operations: list[Any] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)


def plan(request: Request) -> Plan:
    """The operations and sources of a container's root file system.

    Raises InvalidError for a mount onto ``/``, a relative or an unclean destination, or two mounts onto one.
    """
    result = Plan()
    overridden = _destinations(request)
    result.operations.append(ops.Propagation("/", abi.MS_REC | abi.MS_SLAVE))
    result.operations.append(_overlay(request, result.sources))
    steps = [
        (destination, make)
        for destination, make in (*_standard(request), *_files(request), *_spec_binds(request))
        if make.__name__ == "spec" or not _replaced(destination, overridden)
    ]
    steps.sort(key=lambda step: _depth(step[0]))  # stable: equal depth keeps the order above
    for _, make in steps:
        result.operations.append(make(result.sources))
    if "/dev" not in overridden:
        result.operations.extend(_dev(request))
    result.operations.extend(mount_nodes.DeviceNode(*_node(node, request)) for node in request.devices)
    if request.terminal:
        result.operations.append(mount_console.Console())
    if not request.privileged:
        result.operations.extend(_protection(request))
    if request.read_only_root:
        result.operations.append(mount_cover.ReadOnlyRoot())
    result.operations.append(ops.Pivot(request.root))
    return result


_WHOLE = ("/dev", "/sys/fs/cgroup")


def _replaced(destination: str, overridden: frozenset[str]) -> bool:
    """Whether a mount of the spec stands for a standard one: who brings a /dev brings its pts and shm along."""
    return destination in overridden or any(
        whole in overridden and destination.startswith(f"{whole}/") for whole in _WHOLE
    )


Make = Callable[[list[Source]], Any]


def _destinations(request: Request) -> frozenset[str]:
    seen: set[str] = set()
    for index, bind in enumerate(request.binds):
        destination = bind.mount.destination
        if (
            not destination.startswith("/")
            or posixpath.normpath(destination) != destination
            or ".." in PurePosixPath(destination).parts
            or destination in ("/", "//")
            or "\0" in destination
        ):
            raise InvalidError(
                f"container {request.name}: mount {index}: destination {destination!r} must be an absolute path below "
                "/, without . or .. in it",
                (Cause(f"mounts[{index}].destination", f"not a clean absolute path: {destination!r}"),),
            )
        if destination in seen:
            raise InvalidError(
                f"container {request.name}: two mounts have the destination {destination}",
                (Cause(f"mounts[{index}].destination", f"{destination} is used twice", "FieldValueDuplicate"),),
            )
        seen.add(destination)
    return frozenset(seen)


def _depth(path: str) -> int:
    return path.count("/")


def _overlay(request: Request, sources: list[Source]) -> Any:
    labelled = _labelled(request)
    if not request.user_namespace:
        return ops.Overlay(request.root, request.layers, request.upper, request.work, labelled)
    first = len(sources)
    lower = [Source(path=path, recursive=False, idmap=True) for path in request.layers]
    sources.extend(lower)
    return ops.Overlay(
        request.root,
        request.layers,
        request.upper,
        request.work,
        labelled,
        lower_fds=tuple(range(first, first + len(lower))),
    )


def _labelled(request: Request) -> tuple[str, ...]:
    """The option that gives every file of a new file system one SELinux label."""
    return (f"context={request.label}",) if request.label else ()


def _standard(request: Request) -> list[tuple[str, Make]]:
    read_only = 0 if request.privileged else abi.MOUNT_ATTR_RDONLY
    owner = (f"uid={request.root_uid}", f"gid={request.root_gid}") if request.user_namespace else ()
    labelled = _labelled(request)

    def mount(target: str, fstype: str, attrs: int, *options: str) -> tuple[str, Make]:
        def standard(_sources: list[Source]) -> Any:
            return ops.FileSystem(target, fstype, fstype, attrs, options)

        return target, standard

    steps = [
        mount("/proc", "proc", _PLAIN),
        mount("/dev", "tmpfs", abi.MOUNT_ATTR_NOSUID, "mode=755", "size=65536k", *owner, *labelled),
        mount(
            "/dev/pts",
            "devpts",
            abi.MOUNT_ATTR_NOSUID | abi.MOUNT_ATTR_NOEXEC,
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            f"gid={request.tty_gid}",
            *labelled,
        ),
        mount("/dev/mqueue", "mqueue", _PLAIN, *labelled),
        mount("/sys", "sysfs", _PLAIN | read_only),
    ]
    if request.shm:
        steps.append(_bind("/dev/shm", Source(path=request.shm, recursive=False), directory=True))
    nested = any(hierarchy.name for hierarchy in request.hierarchies)
    if nested:
        # Writable until the mount points in it are made; it is of this container alone and holds nothing else.
        steps.append(mount("/sys/fs/cgroup", "tmpfs", _PLAIN, "mode=755", "size=64k", *owner, *labelled))
    for hierarchy in request.hierarchies:
        target = posixpath.join("/sys/fs/cgroup", hierarchy.name).rstrip("/")
        if hierarchy.source:
            tree = Source(path=hierarchy.source, recursive=False, read_only=bool(read_only), plain=True)
            steps.append(_bind(target, tree, directory=True))
        else:
            steps.append(mount(target, hierarchy.fstype, _PLAIN | read_only, *hierarchy.options))
    return steps


def _bind(destination: str, source: Source, *, directory: bool) -> tuple[str, Make]:
    def standard(sources: list[Source]) -> Any:
        sources.append(source)
        return ops.BindTree(destination, len(sources) - 1, directory)

    return destination, standard


def _files(request: Request) -> list[tuple[str, Make]]:
    return [
        _bind(
            bind.mount.destination,
            Source(path=bind.mount.source, recursive=False, read_only=bind.mount.read_only or request.read_only_root),
            directory=False,
        )
        for bind in request.files
    ]


def _spec_binds(request: Request) -> list[tuple[str, Make]]:
    def one(bind: Bind) -> tuple[str, Make]:
        mount = bind.mount

        def spec(sources: list[Source]) -> Any:
            sources.append(
                Source(
                    path=mount.source,
                    read_only=mount.read_only or mount.recursive_read_only,
                    recursive_read_only=mount.recursive_read_only,
                    propagation=mount.propagation,
                    idmap=request.user_namespace and mount.idmap and bind.tree < 0,
                    tree=bind.tree,
                )
            )
            return ops.BindTree(mount.destination, len(sources) - 1, bind.directory)

        return mount.destination, spec

    return [one(bind) for bind in request.binds]


def _dev(request: Request) -> list[Any]:
    nodes = [
        mount_nodes.DeviceNode(f"/dev/{name}", "c", major, minor, 0o666, request.root_uid, request.root_gid)
        for name, major, minor in _DEVICES
    ]
    return [*nodes, *(mount_nodes.Symlink(path, target) for path, target in _LINKS)]


def _node(node: Node, request: Request) -> tuple[str, str, int, int, int, int, int]:
    return (
        node.path,
        node.kind,
        node.major,
        node.minor,
        node.mode,
        node.uid + request.root_uid,
        node.gid + request.root_gid,
    )


def _protection(request: Request) -> list[Any]:
    masked: Sequence[str] = [path for path in MASKED_PATHS if not (request.unmasked_proc and path.startswith("/proc/"))]
    read_only: Sequence[str] = () if request.unmasked_proc else READ_ONLY_PATHS
    masked = masked if request.masked_paths is None else request.masked_paths
    read_only = read_only if request.read_only_paths is None else request.read_only_paths
    return [*(mount_cover.Mask(path) for path in masked), *(mount_cover.ReadOnly(path) for path in read_only)]
