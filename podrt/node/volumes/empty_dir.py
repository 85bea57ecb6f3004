"""emptyDir: a directory of the Pod's own, on disk or in memory (a tmpfs)."""

from __future__ import annotations

import os
from pathlib import Path

from podrt.linux import abi, libc
from podrt.model.pod import Pod
from podrt.model.resources import pod_limits, pod_requests
from podrt.model.volume import EmptyDirVolumeSource
from podrt.node.resources import HUGE, whole
from podrt.node.volumes.directory import PodDirectory, make_directory
from podrt.node.volumes.errors import Unavailable

MODE = 0o777


def set_up(
    pod: Pod, name: str, source: EmptyDirVolumeSource, directory: PodDirectory, node_memory: int, label: str = ""
) -> Path:
    """Make it, mode 0777. A tmpfs is as large as the smallest of sizeLimit, the Pod's memory limit and the node; all
    its files have the SELinux ``label``, if there is one."""
    path = directory.volume("empty-dir", name)
    make_directory(path, MODE)
    context = f',context="{label}"' if label else ""
    if source.medium == "Memory" and not os.path.ismount(path):
        mount_tmpfs(path, MODE, _size(pod, source, node_memory), options=context)
    elif source.medium.startswith("HugePages") and not os.path.ismount(path):
        size = _page_size(pod, source.medium)
        options = f"pagesize={size},mode=0777{context}"
        libc.mount("nodev", os.fspath(path), "hugetlbfs", abi.MS_NOSUID | abi.MS_NODEV, options)
    return path


def _page_size(pod: Pod, medium: str) -> str:
    """The size of the pages, as mount(8) takes it. Raises Unavailable: the Pod has asked for no such pages."""
    asked = {name.removeprefix(HUGE) for name in pod_requests(pod.spec) if name.startswith(HUGE)}
    wanted = medium.removeprefix("HugePages").removeprefix("-")
    if wanted and wanted not in asked:
        raise Unavailable(f"medium {medium} needs a limit of {HUGE}{wanted} in a container")
    if not wanted and len(asked) != 1:
        raise Unavailable(f"medium {medium} needs limits of huge pages of one size in the containers")
    return (wanted or asked.pop()).removesuffix("i")


def _size(pod: Pod, source: EmptyDirVolumeSource, node_memory: int) -> int:
    bounds = [node_memory]
    if source.size_limit:
        bounds.append(whole(source.size_limit))
    if (limit := pod_limits(pod.spec).get("memory")) is not None:
        bounds.append(int(limit))
    return min(bound for bound in bounds if bound)


def mount_tmpfs(path: Path, mode: int, size: int = 0, *, options: str = "") -> None:
    """A tmpfs at ``path`` without device nodes and setuid; ``size`` 0: the kernel's half of memory."""
    data = f"mode={mode:04o}" + (f",size={size}" if size else "") + options
    libc.mount("tmpfs", os.fspath(path), "tmpfs", abi.MS_NOSUID | abi.MS_NODEV, data)


def mount_unswapped(path: Path) -> None:
    """A tmpfs whose pages are never written to swap, where the kernel can promise that (6.4)."""
    try:
        mount_tmpfs(path, 0o755, options=",noswap")
    except OSError:
        mount_tmpfs(path, 0o755)
