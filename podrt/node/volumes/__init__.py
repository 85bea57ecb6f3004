"""Volumes of Pods on this machine, one file per kind; ``pod_volumes`` holds them together."""

from __future__ import annotations

from pathlib import Path

from podrt.model.pod import Pod
from podrt.node.volumes import empty_dir, host_path
from podrt.node.volumes.directory import PodDirectory, remove_tree
from podrt.node.volumes.errors import Unavailable, VolumeError
from podrt.node.volumes.pod_volumes import PodVolumes, Prepared

__all__ = ["PodDirectory", "PodVolumes", "Prepared", "VolumeError", "remove_tree", "set_up"]


def set_up(pod: Pod, directory: PodDirectory, node_memory: int) -> dict[str, Path]:
    """emptyDir and hostPath alone."""
    directory.make()
    found: dict[str, Path] = {}
    for volume in pod.spec.volumes:
        try:
            if volume.empty_dir is not None:
                found[volume.name] = empty_dir.set_up(pod, volume.name, volume.empty_dir, directory, node_memory)
            elif volume.host_path is not None:
                found[volume.name] = host_path.set_up(volume.host_path)
        except Unavailable as error:
            raise VolumeError(volume.name, str(error)) from error
    return found
