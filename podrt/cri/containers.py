"""The CRI's container verbs. Each turns a request into one call of the engine."""

from __future__ import annotations

import json

import msgspec
from cri_api.v1 import api_pb2 as api

from podrt.cri import convert, names, report
from podrt.cri.convert_container import container_spec
from podrt.cri.own import Own
from podrt.engine.api import EngineApi
from podrt.engine.specs import ContainerState, ContainerStatus, SandboxState
from podrt.errors import ConflictError, InvalidError, NotFoundError
from podrt.linux import selinux

MAX_OUTPUT = 16 * 1024 * 1024 - 64 * 1024
"""Bytes that ExecSync answers at most, both streams together: a message has 16 MiB."""


class Containers:
    """``names`` are shared with the sandboxes, with which they are given up."""

    def __init__(self, engine: EngineApi, own: Own, container_names: names.Names, image_name: report.ImageName) -> None:
        self._engine = engine
        self._own = own
        self._names = container_names
        self._image_name = image_name
        self._selinux = selinux.defaults()
        boxes = {box.id: box for box in own.sandboxes()}
        for unit in own.containers():
            if (box := boxes.get(unit.sandbox_id)) is not None:
                self._names.found(names.of_container(unit.spec, box.spec), unit.id)

    async def create(self, request: api.CreateContainerRequest) -> str:
        """Its id; nothing is left where it fails or the caller gives up."""
        box = self._own.sandbox(request.pod_sandbox_id)
        spec = container_spec(request.config, box.spec, self._selinux)
        if box.state is not SandboxState.READY:
            raise ConflictError(f"container {spec.name}: sandbox {box.spec.name} ({box.id[:12]}) is not ready")
        if spec.target:
            target = self._own.container(spec.target)
            if target.sandbox_id != box.id or target.state is not ContainerState.RUNNING:
                raise InvalidError(f"namespace_options.target_id: {spec.target!r} does not run in this sandbox")
            spec = msgspec.structs.replace(spec, target=target.id)
        with self._names.reserved(names.of_container(spec, box.spec)) as made:
            identity = await self._engine.create_container(box.id, spec)
            made(identity)
        return identity

    async def start(self, identity: str) -> None:
        await self._engine.start_container(self._own.container(identity).id)

    async def stop(self, identity: str, timeout: float) -> None:
        """Nothing if it is gone or does not run."""
        try:
            unit = self._own.container(identity)
        except NotFoundError:
            return
        await self._engine.stop_container(unit.id, max(timeout, 0))

    async def remove(self, identity: str) -> None:
        """Killed if it runs. Nothing if it is gone."""
        try:
            unit = self._own.container(identity)
            box = self._own.sandbox(unit.sandbox_id)
        except NotFoundError:
            return
        await self._engine.remove_container(unit.id)
        self._names.forget(names.of_container(unit.spec, box.spec))

    def status(self, identity: str, verbose: bool) -> api.ContainerStatusResponse:
        """Raises NotFoundError."""
        unit = self._own.container(identity)
        return api.ContainerStatusResponse(
            status=report.container_status(unit, self._image_name),
            info={"info": json.dumps(self._info(unit))} if verbose else None,
        )

    def _info(self, unit: ContainerStatus) -> dict[str, object]:
        return {
            "sandboxID": unit.sandbox_id,
            "pid": unit.pid,
            "runtimeType": "podrt",
            "cgroup": unit.cgroup,
            "config": msgspec.to_builtins(unit.spec),
        }

    def list(self, wanted: api.ContainerFilter) -> list[api.Container]:
        """An id that nobody has, or that is the beginning of several, finds nothing."""
        found = self._own.containers()
        if wanted.id:
            found = [unit for unit in found if unit.id.startswith(wanted.id)]
            found = found if len(found) == 1 else []
        if wanted.pod_sandbox_id:
            found = [unit for unit in found if unit.sandbox_id.startswith(wanted.pod_sandbox_id)]
            found = found if len({unit.sandbox_id for unit in found}) == 1 else []
        return report.containers(found, wanted, self._image_name)

    async def update(self, request: api.UpdateContainerResourcesRequest) -> None:
        """New limits of a created or running container; what is not set stays."""
        unit = self._own.container(request.container_id)
        await self._engine.update_container(unit.id, convert.changed(unit.spec.resources, request.linux))

    async def reopen_log(self, identity: str) -> None:
        """Raises ConflictError where it does not run: nothing is written any more."""
        await self._engine.reopen_log(self._own.container(identity).id)

    async def exec_sync(self, request: api.ExecSyncRequest) -> api.ExecSyncResponse:
        """Raises DeadlineError after ``timeout`` seconds (0: none); the command is killed then."""
        if not request.cmd:
            raise InvalidError("cmd: required")
        unit = self.running(request.container_id, "exec into")
        result = await self._engine.exec_sync(unit.id, tuple(request.cmd), max(request.timeout, 0), MAX_OUTPUT)
        stderr = result.stderr[: max(MAX_OUTPUT - len(result.stdout), 0)]
        return api.ExecSyncResponse(stdout=result.stdout, stderr=stderr, exit_code=result.code)

    def running(self, identity: str, verb: str) -> ContainerStatus:
        """Raises NotFoundError, ConflictError."""
        unit = self._own.container(identity)
        if unit.state is not ContainerState.RUNNING:
            raise ConflictError(
                f"cannot {verb} container {unit.spec.name} ({unit.id[:12]}): it is {unit.state}, not running"
            )
        return unit
