"""What a Pod has on the node's disk: writable layers, logs, emptyDirs; and whether that is more than its limits.

Nothing of the kernel bounds it, so it is looked at from time to time, as often as a kubelet does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from podrt.errors import NotFoundError
from podrt.model.pod import Pod
from podrt.model.quantity import parse
from podrt.node import convert
from podrt.node.order import Role, containers
from podrt.node.resources import whole
from podrt.node.volumes import usage
from podrt.node.volumes.directory import PodDirectory

if TYPE_CHECKING:
    from podrt.node.context import Context

LIMIT = "ephemeral-storage"


class Disk(NamedTuple):
    """Bytes on disk."""

    containers: Mapping[str, int]
    """Writable layer and logs, by container."""
    volumes: int
    """All emptyDirs that are not in memory."""

    @property
    def total(self) -> int:
        return sum(self.containers.values()) + self.volumes


def bounded(pod: Pod) -> bool:
    """Whether a Pod has a limit that has to be looked after."""
    return any(LIMIT in spec.resources.limits for _, spec in containers(pod)) or any(
        volume.empty_dir is not None and volume.empty_dir.size_limit and not volume.empty_dir.medium
        for volume in pod.spec.volumes
    )


async def used(context: Context, pod: Pod) -> Disk:
    """Walks directories in threads. Raises OSError."""
    found: dict[str, int] = {}
    for box in context.sandboxes_of(pod.metadata.uid):
        for run in context.engine.list_containers(box.id):
            with contextlib.suppress(NotFoundError):
                stats = await context.engine.container_stats(run.id)
                found[run.spec.name] = found.get(run.spec.name, 0) + stats.rootfs_bytes
    logs = Path(convert.log_directory(context.config, pod))
    for name in found:
        found[name] += await asyncio.to_thread(usage.disk_usage, logs / name)
    directory = PodDirectory(context.config.state_dir, pod.metadata.uid)
    volumes = 0
    for volume in pod.spec.volumes:
        if volume.empty_dir is not None and not volume.empty_dir.medium:
            volumes += await asyncio.to_thread(usage.disk_usage, directory.volume("empty-dir", volume.name))
    return Disk(found, volumes)


async def excess(context: Context, pod: Pod, directory: PodDirectory) -> str:
    """Why a Pod is to be evicted, in the kubelet's words; "" if all is well. Raises OSError."""
    text = await asyncio.to_thread(usage.excess, usage.limits(pod, directory))
    if text or not any(LIMIT in spec.resources.limits for _, spec in containers(pod)):
        return text
    return beyond(pod, await used(context, pod))


def beyond(pod: Pod, disk: Disk) -> str:
    """Which limit of ephemeral-storage is passed. Pure."""
    own = {
        spec.name: spec.resources.limits[LIMIT]
        for role, spec in containers(pod)
        if role is not Role.EPHEMERAL and LIMIT in spec.resources.limits
    }
    lasting = [parse(own[spec.name]) for role, spec in containers(pod) if role in _LASTING and spec.name in own]
    if lasting:
        total = sum(lasting[1:], lasting[0])
        if disk.total > total.value:
            return f"Pod ephemeral local storage usage exceeds the total limit of containers {total}. "
    for name, limit in own.items():
        if disk.containers.get(name, 0) > whole(limit):
            return f'Container {name} exceeded its local ephemeral storage limit "{limit}". '
    return ""


_LASTING = (Role.MAIN, Role.SIDECAR)
