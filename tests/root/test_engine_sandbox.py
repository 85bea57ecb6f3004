"""What the containers of a sandbox share, what they don't, and the namespaces of the host."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from podrt.engine.specs import IdMap, Mount, NamespaceMode, SandboxState
from podrt.errors import ConflictError, InvalidError, NotFoundError
from tests.framework import probes
from tests.framework.engine import Lab, eventually
from tests.framework.patience import scaled

MAPS = (IdMap(inside=0, outside=300_000, count=65_536),)


@pytest_asyncio.fixture
async def lab(daemon_base: Path) -> AsyncIterator[Lab]:
    async with Lab.open(daemon_base) as lab:
        yield lab


async def test_status_and_pins(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    assert sandbox.state is SandboxState.READY
    assert Path(sandbox.netns).parent == lab.config.netns_dir
    assert os.statvfs(sandbox.netns)
    assert lab.engine.sandbox_status(sandbox.id) == sandbox
    assert sandbox.cgroup.startswith(f"{lab.config.cgroup_root}/pod")
    await lab.engine.stop_sandbox(sandbox.id)
    assert lab.engine.sandbox_status(sandbox.id).state is SandboxState.NOT_READY
    await lab.engine.stop_sandbox(sandbox.id)
    await lab.engine.remove_sandbox(sandbox.id)
    with pytest.raises(NotFoundError):
        lab.engine.sandbox_status(sandbox.id)
    await lab.engine.remove_sandbox(sandbox.id)
    await lab.engine.stop_sandbox(sandbox.id)


async def test_shared_and_own_namespaces(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    one, two = await lab.run(sandbox, "one"), await lab.run(sandbox, "two")
    other = await lab.run(await lab.sandbox("other"), "three")
    for kind, shared in {"net": 1, "uts": 1, "ipc": 1, "mnt": 0, "pid": 0, "cgroup": 0, "user": 1}.items():
        first, second, third = [await lab.sh(unit, f"readlink /proc/self/ns/{kind}") for unit in (one, two, other)]
        assert (first == second) == bool(shared), kind
        assert (first == third) == (kind == "user"), kind
        assert (first.strip() == os.readlink(f"/proc/self/ns/{kind}")) == (kind == "user"), kind


async def test_ipc_shm_mqueue_and_abstract_sockets(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    one, two = await lab.run(sandbox, "one"), await lab.run(sandbox, "two")
    other = await lab.run(await lab.sandbox("other"), "three")
    await lab.sh(one, "testtool shm-write 77 hello; testtool mq-send /q letter; echo x > /dev/shm/f")
    assert "hello" in await lab.sh(two, "testtool shm-read 77")
    assert "letter" in await lab.sh(two, "testtool mq-receive /q")
    assert await lab.sh(two, "cat /dev/shm/f") == "x\n"
    assert (await lab.sh(other, "ls /dev/shm /dev/mqueue")).split() == ["/dev/mqueue:", "/dev/shm:"]
    assert (await lab.engine.exec_sync(other, ["testtool", "shm-read", "77"])).code != 0
    session = await lab.engine.exec(one, ["testtool", "unix-listen", "@sock", "greeting"])
    await eventually(lambda: "@sock" in _unix(lab, one))
    assert "greeting" in await lab.sh(two, "testtool unix-connect @sock")
    assert (await lab.engine.exec_sync(other, ["testtool", "unix-connect", "@sock"])).code != 0
    await session.close()


def _unix(lab: Lab, container: str) -> str:
    return Path(f"/proc/{lab.engine.container_status(container).pid}/net/unix").read_text()


async def test_shm_size(lab: Lab) -> None:
    sandbox = await lab.sandbox(shm_size=1 << 20)
    container = await lab.run(sandbox, "c")
    assert (await lab.sh(container, "df -k /dev/shm | tail -1")).split()[1] == "1024"


async def test_shared_pid_namespace(lab: Lab) -> None:
    sandbox = await lab.sandbox(pid=NamespaceMode.POD)
    assert sandbox.pause_pid
    one, two = await lab.run(sandbox, "one"), await lab.run(sandbox, "two", "sleep", "1234")
    listing = await lab.sh(one, "ps -eo pid,args")
    assert "sleep 1234" in listing
    assert next(line for line in listing.splitlines() if line.split()[0] == "1").endswith("/pause")
    # PID 1 reaps what is orphaned.
    await lab.sh(two, "testtool orphans 5")
    await eventually(lambda: not _zombies(sandbox.cgroup))
    await lab.engine.stop_container(one, 0)
    assert lab.engine.container_status(two).pid


def _zombies(cgroup: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if cgroup in (entry / "cgroup").read_text() and " Z " in (entry / "stat").read_text():
                    found.append(entry.name)
            except OSError:
                continue
    return found


async def test_the_pause_process_is_harmless(lab: Lab) -> None:
    sandbox = await lab.sandbox(pid=NamespaceMode.POD)
    status = Path(f"/proc/{sandbox.pause_pid}/status").read_text()
    fields = dict(line.split(":\t") for line in status.splitlines())
    assert fields["Uid"].split()[0] == "65535"
    assert int(fields["CapBnd"], 16) == int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert os.listdir(f"/proc/{sandbox.pause_pid}/root") == ["pause"]
    rollup = Path(f"/proc/{sandbox.pause_pid}/smaps_rollup").read_text()
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss < 200


async def test_a_dead_pause_process_makes_the_sandbox_not_ready(lab: Lab) -> None:
    sandbox = await lab.sandbox(pid=NamespaceMode.POD)
    container = await lab.run(sandbox, "c")
    os.kill(sandbox.pause_pid, 9)
    assert (await lab.engine.wait_container(container)).exit_code == 137
    await eventually(lambda: lab.engine.sandbox_status(sandbox.id).state is SandboxState.NOT_READY)
    with pytest.raises(ConflictError, match="not ready"):
        await lab.create(sandbox, "d")


async def test_namespaces_of_the_host(lab: Lab) -> None:
    sandbox = await lab.sandbox(network=NamespaceMode.NODE, pid=NamespaceMode.NODE, ipc=NamespaceMode.NODE)
    assert (sandbox.ips, sandbox.netns) == ((), "")
    container = await lab.run(sandbox, "c")
    for kind in ("net", "uts", "ipc", "pid"):
        assert (await lab.sh(container, f"readlink /proc/self/ns/{kind}")).strip() == os.readlink(
            f"/proc/self/ns/{kind}"
        )
    assert (await lab.sh(container, "cat /etc/hostname")).strip() == os.uname().nodename
    assert (await lab.sh(container, "cat /proc/1/comm")).strip() == Path("/proc/1/comm").read_text().strip()
    # With the host's PIDs nothing but the cgroup ends what the first process leaves.
    left = await lab.run(sandbox, "left", "sh", "-c", "setsid sleep 4321 & sleep 0.1")
    await lab.engine.wait_container(left)
    assert "sleep 4321" not in await lab.sh(container, "ps -eo args")


async def test_sysctls(lab: Lab) -> None:
    sandbox = await lab.sandbox(sysctls={"net.ipv4.ip_local_port_range": "2000 3000", "kernel.msgmax": "4242"})
    container = await lab.run(sandbox, "c")
    output = await lab.sh(container, "cd /proc/sys; cat net/ipv4/ip_local_port_range kernel/msgmax")
    assert output.split() == ["2000", "3000", "4242"]
    assert Path("/proc/sys/kernel/msgmax").read_text().strip() != "4242"
    with pytest.raises(InvalidError, match=r"kernel\.core_pattern"):
        await lab.sandbox(sysctls={"kernel.core_pattern": "|/evil"})
    assert len(lab.engine.list_sandboxes()) == 1


async def test_low_ports_and_ping_without_capabilities(lab: Lab) -> None:
    sandbox = await lab.sandbox()
    container = await lab.run(sandbox, "c")
    assert await lab.sh(container, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start") == "0\n"


async def test_files(lab: Lab) -> None:
    sandbox = await lab.sandbox(dns_servers=("10.9.9.9",), dns_searches=("a.test",), dns_options=("ndots:5",))
    container = await lab.run(sandbox, "c")
    resolv = await lab.sh(container, "cat /etc/resolv.conf")
    assert "nameserver 10.9.9.9" in resolv
    assert "search a.test" in resolv
    assert "options ndots:5" in resolv
    hosts = await lab.sh(container, "cat /etc/hosts")
    assert "127.0.0.1\tlocalhost" in hosts
    assert f"{sandbox.ips[0]}\tpod-host" in hosts
    # Shared: what one container writes, the others see.
    other = await lab.run(sandbox, "d")
    await lab.sh(container, "echo '1.2.3.4 mine' >> /etc/hosts")
    assert "1.2.3.4 mine" in await lab.sh(other, "cat /etc/hosts")


async def test_two_sandboxes_of_one_pod_share_its_cgroup(lab: Lab) -> None:
    first = await lab.sandbox(uid="same")
    second = await lab.sandbox(uid="same")
    container = await lab.run(second, "c")
    assert first.cgroup == second.cgroup
    await lab.engine.remove_sandbox(first.id)
    assert lab.engine.container_status(container).pid
    assert os.path.exists(f"/proc/{lab.engine.container_status(container).pid}")


async def test_user_namespace(lab: Lab) -> None:
    if not probes.can_make_userns():
        pytest.skip("this machine lacks: user namespaces")
    volume = lab.config.run_dir.parent / "volume"
    volume.mkdir()
    (volume / "mine").write_text("x")
    sandbox = await lab.sandbox(uid_maps=MAPS, gid_maps=MAPS)
    container = await lab.run(sandbox, "c", mounts=(Mount(source=str(volume), destination="/data"),))
    pid = lab.engine.container_status(container).pid
    fields = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert fields["Uid"].split() == ["300000"] * 4
    assert (await lab.sh(container, "id -u; stat -c %u /bin/sh /data/mine /etc/hosts / /dev /dev/null")).split() == [
        "0"
    ] * 7
    await lab.sh(
        container, "echo new > /data/new; echo y > /root/y; chown 5:5 /root/y; echo z > /dev/shm/z; touch /etc/x"
    )
    assert (volume / "new").stat().st_uid == 0
    assert (await lab.sh(container, "stat -c %u:%g /root/y")) == "5:5\n"
    assert (await lab.sh(container, "readlink /proc/self/ns/user")).strip() != os.readlink("/proc/self/ns/user")
    tried = await lab.engine.exec_sync(container, ["sh", "-c", "umount /proc/keys || mount -o remount,rw /sys"])
    assert tried.code != 0


@pytest.mark.parametrize("maps", [(), MAPS], ids=["plain", "userns"])
async def test_containers_see_no_cgroup_but_their_own(lab: Lab, maps: tuple[IdMap, ...]) -> None:
    sandbox = await lab.sandbox(uid_maps=maps, gid_maps=maps)
    container = await lab.run(sandbox, "c")
    found = await lab.sh(
        container, "cd /sys/fs/cgroup; find . -name cgroup.procs; cat */cgroup.procs cgroup.procs; true"
    )
    assert found.count("cgroup.procs") >= 1
    assert not [line for line in found.splitlines() if line.startswith("./") and line.count("/") > 2]
    assert "1" in found.split()
    mounts = await lab.sh(container, "grep cgroup /proc/self/mountinfo")
    assert "/.." not in mounts
    script = "for procs in $(find /sys/fs/cgroup -name cgroup.procs); do mkdir ${procs%/*}/x && echo made; done; true"
    assert await lab.sh(container, script) == ""


async def test_user_namespace_with_shared_pids(lab: Lab) -> None:
    if not probes.can_make_userns():
        pytest.skip("this machine lacks: user namespaces")
    sandbox = await lab.sandbox(uid_maps=MAPS, gid_maps=MAPS, pid=NamespaceMode.POD)
    container = await lab.run(sandbox, "c")
    assert "/pause" in await lab.sh(container, "ps -eo args")


async def test_a_start_that_a_neighbour_holds_up_does_not_hold_up_the_end(lab: Lab) -> None:
    """With a shared PID namespace a container's root may stop what is about to become another container."""
    box = await lab.sandbox(pid=NamespaceMode.POD)
    await lab.run(box, "hostile", "sh", "-c", "while :; do kill -STOP -1; done")
    starting = [asyncio.create_task(lab.run(box, f"c{number}")) for number in range(3)]
    await asyncio.wait(starting, timeout=1)
    async with asyncio.timeout(scaled(15)):
        await lab.engine.stop_sandbox(box.id)
        await asyncio.gather(*starting, return_exceptions=True)
        await lab.engine.remove_sandbox(box.id)
