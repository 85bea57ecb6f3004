"""A Pod leaves: volumes that are more than its own files are given back, and what no other Pod uses is undone."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from podrt.model.pod import Pod
from podrt.model.storage import PersistentVolume
from podrt.model.volume import Volume
from podrt.node.volumes import block, claim, csi
from podrt.node.volumes.directory import PodDirectory
from podrt.node.volumes.errors import Unavailable

if TYPE_CHECKING:
    from podrt.node.context import Context

logger = logging.getLogger(__name__)


async def detach(context: Context, pod: Pod, directory: PodDirectory) -> None:
    """Of all volumes. Done again it does no harm. Raises Unavailable, OSError."""
    for volume in pod.spec.volumes:
        if volume.csi is not None:
            volume_id = csi.handle(pod, volume.name)
            await csi.unpublish(context.config.state_dir, volume.csi.driver, volume_id, directory, volume.name)
        elif claim.claim_name(pod, volume) and (found := _bound(context, pod, volume)) is not None:
            await _detach_claim(context, pod, volume, found, directory)


def _bound(context: Context, pod: Pod, volume: Volume) -> PersistentVolume | None:
    try:
        return claim.find(context.store, pod, volume).volume
    except Unavailable as error:
        logger.debug("pod %s: volume %s: %s", pod.metadata.name, volume.name, error)
        return None


async def _detach_claim(
    context: Context, pod: Pod, volume: Volume, found: PersistentVolume, directory: PodDirectory
) -> None:
    state_dir, spec = context.config.state_dir, found.spec
    if spec.csi is not None:
        await csi.unpublish(state_dir, spec.csi.driver, spec.csi.volume_handle, directory, volume.name)
    async with context.claims.turn(found.metadata.name):
        if context.claims.used_besides(pod, claim.claim_name(pod, volume)):
            return
        if spec.csi is not None:
            await csi.unstage(state_dir, spec.csi)
        elif spec.volume_mode == "Block" and spec.local is not None:
            await asyncio.to_thread(block.release, Path(spec.local.path), context.claims.root)
