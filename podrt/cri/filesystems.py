"""Where images and writable layers are, as the CRI's FilesystemIdentifier says it.

The kubelet looks up the device of such a directory by itself. It takes two different names for two file systems, so
one file system must have one name in all answers.
"""

from __future__ import annotations

import os
from pathlib import Path

from cri_api.v1 import api_pb2 as api

from podrt.config import Config
from podrt.linux.mount_table import mount_points


def mountpoints(config: Config) -> tuple[str, str]:
    """A directory on the file system of the images, and one on that of the writable layers. Raises OSError."""
    images, containers = config.state_dir / "images", config.state_dir / "containers"
    if _device(images) == _device(containers):
        return str(config.state_dir), str(config.state_dir)
    return str(images), str(containers)


def device_of(directory: str) -> str:
    """What is mounted where ``directory`` lies: ``/dev/vda1``; ``major:minor`` where that is no name."""
    path = os.path.realpath(directory)
    above = [one for one in mount_points("/") if f"{path}/".startswith(f"{one.path.rstrip('/')}/")]
    source = max(above, key=lambda one: (len(one.path), one.id)).source if above else ""
    if source.startswith("/") and source.isascii():
        return source
    number = os.stat(path).st_dev
    return f"{os.major(number)}:{os.minor(number)}"


def filesystem(mountpoint: str, at: float, used: int, inodes: int) -> api.FilesystemUsage:
    """``at`` in seconds since the epoch."""
    return api.FilesystemUsage(
        timestamp=int(at * 1e9),
        fs_id=api.FilesystemIdentifier(mountpoint=mountpoint),
        used_bytes=api.UInt64Value(value=used),
        inodes_used=api.UInt64Value(value=inodes),
    )


def _device(path: Path) -> int:
    return os.stat(path).st_dev
