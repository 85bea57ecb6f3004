"""RuntimeService of the CRI: every RPC takes its request apart, calls one method and answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from cri_api.v1 import api_pb2 as api
from cri_api.v1 import api_pb2_grpc

from podrt import __version__
from podrt.cri import convert
from podrt.cri.containers import Containers
from podrt.cri.events import Events
from podrt.cri.metrics import MetricsService
from podrt.cri.sandboxes import Sandboxes
from podrt.cri.stats import StatsService
from podrt.cri.streams import StreamServer
from podrt.engine.api import EngineApi
from podrt.errors import UnsupportedError

API_VERSION = "v1"
VERSION = "0.1.0"
"""What the kubelet's client side of the CRI calls the version of the kubelet's own interface."""


class RuntimeService(api_pb2_grpc.RuntimeServiceServicer):
    """All methods run in the event loop."""

    def __init__(
        self,
        engine: EngineApi,
        sandboxes: Sandboxes,
        containers: Containers,
        events: Events,
        stats: StatsService,
        metrics: MetricsService,
        streams: StreamServer,
    ) -> None:
        self._engine = engine
        self._stats = stats
        self._metrics = metrics
        self._streams = streams
        self._sandboxes = sandboxes
        self._containers = containers
        self._events = events
        self._pod_cidr = ""

    async def Version(self, request: api.VersionRequest, context: Any) -> api.VersionResponse:
        return api.VersionResponse(
            version=VERSION, runtime_name="podrt", runtime_version=__version__, runtime_api_version=API_VERSION
        )

    # -- sandboxes

    async def RunPodSandbox(self, request: api.RunPodSandboxRequest, context: Any) -> api.RunPodSandboxResponse:
        return api.RunPodSandboxResponse(pod_sandbox_id=await self._sandboxes.run(request))

    async def StopPodSandbox(self, request: api.StopPodSandboxRequest, context: Any) -> api.StopPodSandboxResponse:
        await self._sandboxes.stop(request.pod_sandbox_id)
        return api.StopPodSandboxResponse()

    async def RemovePodSandbox(
        self, request: api.RemovePodSandboxRequest, context: Any
    ) -> api.RemovePodSandboxResponse:
        await self._sandboxes.remove(request.pod_sandbox_id)
        return api.RemovePodSandboxResponse()

    async def PodSandboxStatus(
        self, request: api.PodSandboxStatusRequest, context: Any
    ) -> api.PodSandboxStatusResponse:
        return self._sandboxes.status(request.pod_sandbox_id, request.verbose)

    async def ListPodSandbox(self, request: api.ListPodSandboxRequest, context: Any) -> api.ListPodSandboxResponse:
        return api.ListPodSandboxResponse(items=self._sandboxes.list(request.filter))

    async def UpdatePodSandboxResources(
        self, request: api.UpdatePodSandboxResourcesRequest, context: Any
    ) -> api.UpdatePodSandboxResourcesResponse:
        await self._sandboxes.update(request)
        return api.UpdatePodSandboxResourcesResponse()

    # -- containers

    async def CreateContainer(self, request: api.CreateContainerRequest, context: Any) -> api.CreateContainerResponse:
        return api.CreateContainerResponse(container_id=await self._containers.create(request))

    async def StartContainer(self, request: api.StartContainerRequest, context: Any) -> api.StartContainerResponse:
        await self._containers.start(request.container_id)
        return api.StartContainerResponse()

    async def StopContainer(self, request: api.StopContainerRequest, context: Any) -> api.StopContainerResponse:
        await self._containers.stop(request.container_id, request.timeout)
        return api.StopContainerResponse()

    async def RemoveContainer(self, request: api.RemoveContainerRequest, context: Any) -> api.RemoveContainerResponse:
        await self._containers.remove(request.container_id)
        return api.RemoveContainerResponse()

    async def ListContainers(self, request: api.ListContainersRequest, context: Any) -> api.ListContainersResponse:
        return api.ListContainersResponse(containers=self._containers.list(request.filter))

    async def ContainerStatus(self, request: api.ContainerStatusRequest, context: Any) -> api.ContainerStatusResponse:
        return self._containers.status(request.container_id, request.verbose)

    async def UpdateContainerResources(
        self, request: api.UpdateContainerResourcesRequest, context: Any
    ) -> api.UpdateContainerResourcesResponse:
        await self._containers.update(request)
        return api.UpdateContainerResourcesResponse()

    async def ReopenContainerLog(
        self, request: api.ReopenContainerLogRequest, context: Any
    ) -> api.ReopenContainerLogResponse:
        await self._containers.reopen_log(request.container_id)
        return api.ReopenContainerLogResponse()

    async def CheckpointContainer(
        self, request: api.CheckpointContainerRequest, context: Any
    ) -> api.CheckpointContainerResponse:
        raise UnsupportedError("podrt can't checkpoint containers: that needs CRIU, which it does not use")

    # -- usage

    async def ContainerStats(self, request: api.ContainerStatsRequest, context: Any) -> api.ContainerStatsResponse:
        return await self._stats.ContainerStats(request)

    async def ListContainerStats(
        self, request: api.ListContainerStatsRequest, context: Any
    ) -> api.ListContainerStatsResponse:
        return await self._stats.ListContainerStats(request)

    async def PodSandboxStats(self, request: api.PodSandboxStatsRequest, context: Any) -> api.PodSandboxStatsResponse:
        return await self._stats.PodSandboxStats(request)

    async def ListPodSandboxStats(
        self, request: api.ListPodSandboxStatsRequest, context: Any
    ) -> api.ListPodSandboxStatsResponse:
        return await self._stats.ListPodSandboxStats(request)

    async def ListMetricDescriptors(
        self, request: api.ListMetricDescriptorsRequest, context: Any
    ) -> api.ListMetricDescriptorsResponse:
        return await self._metrics.ListMetricDescriptors(request)

    async def ListPodSandboxMetrics(
        self, request: api.ListPodSandboxMetricsRequest, context: Any
    ) -> api.ListPodSandboxMetricsResponse:
        return await self._metrics.ListPodSandboxMetrics(request)

    # -- streams

    async def ExecSync(self, request: api.ExecSyncRequest, context: Any) -> api.ExecSyncResponse:
        return await self._containers.exec_sync(request)

    async def Exec(self, request: api.ExecRequest, context: Any) -> api.ExecResponse:
        return api.ExecResponse(url=self._streams.exec_url(request))

    async def Attach(self, request: api.AttachRequest, context: Any) -> api.AttachResponse:
        return api.AttachResponse(url=self._streams.attach_url(request))

    async def PortForward(self, request: api.PortForwardRequest, context: Any) -> api.PortForwardResponse:
        return api.PortForwardResponse(url=self._streams.port_forward_url(request))

    async def GetContainerEvents(
        self, request: api.GetEventsRequest, context: Any
    ) -> AsyncIterator[api.ContainerEventResponse]:
        async for event in self._events.subscribe():
            yield event

    # -- the runtime

    async def Status(self, request: api.StatusRequest, context: Any) -> api.StatusResponse:
        network, problem = await self._engine.cri_network(), self._engine.problem()
        reason = "SupervisorNotReady" if problem else ""
        conditions = [
            api.RuntimeCondition(type="RuntimeReady", status=not problem, reason=reason, message=problem),
            api.RuntimeCondition(
                type="NetworkReady", status=network.ready, reason=network.reason, message=network.message
            ),
        ]
        features = api.RuntimeHandlerFeatures(recursive_read_only_mounts=True, user_namespaces=True)
        info = {"podrtVersion": __version__, "podCIDR": self._pod_cidr, "cni": self._engine.cni_info()}
        return api.StatusResponse(
            status=api.RuntimeStatus(conditions=conditions),
            info={"info": json.dumps(info)} if request.verbose else None,
            runtime_handlers=[api.RuntimeHandler(name=name, features=features) for name in convert.HANDLERS],
            features=api.RuntimeFeatures(supplemental_groups_policy=True),
        )

    async def UpdateRuntimeConfig(
        self, request: api.UpdateRuntimeConfigRequest, context: Any
    ) -> api.UpdateRuntimeConfigResponse:
        """The Pods' addresses are chosen by podrt's subnets or by CNI, so the CIDR is only told again by Status."""
        self._pod_cidr = request.runtime_config.network_config.pod_cidr
        return api.UpdateRuntimeConfigResponse()

    async def RuntimeConfig(self, request: api.RuntimeConfigRequest, context: Any) -> api.RuntimeConfigResponse:
        return api.RuntimeConfigResponse(linux=api.LinuxRuntimeConfiguration(cgroup_driver=api.CGROUPFS))
