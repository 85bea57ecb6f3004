"""The edge of the gRPC server: what a method raises is what the client sees, in calls and in streams."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cri_api.v1 import api_pb2 as api
from cri_api.v1 import api_pb2_grpc

from podrt.cri.errors import Edge
from podrt.cri.image_service import ImageService
from podrt.cri.runtime import RuntimeService
from podrt.errors import NotFoundError, UnavailableError


class Service(api_pb2_grpc.RuntimeServiceServicer):
    async def Version(self, request: Any, context: Any) -> Any:
        return api.VersionResponse(version=request.version)

    async def StartContainer(self, request: Any, context: Any) -> Any:
        raise NotFoundError("container 'x' does not exist")

    async def StopContainer(self, request: Any, context: Any) -> Any:
        raise KeyError("secret")

    async def RemoveContainer(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNKNOWN, "as it is")

    async def GetContainerEvents(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield api.ContainerEventResponse(container_id="1")
        raise UnavailableError("too slow")


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[Any]:
    server = grpc.aio.server(interceptors=(Edge(),))
    api_pb2_grpc.add_RuntimeServiceServicer_to_server(Service(), server)
    server.add_insecure_port(f"unix:{tmp_path}/s")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
        yield api_pb2_grpc.RuntimeServiceStub(channel)
    await server.stop(None)


async def code(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, caught.value.details() or ""


async def test_calls(stub: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert (await stub.Version(api.VersionRequest(version="v"))).version == "v"
    assert await code(stub.StartContainer(api.StartContainerRequest())) == ("NOT_FOUND", "container 'x' does not exist")
    assert await code(stub.RemoveContainer(api.RemoveContainerRequest())) == ("UNKNOWN", "as it is")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    name, text = await code(stub.StopContainer(api.StopContainerRequest()))
    assert name == "INTERNAL" and "secret" not in text
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == ["StopContainer"]


async def test_every_call_of_the_bindings_is_there() -> None:
    for method in api.DESCRIPTOR.services_by_name["RuntimeService"].methods:
        assert method.name in vars(RuntimeService), method.name
    for method in api.DESCRIPTOR.services_by_name["ImageService"].methods:
        assert method.name in vars(ImageService), method.name


async def test_streams(stub: Any) -> None:
    found = []

    async def read() -> None:
        async for event in stub.GetContainerEvents(api.GetEventsRequest()):
            found.append(event.container_id)

    assert await code(read()) == ("UNAVAILABLE", "too slow")
    assert found == ["1"]
