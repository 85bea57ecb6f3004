"""CSI drivers of this node: found by their registration sockets, called over their own (CSI 1.x, the node service).

A driver's registrar puts a socket into ``<state_dir>/plugins_registry``; asked there (pluginregistration.Registration),
it tells the driver's name and socket. Both are asked again at each use: drivers are Pods and come and go. Message
numbers are those of csi.proto and kubelet's pluginregistration.proto.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import NamedTuple

from podrt.node import grpc_call
from podrt.node.grpc_call import Answer, GrpcError, block, mapping, number, parse, text
from podrt.node.volumes.errors import Unavailable

logger = logging.getLogger(__name__)

TIMEOUT = 120.0
"""Seconds that a driver has for one call, as under a kubelet."""
ASK_TIMEOUT = 5.0
"""Seconds that a registrar has to say who it is; one that hangs must not hold up other drivers' volumes for long."""
REGISTRY = "plugins_registry"
STAGES = 1
"""A node capability: STAGE_UNSTAGE_VOLUME."""
MODES = {"ReadWriteOnce": 1, "ReadOnlyMany": 3, "ReadWriteMany": 5, "ReadWriteOncePod": 1}
"""SINGLE_NODE_WRITER, MULTI_NODE_READER_ONLY, MULTI_NODE_MULTI_WRITER."""
_NODE = "/csi.v1.Node/"
_REGISTRATION = "/pluginregistration.Registration/"
_NOT_FOUND = 5


class Wanted(NamedTuple):
    """One volume, as the driver is asked for it."""

    volume_id: str
    context: dict[str, str]
    fs_type: str
    mount_flags: tuple[str, ...]
    mode: int
    read_only: bool

    def capability(self) -> bytes:
        """A VolumeCapability of files: mount=2, access_mode=3."""
        mount = text(1, self.fs_type) + b"".join(block(2, flag.encode()) for flag in self.mount_flags)
        return block(2, mount) + block(3, number(1, self.mode))


class Driver:
    """The node service of one driver. Everything raises Unavailable that says what the driver says, never a secret."""

    def __init__(self, name: str, endpoint: Path) -> None:
        self.name = name
        self._endpoint = endpoint

    async def stages(self) -> bool:
        """Whether its volumes are made ready once before Pods get them."""
        answer = await self._call("NodeGetCapabilities", b"")
        for _, capability in parse(answer.body):
            rpc = dict(parse(capability if isinstance(capability, bytes) else b"")).get(1, b"")
            if dict(parse(rpc if isinstance(rpc, bytes) else b"")).get(1) == STAGES:
                return True
        return False

    async def stage(self, wanted: Wanted, staging: Path, secrets: dict[str, str]) -> None:
        request = text(1, wanted.volume_id) + text(3, str(staging)) + block(4, wanted.capability())
        await self._call("NodeStageVolume", request + mapping(5, secrets) + mapping(6, wanted.context))

    async def publish(self, wanted: Wanted, staging: Path | None, target: Path, secrets: dict[str, str]) -> None:
        request = text(1, wanted.volume_id) + text(3, str(staging or "")) + text(4, str(target))
        request += block(5, wanted.capability()) + number(6, int(wanted.read_only))
        await self._call("NodePublishVolume", request + mapping(7, secrets) + mapping(8, wanted.context))

    async def unpublish(self, volume_id: str, target: Path) -> None:
        """Good, too, if the driver knows no such volume."""
        await self._call("NodeUnpublishVolume", text(1, volume_id) + text(2, str(target)), gone=True)

    async def unstage(self, volume_id: str, staging: Path) -> None:
        """Good, too, if the driver knows no such volume."""
        await self._call("NodeUnstageVolume", text(1, volume_id) + text(2, str(staging)), gone=True)

    async def _call(self, method: str, request: bytes, *, gone: bool = False) -> Answer:
        what = f"CSI driver {self.name}: {method}"
        try:
            answer = await call(self._endpoint, _NODE + method, request)
        except (OSError, GrpcError) as error:
            raise Unavailable(f"{what}: {error}") from error
        if answer.code and not (gone and answer.code == _NOT_FOUND):
            raise Unavailable(f"{what}: rpc error: code = {answer.code} desc = {answer.message}")
        return answer


async def find(state_dir: Path, name: str) -> Driver:
    """The driver of a name. Raises Unavailable while none is registered."""
    sockets = sorted((state_dir / REGISTRY).glob("**/*.sock"))
    endpoints = await asyncio.gather(*(_endpoint(one, name) for one in sockets))
    for registration, endpoint in zip(sockets, endpoints, strict=True):
        if endpoint is not None:
            await _tell_registered(registration)
            return Driver(name, endpoint)
    raise Unavailable(f"driver name {name} not found in the list of registered CSI drivers")


async def _endpoint(registration: Path, name: str) -> Path | None:
    """The socket of the driver ``name``, if that is whom a registrar is there for."""
    try:
        answer = await call(registration, _REGISTRATION + "GetInfo", b"", ASK_TIMEOUT)
        fields = dict(parse(answer.body))
    except (OSError, GrpcError) as error:
        logger.debug("%s: %s", registration, error)
        return None
    kind, found, endpoint = (_text(fields.get(field, b"")) for field in (1, 2, 3))
    if (kind, found) != ("CSIPlugin", name):
        return None
    return Path(endpoint) if endpoint else registration


async def _tell_registered(registration: Path) -> None:
    """The registrar ends itself, and is started again, if it is never told."""
    try:
        await call(registration, _REGISTRATION + "NotifyRegistrationStatus", number(1, 1), ASK_TIMEOUT)
    except (OSError, GrpcError) as error:
        logger.debug("%s: %s", registration, error)


async def call(path: Path, method: str, request: bytes, seconds: float = TIMEOUT) -> Answer:
    """One call over a unix socket. Raises OSError (TimeoutError after ``seconds``), GrpcError."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected.setblocking(False)
    try:
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(connected, str(path))
            return await grpc_call.unary(connected, "localhost", method, request)
    except TimeoutError as error:
        raise TimeoutError(error.errno, f"no answer in {seconds:g} s") from None
    finally:
        connected.close()


def _text(value: int | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else ""
