"""A daemon killed at any step of making or removing a sandbox or container: the next one cleans up."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from podrt.engine import undo
from podrt.engine.specs import ContainerState, SandboxState
from tests.framework.engine import Lab
from tests.framework.engine_fault import life

CREATE_SANDBOX = [
    "sandbox.record",
    "sandbox.namespaces",
    "sandbox.cgroup",
    "sandbox.shm",
    "sandbox.network",
    "sandbox.files",
    "sandbox.pause",
    "sandbox.ready",
]
CREATE_CONTAINER = [
    "container.record",
    "container.image",
    "container.cgroup",
    "container.storage",
    "container.created",
]
START_CONTAINER = ["container.started"]
REMOVE_CONTAINER = [
    "container.remove.cgroup",
    "container.remove.storage",
    "container.remove.image",
    "container.remove.record",
]
REMOVE_SANDBOX = [
    "sandbox.remove.stop",
    "sandbox.remove.processes",
    "sandbox.remove.containers",
    "sandbox.remove.shm",
    "sandbox.remove.cgroup",
    "sandbox.remove.network",
    "sandbox.remove.namespaces",
    "sandbox.remove.record",
]
ALL = [*CREATE_SANDBOX, *CREATE_CONTAINER, *START_CONTAINER, *REMOVE_CONTAINER, *REMOVE_SANDBOX]


@pytest_asyncio.fixture
async def lab(daemon_base: Path) -> AsyncIterator[Lab]:
    async with Lab.open(daemon_base) as lab:
        yield lab


async def die(lab: Lab, step: str) -> None:
    """Have a process of its own die at ``step``, with the lab's directories, and start the lab's engine after it."""
    await lab.engine._machine.supervisor.shutdown()
    await lab.engine.close()
    config = lab.config
    arguments = {
        "root": str(config.run_dir.parent),
        "tag": config.cgroup_root.removeprefix("/podrt-"),
        "settings": {"subnet_v4": config.subnet_v4, "subnet_v6": config.subnet_v6},
        "store": str(lab.images.root),
        "step": step,
    }
    ended = await asyncio.to_thread(
        subprocess.run,
        (sys.executable, "-m", "tests.framework.engine_fault", json.dumps(arguments)),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == -signal.SIGKILL, ended
    lab.engine = lab._engine()
    await lab.engine.start()


async def test_the_table_has_every_step(lab: Lab) -> None:
    seen: list[str] = []
    undo.hook = seen.append
    try:
        await life(lab.engine, str(lab.config.log_dir / "pod"))
    finally:
        undo.hook = None
    assert sorted(set(seen)) == sorted(ALL)


@pytest.mark.parametrize("step", CREATE_SANDBOX)
async def test_killed_while_making_a_sandbox(lab: Lab, step: str) -> None:
    await die(lab, step)
    assert lab.engine.list_sandboxes() == []
    assert await lab.left() == []


@pytest.mark.parametrize("step", CREATE_CONTAINER)
async def test_killed_while_making_a_container(lab: Lab, step: str) -> None:
    await die(lab, step)
    assert [sandbox.state for sandbox in lab.engine.list_sandboxes()] == [SandboxState.READY]
    assert lab.engine.list_containers() == []
    # The sandbox is as good as before.
    sandbox = lab.engine.list_sandboxes()[0]
    await lab.run(sandbox, "after")
    await lab.engine.remove_sandbox(sandbox.id)
    assert await lab.left() == []


async def test_killed_between_the_start_and_its_record(lab: Lab) -> None:
    await die(lab, "container.started")
    (status,) = lab.engine.list_containers()
    assert status.state is ContainerState.RUNNING
    assert os.path.exists(f"/proc/{status.pid}")
    assert (await lab.engine.exec_sync(status.id, ["true"])).code == 0
    await lab.engine.stop_container(status.id, 0)
    assert lab.engine.container_status(status.id).exit_code == 137


@pytest.mark.parametrize("step", REMOVE_CONTAINER)
async def test_killed_while_removing_a_container(lab: Lab, step: str) -> None:
    await die(lab, step)
    assert lab.engine.list_containers() == []
    assert [sandbox.state for sandbox in lab.engine.list_sandboxes()] == [SandboxState.READY]


@pytest.mark.parametrize("step", REMOVE_SANDBOX)
async def test_killed_while_removing_a_sandbox(lab: Lab, step: str) -> None:
    await die(lab, step)
    assert lab.engine.list_sandboxes() == []
    assert lab.engine.list_containers() == []
    assert await lab.left() == []


@pytest.mark.parametrize("step", [*CREATE_SANDBOX, *CREATE_CONTAINER])
async def test_a_step_that_fails_is_undone(lab: Lab, step: str) -> None:
    """The same points without a death: the step raises, and the undo stack alone cleans up."""

    class InjectedError(Exception):
        pass

    def fail(name: str) -> None:
        if name == step:
            raise InjectedError(name)

    undo.hook = fail
    try:
        with pytest.raises(InjectedError):
            await life(lab.engine, str(lab.config.log_dir / "pod"))
    finally:
        undo.hook = None
    for sandbox in lab.engine.list_sandboxes():
        assert step in CREATE_CONTAINER
        assert lab.engine.list_containers() == []
        await lab.engine.remove_sandbox(sandbox.id)
    assert await lab.left() == []
