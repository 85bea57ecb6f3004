"""The agent's own tasks, with an engine that has nothing to run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from podrt.config import Config
from podrt.engine.logs import LogOptions
from podrt.engine.specs import Resources
from podrt.errors import ConflictError
from podrt.image.service import ImageStore
from podrt.model.container import Container
from podrt.model.event import Event
from podrt.model.meta import ObjectMeta
from podrt.model.pod import Pod, PodSpec
from podrt.model.status import ContainerState, ContainerStateTerminated, ContainerStatus, PodStatus
from podrt.node import agent as agent_module
from podrt.node.agent import Agent
from podrt.store.events import NORMAL, EventRecorder
from podrt.store.objects import Registry
from podrt.store.store import Store

POD = Pod(
    metadata=ObjectMeta(name="a", namespace="default", uid="1"), spec=PodSpec(containers=(Container(name="main"),))
)


class IdleEngine:
    """The part of ``EngineApi`` that an agent without Pods calls."""

    def list_sandboxes(self) -> list[Any]:
        return []

    async def set_group(self, path: str, resources: Resources) -> None:
        pass

    def subscribe(self) -> asyncio.Queue[Any]:
        return asyncio.Queue()

    def unsubscribe(self, queue: asyncio.Queue[Any]) -> None:
        pass


@pytest.fixture
async def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Agent, EventRecorder, Store]]:
    """A started agent whose minute lasts 50 ms, with events that live for a second and a half."""
    monkeypatch.setattr(agent_module, "NODE_PERIOD", 0.05)
    failures: list[BaseException] = []
    (tmp_path / "state").mkdir()
    store = Store(tmp_path / "store.db")
    images = ImageStore(tmp_path / "images")
    recorder = EventRecorder(store, ttl=1.5)
    agent = Agent(
        Config.under(tmp_path, "t"),
        Registry(store),
        IdleEngine(),  # type: ignore[arg-type]
        images,
        recorder,
        on_failure=failures.append,
    )
    await agent.start()
    yield agent, recorder, store
    await agent.close()
    images.close()
    store.close()
    assert not failures


async def test_events_end_though_nothing_happens_any_more(parts: tuple[Agent, EventRecorder, Store]) -> None:
    _, recorder, store = parts
    recorder.record(POD, NORMAL, "Started", "Container started: main")
    assert store.count(Event) == 1
    deadline = time.monotonic() + 10
    while store.count(Event):
        assert time.monotonic() < deadline, "the event lives on"
        await asyncio.sleep(0.02)


async def test_logs_that_are_not_there_are_refused_in_the_kubelets_words(
    parts: tuple[Agent, EventRecorder, Store],
) -> None:
    agent = parts[0]
    with pytest.raises(ConflictError, match=r'^container "main" in pod "a" is waiting to start: ContainerCreating$'):
        agent.logs(POD, "main", LogOptions())
    ended = ContainerStateTerminated(exit_code=128, reason="StartError", message='exec: "/nope": no such file')
    state = ContainerStatus(name="main", state=ContainerState(terminated=ended))
    failed = replace(POD, status=PodStatus(container_statuses=(state,)))
    with pytest.raises(ConflictError, match=r'^container "main" in pod "a" did not start: exec: "/nope": no such'):
        agent.logs(failed, "main", LogOptions())
    with pytest.raises(ConflictError, match=r'^previous terminated container "main" in pod "a" not found$'):
        agent.logs(POD, "main", LogOptions(previous=True))
