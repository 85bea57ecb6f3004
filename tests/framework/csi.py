"""A CSI driver for tests: registrar and node service on unix sockets, whose volumes are a tmpfs with one file."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from podrt.linux import abi, libc
from podrt.node.grpc_call import block, number, parse, text

NAME = "csi.example.com"


class Driver:
    """``calls``: (method, {field: value}) of all calls; ``refuse``: a method that fails; ``hang``: one that does not
    answer before :meth:`close`.
    """

    def __init__(self, state_dir: Path, directory: Path, *, stages: bool = True) -> None:
        self.calls: list[tuple[str, dict[int, Any]]] = []
        self.refuse = ""
        self.hang = ""
        self._closed = threading.Event()
        self.mounted: set[Path] = set()
        self._stages = stages
        self._registry = state_dir / "plugins_registry"
        self._registry.mkdir(parents=True, exist_ok=True)
        self._socket = directory / "csi.sock"
        # The interpreter's fork support is for programs that fork; the daemon is another process.
        self._server = grpc.server(ThreadPoolExecutor(2))
        node = {
            "NodeGetCapabilities": self._capabilities,
            "NodeStageVolume": self._stage,
            "NodePublishVolume": self._publish,
            "NodeUnpublishVolume": self._unpublish,
            "NodeUnstageVolume": self._unstage,
        }
        registration = {"GetInfo": self._info, "NotifyRegistrationStatus": self._registered}
        for service, methods in (("csi.v1.Node", node), ("pluginregistration.Registration", registration)):
            handlers = {
                name: grpc.unary_unary_rpc_method_handler(self._noted(name, one)) for name, one in methods.items()
            }
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self._server.add_insecure_port(f"unix:{self._socket}")
        self._server.start()
        os.link(self._socket, self._registry / f"{NAME}-reg.sock")

    def _noted(self, name: str, answer: Callable[[dict[int, Any]], bytes]) -> Callable[[bytes, Any], bytes]:
        def handle(request: bytes, context: Any) -> bytes:
            fields: dict[int, Any] = {}
            for field, value in parse(request):
                fields[field] = [*fields[field], value] if field in fields else [value]
            self.calls.append((name, fields))
            if name == self.hang:
                self._closed.wait()
            if name == self.refuse:
                context.abort(grpc.StatusCode.INTERNAL, "the driver is out of order")
            return answer(fields)

        return handle

    def named(self, method: str) -> list[dict[int, Any]]:
        return [fields for name, fields in self.calls if name == method]

    def _info(self, _: dict[int, Any]) -> bytes:
        return text(1, "CSIPlugin") + text(2, NAME) + text(3, str(self._socket)) + text(4, "1.0.0")

    def _registered(self, _: dict[int, Any]) -> bytes:
        return b""

    def _capabilities(self, _: dict[int, Any]) -> bytes:
        # NodeServiceCapability{rpc=1: RPC{type=1}}: STAGE_UNSTAGE_VOLUME.
        return block(1, block(1, number(1, 1))) if self._stages else b""

    def _stage(self, _: dict[int, Any]) -> bytes:
        return b""

    def _publish(self, fields: dict[int, Any]) -> bytes:
        target = Path(fields[4][0].decode())
        if target in self.mounted:
            return b""
        target.mkdir()
        libc.mount("csi", str(target), "tmpfs", 0, "mode=777")
        self.mounted.add(target)
        (target / "id").write_bytes(fields[1][0])
        return b""

    def _unpublish(self, fields: dict[int, Any]) -> bytes:
        target = Path(fields[2][0].decode())
        if target in self.mounted:
            libc.umount2(str(target), 0)
            self.mounted.discard(target)
            target.rmdir()
        return b""

    def _unstage(self, _: dict[int, Any]) -> bytes:
        return b""

    def close(self) -> None:
        self._closed.set()
        self._server.stop(0).wait()
        shutil.rmtree(self._registry)
        for target in self.mounted:
            libc.umount2(str(target), abi.MNT_DETACH)


def entries(values: list[bytes]) -> dict[str, str]:
    """A map of texts, as it is sent."""
    found = {}
    for one in values:
        pair = dict(parse(one))
        key, value = pair.get(1, b""), pair.get(2, b"")
        assert isinstance(key, bytes) and isinstance(value, bytes)
        found[key.decode()] = value.decode()
    return found
