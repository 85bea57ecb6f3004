"""Commands by a list of steps: they find what a command of the ordinary way finds, and nothing is lost or left."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from podrt.engine import exec as executing
from podrt.engine import quick
from podrt.engine.specs import IdMap, NamespaceMode, Security
from podrt.errors import ConflictError, DeadlineError, LaunchError, UnavailableError
from podrt.supervisor.quick import PROGRAM
from tests.framework.engine import Lab
from tests.framework.patience import scaled

MAPS = (IdMap(inside=0, outside=700_000, count=65_536),)
SHOW = """
grep -E '^(Umask|Uid|Gid|Groups|Sig[BIC]|NoNewPrivs|Seccomp|Cap)' /proc/self/status
env | sort
pwd
ls -l /proc/self/fd | wc -l
grep -v -e processes -e pending /proc/self/limits
cat /proc/self/cgroup /proc/self/oom_score_adj
cat /proc/self/attr/current /proc/self/loginuid 2>/dev/null
for kind in net uts ipc pid cgroup mnt user; do readlink /proc/self/ns/$kind; done
read -r pid name state parent group session rest < /proc/self/stat
[ "$pid" = "$session" ] && [ "$pid" = "$group" ] && echo "leads a session"
echo to the error by name > /dev/stderr
head -c 1 /dev/stdin | wc -c
"""


@pytest_asyncio.fixture
async def lab(daemon_base: Path) -> AsyncIterator[Lab]:
    async with Lab.open(daemon_base) as lab:
        yield lab


@pytest.fixture
def only_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that takes the ordinary way fails."""

    async def refuse(*_: Any) -> None:
        raise AssertionError("the command took the ordinary way")

    monkeypatch.setattr(executing, "_run_session", refuse)


@pytest.mark.parametrize(
    ("fields", "sandbox"),
    [
        ({}, {}),
        ({"security": Security(user="1234", supplemental_groups=(7, 9)), "env": (("HOME", "/tmp"),)}, {}),
        ({"security": Security(user="nobody:root", no_new_privs=True)}, {}),
        ({"security": Security(no_new_privs=True, drop_capabilities=("ALL",), add_capabilities=("KILL",))}, {}),
        ({"security": Security(user="65534", add_ambient_capabilities=("NET_BIND_SERVICE",))}, {}),
        ({"security": Security(privileged=True), "oom_score_adj": 500}, {}),
        ({"working_dir": "/usr/bin/..", "env": (("PATH", "/nowhere::/bin"), ("TWICE", "1"), ("TWICE", "2"))}, {}),
        ({}, {"uid_maps": MAPS, "gid_maps": MAPS}),
        ({"security": Security(user="1000", no_new_privs=True)}, {"uid_maps": MAPS, "gid_maps": MAPS}),
        ({}, {"pid": NamespaceMode.POD}),
        ({}, {"pid": NamespaceMode.NODE, "network": NamespaceMode.NODE, "ipc": NamespaceMode.NODE}),
    ],
)
async def test_both_ways_are_alike(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], sandbox: dict[str, Any]
) -> None:
    container = await lab.run(await lab.sandbox(**sandbox), "c", **fields)
    found = []
    for way in ("list", "ordinary"):
        with monkeypatch.context() as patch:
            if way == "list":
                patch.setattr(executing, "_run_session", None)
            else:
                patch.setattr(quick, "list_of", lambda *_: None)
            result = await lab.engine.exec_sync(container, ("sh", "-c", SHOW), scaled(20))
        assert result.code == 0, result
        found.append((result.stdout.decode().splitlines(), result.stderr))
    assert found[0] == found[1]
    assert "leads a session" in found[0][0]


