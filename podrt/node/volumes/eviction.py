"""A Pod that has more on disk than its limits allow is evicted: emptyDirs, logs, writable layers."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from podrt.model.meta import ObjectMeta
from podrt.model.pod import Pod
from podrt.node import storage
from podrt.node.volumes.directory import PodDirectory

if TYPE_CHECKING:
    from podrt.node.context import Context

logger = logging.getLogger(__name__)


class Eviction:
    """Of one Pod. ``watch`` as often as one likes, ``close`` last."""

    def __init__(self, context: Context, directory: PodDirectory) -> None:
        self._context = context
        self._directory = directory
        self._watch: asyncio.Task[None] | None = None

    def watch(self, pod: Pod) -> None:
        """Look at what the Pod has on disk if that has a limit, as long as the Pod is there."""
        if storage.bounded(pod) and (self._watch is None or self._watch.done()):
            self._watch = asyncio.get_running_loop().create_task(self._evict_excess(pod.metadata))

    async def _evict_excess(self, metadata: ObjectMeta) -> None:
        context = self._context
        while True:
            await asyncio.sleep(context.config.eviction_period)
            pod = context.store.find(Pod, metadata.namespace, metadata.name)
            if pod is None or pod.metadata.uid != metadata.uid or pod.status.phase in ("Succeeded", "Failed"):
                return
            try:
                text = await storage.excess(context, pod, self._directory)
            except OSError as error:
                logger.warning("pod %s: what it has on disk can't be told: %s", metadata.name, error)
                continue
            if text and context.store.find(Pod, metadata.namespace, metadata.name) is not None:
                context.fail(pod, "Evicted", text, disrupted=True)
                return

    def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
