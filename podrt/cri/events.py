"""The stream of container events, from which a kubelet learns what happened without asking all the time.

As in containerd a sandbox counts as a container of its own: created and started when it is ready, stopped, deleted,
each with its own id as the container's. Every event carries the sandbox and its containers as they are when it is sent;
of a sandbox that is gone, as it was last seen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from cri_api.v1 import api_pb2 as api
from msgspec.structs import replace

from podrt.cri import report
from podrt.cri.own import OWNER, Own
from podrt.engine.api import EngineApi
from podrt.engine.specs import EngineEvent, EventKind, SandboxState, SandboxStatus
from podrt.errors import NotFoundError, UnavailableError

log = logging.getLogger(__name__)

_KINDS: dict[EventKind, tuple[api.ContainerEventType.ValueType, ...]] = {
    EventKind.CONTAINER_CREATED: (api.CONTAINER_CREATED_EVENT,),
    EventKind.CONTAINER_STARTED: (api.CONTAINER_STARTED_EVENT,),
    EventKind.CONTAINER_STOPPED: (api.CONTAINER_STOPPED_EVENT,),
    EventKind.CONTAINER_DELETED: (api.CONTAINER_DELETED_EVENT,),
    EventKind.SANDBOX_READY: (api.CONTAINER_CREATED_EVENT, api.CONTAINER_STARTED_EVENT),
    EventKind.SANDBOX_STOPPED: (api.CONTAINER_STOPPED_EVENT,),
    EventKind.SANDBOX_DELETED: (api.CONTAINER_DELETED_EVENT,),
}
_BACKLOG = 10_000
"""Events that a subscriber may be behind."""


class Events:
    """:meth:`start` first, :meth:`close` last."""

    def __init__(self, engine: EngineApi, own: Own, image_name: report.ImageName) -> None:
        self._engine = engine
        self._own = own
        self._image_name = image_name
        self._seen: dict[str, SandboxStatus] = {}
        """The sandboxes of the CRI: once one is gone the engine doesn't say whose it was."""
        self._subscribers: set[asyncio.Queue[api.ContainerEventResponse | None]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        queue = self._engine.subscribe()
        self._seen = {box.id: box for box in self._own.sandboxes()}
        self._task = asyncio.create_task(self._follow(queue), name="events of the CRI")

    async def close(self) -> None:
        """End the streams."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for queue in self._subscribers:
            queue.put_nowait(None)

    async def subscribe(self) -> AsyncIterator[api.ContainerEventResponse]:
        """Events from now on, until the server ends. Raises UnavailableError for a subscriber that falls behind."""
        queue: asyncio.Queue[api.ContainerEventResponse | None] = asyncio.Queue()
        self._subscribers.add(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
            if queue not in self._subscribers:
                raise UnavailableError(f"over {_BACKLOG} events were not read: subscribe again, and list what there is")
        finally:
            self._subscribers.discard(queue)

    async def _follow(self, queue: asyncio.Queue[EngineEvent]) -> None:
        try:
            while True:
                event = await queue.get()
                try:
                    self._tell(event)
                except Exception:
                    log.exception("event %s of sandbox %s", event.kind, event.sandbox_id[:12])
        finally:
            self._engine.unsubscribe(queue)

    def _tell(self, event: EngineEvent) -> None:
        kinds = _KINDS.get(event.kind)
        if kinds is None or (box := self._sandbox(event)) is None or not self._subscribers:
            return
        statuses = [report.container_status(unit, self._image_name) for unit in self._own.containers(box.id)]
        for kind in kinds:
            message = api.ContainerEventResponse(
                container_id=event.container_id or event.sandbox_id,
                container_event_type=kind,
                created_at=report.nanoseconds(event.at),
                pod_sandbox_status=report.sandbox_status(box),
                containers_statuses=statuses,
            )
            for queue in list(self._subscribers):
                if queue.qsize() >= _BACKLOG:
                    self._subscribers.discard(queue)
                    queue.put_nowait(None)
                else:
                    queue.put_nowait(message)

    def _sandbox(self, event: EngineEvent) -> SandboxStatus | None:
        """The sandbox of an event, None if it is another's."""
        known = self._seen.get(event.sandbox_id)
        if event.kind is EventKind.SANDBOX_DELETED:
            self._seen.pop(event.sandbox_id, None)
            return replace(known, state=SandboxState.NOT_READY) if known is not None else None
        try:
            found = self._engine.sandbox_status(event.sandbox_id)
        except NotFoundError:
            return known
        if found.spec.owner != OWNER:
            return None
        self._seen[found.id] = found
        return found
