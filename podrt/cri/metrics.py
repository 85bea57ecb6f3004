"""Metrics for a kubelet that asks its runtime for them (feature gate PodAndContainerStatsFromCRI) instead of cAdvisor.

The messages are made in a thread: hundreds of containers have tens of thousands of values.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable

from cri_api.v1 import api_pb2 as api

from podrt.config import Config
from podrt.cri import metric_families as families
from podrt.cri import report
from podrt.cri.filesystems import device_of, mountpoints
from podrt.cri.metric_families import BASE_LABELS, FAMILIES, Value, Volume
from podrt.cri.own import Own
from podrt.engine.api import EngineApi
from podrt.engine.specs import ContainerState, ContainerStatus, SandboxState, SandboxStatus, Stats

_KINDS = {family.name: family.kind for family in FAMILIES}


class MetricsService:
    """The two RPCs about metrics, as RuntimeService has them; ``image_name`` says what images are called."""

    def __init__(self, config: Config, engine: EngineApi, own: Own, image_name: report.ImageName) -> None:
        self._config = config
        self._engine = engine
        self._own = own
        self._image_name = image_name
        self._device = ""

    async def ListMetricDescriptors(
        self, request: api.ListMetricDescriptorsRequest
    ) -> api.ListMetricDescriptorsResponse:
        """Every metric that there may be."""
        return api.ListMetricDescriptorsResponse(
            descriptors=[
                api.MetricDescriptor(name=one.name, help=one.help, label_keys=(*BASE_LABELS, *one.labels))
                for one in FAMILIES
            ]
        )

    async def ListPodSandboxMetrics(
        self, request: api.ListPodSandboxMetricsRequest
    ) -> api.ListPodSandboxMetricsResponse:
        """Of the sandboxes that are ready and their running containers."""
        sandboxes = [one for one in self._own.sandboxes() if one.state is SandboxState.READY]
        running: dict[str, list[ContainerStatus]] = {one.id: [] for one in sandboxes}
        for container in self._own.containers():
            if container.sandbox_id in running and container.state is ContainerState.RUNNING:
                running[container.sandbox_id].append(container)
        ids = [one.id for some in running.values() for one in some]
        stats = await self._engine.all_stats(ids, list(running), detailed=True)

        def convert() -> list[api.PodSandboxMetrics]:
            volume = self._volume()
            return [self._sandbox(one, running[one.id], stats, volume) for one in sandboxes if one.id in stats]

        return api.ListPodSandboxMetricsResponse(pod_metrics=await asyncio.to_thread(convert))

    # Inside

    def _sandbox(
        self, status: SandboxStatus, containers: Iterable[ContainerStatus], stats: dict[str, Stats], volume: Volume
    ) -> api.PodSandboxMetrics:
        own = stats[status.id]
        labels = (status.id, "", status.spec.namespace, status.spec.name, "")
        return api.PodSandboxMetrics(
            pod_sandbox_id=status.id,
            metrics=_metrics(labels, (*families.of_cgroup(own), *families.of_network(own))),
            container_metrics=[
                self._container(status, one, stats[one.id], volume) for one in containers if one.id in stats
            ],
        )

    def _container(
        self, sandbox: SandboxStatus, status: ContainerStatus, stats: Stats, volume: Volume
    ) -> api.ContainerMetrics:
        labels = (status.id, self._image_name(status), sandbox.spec.namespace, sandbox.spec.name, status.spec.name)
        own = families.of_container(stats, status.spec, status.started_at, volume)
        return api.ContainerMetrics(
            container_id=status.id, metrics=_metrics(labels, (*families.of_cgroup(stats), *own))
        )

    def _volume(self) -> Volume:
        _, directory = mountpoints(self._config)
        self._device = self._device or device_of(directory)
        found = os.statvfs(directory)
        return Volume(self._device, found.f_blocks * found.f_frsize, found.f_files, found.f_ffree)


def _metrics(labels: tuple[str, ...], values: Iterable[Value]) -> list[api.Metric]:
    return [
        api.Metric(
            name=one.family,
            timestamp=report.nanoseconds(one.at),
            metric_type=_KINDS[one.family],
            label_values=(*labels, *one.labels),
            value=api.UInt64Value(value=one.value),
        )
        for one in values
    ]
