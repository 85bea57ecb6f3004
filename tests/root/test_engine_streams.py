"""Exec, attach, terminals, logs: what goes in and out of containers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from podrt.engine.logs import LogOptions, read_log
from podrt.engine.specs import ContainerState, EventKind, NamespaceMode, Security
from podrt.errors import DeadlineError, LaunchError
from tests.framework.engine import Lab, eventually
from tests.framework.patience import scaled


@pytest_asyncio.fixture
async def lab(daemon_base: Path) -> AsyncIterator[Lab]:
    async with Lab.open(daemon_base) as lab:
        yield lab


async def read_until(fd: int | None, text: bytes, seconds: float = 10) -> bytes:
    """Read a non-blocking descriptor until ``text`` has come, or the end of file or a hangup."""
    assert fd is not None
    data = b""
    end = time.monotonic() + seconds
    while text not in data and time.monotonic() < end:
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            await asyncio.sleep(0.005)
            continue
        except OSError:
            break
        if not chunk:
            break
        data += chunk
    return data


async def test_exec_sync(lab: Lab) -> None:
    container = await lab.run(await lab.sandbox(), "c", env=(("A", "env"),), security=Security(user="1234"))
    result = await lab.engine.exec_sync(container, ["sh", "-c", "echo $A; id -u; echo err >&2; exit 5"])
    assert (result.stdout, result.stderr, result.code) == (b"env\n1234\n", b"err\n", 5)
    killed = await lab.engine.exec_sync(container, ["sh", "-c", "kill -9 $$"])
    assert killed.code == 137


async def test_exec_of_what_is_not_there(lab: Lab) -> None:
    container = await lab.run(await lab.sandbox(), "c")
    for _ in range(3):
        with pytest.raises(LaunchError, match="not found in") as caught:
            await lab.engine.exec_sync(container, ["nosuch"])
        assert caught.value.step == "exec"
    assert lab.engine.container_status(container).state is ContainerState.RUNNING


async def test_exec_output_larger_than_pipes_and_limits(lab: Lab) -> None:
    container = await lab.run(await lab.sandbox(), "c")
    whole = await lab.engine.exec_sync(container, ["sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x"])
    assert len(whole.stdout) == 3_000_000
    cut = await lab.engine.exec_sync(container, ["sh", "-c", "head -c 3000000 /dev/zero"], max_bytes=1000)
    assert (len(cut.stdout), cut.code) == (1000, 0)


async def test_exec_sync_times_out_and_kills_the_tree(lab: Lab) -> None:
    container = await lab.run(await lab.sandbox(), "c")
    begin = time.monotonic()
    with pytest.raises(DeadlineError, match=r"did not end in 0\.3 s"):
        await lab.engine.exec_sync(container, ["sh", "-c", "sleep 777 & sleep 778; true"], timeout=0.3)
    assert time.monotonic() - begin < scaled(3)
    assert "sleep 77" not in await lab.sh(container, "ps -eo args | grep -v grep")


async def test_exec_that_leaves_a_child_with_the_pipe(lab: Lab) -> None:
    container = await lab.run(await lab.sandbox(), "c")
    begin = time.monotonic()
    result = await lab.engine.exec_sync(container, ["sh", "-c", "sleep 60 & echo done"])
    assert result.stdout == b"done\n"
    assert time.monotonic() - begin < scaled(3)


async def test_exec_with_stdin(lab: Lab) -> None:
    container = await lab.run(await lab.sandbox(), "c")
    session = await lab.engine.exec(container, ["sh", "-c", "cat; echo end"], stdin=True)
    assert session.stdin is not None
    os.write(session.stdin, b"input\n")
    assert await read_until(session.stdout, b"input\n") == b"input\n"
    await session.close_stdin()
    assert await read_until(session.stdout, b"end\n") == b"end\n"
    assert await session.wait() == 0
    await session.close()


async def test_exec_with_a_terminal(lab: Lab) -> None:
    container = await lab.run(await lab.sandbox(), "c")
    session = await lab.engine.exec(
        container,
        ["sh", "-c", "stty size; tty; read x; stty size; echo got $x"],
        tty=True,
        stdin=True,
        columns=91,
        rows=33,
    )
    assert session.stderr is None
    assert session.stdin is not None
    first = await read_until(session.stdout, b"/dev/pts/0")
    assert b"33 91" in first
    session.resize(44, 22)
    os.write(session.stdin, b"word\n")
    rest = await read_until(session.stdout, b"got word")
    assert b"22 44" in rest
    assert await session.wait() == 0
    await session.close()


async def test_closing_an_exec_kills_it(lab: Lab) -> None:
    container = await lab.run(await lab.sandbox(), "c")
    session = await lab.engine.exec(container, ["sh", "-c", "sleep 555 & wait"])
    await eventually(lambda: session.pid)
    await session.close()
    assert await session.wait() == 137
    for _ in range(50):  # SIGKILL has been sent to all of them; the last may still be on its way out
        left = await lab.sh(container, "ps -eo args | grep -v grep")
        if "sleep 555" not in left:
            break
        await asyncio.sleep(scaled(0.05))
    assert "sleep 555" not in left
    assert not any("/exec/" in identity for identity in lab.engine._machine.supervisor.processes)


async def test_execs_end_with_their_container(lab: Lab) -> None:
    container = await lab.run(await lab.sandbox(), "c")
    session = await lab.engine.exec(container, ["sleep", "999"])
    await lab.engine.stop_container(container, 0)
    assert await asyncio.wait_for(session.wait(), scaled(5)) == 137
    await session.close()


async def test_exec_in_all_namespaces_of_a_shared_pid_container(lab: Lab) -> None:
    sandbox = await lab.sandbox(pid=NamespaceMode.POD)
    container = await lab.run(sandbox, "c")
    pid = lab.engine.container_status(container).pid
    for kind in ("mnt", "net", "uts", "ipc", "pid", "cgroup"):
        inside = (await lab.sh(container, f"readlink /proc/self/ns/{kind}")).strip()
        assert inside == os.readlink(f"/proc/{pid}/ns/{kind}"), kind


async def test_attach_to_pipes(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    script = "while read x; do echo out $x; echo err $x >&2; done; echo closed"
    container = await lab.run(sandbox, "c", "sh", "-c", script, stdin=True, stdin_once=True)
    one = await lab.engine.attach(container, stdin=True, stdout=True, stderr=True)
    two = await lab.engine.attach(container, stdin=False, stdout=True, stderr=False)
    assert (two.stdin, two.stderr) == (None, None)
    assert one.stdin is not None
    os.write(one.stdin, b"a\n")
    assert await read_until(one.stdout, b"out a\n") == b"out a\n"
    assert await read_until(one.stderr, b"err a\n") == b"err a\n"
    assert await read_until(two.stdout, b"out a\n") == b"out a\n"
    await two.close()
    await one.close_stdin()
    assert await read_until(one.stdout, b"closed\n") == b"closed\n"
    assert await asyncio.wait_for(one.wait(), scaled(5)) == 0
    await one.close()
    assert lab.log(container).split() == ["out", "a", "err", "a", "closed"] or "closed" in lab.log(container)


async def test_stdin_stays_open_without_stdin_once(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    container = await lab.run(sandbox, "c", "sh", "-c", "while read x; do echo got $x; done", stdin=True)
    for word in (b"one", b"two"):
        session = await lab.engine.attach(container, stdin=True, stdout=True, stderr=False)
        assert session.stdin is not None
        os.write(session.stdin, word + b"\n")
        assert await read_until(session.stdout, b"got " + word)
        await session.close_stdin()
        await session.close()
    assert lab.engine.container_status(container).state is ContainerState.RUNNING


async def test_a_container_with_a_terminal(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    script = "tty; ls -l /dev/console; echo $TERM; while read x; do stty size; echo got $x; done"
    container = await lab.run(sandbox, "c", "sh", "-c", script, tty=True, stdin=True)
    session = await lab.engine.attach(container, stdin=True, stdout=True, stderr=True)
    assert session.stderr is None
    session.resize(77, 33)
    assert session.stdin is not None
    os.write(session.stdin, b"word\n")
    output = await read_until(session.stdout, b"got word")
    assert b"33 77" in output
    await session.close()
    await eventually(lambda: "got word" in lab.log(container))
    assert "/dev/pts/0" in lab.log(container)
    assert "xterm" in lab.log(container)
    await lab.engine.stop_container(container, 0)


async def test_the_end_of_the_log_is_there_when_the_exit_is_told(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    events = lab.engine.subscribe()
    for number in range(5):
        container = await lab.run(sandbox, f"c{number}", "sh", "-c", "seq 1 20000")
        while True:
            event = await asyncio.wait_for(events.get(), scaled(20))
            if event.kind is EventKind.CONTAINER_STOPPED:
                break
        assert lab.engine.container_status(container).state is ContainerState.EXITED
        assert lab.log(container).split() == [str(line) for line in range(1, 20001)]


async def test_logs_are_followed_to_the_end(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    container = await lab.run(sandbox, "c", "testtool", "chatter", "300", "1000")
    path = lab.engine.container_status(container).log_path

    def stopped() -> bool:
        return lab.engine.container_status(container).state is ContainerState.EXITED

    text = b"".join([chunk async for chunk in read_log(path, LogOptions(follow=True), stopped)])
    assert len(text.splitlines()) == 300


async def test_reopened_log(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    container = await lab.run(sandbox, "c", "testtool", "chatter", "0", "1000")
    path = Path(lab.engine.container_status(container).log_path)
    await eventually(lambda: path.exists() and path.stat().st_size > 500)
    path.rename(f"{path}.old")
    await lab.engine.reopen_log(container)
    await eventually(lambda: path.exists() and path.stat().st_size > 500)
    await lab.engine.stop_container(container, 0)
    old = Path(f"{path}.old").read_text().splitlines()
    new = path.read_text().splitlines()
    numbers = [
        int(line.split(" ", 3)[3].split()[-1]) for line in [*old, *new] if line.split(" ", 3)[3].split()[-1].isdigit()
    ]
    assert len(old) > 3
    assert len(new) > 3
    assert numbers == sorted(numbers)


async def test_no_log_without_a_directory(lab: Lab) -> None:
    sandbox = await lab.sandbox(log_directory="")
    status = await lab.finished(sandbox, "c", "echo", "hi")
    assert (status.log_path, status.exit_code) == ("", 0)
