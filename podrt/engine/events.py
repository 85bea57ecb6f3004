"""The engine's events: each subscriber has a queue of its own and gets every event from its subscription on."""

from __future__ import annotations

import asyncio
import time

from podrt.engine.specs import EngineEvent, EventKind


class EventBus:
    """Queues are unbounded: a subscriber that stops reading must unsubscribe."""

    def __init__(self) -> None:
        self._queues: list[asyncio.Queue[EngineEvent]] = []

    def subscribe(self) -> asyncio.Queue[EngineEvent]:
        queue: asyncio.Queue[EngineEvent] = asyncio.Queue()
        self._queues.append(queue)
        return queue

    def unsubscribe(self, queue: asyncio.Queue[EngineEvent]) -> None:
        if queue in self._queues:
            self._queues.remove(queue)

    def send(self, kind: EventKind, sandbox_id: str, container_id: str = "", message: str = "", at: float = 0) -> None:
        event = EngineEvent(
            kind=kind, sandbox_id=sandbox_id, container_id=container_id, at=at or time.time(), message=message
        )
        for queue in self._queues:
            queue.put_nowait(event)
