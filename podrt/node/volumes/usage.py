"""The disk that an emptyDir with a sizeLimit uses, looked at as often as a kubelet does; too much of it evicts the Pod.

There are no quotas of the kernel behind it, so a Pod may write more than its limit for some seconds.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from podrt.model.pod import Pod
from podrt.node.resources import whole
from podrt.node.volumes.directory import PodDirectory


def limits(pod: Pod, directory: PodDirectory) -> dict[str, tuple[Path, str]]:
    """(path, sizeLimit) of the volumes on disk that have one. A tmpfs is bounded by its mount."""
    return {
        volume.name: (directory.volume("empty-dir", volume.name), volume.empty_dir.size_limit)
        for volume in pod.spec.volumes
        if volume.empty_dir is not None
        and volume.empty_dir.medium == ""
        and volume.empty_dir.size_limit
        and whole(volume.empty_dir.size_limit)
    }


def excess(watched: dict[str, tuple[Path, str]]) -> str:
    """Why the Pod is to be evicted, in the kubelet's words; "" if all is well. Reads directories: use a thread."""
    for name, (path, limit) in watched.items():
        if disk_usage(path) > whole(limit):
            return f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". '
    return ""


def disk_usage(root: Path) -> int:
    """Bytes on disk of a directory and all below; a file with several names counts once. 0 if it is gone."""
    total = 0
    seen: set[tuple[int, int]] = set()
    for _, directories, files, fd in os.fwalk(root, follow_symlinks=False):
        for name in (*directories, *files):
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if found.st_nlink > 1 and name in files:
                    if (found.st_dev, found.st_ino) in seen:
                        continue
                    seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
    return total
