"""``metrics.k8s.io``: what ``kubectl top`` shows, computed from two readings of the cgroups' counters.

CPU usage is a rate, so a subject that was not asked about lately is read twice, a moment apart. Earlier readings are
kept: the next request measures from there. Readings of Pods that are gone are dropped.

The kernel hands out a cpu limit in periods of 100 ms. A window of few periods catches one more or less than its share,
so no window is shorter than five.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from podrt.api.agent import AgentApi
from podrt.api.discovery import METRICS_GROUP, METRICS_VERSION
from podrt.engine.specs import Stats
from podrt.errors import NotFoundError
from podrt.model.base import format_time
from podrt.model.node import Node
from podrt.model.pod import Pod

API_VERSION = f"{METRICS_GROUP}/{METRICS_VERSION}"

_SETTLE = 0.5
"""Seconds between the two readings of a subject that has no earlier one."""
_MIN_WINDOW = 1.0
"""Seconds between two readings that are kept, so that two clients don't shorten each other's window."""
_MAX_WINDOW = 60.0


class Usage(NamedTuple):
    cpu_nanocores: int
    memory: int
    window: float

    def document(self) -> dict[str, str]:
        return {"cpu": f"{self.cpu_nanocores}n", "memory": f"{self.memory // 1024}Ki"}


class Sampler:
    """Keeps up to two earlier readings for each subject, ``_MIN_WINDOW`` apart: the last one may be too fresh."""

    def __init__(self, agent: AgentApi) -> None:
        self._agent = agent
        self._earlier: dict[tuple[str, str], tuple[Stats, ...]] = {}

    async def pods(self, pods: Iterable[Pod]) -> list[dict[str, Any]]:
        """PodMetrics of those of the Pods that have a running container."""
        wanted = list(pods)
        keys = {pod.metadata.uid: pod for pod in wanted}
        before = {uid: await self._agent.pod_stats(pod) for uid, pod in keys.items()}
        now = time.time()
        if any(self._stale((uid, name), now) for uid, stats in before.items() for name in stats):
            for uid, found in before.items():
                for name, stats in found.items():
                    if self._stale((uid, name), now):
                        self._earlier[(uid, name)] = (stats,)
            await asyncio.sleep(_SETTLE)
            before = {uid: await self._agent.pod_stats(pod) for uid, pod in keys.items()}
        return [self._pod(pod, found) for pod in wanted if (found := before[pod.metadata.uid])]

    async def node(self, node: Node) -> dict[str, Any]:
        """NodeMetrics."""
        key = ("", node.metadata.name)
        stats = self._agent.node_stats()
        if self._stale(key, stats.at):
            self._earlier[key] = (stats,)
            await asyncio.sleep(_SETTLE)
            stats = self._agent.node_stats()
        usage = self._usage(key, stats)
        return _document("NodeMetrics", node, usage.window) | {"usage": usage.document()}

    def _pod(self, pod: Pod, found: Mapping[str, Stats]) -> dict[str, Any]:
        usages = {name: self._usage((pod.metadata.uid, name), stats) for name, stats in found.items()}
        window = max(usage.window for usage in usages.values())
        containers = [{"name": name, "usage": usage.document()} for name, usage in usages.items()]
        return _document("PodMetrics", pod, window) | {"containers": containers}

    def forget(self, uids: set[str]) -> None:
        """Drop the readings of Pods that are not among ``uids``."""
        for key in [key for key in self._earlier if key[0] and key[0] not in uids]:
            del self._earlier[key]

    def _stale(self, key: tuple[str, str], now: float) -> bool:
        earlier = self._earlier.get(key)
        return earlier is None or now - earlier[-1].at > _MAX_WINDOW

    def _usage(self, key: tuple[str, str], stats: Stats) -> Usage:
        earlier = self._earlier.get(key)
        if earlier is None:
            self._earlier[key] = (stats,)
            return Usage(0, stats.memory_working_set, 0.0)
        since = earlier[-1]
        if stats.at - since.at >= _MIN_WINDOW:
            self._earlier[key] = (since, stats)
        else:
            since = earlier[0]
        window = stats.at - since.at
        # A restarted container counts from zero again.
        spent = max(stats.cpu_usage_ns - since.cpu_usage_ns, 0)
        return Usage(int(spent / window) if window > 0 else 0, stats.memory_working_set, window)


def _document(kind: str, obj: Pod | Node, window: float) -> dict[str, Any]:
    now = format_time(time.time())
    metadata = {"name": obj.metadata.name, "creationTimestamp": now, "labels": obj.metadata.labels}
    if obj.metadata.namespace:
        metadata["namespace"] = obj.metadata.namespace
    return {
        "kind": kind,
        "apiVersion": API_VERSION,
        "metadata": metadata,
        "timestamp": now,
        "window": f"{window:.3f}s",
    }


def metrics_list(kind: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"kind": f"{kind}List", "apiVersion": API_VERSION, "metadata": {}, "items": items}


def require(found: list[dict[str, Any]], pod: Pod) -> dict[str, Any]:
    """The one PodMetrics. Raises NotFoundError for a Pod without a running container."""
    if not found:
        raise NotFoundError(f'podmetrics.{METRICS_GROUP} "{pod.metadata.namespace}/{pod.metadata.name}" not found')
    return found[0]
