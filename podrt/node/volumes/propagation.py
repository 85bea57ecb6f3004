"""mountPropagation: which way mounts travel. Whether they can is told by ``engine.trees.check_spreads``."""

from __future__ import annotations

from podrt.engine.specs import Propagation
from podrt.model.container import VolumeMount

_MODES = {
    "HostToContainer": Propagation.HOST_TO_CONTAINER,
    "Bidirectional": Propagation.BIDIRECTIONAL,
}


def wanted(mount: VolumeMount) -> Propagation:
    return _MODES.get(mount.mount_propagation or "", Propagation.PRIVATE)
