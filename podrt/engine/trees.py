"""What the mounts of a container need of the host, found out and opened by the daemon.

Sources of binds are looked up here, in the host's mount namespace, and travel as detached trees: no path of a volume
is looked up once the container exists. A source may be a ``/proc/self/fd/N`` of the caller, who then has resolved it
safely (subPath)."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from podrt.engine.image_mounts import Opened
from podrt.engine.rootfs import Bind, Hierarchy, Node, Source
from podrt.engine.specs import Device, Mount, Propagation
from podrt.errors import Cause, InvalidError
from podrt.linux import abi
from podrt.linux.mount_table import clone_tree, mount_points, set_tree

_PROPAGATION = {
    Propagation.PRIVATE: abi.MS_PRIVATE,
    Propagation.HOST_TO_CONTAINER: abi.MS_SLAVE,
    Propagation.BIDIRECTIONAL: abi.MS_SHARED,
}
_CGROUP = "/sys/fs/cgroup"
# Made anew in every container, or of the host's own terminal and mounts.
_NOT_HANDED_OUT = frozenset({"pts", "shm", "mqueue", "fd", "console", "ptmx", "lxc", "lxd-fuse", ".lxc", ".lxd-mounts"})


def look_at(name: str, mounts: Sequence[Mount], images: Mapping[str, Opened] | None = None) -> tuple[Bind, ...]:
    """Find out the kind of each source; ``images`` are the trees of mounts of images by destination, if they are open.

    Raises InvalidError naming container ``name`` and the mount whose source is missing, or is not on a mount that
    spreads where it has to.
    """
    binds = []
    for index, mount in enumerate(mounts):
        if mount.image:
            opened = (images or {}).get(mount.destination)
            if opened is None:
                binds.append(Bind(mount=mount, directory=True))
            else:
                binds.append(Bind(mount=mount, directory=opened.directory, tree=opened.tree))
            continue
        try:
            if mount.create and mount.source.startswith("/") and not os.path.lexists(mount.source):
                os.makedirs(mount.source, 0o755, exist_ok=True)
            if not mount.source.startswith("/"):
                raise FileNotFoundError
            mode = os.stat(mount.source).st_mode
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InvalidError(
                f"container {name}: mount of {mount.destination}: source {mount.source!r} does not exist on the host",
                (Cause(f"mounts[{index}].source", f"{mount.source} does not exist"),),
            ) from error
        if mount.propagation is not Propagation.PRIVATE:
            check_spreads(name, mount.source, mount.propagation)
        binds.append(Bind(mount=mount, directory=stat.S_ISDIR(mode)))
    return tuple(binds)


def check_spreads(container: str, path: str | os.PathLike[str], propagation: Propagation) -> None:
    """Mounts only travel between peers: a private source would make nothing of the wish, in silence.

    Raises InvalidError.
    """
    real = os.path.realpath(path)
    holders = [point for point in mount_points() if real == point.path or real.startswith(point.path.rstrip("/") + "/")]
    point = max(holders, key=lambda one: (len(one.path), one.id))
    if point.shared or (point.slave and propagation is Propagation.HOST_TO_CONTAINER):
        return
    kind = "shared" if propagation is Propagation.BIDIRECTIONAL else "shared or slave"
    raise InvalidError(
        f'container "{container}": path "{path}" is mounted on "{point.path}" but it is not a {kind} mount; '
        f"make it one with: mount --make-rshared {point.path}"
    )


def open_sources(sources: Sequence[Source], fds: list[int], user_namespace_fd: int = -1) -> None:
    """Open each source as a detached tree with its attributes and append it to ``fds``, which the caller closes.

    ``user_namespace_fd`` is for the sources that ask for ids to be mapped. Raises OSError naming the source.
    """
    for source in sources:
        # A copy of a shared mount is its peer, so private is asked for and not assumed.
        tree = os.dup(source.tree) if source.tree >= 0 else clone_tree(source.path, recursive=source.recursive)
        fds.append(tree)
        try:
            if source.idmap:
                set_tree(tree, idmap_userns_fd=user_namespace_fd, recursive=source.recursive)
            set_tree(
                tree,
                read_only=source.read_only,
                recursive=source.recursive_read_only,
                propagation=_PROPAGATION[source.propagation],
                nosuid=source.plain,
                nodev=source.plain,
                noexec=source.plain,
            )
        except OSError as error:
            what = "mapping the ids of" if source.idmap else "setting the attributes of"
            raise OSError(error.errno, f"{what} {source.path}: {os.strerror(error.errno or 0)}", source.path) from error


def nodes(devices: Sequence[Device]) -> tuple[Node, ...]:
    """The device nodes of a spec; a directory stands for all devices below it.

    Raises InvalidError for a host path that is missing or no device.
    """
    result: list[Node] = []
    for index, device in enumerate(devices):
        try:
            found = os.stat(device.host_path)
        except OSError as error:
            raise InvalidError(
                f"device {device.host_path}: {os.strerror(error.errno or 0)}",
                (Cause(f"devices[{index}].hostPath", "no such device on the host"),),
            ) from error
        if stat.S_ISDIR(found.st_mode):
            result.extend(_below(Path(device.host_path), device.container_path))
        elif node := _node(device.container_path, found):
            result.append(node)
        else:
            raise InvalidError(
                f"device {device.host_path} is not a device",
                (Cause(f"devices[{index}].hostPath", "not a character or block device"),),
            )
    return tuple(result)


def host_devices() -> tuple[Node, ...]:
    """Every device node of the host's /dev, for a privileged container."""
    return tuple(_below(Path("/dev"), "/dev"))


