"""The gRPC server of the CRI on its unix socket, and the wiring of what answers there."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
from pathlib import Path

import grpc.aio
from cri_api.v1 import api_pb2_grpc

from podrt.config import Config
from podrt.cri import convert, names, report
from podrt.cri.containers import Containers
from podrt.cri.errors import Edge
from podrt.cri.events import Events
from podrt.cri.image_service import ImageService
from podrt.cri.metrics import MetricsService
from podrt.cri.own import Own
from podrt.cri.runtime import RuntimeService
from podrt.cri.sandboxes import Sandboxes
from podrt.cri.stats import StatsService
from podrt.cri.streams import StreamServer
from podrt.engine.api import EngineApi
from podrt.engine.specs import ContainerStatus
from podrt.errors import NotFoundError, UnavailableError
from podrt.image.registry_pull import Puller
from podrt.image.service import ImageStore

MAX_MESSAGE = 16 * 1024 * 1024
_MODE = 0o660
_GRACE = 2.0
"""Seconds that calls have to end when the daemon ends; a kubelet makes them again."""


class CriServer:
    """``await start()`` first, ``await close()`` last; what was made goes on."""

    def __init__(self, config: Config, engine: EngineApi, images: ImageStore, puller: Puller) -> None:
        # It tells of every look at the running loop.
        logging.getLogger("grpc").setLevel(logging.INFO)
        self._path = Path(config.cri_socket)
        own = Own(engine)

        def image_name(status: ContainerStatus) -> str:
            try:
                return report.image_name(images.resolve(status.image_id).names, status)
            except NotFoundError:
                return status.spec.image

        def exists(identity: str) -> bool:
            try:
                engine.container_status(identity)
            except NotFoundError:
                return False
            return True

        container_names = names.Names("container", exists)
        self._events = Events(engine, own, image_name)
        self._streams = StreamServer(config, engine)
        self._runtime = RuntimeService(
            engine,
            Sandboxes(engine, own, container_names, image_name),
            Containers(engine, own, container_names, image_name),
            self._events,
            StatsService(config, engine, own),
            MetricsService(config, engine, own, image_name),
            self._streams,
        )
        self._images = ImageService(config, engine, images, puller, convert.HANDLERS)
        self._server: grpc.aio.Server | None = None
        self._inode = (0, 0)

    async def start(self) -> None:
        """Serve. Raises UnavailableError if another program does on this socket, OSError."""
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove_stale(self._path)
        options = [
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_send_message_length", MAX_MESSAGE),
        ]
        server = grpc.aio.server(interceptors=(Edge(),), options=options)
        api_pb2_grpc.add_RuntimeServiceServicer_to_server(self._runtime, server)  # type: ignore[no-untyped-call]
        api_pb2_grpc.add_ImageServiceServicer_to_server(self._images, server)  # type: ignore[no-untyped-call]
        try:
            server.add_insecure_port(f"unix:{self._path}")
        except RuntimeError as error:
            raise OSError(f"cri_socket {self._path}: can't listen there: {error}") from error
        # Until now only root could connect: that needs the right to write, which the umask denies to others.
        os.chmod(self._path, _MODE)
        found = os.lstat(self._path)
        self._inode = (found.st_dev, found.st_ino)
        await self._streams.start()
        self._events.start()
        await server.start()
        self._server = server

    async def close(self) -> None:
        await self._events.close()
        if self._server is not None:
            await self._server.stop(_GRACE)
        await self._streams.close()
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(self._path)
            if (found.st_dev, found.st_ino) == self._inode:
                os.unlink(self._path)


def _remove_stale(path: Path) -> None:
    """Remove the socket that a killed daemon left. Raises UnavailableError if somebody listens, OSError."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise UnavailableError(f"cri_socket: {path} exists and is not a socket; remove it, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, TimeoutError):
            pass
        else:
            raise UnavailableError(f"cri_socket: another program listens on {path}")
    os.unlink(path)
