"""``/metrics`` for Prometheus: one registry per server, so that tests and side-by-side daemons don't share one.

Gauges of Pods are computed at the time of the scrape from the store's cache; nothing is updated by them in between.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from podrt import __version__
from podrt.model.event import Event
from podrt.model.pod import Pod
from podrt.store.store import Store

T = TypeVar("T")

PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)

ENGINE_VERBS = frozenset(
    {
        "run_sandbox",
        "stop_sandbox",
        "remove_sandbox",
        "create_container",
        "start_container",
        "stop_container",
        "remove_container",
        "update_container",
        "exec",
        "exec_sync",
        "attach",
    }
)


class _Objects(Collector):
    """What the store's cache shows."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> Iterator[Metric]:
        """Empty: registering must not read the store."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        pods = self._store.list(Pod).items
        phases = Tally(pod.status.phase or "Pending" for pod in pods)
        gauge = GaugeMetricFamily("podrt_pods", "Pods by phase.", labels=["phase"])
        for phase in PHASES:
            gauge.add_metric([phase], phases[phase])
        yield gauge
        restarts = CounterMetricFamily(
            "podrt_container_restarts",
            "Restarts of containers of present Pods.",
            labels=["namespace", "pod", "container"],
        )
        running = 0
        for pod in pods:
            for status in (*pod.status.init_container_statuses, *pod.status.container_statuses):
                running += status.state.running is not None
                restarts.add_metric([pod.metadata.namespace, pod.metadata.name, status.name], status.restart_count)
        yield GaugeMetricFamily("podrt_containers_running", "Containers that run now.", value=running)
        yield restarts
        yield GaugeMetricFamily("podrt_events", "Events in the store.", value=self._store.count(Event))
        yield GaugeMetricFamily("podrt_store_revision", "The latest resourceVersion.", value=self._store.revision)
        yield GaugeMetricFamily("podrt_watches", "Open watches.", value=self._store.watchers())
        build = GaugeMetricFamily("podrt_build_info", "Constant 1, with the version.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build


class Metrics:
    """All of a daemon's metrics."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, store: Store) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Objects(store))
        ProcessCollector(registry=self._registry)
        self._requests = Histogram(
            "podrt_api_request_duration_seconds",
            "Time until the answer of an API request; streams and watches are not counted.",
            ["verb", "resource", "code"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._operations = Histogram(
            "podrt_engine_operation_duration_seconds",
            "Time of an engine verb that succeeded.",
            ["operation"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._errors = Counter(
            "podrt_engine_operation_errors", "Engine verbs that failed.", ["operation"], registry=self._registry
        )

    def request(self, verb: str, resource: str, code: int, seconds: float) -> None:
        self._requests.labels(verb, resource, str(code)).observe(seconds)

    def render(self) -> bytes:
        return generate_latest(self._registry)

    def timed(self, engine: T, verbs: frozenset[str] = ENGINE_VERBS) -> T:
        """A proxy of ``engine`` that measures ``verbs`` (coroutine methods) and passes everything else through."""
        return cast(T, _Timed(engine, verbs, self))

    def _measured(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        histogram, errors = self._operations.labels(name), self._errors.labels(name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                result = await method(*args, **kwargs)
            except Exception:
                errors.inc()
                raise
            histogram.observe(time.perf_counter() - start)
            return result

        return call


class _Timed:
    def __init__(self, target: Any, verbs: frozenset[str], metrics: Metrics) -> None:
        self._target = target
        for name in verbs:
            setattr(self, name, metrics._measured(name, getattr(target, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)