def _below(directory: Path, shown: str) -> Iterator[Node]:
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if str(directory) == "/dev" and entry.name in _NOT_HANDED_OUT:
                continue
            path = f"{shown.rstrip('/')}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _below(Path(entry.path), path)
            elif node := _node(path, entry.stat(follow_symlinks=False)):
                yield node


def _node(path: str, found: os.stat_result) -> Node | None:
    kind = "c" if stat.S_ISCHR(found.st_mode) else "b" if stat.S_ISBLK(found.st_mode) else ""
    if not kind:
        return None
    return Node(
        path=path,
        kind=kind,
        major=os.major(found.st_rdev),
        minor=os.minor(found.st_rdev),
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
    )


def own_hierarchies(known: Sequence[Hierarchy], cgroup: str, *, bind: bool) -> tuple[Hierarchy, ...]:
    """Those of ``known`` in which ``cgroup`` exists; with ``bind`` to be shown by a bind of its directory."""
    found = []
    for hierarchy in known:
        directory = f"{_CGROUP}/{hierarchy.name}".rstrip("/") + cgroup
        if os.path.isdir(directory):
            found.append(dataclasses.replace(hierarchy, source=directory) if bind else hierarchy)
    return tuple(found)


def hierarchies() -> tuple[Hierarchy, ...]:
    """The cgroup mounts of the host, as a container gets them: each v1 hierarchy and the unified one."""
    controllers = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, names, _ = line.split(":", 2)
        if number != "0":
            controllers[frozenset(names.split(","))] = tuple(names.split(","))
    result = []
    for point in mount_points(_CGROUP):
        name = point.path[len(_CGROUP) + 1 :]
        if "/" in name:
            continue
        if point.fstype == "cgroup2":
            result.append(Hierarchy(name=name, fstype="cgroup2"))
        elif point.fstype == "cgroup":
            wanted = frozenset({f"name={name}"} if frozenset({f"name={name}"}) in controllers else name.split(","))
            if wanted in controllers:
                named = any(option.startswith("name=") for option in wanted)
                result.append(
                    Hierarchy(name=name, fstype="cgroup", options=(*(("none",) if named else ()), *controllers[wanted]))
                )
    return tuple(result)
