"""mountPropagation: which way mounts travel, and whether they can."""

from __future__ import annotations

import os
from pathlib import Path

from podrt.engine.specs import Propagation
from podrt.errors import InvalidError
from podrt.linux.mount_table import mount_points
from podrt.model.container import VolumeMount

_MODES = {
    "HostToContainer": Propagation.HOST_TO_CONTAINER,
    "Bidirectional": Propagation.BIDIRECTIONAL,
}


def wanted(mount: VolumeMount) -> Propagation:
    return _MODES.get(mount.mount_propagation or "", Propagation.PRIVATE)


def check_shared(path: Path, propagation: Propagation, container: str) -> None:
    """Mounts only travel between peers: a private source would make nothing of the wish, in silence."""
    real = os.path.realpath(path)
    holders = [point for point in mount_points() if real == point.path or real.startswith(point.path.rstrip("/") + "/")]
    point = max(holders, key=lambda one: (len(one.path), one.id))
    if not point.shared:
        kind = "shared" if propagation is Propagation.BIDIRECTIONAL else "shared or slave"
        raise InvalidError(
            f'container "{container}": path "{path}" is mounted on "{point.path}" but it is not a {kind} mount; '
            f"make it one with: mount --make-rshared {point.path}"
        )
