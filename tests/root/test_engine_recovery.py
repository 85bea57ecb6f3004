"""A new engine after the old one, the supervisor, or both are gone; broken records; leftovers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from podrt.engine.specs import ContainerState, NamespaceMode, SandboxState
from tests.framework.engine import Lab, eventually
from tests.framework.patience import scaled


@pytest_asyncio.fixture
async def lab(daemon_base: Path) -> AsyncIterator[Lab]:
    async with Lab.open(daemon_base) as lab:
        yield lab


async def kill_supervisor(lab: Lab) -> None:
    """SIGKILL, and wait until the client has a new one."""
    old = lab.supervisor_pid
    os.kill(old, signal.SIGKILL)
    await eventually(lambda: lab.supervisor_pid != old)
    recovery = lab.engine._machine.supervisor._recovery
    if recovery is not None:
        await recovery


def chatter(lab: Lab, container: str) -> list[int]:
    """The numbers that testtool chatter has logged."""
    return [int(line.split()[-1]) for line in lab.log(container).splitlines() if line.split()[-1].isdigit()]


async def test_everything_is_found_again(lab: Lab) -> None:
    sandbox = await lab.sandbox(pid=NamespaceMode.POD)
    running = await lab.run(sandbox, "running")
    created = await lab.create(sandbox, "created", "true")
    ended = (await lab.finished(sandbox, "ended", "sh", "-c", "exit 9")).id
    before = {status.id: status for status in lab.engine.list_containers()}
    engine = await lab.restart()
    assert engine.list_sandboxes() == [sandbox]
    assert {status.id: status for status in engine.list_containers()} == before
    assert engine.container_status(ended).exit_code == 9
    assert (await lab.engine.exec_sync(running, ["sh", "-c", "exit 3"])).code == 3
    await engine.start_container(created)
    assert (await engine.wait_container(created)).exit_code == 0
    await engine.stop_container(running, 0)
    assert (await engine.wait_container(running)).exit_code == 137
    assert await lab.run(sandbox, "after")


async def test_exits_while_no_daemon_runs_are_true(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    containers = {
        code: await lab.run(sandbox, f"c{code}", "sh", "-c", f"sleep 0.2; echo end; exit {code}") for code in (0, 5)
    }
    killed = await lab.run(sandbox, "killed")
    pid = lab.engine.container_status(killed).pid
    await lab.engine.close()
    os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(0.5)
    lab.engine = lab._engine()
    await lab.engine.start()
    for code, container in containers.items():
        status = await asyncio.wait_for(lab.engine.wait_container(container), scaled(5))
        assert status.exit_code == code
        assert lab.log(container) == "end\n"
    assert lab.engine.container_status(killed).exit_code == 137


async def test_an_exit_in_the_middle_of_recovery(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = await lab.sandbox()
    container = await lab.run(sandbox, "c", "sh", "-c", "sleep 0.3; exit 5")
    monkeypatch.setattr("podrt.engine.confinement.compile_default_filter", lambda: time.sleep(0.6))
    await lab.restart()
    status = await asyncio.wait_for(lab.engine.wait_container(container), scaled(5))
    assert (status.exit_code, status.reason) == (5, "Error")


async def test_memory_that_ran_out_while_no_daemon_ran(lab: Lab) -> None:
    from podrt.engine.specs import Resources

    sandbox = await lab.sandbox()
    hog = await lab.run(
        sandbox, "hog", "sh", "-c", "sleep 0.2; exec testtool mem 200", resources=Resources(memory_limit=20 << 20)
    )
    await lab.engine.close()
    await asyncio.sleep(1)
    lab.engine = lab._engine()
    await lab.engine.start()
    status = await asyncio.wait_for(lab.engine.wait_container(hog), scaled(5))
    assert (status.reason, status.exit_code) == ("OOMKilled", 137)


async def test_no_log_line_is_lost_or_doubled_over_a_restart(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    container = await lab.run(sandbox, "c", "testtool", "chatter", "1500", "500")
    for _ in range(3):
        await asyncio.sleep(0.1)
        await lab.restart()
    await asyncio.wait_for(lab.engine.wait_container(container), scaled(20))
    numbers = chatter(lab, container)
    assert sorted(numbers) == list(range(numbers and min(numbers), len(numbers) + min(numbers)))
    assert len(numbers) == 1500


async def test_terminal_of_a_container_after_a_restart(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    container = await lab.run(
        sandbox, "c", "sh", "-c", "while read x; do stty size; echo got $x; done", tty=True, stdin=True
    )
    await lab.restart()
    session = await lab.engine.attach(container, stdin=True, stdout=True, stderr=False)
    session.resize(66, 22)
    assert session.stdin is not None
    os.write(session.stdin, b"word\n")
    await eventually(lambda: "got word" in lab.log(container))
    assert "22 66" in lab.log(container)
    await session.close()
    await lab.engine.stop_container(container, 0)


async def test_killed_supervisor(lab: Lab) -> None:
    sandbox = await lab.sandbox(pid=NamespaceMode.POD)
    steady = await lab.run(sandbox, "steady")
    talker = await lab.run(sandbox, "talker", "testtool", "chatter", "1500", "500")
    ending = await lab.run(sandbox, "ending", "sh", "-c", "sleep 0.5; exit 6")
    pid = lab.engine.container_status(steady).pid
    await asyncio.sleep(0.1)
    await kill_supervisor(lab)
    assert lab.engine.container_status(steady).pid == pid
    assert os.path.exists(f"/proc/{pid}")
    assert (await asyncio.wait_for(lab.engine.wait_container(ending), scaled(10))).exit_code == 6
    assert (await lab.engine.exec_sync(steady, ["echo", "hi"])).stdout == b"hi\n"
    await asyncio.wait_for(lab.engine.wait_container(talker), scaled(20))
    assert set(chatter(lab, talker)) >= set(range(2, 1500))
    assert lab.engine.sandbox_status(sandbox.id).state is SandboxState.READY
    await lab.engine.stop_container(steady, 0)
    assert lab.engine.container_status(steady).exit_code == 137
    assert await lab.run(sandbox, "after")


async def test_supervisor_and_engine_both_gone(lab: Lab) -> None:
    """Containers live on and are found; of one that ended meanwhile nobody knows how."""
    sandbox = await lab.sandbox(pid=NamespaceMode.POD)
    steady = await lab.run(sandbox, "steady")
    talker = await lab.run(sandbox, "talker", "testtool", "chatter", "0", "2000")
    gone = await lab.run(sandbox, "gone")
    pids = {name: lab.engine.container_status(name).pid for name in (steady, talker, gone)}
    supervisor = lab.supervisor_pid
    await lab.engine.close()
    os.kill(supervisor, signal.SIGKILL)
    await asyncio.sleep(0.1)
    os.kill(pids[gone], signal.SIGKILL)
    # This process is the subreaper, so it plays init here.
    await eventually(lambda: _reaped(pids[gone]) and _reaped(supervisor))
    lab.engine = lab._engine()
    await lab.engine.start()
    assert lab.engine.container_status(steady).state is ContainerState.RUNNING
    assert lab.engine.container_status(steady).pid == pids[steady]
    status = await asyncio.wait_for(lab.engine.wait_container(gone), scaled(5))
    assert (status.exit_code, status.reason) == (137, "ContainerStatusUnknown")
    length = len(lab.log(talker))
    await eventually(lambda: len(lab.log(talker)) > length + 100)
    assert (await lab.engine.exec_sync(steady, ["true"])).code == 0
    os.kill(pids[steady], signal.SIGTERM)
    assert (await asyncio.wait_for(lab.engine.wait_container(steady), scaled(10))).exit_code == 143
    assert lab.engine.sandbox_status(sandbox.id).state is SandboxState.READY


def _reaped(pid: int) -> bool:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return True
    return not os.path.exists(f"/proc/{pid}")


async def test_a_broken_record_is_passed_over(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = await lab.sandbox("good"), await lab.sandbox("bad")
    kept = await lab.run(good, "kept")
    lost = await lab.run(good, "lost")
    other = await lab.run(bad, "other")
    pids = {name: lab.engine.container_status(name).pid for name in (kept, lost, other)}
    run = lab.config.run_dir
    (run / "containers" / lost / "state.json").write_text('{"version":1,"record":{')
    (run / "sandboxes" / bad.id / "state.json").write_bytes(b"\xff")
    await lab.restart()
    assert [sandbox.id for sandbox in lab.engine.list_sandboxes()] == [good.id]
    assert [status.id for status in lab.engine.list_containers()] == [kept]
    assert "broken record" in caplog.text
    await eventually(lambda: not os.path.exists(f"/proc/{pids[lost]}") and not os.path.exists(f"/proc/{pids[other]}"))
    assert os.path.exists(f"/proc/{pids[kept]}")
    await lab.engine.remove_sandbox(good.id)
    assert await lab.left() == []


async def test_leftovers_are_removed(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    kept = await lab.run(sandbox, "kept")
    config = lab.config
    name = "f" * 64
    (config.state_dir / "containers" / name / "upper").mkdir(parents=True)
    (config.run_dir / "containers" / name).mkdir()
    (config.run_dir / "sandboxes" / name).mkdir()
    manager = lab.engine._machine.cgroups
    manager.create(f"{manager.root}/podnobody/{name}")
    manager.create(f"{sandbox.cgroup}/{name}")
    await lab.restart()
    assert not manager.exists(f"{manager.root}/podnobody")
    assert not manager.exists(f"{sandbox.cgroup}/{name}")
    assert lab.engine.container_status(kept).state is ContainerState.RUNNING
    await lab.engine.remove_sandbox(sandbox.id)
    assert await lab.left() == []


async def test_a_sandbox_whose_namespace_is_gone_is_not_ready(lab: Lab) -> None:
    from podrt.linux.mount_table import unpin

    sandbox = await lab.sandbox()
    await lab.engine.close()
    unpin(sandbox.netns)
    lab.engine = lab._engine()
    await lab.engine.start()
    assert lab.engine.sandbox_status(sandbox.id).state is SandboxState.NOT_READY


async def test_execs_of_the_old_daemon_are_ended(lab: Lab) -> None:
    container = await lab.run(await lab.sandbox(), "c")
    session = await lab.engine.exec(container, ["sleep", "4242"])
    assert session.pid
    pid = session.pid
    await lab.restart()
    await eventually(lambda: not os.path.exists(f"/proc/{pid}"))
    assert lab.engine.container_status(container).state is ContainerState.RUNNING
