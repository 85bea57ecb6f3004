"""Keeps the node from running out of memory and disk: conditions and taints, and one Pod evicted at a time.

A condition stays for a while after the shortage is over, so that new Pods don't bring it back at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Callable

import psutil

from podrt.engine.specs import ContainerState
from podrt.errors import NotFoundError, PodrtError
from podrt.model.pod import Pod
from podrt.node import eviction, storage
from podrt.node.context import Context
from podrt.node.eviction import MEMORY, PRESSURE, STORAGE, Signal, Usage

logger = logging.getLogger(__name__)

WAIT_FOR_END = 30.0
"""Seconds that an evicted Pod has to be gone before the next is chosen."""


class Pressure:
    """``changed`` is called when the node's conditions are others."""

    def __init__(self, context: Context, changed: Callable[[], None]) -> None:
        self._context = context
        self._changed = changed
        self._seen: dict[str, float] = {}
        self._evicted: tuple[str, float] = ("", 0.0)

    def look(self) -> list[Signal]:
        """What there is too little of now; the node's conditions follow."""
        short = [signal for signal in self._signals() if signal.met()]
        now = time.monotonic()
        self._seen |= {PRESSURE[signal.resource]: now for signal in short}
        lasting = self._context.config.eviction_pressure_transition
        self._seen = {name: at for name, at in self._seen.items() if now - at <= lasting}
        under = frozenset(self._seen)
        if under != self._context.node.pressure:
            self._context.node.pressure = under
            logger.warning("the node is under pressure: %s", ", ".join(sorted(under)) or "no more")
            self._changed()
        return short

    def _signals(self) -> list[Signal]:
        config = self._context.config
        memory, disk = psutil.virtual_memory(), shutil.disk_usage(config.state_dir)
        return [
            Signal(MEMORY, memory.available, memory.total, config.eviction_memory_available),
            Signal(STORAGE, disk.free, disk.total, config.eviction_disk_available),
        ]

    async def run(self) -> None:
        """Look, and evict where there is need, until cancelled."""
        while True:
            await asyncio.sleep(self._context.config.eviction_period)
            try:
                short = self.look()
                if short and not self._still_ends():
                    await self._evict_one(short[0])
            except (PodrtError, OSError) as error:
                logger.warning("can't look after the node's memory and disk: %s", error)

    def _still_ends(self) -> bool:
        """Is the last one that was evicted still at it?"""
        uid, at = self._evicted
        return time.monotonic() - at < WAIT_FOR_END and any(
            run.state is ContainerState.RUNNING
            for box in self._context.sandboxes_of(uid)
            for run in self._context.engine.list_containers(box.id)
        )

    async def _evict_one(self, signal: Signal) -> None:
        pods = [
            pod
            for pod in self._context.store.list(Pod).items
            if pod.spec.node_name == self._context.node_name and pod.status.phase not in ("Succeeded", "Failed")
        ]
        ranked = eviction.rank([await self._usage(pod, signal.resource) for pod in pods], signal.resource)
        if not ranked:
            logger.warning("the node is low on %s, and there is no Pod to evict", signal.resource)
            return
        chosen = ranked[0]
        text = eviction.message(signal, chosen)
        logger.warning("evicting pod %s/%s: %s", chosen.pod.metadata.namespace, chosen.pod.metadata.name, text)
        self._evicted = (chosen.pod.metadata.uid, time.monotonic())
        with contextlib.suppress(NotFoundError):
            self._context.fail(chosen.pod, "Evicted", text, disrupted=True)

    async def _usage(self, pod: Pod, resource: str) -> Usage:
        if resource == STORAGE:
            disk = await storage.used(self._context, pod)
            return Usage(pod, disk.total, disk.containers)
        total, containers = 0, {}
        engine = self._context.engine
        for box in self._context.sandboxes_of(pod.metadata.uid):
            with contextlib.suppress(NotFoundError):
                total += (await engine.sandbox_stats(box.id)).memory_working_set
                for run in engine.list_containers(box.id):
                    if run.state is ContainerState.RUNNING:
                        containers[run.spec.name] = (await engine.container_stats(run.id)).memory_working_set
        return Usage(pod, total, containers)
