"""The task that runs all controllers: changes of the store go to those whom they concern, keys into the one queue."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from podrt.controllers.base import Controller, Parts
from podrt.controllers.cronjob import CronJobs
from podrt.controllers.daemonset import DaemonSets
from podrt.controllers.deployment import Deployments
from podrt.controllers.garbage import NAME as GARBAGE
from podrt.controllers.garbage import GarbageCollector
from podrt.controllers.index import Index
from podrt.controllers.job import Jobs
from podrt.controllers.queue import Key, WorkQueue
from podrt.controllers.replicaset import ReplicaSets
from podrt.controllers.statefulset import StatefulSets
from podrt.model.kinds import RESOURCES
from podrt.store.objects import Registry
from podrt.store.watch import Change

logger = logging.getLogger(__name__)

KINDS: tuple[type[Controller], ...] = (ReplicaSets, Deployments, StatefulSets, DaemonSets, Jobs, CronJobs)  # type: ignore[type-arg]


class Controllers:
    """``await start()``, ``await close()``. ``on_failure`` is told when the worker died of a bug."""

    def __init__(
        self,
        registry: Registry,
        *,
        clock: Callable[[], float] = time.time,
        on_failure: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._on_failure = on_failure
        index = Index(registry.store, tuple(resource.name for resource in RESOURCES if resource.name != "events"))
        self._parts = Parts(registry, index, clock)
        self.queue = WorkQueue(self._sync, time.monotonic if clock is time.time else clock)
        self._parts.queue = self.queue
        self._garbage = GarbageCollector(self._parts)
        self._controllers = {
            controller.resource.name: controller for controller in (kind(self._parts) for kind in KINDS)
        }
        self._subscription = registry.store.subscribe(self._on_change)
        self._task: asyncio.Task[None] | None = None
        self._garbage.all()
        for controller in self._controllers.values():
            controller.all()

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self.queue.run(), name="controllers")
        self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        self._subscription.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.critical("the controllers failed", exc_info=error)
            if self._on_failure is not None:
                self._on_failure(error)

    def _on_change(self, change: Change) -> None:
        if change.resource == "events":
            return
        # The index first: what a controller hears of must be in it already.
        self._parts.index.on_change(change)
        self._garbage.on_change(change)
        for controller in self._controllers.values():
            controller.on_change(change)

    def _sync(self, key: Key) -> float | None:
        if key.controller == GARBAGE:
            return self._garbage.sync_key(key)
        return self._controllers[key.controller].sync_key(key)
