"""The supervisor over time: its death, the daemon's, re-exec in place, floods of output, slow and vanished clients."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from podrt.errors import LaunchError, UnavailableError
from podrt.supervisor.protocol import VERSION, Log, Stdio
from tests.framework.supervisor import SupervisorBox

CHATTER = "i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo line-$i; done; exit {code}"


@pytest_asyncio.fixture
async def box() -> AsyncIterator[SupervisorBox]:
    made = SupervisorBox()
    await made.start()
    yield made
    problems = await made.destroy()
    assert not problems, "\n".join(problems)


def expect_lines(box: SupervisorBox, name: str, count: int, repeats: int) -> None:
    """Every line is there, in order; at most ``repeats`` chunks were written twice."""
    seen = [int(text.removeprefix("line-")) for text in box.output(name).splitlines()]
    assert sorted(set(seen)) == list(range(1, count + 1)), f"{name} lost lines"
    steps_back = sum(1 for before, after in itertools.pairwise(seen) if after <= before)
    assert steps_back <= repeats, f"{name}: {steps_back} chunks were written twice"


async def test_kill_9_of_the_supervisor_loses_no_line_and_no_exit_code(box: SupervisorBox) -> None:
    """Containers that end while no supervisor lives, and ones that go on under the next, three deaths in a row."""
    lost: list[int] = []

    async def on_lost() -> None:
        lost.append(box.client.pid)

    box.client.on_lost = on_lost
    count, names = 60000, [f"c{index}" for index in range(4)]
    for index, name in enumerate(names):
        await box.launch(box.script(name, CHATTER.format(count=count, code=index + 3)))
    await box.launch(box.script("quiet", "sleep 0.05; echo bye; exit 9"))
    for _ in range(3):
        os.kill(box.client.pid, signal.SIGKILL)
        killed = box.client.pid
        await box.eventually(
            lambda killed=killed: lost and lost[-1] != killed and box.client.pid == lost[-1], "another"
        )
        box.supervisors.add(box.client.pid)
        await asyncio.sleep(0.05)
    for index, name in enumerate(names):
        record = await box.ended(name, 60)
        assert (record.code, record.signal, record.known) == (index + 3, 0, True)
        expect_lines(box, name, count, repeats=3)
    assert (await box.ended("quiet")).code == 9
    assert box.output("quiet") == "bye\n"
    assert len(lost) == 3


async def test_a_container_that_ends_between_two_supervisors(box: SupervisorBox) -> None:
    """Its last lines wait in the FIFO that the daemon keeps open; its exit code is told by the daemon, its parent
    now."""
    launched = await box.launch(box.script("c", "echo before; sleep 0.3; echo after; printf part; exit 4"))
    await box.eventually(lambda: box.output("c") == "before\n", "the first line")
    os.kill(box.client.pid, signal.SIGKILL)
    time.sleep(0.8)  # The event loop stands still: nobody replaces the supervisor before the container's end.
    assert Path(f"/proc/{launched.pid}/stat").read_text().split()[2] == "Z"
    record = await box.ended("c")
    box.supervisors.add(box.client.pid)
    assert (record.code, record.known) == (4, True)
    assert box.records("c") == [("stdout", "F", "before"), ("stdout", "F", "after"), ("stdout", "P", "part")]


async def test_kill_9_in_the_middle_of_launches(box: SupervisorBox) -> None:
    """Each launch under way fails or has happened; no half-made process stays, and the next ones work."""
    earlier = own_children()  # zombies of other tests of this pytest
    for number in range(8):
        tasks = [
            asyncio.create_task(box.client.launch(box.script(f"c{number}-{index}", "exec sleep 60")))
            for index in range(4)
        ]
        await asyncio.sleep(0.002 * number)
        os.kill(box.client.pid, signal.SIGKILL)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, BaseException):
                assert isinstance(outcome, UnavailableError), outcome
            else:
                os.close(outcome.pidfd)
                box.pids[f"c{number}-{index}"] = outcome.pid
        before = box.client.pid
        await box.eventually(lambda before=before: box.client.pid != before and box.client._link.connected, "a new one")
        box.supervisors.add(box.client.pid)
    assert await box.run("after", "echo works") == "works\n"
    for name, pid in box.pids.items():
        if name != "after":
            os.kill(pid, signal.SIGKILL)
            assert (await box.ended(name)).signal == signal.SIGKILL
    # What had executed before its answer was sent is a child of the daemon now: the engine finds it by its cgroup
    # and kills it. Of what was still in its set-up nothing is left, not even a zombie.
    known = {*earlier, *box.supervisors, *box.pids.values()}
    await box.eventually(
        lambda: all(_read(Path(f"/proc/{pid}/comm")) == b"sleep\n" for pid in own_children() if pid not in known),
        "that",
    )
    strangers = [pid for pid in own_children() if pid not in known]
    for pid in strangers:
        os.kill(pid, signal.SIGKILL)
    await box.eventually(lambda: not [pid for pid in own_children() if pid not in known], "the daemon to reap them")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b"sleep\n"


def own_children() -> list[int]:
    return [int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]


async def test_kill_9_of_the_supervisor_keeps_terminals(box: SupervisorBox) -> None:
    spec = box.script("c", "while read x; do echo got-$x; done", stdio=Stdio("terminal"), terminal=True)
    launched = await box.launch(spec)
    box_pid = box.client.pid
    os.kill(box_pid, signal.SIGKILL)
    await box.eventually(lambda: box.client.pid != box_pid, "a new supervisor")
    box.supervisors.add(box.client.pid)
    await asyncio.sleep(0.2)
    stdin = await box.client.attach("c", stdin=True)
    assert stdin is not None
    os.write(stdin, b"one\n")
    await box.eventually(lambda: "got-one" in box.output("c"), "the answer in the log")
    os.kill(launched.pid, signal.SIGKILL)
    assert (await box.ended("c")).signal == 9
    os.close(stdin)
    os.close(launched.fds[0])


async def test_daemon_goes_away_and_comes_back(box: SupervisorBox) -> None:
    """What ended in between is told by hello, what runs goes on, and no line is missing."""
    await box.launch(box.script("chatter", CHATTER.format(count=40000, code=0)))
    await box.launch(box.script("short", "echo done; exit 3"))
    supervisor = box.client.pid
    await box.client.close()
    await asyncio.sleep(0.3)
    box.client = box.new_client()
    await box.start()
    assert box.client.pid == supervisor
    assert box.client.processes["short"].record.exited and box.client.processes["short"].record.code == 3
    assert box.client.processes["short"].log == Log(str(box.log_path("short")), 0, 5)
    if not box.client.processes["chatter"].record.exited:
        await box.ended("chatter")
    expect_lines(box, "chatter", 40000, repeats=0)
    assert box.output("short") == "done\n"
    await box.client.forget("short")
    assert "short" not in box.client.processes
    await box.client.forget("short")


async def test_a_new_connection_replaces_the_old_one(box: SupervisorBox) -> None:
    first, second = box.client, box.new_client()
    first._closing = True  # It must not come back and take over again.
    await second.start()
    assert second.pid == first.pid
    with pytest.raises(UnavailableError):
        await first.drain("x")
    await first.close()
    box.client = second
    assert await box.run("c", "echo works") == "works\n"


async def test_both_die_and_the_next_daemon_adopts(box: SupervisorBox) -> None:
    launched = await box.launch(box.script("c", "echo one; sleep 1.5; echo two; exit 6"))
    known = box.client.processes["c"]
    box.client._closing = True
    os.kill(box.client.pid, signal.SIGKILL)
    await box.client._child.ended()
    await box.client.close()
    box.client = box.new_client()
    await box.start()
    assert box.client.processes == {}
    await box.client.adopt(known.record, known.stdio, known.log)
    record = await box.ended("c")
    assert record.pid == launched.pid and (record.code, record.known) == (6, True)
    assert box.output("c") == "one\ntwo\n"
    # Of one that is gone without a trace nobody knows how it ended.
    await box.client.adopt(known.record._replace(id="gone"), known.stdio, known.log)
    assert not box.exits["gone"].known


async def test_reexec_in_place(box: SupervisorBox) -> None:
    await box.launch(box.script("chatter", CHATTER.format(count=60000, code=5)))
    terminal = box.script("tty", "while read x; do echo got-$x; done", stdio=Stdio("terminal"), terminal=True)
    launched = await box.launch(terminal)
    await box.launch(box.script("input", "cat", stdio=box.fifos("input", stdin=True)))
    reader, writer = os.pipe()
    stdin = await box.client.attach("tty", stdin=True, stdout=writer)
    assert stdin is not None
    pid, image = box.client.pid, os.stat(f"/proc/{box.client.pid}/exe").st_ino
    for _ in range(3):
        await box.client.reexec()
    assert box.client.pid == pid and Path(f"/proc/{pid}").exists()
    assert os.stat(f"/proc/{pid}/exe").st_ino != image, "it runs the same copy of the interpreter"
    os.write(stdin, b"still\n")
    await box.eventually(lambda: "got-still" in box.output("tty"), "the terminal's answer")
    assert b"still" in os.read(reader, 100)
    other = await box.client.attach("input", stdin=True)
    assert other is not None
    os.write(other, b"fed\n")
    await box.eventually(lambda: box.output("input") == "fed\n", "the input")
    assert (await box.ended("chatter")).code == 5
    expect_lines(box, "chatter", 60000, repeats=0)
    for fd in (reader, stdin, other, *launched.fds):
        os.close(fd)
    for name in ("tty", "input"):
        os.kill(box.pids[name], signal.SIGKILL)
        assert (await box.ended(name)).signal == 9
    assert len(os.listdir(f"/proc/{pid}/fd")) < 30


async def test_a_flood_does_not_starve_the_others(box: SupervisorBox) -> None:
    for index in range(3):
        spec = box.script(f"flood{index}", "exec yes flooding-the-log-with-a-line-of-some-length")
        await box.launch(spec._replace(log=Log(str(box.log_path(f"flood{index}")), 1 << 20, 2)))
    waits = []
    for index in range(10):
        start = time.monotonic()
        assert await box.run(f"c{index}", "echo quick") == "quick\n"
        waits.append(time.monotonic() - start)
    assert max(waits) < 2, f"a launch beside a flood took {max(waits):.2f} s"
    for index in range(3):
        os.kill(box.pids[f"flood{index}"], signal.SIGKILL)
        await box.ended(f"flood{index}")
        logs = list(box.root.glob(f"flood{index}.log*"))
        assert 1 <= len(logs) <= 2
        assert all(path.stat().st_size < (1 << 20) + 256 * 1024 for path in logs)


async def test_a_full_disk_loses_lines_and_not_the_container(box: SupervisorBox) -> None:
    spec = box.script("c", CHATTER.format(count=5000, code=0))
    await box.launch(spec._replace(log=Log("/dev/full", 0, 5)))
    await box.launch(box.script("gone", "echo x; exit 2")._replace(log=Log("/no/such/directory/c.log", 0, 5)))
    assert (await box.ended("c")).code == 0
    assert (await box.ended("gone")).code == 2
    assert any(name == "c" and "No space left" in text for name, text in box.warnings)
    assert any(name == "gone" and "/no/such/directory" in text for name, text in box.warnings)
    assert len(box.warnings) == 2, "one warning for a row of losses"


async def test_a_client_that_does_not_read_slows_the_container_and_one_that_hangs_up_does_not(
    box: SupervisorBox,
) -> None:
    await box.launch(
        box.script("c", "read x; " + CHATTER.format(count=50000, code=0), stdio=box.fifos("c", stdin=True))
    )
    reader, writer = os.pipe()
    gone, gone_writer = os.pipe()
    stdin = await box.client.attach("c", stdin=True, stdout=writer)
    await box.client.attach("c", stdin=False, stdout=gone_writer)
    os.close(gone)
    assert stdin is not None
    os.write(stdin, b"go\n")
    await asyncio.sleep(1)
    assert "c" not in box.exits, "the container did not wait for the client"
    data = b""
    os.set_blocking(reader, False)
    while True:
        try:
            chunk = os.read(reader, 1 << 20)
        except BlockingIOError:
            await asyncio.sleep(0.005)
            continue
        if not chunk:
            break
        data += chunk
    assert data.decode().split() == [f"line-{index}" for index in range(1, 50001)]
    assert (await box.ended("c")).code == 0
    expect_lines(box, "c", 50000, repeats=0)
    os.close(reader)
    os.close(stdin)


async def test_long_and_unfinished_lines(box: SupervisorBox) -> None:
    out = await box.run("c", "printf 'a%.0s' $(seq 40000); echo; printf end")
    assert out == "a" * 40000 + "\nend"
    assert [(tag, len(text)) for _, tag, text in box.records("c")] == [
        ("P", 16384),
        ("P", 16384),
        ("F", 40000 - 32768),
        ("P", 3),
    ]


async def test_rotated_by_others_and_reopened(box: SupervisorBox) -> None:
    launched = await box.launch(box.script("c", "echo one; read x; echo two", stdio=box.fifos("c", stdin=True)))
    await box.eventually(lambda: box.output("c") == "one\n", "the first line")
    moved = box.log_path("c").rename(box.root / "moved")
    await box.client.reopen_log("c")
    stdin = await box.client.attach("c", stdin=True)
    assert stdin is not None and launched.pid
    os.write(stdin, b"\n")
    os.close(stdin)
    await box.ended("c")
    assert box.output("c") == "two\n" and moved.read_text().endswith("one\n")


async def test_a_log_that_can_not_be_reopened_goes_on(box: SupervisorBox) -> None:
    """The caller hears of it: a kubelet then gives the file its name back, and nothing is lost."""
    await box.launch(box.script("c", "echo one; read x; echo two", stdio=box.fifos("c", stdin=True)))
    await box.eventually(lambda: box.output("c") == "one\n", "the first line")
    moved = box.log_path("c").rename(box.root / "moved")
    box.log_path("c").symlink_to("/etc/passwd")
    with pytest.raises(LaunchError, match="symbolic links"):
        await box.client.reopen_log("c")
    box.log_path("c").unlink()
    moved.rename(box.log_path("c"))
    stdin = await box.client.attach("c", stdin=True)
    assert stdin is not None
    os.write(stdin, b"\n")
    os.close(stdin)
    await box.ended("c")
    assert box.output("c") == "one\ntwo\n"


async def test_refusals(box: SupervisorBox) -> None:
    await box.launch(box.script("c", "sleep 60"))
    with pytest.raises(LaunchError, match="already"):
        await box.launch(box.script("c", "true"))
    with pytest.raises(LaunchError, match="still runs"):
        await box.client.forget("c")
    with pytest.raises(LaunchError, match="1 processes still run"):
        await box.client.shutdown()
    with pytest.raises(LaunchError, match="no process nope"):
        await box.client.drain("nope")
    with pytest.raises(LaunchError, match="standard input of c is closed"):
        await box.client.attach("c", stdin=True)
    with pytest.raises(LaunchError, match="unknown request"):
        await box.client._request({"op": "dance"})
    with pytest.raises(LaunchError, match="malformed"):
        await box.client._request({"op": "launch", "spec": [1, 2]})
    os.kill(box.pids["c"], signal.SIGKILL)
    await box.ended("c")


async def test_a_cancelled_launch_leaves_no_process(box: SupervisorBox) -> None:
    task = asyncio.create_task(box.client.launch(box.script("c", "sleep 60")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await box.eventually(lambda: not box.children(), "the end of the process nobody waits for")
    await box.client.forget("c")


async def test_a_second_supervisor_of_a_run_directory_refuses(box: SupervisorBox) -> None:
    from podrt.supervisor import interpreter

    process = await asyncio.create_subprocess_exec(
        *interpreter.command_line([str(box.config.run_dir), str(box.config.netns_dir)]),
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await process.communicate()
    assert process.returncode == 1 and b"another supervisor runs" in stderr
    assert await box.run("c", "echo alive") == "alive\n"


async def test_signals_do_not_end_it_and_size_is_small(box: SupervisorBox) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(box.client.pid, number)
    assert await box.run("c", "echo alive") == "alive\n"
    rollup = Path(f"/proc/{box.client.pid}/smaps_rollup").read_text()
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss < 16 * 1024, f"the supervisor takes {pss} KiB"


async def test_many_at_once(box: SupervisorBox) -> None:
    names = [f"c{index}" for index in range(40)]
    await asyncio.gather(
        *(box.launch(box.script(name, f"echo {name}; exit {index}")) for index, name in enumerate(names))
    )
    for index, name in enumerate(names):
        assert (await box.ended(name)).code == index
        assert box.output(name) == f"{name}\n"
        await box.client.forget(name)
    assert len(os.listdir(f"/proc/{box.client.pid}/fd")) < 20


async def test_a_daemon_of_another_version_upgrades_the_supervisor(
    box: SupervisorBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code on disk is not newer here, so the upgrade is tried and then said to be in vain."""
    await box.launch(box.script("c", "sleep 0.5; exit 3"))
    pid, image = box.client.pid, os.stat(f"/proc/{box.client.pid}/exe").st_ino
    await box.client.close()
    monkeypatch.setattr("podrt.engine.supervisor.VERSION", 99)
    other = box.new_client()
    with pytest.raises(UnavailableError, match=f"can't be upgraded: the supervisor speaks version {VERSION}, not 99"):
        await other.start()
    assert os.stat(f"/proc/{pid}/exe").st_ino != image
    await other.close()
    monkeypatch.undo()
    box.client = box.new_client()
    await box.start()
    assert box.client.pid == pid
    assert (await box.ended("c")).code == 3
