"""Volumes of a Pod on this machine: emptyDir and hostPath, made before the containers and removed with the Pod.

Everything lies below ``<state_dir>/pods/<uid>/`` in the kubelet's layout. A Memory emptyDir is a tmpfs mounted there.
Other kinds are refused by the API for now (``model.support``).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path

from podrt.errors import InvalidError
from podrt.linux import libc, mount_table
from podrt.model.pod import Pod
from podrt.model.volume import EmptyDirVolumeSource, HostPathVolumeSource, Volume
from podrt.node.resources import whole

_CHECKS = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


class PodDirectory:
    """The files of one Pod: ``<state_dir>/pods/<uid>/``."""

    def __init__(self, state_dir: Path, uid: str) -> None:
        self.path = state_dir / "pods" / uid

    @property
    def hosts(self) -> Path:
        return self.path / "etc-hosts"

    def volume(self, kind: str, name: str) -> Path:
        return self.path / "volumes" / f"kubernetes.io~{kind}" / name

    def termination_log(self, container: str, attempt: int) -> Path:
        return self.path / "containers" / container / str(attempt)

    def make(self) -> None:
        self.path.mkdir(mode=0o750, parents=True, exist_ok=True)

    def remove(self) -> None:
        """Unmount what is mounted below and delete everything. No error if it is gone already."""
        for point in reversed(mount_table.mount_points(self.path)):
            mount_table.unmount_all(point.path)
        remove_tree(self.path)


def remove_tree(path: Path) -> None:
    """Delete a directory and all below, without following links. No error if it is gone already."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def set_up(pod: Pod, directory: PodDirectory, node_memory: int) -> dict[str, Path]:
    """Make the Pod's volumes; returns volume name -> path on the host. Idempotent.

    Raises InvalidError naming the volume where a hostPath is not what its type says, OSError otherwise.
    """
    directory.make()
    return {
        volume.name: _set_up_one(pod, volume, directory, node_memory, f"spec.volumes[{index}]")
        for index, volume in enumerate(pod.spec.volumes)
    }


def _set_up_one(pod: Pod, volume: Volume, directory: PodDirectory, node_memory: int, where: str) -> Path:
    if volume.empty_dir is not None:
        return _empty_dir(pod, volume.empty_dir, directory.volume("empty-dir", volume.name), node_memory)
    if volume.host_path is not None:
        return _host_path(volume.host_path, where)
    raise InvalidError(f"{where}: volume {volume.name!r} is of a kind that podrt does not support yet")


def _empty_dir(pod: Pod, source: EmptyDirVolumeSource, path: Path, node_memory: int) -> Path:
    made = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    if source.medium == "Memory" and not os.path.ismount(path):
        bounds = [node_memory]
        if source.size_limit:
            bounds.append(whole(source.size_limit))
        limits = [container.resources.limits.get("memory") for container in pod.spec.containers]
        if all(limits):
            bounds.append(sum(whole(limit) for limit in limits if limit))
        flags = libc.MS_NOSUID | libc.MS_NODEV
        libc.mount(
            "tmpfs", os.fspath(path), "tmpfs", flags, f"mode=0777,size={min(bound for bound in bounds if bound)}"
        )
    elif made:
        path.chmod(0o777)
    return path


def _host_path(source: HostPathVolumeSource, where: str) -> Path:
    path, kind = Path(source.path), source.type or ""
    field = f"{where}.hostPath"
    if kind in ("", "DirectoryOrCreate") and not path.exists():
        # With no type the kubelet checks nothing and the runtimes make the directory: users rely on it.
        path.mkdir(mode=0o755, parents=True)
    elif kind == "FileOrCreate" and not path.exists():
        path.touch(mode=0o644)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        hint = "make it, or use type DirectoryOrCreate or FileOrCreate"
        raise InvalidError(f"{field}.path: {path} does not exist on the host; {hint}") from None
    check = _CHECKS.get(kind.removesuffix("OrCreate"))
    if check is not None and not check[0](mode):
        raise InvalidError(f"{field}.type: {path} is not {check[1]}, as type {kind} demands")
    return path