async def test_a_failing_step_is_told_by_the_ordinary_way(lab: Lab) -> None:
    """The working directory is gone: the list can't enter it, the ordinary way makes it."""
    container = await lab.run(await lab.sandbox(), "c", working_dir="/made/for/it")
    assert await lab.sh(container, "pwd; rmdir /made/for/it") == "/made/for/it\n"
    assert await lab.sh(container, "pwd; ls -d /made/for/it") == "/made/for/it\n/made/for/it\n"
    for _ in range(2):
        with pytest.raises(LaunchError, match="permission denied"):
            await lab.engine.exec_sync(container, ["/etc/passwd"])


@pytest.mark.usefixtures("only_lists")
async def test_a_working_directory_that_became_a_link(lab: Lab) -> None:
    """CVE-2024-21626: it stays inside the root; so does an absolute link."""
    container = await lab.run(await lab.sandbox(), "c", working_dir="/work")
    await lab.sh(container, "mkdir /inside; cd /; rmdir /work; ln -s ../../../inside /work")
    assert await lab.sh(container, "pwd -P") == "/inside\n"


@pytest.mark.usefixtures("only_lists")
async def test_exit_codes_of_its_own_are_not_mistaken(lab: Lab) -> None:
    container = await lab.run(await lab.sandbox(), "c")
    for code in (125, 126, 127):
        assert (await lab.engine.exec_sync(container, ["sh", "-c", f"echo >> /count; exit {code}"])).code == code
    assert await lab.sh(container, "wc -l < /count") == "3\n"
    assert (await lab.engine.exec_sync(container, ["sh", "-c", "kill -TERM $$"])).code == 128 + signal.SIGTERM
    # CVE-2019-5736: what the command was executed from is the program, and without a list it does nothing.
    assert (await lab.engine.exec_sync(container, ["/proc/self/exe"])).code == 125


async def test_cve_2019_5736_the_program_is_sealed(lab: Lab) -> None:
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
    image = Path(PROGRAM).read_bytes()
    found = []
    for entry in Path(f"/proc/{lab.supervisor_pid}/fd").iterdir():
        if os.readlink(entry).startswith("/memfd:podrt-supervisor") and entry.read_bytes() == image:
            with entry.open("rb") as file:
                found.append(fcntl.fcntl(file, fcntl.F_GET_SEALS) & seals == seals)
    assert found == [True]


async def test_a_container_that_stops_all_it_can_see(lab: Lab) -> None:
    """Its root may send signals to what is about to become a command in it. Nothing but that command may stand still:
    while a posix_spawn(3) is under way, its parent does too."""
    box = await lab.sandbox()
    hostile = await lab.run(box, "c", command=("sh", "-c", "while :; do kill -STOP -1; done"))
    other = await lab.run(box, "d")
    for _ in range(10):
        with contextlib.suppress(DeadlineError):
            await lab.engine.exec_sync(hostile, ["true"], 0.3)
        assert (await lab.engine.exec_sync(other, ["true"], scaled(10))).code == 0


async def test_a_container_whose_end_could_not_be_written_down(lab: Lab) -> None:
    """Its pidfd is closed but its record says that it runs: that must not cost the connection to the supervisor."""
    box = await lab.sandbox()
    ended, other = await lab.run(box, "c"), await lab.run(box, "d")
    unit = lab.engine._machine.containers[ended]
    pidfd, unit.pidfd = unit.pidfd, -1
    try:
        waiting = asyncio.create_task(lab.engine.exec_sync(other, ["sleep", "0.5"]))
        await asyncio.sleep(0)
        with pytest.raises(ConflictError, match="not running"):
            await lab.engine.exec_sync(ended, ["true"])
        assert (await waiting).code == 0
    finally:
        unit.pidfd = pidfd


@pytest.mark.usefixtures("only_lists")
async def test_many_at_once_leave_no_descriptor(lab: Lab) -> None:
    container = await lab.run(await lab.sandbox(), "c")

    def open_files() -> list[int]:
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in (os.getpid(), lab.supervisor_pid)]

    await lab.sh(container, "echo 0")
    before = open_files()
    for start in range(0, 60, 20):
        results = await asyncio.gather(
            *(
                lab.engine.exec_sync(container, ["sh", "-c", f"echo {n}; echo {-n} >&2"])
                for n in range(start, start + 20)
            )
        )
        for number, result in enumerate(results, start):
            assert (result.stdout, result.stderr) == (b"%d\n" % number, b"%d\n" % -number)
    kept = [len(unit.lists) for unit in lab.engine._machine.containers.values()]
    assert open_files() == [before[0] + sum(kept) - 1, before[1]] and kept == [quick._MAX_LISTS]


