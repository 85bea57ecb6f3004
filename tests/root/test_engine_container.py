"""One container from create to remove: phases, exit codes, users, file systems, capabilities, limits."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from podrt.engine.specs import (
    ContainerState,
    Device,
    EventKind,
    Mount,
    NamespaceMode,
    Resources,
    SeccompKind,
    Security,
)
from podrt.errors import ConflictError, InvalidError, LaunchError, NotFoundError
from tests.framework.engine import Lab, eventually
from tests.framework.patience import scaled

MIB = 1 << 20


@pytest_asyncio.fixture
async def lab(daemon_base: Path) -> AsyncIterator[Lab]:
    async with Lab.open(daemon_base) as lab:
        yield lab


async def test_life_of_a_container(lab: Lab) -> None:
    events = lab.engine.subscribe()
    sandbox = await lab.sandbox()
    container = await lab.create(sandbox, "c", "sh", "-c", "echo out; echo err >&2; exit 3")
    status = lab.engine.container_status(container)
    assert (status.state, status.pid, status.started_at) == (ContainerState.CREATED, 0, 0)
    started = await lab.engine.start_container(container)
    assert started.state is ContainerState.RUNNING
    assert started.pid > 0
    ended = await lab.engine.wait_container(container)
    assert (ended.state, ended.exit_code, ended.reason, ended.pid) == (ContainerState.EXITED, 3, "Error", 0)
    assert ended.created_at <= ended.started_at <= ended.finished_at <= time.time()
    assert sorted(lab.log(container).split()) == ["err", "out"]
    await lab.engine.remove_container(container)
    with pytest.raises(NotFoundError):
        lab.engine.container_status(container)
    await lab.engine.remove_container(container)
    seen = [events.get_nowait().kind for _ in range(events.qsize())]
    assert seen == [
        EventKind.SANDBOX_READY,
        EventKind.CONTAINER_CREATED,
        EventKind.CONTAINER_STARTED,
        EventKind.CONTAINER_STOPPED,
        EventKind.CONTAINER_DELETED,
    ]


async def test_phases_that_may_not_follow(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    container = await lab.run(sandbox, "c")
    with pytest.raises(ConflictError, match="cannot go from running to running"):
        await lab.engine.start_container(container)
    await lab.engine.stop_container(container, 0)
    with pytest.raises(ConflictError, match="cannot go from exited to running"):
        await lab.engine.start_container(container)
    with pytest.raises(ConflictError, match=r"cannot exec into container c .* it is exited"):
        await lab.engine.exec(container, ["true"])
    await lab.engine.stop_sandbox(sandbox.id)
    with pytest.raises(ConflictError, match="is notready, not ready"):
        await lab.create(sandbox, "late")


@pytest.mark.parametrize(
    ("command", "step", "message"),
    [
        (("/no/such/file",), "exec", "/no/such/file"),
        (("nosuchcommand",), "exec", "not found in \\$PATH"),
        (("/etc/passwd",), "exec", "permission denied"),
    ],
)
async def test_commands_that_cannot_be_executed(lab: Lab, command: tuple[str, ...], step: str, message: str) -> None:
    sandbox = await lab.sandbox()
    container = await lab.create(sandbox, "c", *command)
    with pytest.raises(LaunchError, match=message) as caught:
        await lab.engine.start_container(container)
    assert caught.value.step == step
    status = await asyncio.wait_for(lab.engine.wait_container(container), scaled(5))
    assert (status.state, status.exit_code, status.reason) == (ContainerState.EXITED, 128, "StartError")
    assert status.started_at == 0


async def test_unknown_image_and_missing_volume(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    with pytest.raises(NotFoundError, match="localhost/nope"):
        await lab.create(sandbox, "c", image="localhost/nope:latest")
    with pytest.raises(InvalidError, match="container c: mount of /data: source '/no/such'"):
        await lab.create(sandbox, "c", mounts=(Mount(source="/no/such", destination="/data"),))
    assert lab.engine.list_containers() == []


@pytest.mark.parametrize("number", [9, 15, 6])
async def test_killed_by_a_signal(lab: Lab, number: int) -> None:
    # As PID 1 of a namespace of its own it would ignore signals that it has no handler for.
    sandbox = await lab.sandbox(pid=NamespaceMode.POD)
    container = await lab.run(sandbox, "c")
    os.kill(lab.engine.container_status(container).pid, number)
    status = await asyncio.wait_for(lab.engine.wait_container(container), scaled(10))
    assert (status.exit_code, status.reason) == (128 + number, "Error")


async def test_stop_with_grace_and_handler(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    script = "trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.05; done"
    container = await lab.run(sandbox, "c", "sh", "-c", script)
    await eventually(lambda: "ready" in lab.log(container))
    begin = time.monotonic()
    await lab.engine.stop_container(container, 10)
    assert time.monotonic() - begin < scaled(2)
    assert lab.engine.container_status(container).exit_code == 4
    assert lab.log(container).split() == ["ready", "bye"]
    await lab.engine.stop_container(container, 10)


async def test_stop_kills_after_grace_and_a_second_call_shortens(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    deaf = ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    first = await lab.run(sandbox, "one", *deaf)
    second = await lab.run(sandbox, "two", *deaf)
    await eventually(lambda: "ready" in lab.log(first) and "ready" in lab.log(second))
    begin = time.monotonic()
    await lab.engine.stop_container(first, 0.3)
    assert 0.3 <= time.monotonic() - begin < scaled(2)
    assert lab.engine.container_status(first).exit_code == 137
    begin = time.monotonic()
    patient = asyncio.create_task(lab.engine.stop_container(second, 60))
    await asyncio.sleep(0.05)
    await lab.engine.stop_container(second, 0.2)
    await patient
    assert time.monotonic() - begin < scaled(5)


async def test_stop_signal_of_spec_and_by_name(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    script = "trap 'exit 11' USR1; trap 'exit 12' USR2; echo ready; while :; do sleep 0.05; done"
    for name, argument, code in (("one", "", 11), ("two", "USR2", 12)):
        container = await lab.run(sandbox, name, "sh", "-c", script, stop_signal="SIGUSR1")
        await eventually(lambda container=container: "ready" in lab.log(container))  # type: ignore[misc]
        await lab.engine.stop_container(container, 10, argument)
        assert lab.engine.container_status(container).exit_code == code


async def test_what_the_first_process_leaves_is_killed(lab: Lab) -> None:
    sandbox = await lab.sandbox(pid=NamespaceMode.POD)
    container = await lab.run(sandbox, "c", "sh", "-c", "setsid sleep 1000 & echo $!; exec sleep 0.1")
    status = await asyncio.wait_for(lab.engine.wait_container(container), scaled(10))
    assert status.exit_code == 0
    other = await lab.run(sandbox, "d")
    assert "sleep" not in await lab.sh(other, "ps -eo comm=")


async def test_out_of_memory_is_told_and_the_neighbour_lives(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    neighbour = await lab.run(sandbox, "neighbour")
    status = await lab.finished(
        sandbox, "hog", "testtool", "mem", "256", "60", resources=Resources(memory_limit=32 * MIB)
    )
    assert (status.reason, status.exit_code) == ("OOMKilled", 137)
    assert lab.engine.container_status(neighbour).state is ContainerState.RUNNING


async def test_cpu_and_pids_limits(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    container = await lab.run(
        sandbox, "c", "testtool", "spin", "1", "1000", resources=Resources(cpu_quota=20_000, pids_limit=20)
    )
    await asyncio.sleep(0.1)
    before = await lab.engine.container_stats(container)
    await asyncio.sleep(1)
    after = await lab.engine.container_stats(container)
    used = (after.cpu_usage_ns - before.cpu_usage_ns) / 1e9 / (after.at - before.at)
    assert 0.1 < used < 0.3
    assert after.cpu_throttled_ns > before.cpu_throttled_ns
    result = await lab.engine.exec_sync(container, ["testtool", "fork", "100", "0"], 20)
    assert b"100" not in result.stdout.split()[:1]
    assert (await lab.engine.container_stats(container)).pids <= 20
    await lab.engine.update_container(container, Resources(cpu_quota=50_000))
    assert lab.engine.container_status(container).spec.resources.cpu_quota == 50_000


async def test_users_and_groups(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    security = Security(user="1234", group="2345", supplemental_groups=(77, 88))
    container = await lab.run(sandbox, "c", security=security)
    assert (await lab.sh(container, "id -u; id -g; id -G")).split()[:2] == ["1234", "2345"]
    assert {"77", "88", "2345"} <= set((await lab.sh(container, "id -G")).split())
    status = lab.engine.container_status(container)
    assert (status.uid, status.gid) == (1234, 2345)
    assert {77, 88} <= set(status.groups)
    named = await lab.run(sandbox, "named", security=Security(user="nobody"))
    assert (await lab.sh(named, "id -un")).strip() == "nobody"
    refused = await lab.create(sandbox, "root", "true", security=Security(run_as_non_root=True))
    with pytest.raises(LaunchError) as caught:
        await lab.engine.start_container(refused)
    assert caught.value.step == "user"


async def test_capabilities_seccomp_and_no_new_privs(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    plain = await lab.sh(
        await lab.run(sandbox, "plain"), "grep -E 'CapEff|CapBnd|Seccomp:|NoNewPrivs' /proc/self/status"
    )
    fields = dict(line.split(":\t") for line in plain.splitlines())
    default = int(fields["CapEff"], 16)
    assert fields["Seccomp"] == "2"
    assert fields["NoNewPrivs"] == "0"
    assert not default & 1 << 21, "CAP_SYS_ADMIN is none of the defaults"
    assert default & 1 << 0
    security = Security(
        drop_capabilities=("ALL",), add_capabilities=("NET_ADMIN",), seccomp=SeccompKind.UNCONFINED, no_new_privs=True
    )
    tight = await lab.sh(await lab.run(sandbox, "tight", security=security), "cat /proc/self/status")
    fields = dict(line.split(":\t") for line in tight.splitlines())
    assert int(fields["CapEff"], 16) == 1 << 12
    assert (fields["Seccomp"], fields["NoNewPrivs"]) == ("0", "1")


async def test_privileged(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    container = await lab.run(sandbox, "c", security=Security(privileged=True))
    assert await lab.sh(container, "test -w /sys/kernel && test -e /dev/kmsg -o -e /dev/vda && echo yes") == "yes\n"
    await lab.sh(container, "mkdir -p /tmp/m && mount -t tmpfs none /tmp/m && umount /tmp/m")


async def test_read_only_root_and_masks(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    volume = lab.config.run_dir.parent / "volume"
    volume.mkdir()
    container = await lab.run(
        sandbox,
        "c",
        security=Security(read_only_root=True),
        mounts=(Mount(source=str(volume), destination="/data"),),
    )
    failed = await lab.engine.exec_sync(container, ["sh", "-c", "touch /x"])
    assert b"Read-only" in failed.stderr
    await lab.sh(container, "echo hi > /data/file; echo > /dev/null; test -w /dev/shm")
    assert (volume / "file").read_text() == "hi\n"
    for path in ("/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/mm", "/etc/hosts"):
        tried = await lab.engine.exec_sync(container, ["sh", "-c", f"echo x > {path}"])
        assert tried.code != 0, path
    assert await lab.sh(container, "cat /proc/keys /proc/timer_list; ls /sys/firmware") == ""


async def test_mount_variants(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    base = lab.config.run_dir.parent / "volumes"
    (base / "dir").mkdir(parents=True)
    (base / "file").write_text("content")
    mounts = (
        Mount(source=str(base / "dir"), destination="/made/for/it", read_only=True),
        Mount(source=str(base / "file"), destination="/etc/one"),
        Mount(source=str(base), destination="/made"),
    )
    container = await lab.run(sandbox, "c", mounts=mounts)
    assert await lab.sh(container, "cat /etc/one; ls /made") == "contentdir\nfile\nfor\n"
    refused = await lab.engine.exec_sync(container, ["touch", "/made/for/it/x"])
    assert refused.code != 0
    # The mount point was made in the volume that lies beneath, as a nested mount needs it.
    assert (base / "for" / "it").is_dir()


async def test_devices(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    device = Device(host_path="/dev/fuse", container_path="/dev/mine", permissions="r")
    with_it = await lab.run(sandbox, "with", devices=(device,))
    assert (await lab.sh(with_it, "stat -c %t:%T /dev/mine")).strip() == "a:e5"
    await lab.sh(with_it, "head -c0 < /dev/mine")
    without = await lab.run(sandbox, "without")
    tried = await lab.engine.exec_sync(without, ["sh", "-c", "mknod /tmp/k c 10 229 && head -c0 < /tmp/k"])
    assert b"not permitted" in tried.stderr
    with pytest.raises(InvalidError, match="/dev/nope"):
        await lab.create(sandbox, "bad", devices=(Device(host_path="/dev/nope", container_path="/dev/x"),))


async def test_environment_directory_and_hostname(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    container = await lab.run(sandbox, "c", env=(("A", "1"), ("A", "2")), working_dir="/made/here")
    output = await lab.sh(container, "echo $A $HOSTNAME $HOME; pwd; hostname; cat /etc/hostname")
    assert output.split() == ["2", "pod-host", "/root", "/made/here", "pod-host", "pod-host"]


async def test_limits_on_open_files(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    container = await lab.run(sandbox, "c", rlimits={"RLIMIT_NOFILE": (100, 200), "core": (0, 0)})
    assert (await lab.sh(container, "ulimit -n; ulimit -Hn; ulimit -c")).split() == ["100", "200", "0"]


async def test_remove_of_a_running_container(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    container = await lab.run(sandbox, "c")
    pid = lab.engine.container_status(container).pid
    waiter = asyncio.create_task(lab.engine.wait_container(container))
    await asyncio.sleep(0)
    await lab.engine.remove_container(container)
    assert (await waiter).exit_code == 137
    assert not Path(f"/proc/{pid}").exists()
    assert lab.engine.list_containers() == []


async def test_many_at_once(lab: Lab) -> None:
    sandboxes = await asyncio.gather(*(lab.sandbox(f"p{number}") for number in range(8)))
    await asyncio.gather(*(lab.run(sandbox, name) for sandbox in sandboxes for name in ("a", "b")))
    assert len(lab.engine.list_containers()) == 16
    assert all(status.state is ContainerState.RUNNING for status in lab.engine.list_containers())
    await asyncio.gather(*(lab.engine.remove_sandbox(sandbox.id) for sandbox in sandboxes))
    assert await lab.left() == []


async def test_a_cancelled_create_leaves_nothing(lab: Lab) -> None:
    for delay in (0, 0.001, 0.003, 0.006, 0.01, 0.02):
        task = asyncio.create_task(lab.sandbox("cancelled"))
        await asyncio.sleep(delay)
        task.cancel()
        try:
            sandbox = await task
        except asyncio.CancelledError:
            continue
        await lab.engine.remove_sandbox(sandbox.id)
    assert lab.engine.list_sandboxes() == []
    assert await lab.left() == []
