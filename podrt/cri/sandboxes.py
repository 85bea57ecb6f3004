"""The CRI's sandbox verbs. Each turns a request into one call of the engine."""

from __future__ import annotations

import json
import time

import msgspec
from cri_api.v1 import api_pb2 as api

from podrt.cri import convert, names, report
from podrt.cri.own import Own
from podrt.engine import idranges, labels
from podrt.engine.api import EngineApi
from podrt.engine.specs import IdMap, SandboxState, SandboxStatus
from podrt.errors import NotFoundError
from podrt.linux import selinux


class Sandboxes:
    """``container_names`` are given up with the sandbox; ``image_name`` says how an image is called."""

    def __init__(self, engine: EngineApi, own: Own, container_names: names.Names, image_name: report.ImageName) -> None:
        self._engine = engine
        self._own = own
        self._names = names.Names("sandbox", self._exists)
        self._container_names = container_names
        self._image_name = image_name
        self._selinux = selinux.defaults()
        for box in own.sandboxes():
            self._names.found(names.of_sandbox(box.spec), box.id)

    def _exists(self, identity: str) -> bool:
        try:
            self._engine.sandbox_status(identity)
        except NotFoundError:
            return False
        return True

    async def run(self, request: api.RunPodSandboxRequest) -> str:
        """Its id, once it is ready; nothing is left where it fails or the caller gives up."""
        handler, metadata = request.runtime_handler, request.config.metadata
        own_maps: tuple[IdMap, ...] = ()
        if handler == convert.USERNS_HANDLER:
            held = idranges.taken(box.spec for box in self._engine.list_sandboxes())
            own_maps = idranges.maps(idranges.choose(metadata.uid, held))
        own_level = ""
        if self._selinux is not None:
            boxes = self._engine.list_sandboxes()
            own_level = labels.level(metadata.uid, {labels.level_of(box.spec.mount_label) for box in boxes})
        spec = convert.sandbox_spec(request.config, handler, own_maps, self._selinux, own_level)
        with self._names.reserved(names.of_sandbox(spec)) as made:
            # The engine takes the id range before it first waits, so nobody else can have chosen it.
            status = await self._engine.run_sandbox(spec)
            made(status.id)
        return status.id

    async def stop(self, identity: str) -> None:
        """Nothing if it is gone."""
        try:
            box = self._own.sandbox(identity)
        except NotFoundError:
            return
        await self._engine.stop_sandbox(box.id)

    async def remove(self, identity: str) -> None:
        """With its containers, which are killed. Nothing if it is gone."""
        try:
            box = self._own.sandbox(identity)
        except NotFoundError:
            return
        units = self._own.containers(box.id)
        await self._engine.remove_sandbox(box.id)
        self._names.forget(names.of_sandbox(box.spec))
        for unit in units:
            self._container_names.forget(names.of_container(unit.spec, box.spec))

    def status(self, identity: str, verbose: bool) -> api.PodSandboxStatusResponse:
        """Raises NotFoundError."""
        box = self._own.sandbox(identity)
        at = time.time_ns()
        return api.PodSandboxStatusResponse(
            status=report.sandbox_status(box),
            info={"info": json.dumps(self._info(box))} if verbose else None,
            containers_statuses=[
                report.container_status(unit, self._image_name) for unit in self._own.containers(box.id)
            ],
            timestamp=at,
        )

    def _info(self, box: SandboxStatus) -> dict[str, object]:
        return {
            "pid": box.pause_pid,
            "ready": box.state is SandboxState.READY,
            "runtimeType": "podrt",
            "runtimeHandler": box.spec.runtime_handler,
            "networkNamespace": box.netns,
            "cgroup": box.cgroup,
            "config": msgspec.to_builtins(box.spec),
        }

    def list(self, wanted: api.PodSandboxFilter) -> list[api.PodSandbox]:
        """An id that nobody has, or that is the beginning of several, finds nothing."""
        found = self._own.sandboxes()
        if wanted.id:
            found = [box for box in found if box.id.startswith(wanted.id)]
            found = found if len(found) == 1 else []
        return report.sandboxes(found, wanted)

    async def update(self, request: api.UpdatePodSandboxResourcesRequest) -> None:
        """The Pod's limits; what is not set stays. A kubelet's cgroup it writes itself: they are noted here."""
        box = self._own.sandbox(request.pod_sandbox_id)
        limits = convert.pod_changed(box.spec.resources, request.resources, request.overhead)
        await self._engine.update_sandbox(box.id, limits)
