"""Volumes of Pods on this machine, one file per kind; ``pod_volumes`` holds them together."""

from __future__ import annotations

from podrt.node.volumes.directory import PodDirectory, remove_tree
from podrt.node.volumes.errors import Unavailable, VolumeError
from podrt.node.volumes.pod_volumes import PodVolumes, Prepared

__all__ = ["PodDirectory", "PodVolumes", "Prepared", "Unavailable", "VolumeError", "remove_tree"]