@pytest.mark.usefixtures("only_lists")
async def test_output_without_end_holds_up_nobody(lab: Lab) -> None:
    """What the command has left behind floods its pipe; the daemon goes on, and the reader is gone soon."""
    container = await lab.run(await lab.sandbox(), "c")
    async with asyncio.timeout(scaled(10)):
        result = await lab.engine.exec_sync(container, ["sh", "-c", "yes & exit 3"], max_bytes=1000)
    assert (result.code, len(result.stdout)) == (3, 1000)
    with pytest.raises(DeadlineError):
        await lab.engine.exec_sync(container, ["yes"], timeout=0.2)
    # A zombie of it may be left, for its new parent reaps nothing.
    assert "\nyes\n" not in await lab.sh(container, "sleep 0.1; ps -eo args")


@pytest.mark.usefixtures("only_lists")
async def test_a_cancelled_command_is_killed(lab: Lab) -> None:
    container = await lab.run(await lab.sandbox(), "c")
    task = asyncio.create_task(lab.engine.exec_sync(container, ["sh", "-c", "echo >> /begun; sleep 555"]))
    while (await lab.engine.exec_sync(container, ["test", "-e", "/begun"])).code != 0:
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "sleep 555" not in await lab.sh(container, "ps -eo args | grep -v grep")
    with pytest.raises(DeadlineError):
        await lab.engine.exec_sync(container, ["sleep", "556"], timeout=0.1)
    assert "sleep 556" not in await lab.sh(container, "ps -eo args | grep -v grep")


@pytest.mark.usefixtures("only_lists")
async def test_a_supervisor_that_is_upgraded_meanwhile_answers(lab: Lab) -> None:
    container = await lab.run(await lab.sandbox(), "c")
    task = asyncio.create_task(
        lab.engine.exec_sync(container, ["sh", "-c", "until test -e /go; do sleep 0.1; done; exit 7"])
    )
    await asyncio.sleep(0)
    await lab.engine._machine.supervisor.reexec()
    await lab.sh(container, "touch /go")
    assert (await task).code == 7


async def test_a_supervisor_that_dies_meanwhile(lab: Lab) -> None:
    container = await lab.run(await lab.sandbox(), "c")
    task = asyncio.create_task(lab.engine.exec_sync(container, ["sh", "-c", "exec sleep 557"]))
    old = lab.supervisor_pid
    while "sleep 557" not in await lab.sh(container, "ps -eo args | grep -v grep"):
        await asyncio.sleep(0.02)
    os.kill(old, signal.SIGKILL)
    with pytest.raises(UnavailableError, match="gone away"):
        await task
    # It has died with the supervisor, and the next one serves.
    assert "sleep 557" not in await lab.sh(container, "ps -eo args | grep -v grep")
    assert lab.supervisor_pid != old


async def test_a_daemon_that_goes_away_meanwhile(lab: Lab) -> None:
    """The next daemon ends the command, and gets no answer that it did not ask for."""
    container = await lab.run(await lab.sandbox(), "c")
    task = asyncio.create_task(lab.engine.exec_sync(container, ["sh", "-c", "exec sleep 558"]))
    while "sleep 558" not in await lab.sh(container, "ps -eo args | grep -v grep"):
        await asyncio.sleep(0.02)
    await lab.restart()
    with pytest.raises(UnavailableError):
        await task
    while "sleep 558" in await lab.sh(container, "ps -eo args | grep -v grep"):
        await asyncio.sleep(0.02)
    assert await lab.sh(container, "echo well") == "well\n"
