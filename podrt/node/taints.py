"""Taints with the effect NoExecute: Pods that don't tolerate them are deleted, at once or when their time is up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from msgspec.structs import replace

from podrt.errors import NotFoundError, PodrtError
from podrt.model.base import format_time
from podrt.model.node import Node
from podrt.model.node_match import tolerates
from podrt.model.pod import Pod
from podrt.model.scheduling import Taint
from podrt.model.status import PodCondition
from podrt.node.static_pods import SOURCE
from podrt.store.events import EventRecorder
from podrt.store.objects import Registry

logger = logging.getLogger(__name__)


def evict_after(pod: Pod, taints: Sequence[Taint]) -> float | None:
    """Seconds that a Pod may stay under these taints; None: as long as it likes. Pure."""
    times: list[float] = []
    for taint in taints:
        if taint.effect != "NoExecute":
            continue
        matching = [one for one in pod.spec.tolerations if tolerates(one, taint)]
        if not matching:
            return 0.0
        times += [max(float(one.toleration_seconds), 0.0) for one in matching if one.toleration_seconds is not None]
    return min(times) if times else None


class TaintEvictions:
    """Of this node's Pods. Static ones tolerate everything, as under a kubelet."""

    def __init__(self, registry: Registry, recorder: EventRecorder) -> None:
        self._registry = registry
        self._recorder = recorder
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def taints_changed(self, node: Node) -> None:
        """Judge all Pods anew; the time of those that had some begins again."""
        for pod in self._registry.store.list(Pod).items:
            if pod.spec.node_name == node.metadata.name:
                self.judge(pod, node)

    def judge(self, pod: Pod, node: Node | None) -> None:
        """A Pod has its place here, or its tolerations are others."""
        self.forget(pod.metadata.uid)
        if node is None or SOURCE in pod.metadata.annotations or pod.metadata.deletion_timestamp is not None:
            return
        delay = evict_after(pod, node.spec.taints)
        if delay is not None:
            loop = asyncio.get_running_loop()
            self._timers[pod.metadata.uid] = loop.call_later(delay, self._evict, pod)

    def forget(self, uid: str) -> None:
        """A Pod is gone, or may stay."""
        if (timer := self._timers.pop(uid, None)) is not None:
            timer.cancel()

    def _evict(self, pod: Pod) -> None:
        namespace, name = pod.metadata.namespace, pod.metadata.name
        self._timers.pop(pod.metadata.uid, None)

        def mark(current: Pod) -> Pod:
            target = PodCondition(
                type="DisruptionTarget",
                status="True",
                observed_generation=current.metadata.generation,
                last_transition_time=format_time(time.time()),
                reason="DeletionByTaintManager",
                message="Taint manager: deleting due to NoExecute taint",
            )
            others = tuple(one for one in current.status.conditions if one.type != target.type)
            return replace(current, status=replace(current.status, conditions=(*others, target)))

        try:
            if self._registry.store.get(Pod, namespace, name).metadata.uid != pod.metadata.uid:
                return
            self._registry.store.modify(Pod, namespace, name, mark)
            self._recorder.record(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {namespace}/{name}")
            self._registry.delete(Pod, namespace, name)
        except NotFoundError:
            return
        except PodrtError:
            logger.exception("pod %s/%s can't be evicted", namespace, name)

    def close(self) -> None:
        """End all timers."""
        for uid in tuple(self._timers):
            self.forget(uid)
