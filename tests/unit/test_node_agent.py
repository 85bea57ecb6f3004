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
from podrt.engine.specs import EngineEvent, EventKind, Resources, SandboxSpec, SandboxState, SandboxStatus
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
    """The part of ``EngineApi`` that an agent without Pods calls. Its one sandbox is of a Pod that nobody knows."""

    def __init__(self, owner: str = "cri") -> None:
        spec = SandboxSpec(name="a", namespace="default", uid="1", owner=owner)
        self.box = SandboxStatus(id="b0", spec=spec, state=SandboxState.READY, created_at=0)
        self.removed: list[str] = []
        self.events: asyncio.Queue[Any] = asyncio.Queue()

    def list_sandboxes(self, uid: str = "") -> list[SandboxStatus]:
        return [self.box]

    def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        return self.box

    async def remove_sandbox(self, sandbox_id: str) -> None:
        self.removed.append(sandbox_id)

    async def set_group(self, path: str, resources: Resources) -> None:
        pass

    def subscribe(self) -> asyncio.Queue[Any]:
        return self.events

    def unsubscribe(self, queue: asyncio.Queue[Any]) -> None:
        pass


@pytest.fixture
def engine() -> IdleEngine:
    return IdleEngine()


@pytest.fixture
async def parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: IdleEngine
) -> AsyncIterator[tuple[Agent, EventRecorder, Store]]:
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
        engine,  # type: ignore[arg-type]
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


@pytest.mark.parametrize(("owner", "removed"), [("", ["b0"]), ("cri", [])])
async def test_only_its_own_sandboxes_are_orphans(
    parts: tuple[Agent, EventRecorder, Store], engine: IdleEngine, owner: str, removed: list[str]
) -> None:
    engine.box = IdleEngine(owner).box
    await parts[0]._remove_orphans(set())
    assert engine.removed == removed


@pytest.mark.parametrize(("owner", "poked"), [("", 1), ("cri", 0)])
async def test_a_sandbox_of_another_with_a_pods_uid_is_not_the_pods(
    parts: tuple[Agent, EventRecorder, Store], engine: IdleEngine, owner: str, poked: int
) -> None:
    agent = parts[0]
    engine.box = IdleEngine(owner).box
    assert len(agent._context.sandboxes_of("1")) == poked

    class Worker:
        pokes = 0

        def poke(self) -> None:
            self.pokes += 1

    worker = Worker()
    agent._workers["1"] = worker  # type: ignore[assignment]
    agent._route(EngineEvent(kind=EventKind.CONTAINER_STOPPED, sandbox_id="b0", at=0))
    assert worker.pokes == poked
    del agent._workers["1"]
