"""A volume that can't be set up: the words of the kubelet's FailedMount event."""

from __future__ import annotations

from podrt.errors import InvalidError


class VolumeError(InvalidError):
    """``MountVolume.SetUp failed for volume "v" : why``. The Pod waits and tries again."""

    def __init__(self, volume: str, why: str) -> None:
        super().__init__(f'MountVolume.SetUp failed for volume "{volume}" : {why}')
        self.volume = volume


class Unavailable(Exception):
    """Why a volume's content can't be had, such as ``configmap "x" not found``; becomes a VolumeError."""
