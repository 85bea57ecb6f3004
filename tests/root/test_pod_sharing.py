"""What the containers of a Pod share and what they don't, and the limits that hold between neighbours."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import TOOLS, container, pod, restarts, status, statuses, terminated

MIB = 1 << 20


def tool(name: str, script: str = "", **fields: Any) -> dict[str, Any]:
    return container(name, script, image=TOOLS, **fields)


def pair(name: str, **spec: Any) -> dict[str, Any]:
    shared = [{"name": "shared", "mountPath": "/shared"}]
    return pod(
        name,
        tool("one", volumeMounts=shared),
        tool("two", volumeMounts=shared),
        volumes=[{"name": "shared", "emptyDir": {}}],
        **spec,
    )


@pytest.fixture(scope="module")
def two(module_daemon: Daemon) -> Daemon:
    """A daemon with the running Pod ``pair``, which all tests of this file share."""
    module_daemon.apply(pair("pair"))
    module_daemon.wait_for("pair", "Running")
    return module_daemon


@pytest.fixture
def beside(two: Daemon) -> Iterator[Daemon]:
    """The same daemon, for a test with Pods of its own, which are deleted after it."""
    yield two
    for found in two.pods():
        if found["metadata"]["name"] != "pair":
            two.delete(found["metadata"]["name"], grace=0)


def both(daemon: Daemon, *command: str, name: str = "pair") -> tuple[str, str]:
    return daemon.exec(name, *command, container="one"), daemon.exec(name, *command, container="two")


@pytest.mark.parametrize("kind", ["net", "uts", "ipc"])
def test_shared_namespaces(two: Daemon, kind: str) -> None:
    one, other = both(two, "readlink", f"/proc/self/ns/{kind}")
    assert one == other
    assert one.strip() != os.readlink(f"/proc/self/ns/{kind}")


@pytest.mark.parametrize("kind", ["mnt", "pid", "cgroup"])
def test_own_namespaces(two: Daemon, kind: str) -> None:
    one, other = both(two, "readlink", f"/proc/self/ns/{kind}")
    assert one != other
    assert os.readlink(f"/proc/self/ns/{kind}") not in (one.strip(), other.strip())


def test_one_address(two: Daemon) -> None:
    one, other = both(two, "ip", "-o", "addr", "show", "eth0")
    assert one == other
    for ip in two.pod("pair")["status"]["podIPs"]:
        assert f" {ip['ip']}/" in one


def test_one_port_space_and_localhost(two: Daemon) -> None:
    assert (
        two.exec(
            "pair",
            "sh",
            "-c",
            "socat TCP-LISTEN:7000,reuseaddr,fork SYSTEM:'echo served' >/dev/null 2>&1 &",
            container="one",
        )
        == ""
    )
    eventually(
        lambda: (
            two.exec("pair", "sh", "-c", "socat - TCP:localhost:7000 </dev/null", container="two", check=False)
            == "served\n"
        )
    )
    second = two.cli("exec", "pair", "-c", "two", "--", "socat", "TCP-LISTEN:7000", "STDOUT", check=False)
    assert second.returncode != 0
    assert "Address already in use" in second.stderr


def test_one_host_name(two: Daemon) -> None:
    assert both(two, "hostname") == ("pair\n", "pair\n")
    for text in both(two, "cat", "/etc/hosts"):
        assert text.startswith("# Kubernetes-managed hosts file.\n")
        assert f"{two.pod('pair')['status']['podIP']}\tpair" in text


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (("testtool", "shm-write", "77", "sysv"), ("testtool", "shm-read", "77")),
        (("testtool", "mq-send", "/queue", "posix"), ("testtool", "mq-receive", "/queue")),
        (("sh", "-c", "echo memory > /dev/shm/x"), ("cat", "/dev/shm/x")),
        (("sh", "-c", "echo disk > /shared/x"), ("cat", "/shared/x")),
    ],
)
def test_shared_memory_queues_and_volumes(two: Daemon, write: tuple[str, ...], read: tuple[str, ...]) -> None:
    two.exec("pair", *write, container="one")
    assert two.exec("pair", *read, container="two").strip() in ("sysv", "posix", "memory", "disk")


@pytest.mark.parametrize("address", ["ABSTRACT-LISTEN:podrt-test", "UNIX-LISTEN:/shared/socket"])
def test_unix_sockets(two: Daemon, address: str) -> None:
    two.exec("pair", "sh", "-c", f"socat {address},fork SYSTEM:'echo {address[:4]}' >/dev/null 2>&1 &", container="one")
    client = address.replace("-LISTEN", "-CONNECT")
    eventually(
        lambda: (
            two.exec("pair", "sh", "-c", f"socat - {client} </dev/null", container="two", check=False)
            == f"{address[:4]}\n"
        )
    )


def test_files_and_mounts_are_their_own(two: Daemon) -> None:
    two.exec("pair", "sh", "-c", "echo private > /root/x", container="one")
    assert two.cli("exec", "pair", "-c", "two", "--", "cat", "/root/x", check=False).returncode == 1


def test_processes_are_their_own(two: Daemon) -> None:
    for text in both(two, "sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '"):
        assert text.startswith("sh -c trap")
    one, _ = both(two, "sh", "-c", "ls -d /proc/[0-9]* | wc -l")
    assert int(one) < 20


@pytest.mark.fields("spec.shareProcessNamespace")
def test_processes_are_shared_on_request(beside: Daemon) -> None:
    beside.apply(pair("family", shareProcessNamespace=True))
    beside.wait_for("family", "Running")
    one, other = both(beside, "readlink", "/proc/self/ns/pid", name="family")
    assert one == other
    names = beside.exec("family", "sh", "-c", "cat /proc/1/comm; grep -l one /proc/*/environ | wc -l", container="two")
    assert names.splitlines()[0] == "pause"
    # An orphan is reaped by the pause process, and a signal reaches the neighbour.
    beside.exec("family", "sh", "-c", "(sleep 0.1 &) ; exit 0", container="one")
    time.sleep(0.5)
    assert "Z" not in beside.exec(
        "family", "sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null | cut -d' ' -f3 | tr -d '\\n'", container="two"
    )


def test_the_sandbox_is_visible_to_ip_netns(two: Daemon) -> None:
    names = os.listdir(two.config.netns_dir)
    assert len([name for name in names if name.startswith("podrt-")]) == 1


def test_each_container_has_its_own_cgroup_below_the_pods(two: Daemon) -> None:
    uid = two.pod("pair")["metadata"]["uid"]
    found = [path for path in two.cgroups() if uid in path]
    idents = [one["containerID"].removeprefix("podrt://") for one in statuses(two.pod("pair")).values()]
    for ident in idents:
        assert any(path.endswith(ident) and uid in path for path in found), found


# Limits


def limits(**values: str) -> dict[str, Any]:
    return {"limits": values}


def test_a_memory_hog_is_killed_and_its_neighbour_lives(beside: Daemon) -> None:
    hog = tool("hog", command=["testtool", "mem", "200"], resources=limits(memory="32Mi"))
    beside.apply(pod("greedy", hog, tool("calm"), restartPolicy="Never"))
    found = beside.wait_for("greedy", lambda found: terminated(found, "hog"))
    assert (terminated(found, "hog")["reason"], terminated(found, "hog")["exitCode"]) == ("OOMKilled", 137)
    assert "running" in status(found, "calm")["state"]
    assert restarts(found, "calm") == 0


@pytest.mark.fields("spec.containers[].resources")
def test_a_cpu_hog_is_throttled_to_its_limit(beside: Daemon) -> None:
    hog = tool("hog", "while :; do :; done", resources=limits(cpu="100m"))
    beside.apply(pod("busy", hog))
    beside.wait_for("busy", "Running")
    time.sleep(0.5)

    def used() -> float:
        fields = beside.exec("busy", "cat", "/proc/1/stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before, started = used(), time.monotonic()
    time.sleep(3)
    share = (used() - before) / (time.monotonic() - started)
    assert 0.02 < share < 0.2, f"a limit of 100m let it use {share:.2f} cores"


def test_a_fork_bomb_stops_at_its_limit(daemon_factory: Any) -> None:
    daemon = daemon_factory(pids_limit=64)
    daemon.apply(pod("bomb", tool("bomb", "testtool fork 1000 1000; echo ended; sleep 1000"), tool("calm")))
    daemon.wait_for("bomb", "Running")
    eventually(lambda: daemon.logs("bomb", "bomb"), 20)
    pids = [path for path in daemon.cgroups("pids") if status(daemon.pod("bomb"), "bomb")["containerID"][8:] in path]
    assert pids
    assert (pids and int(Path(pids[0], "pids.current").read_text())) <= 64
    assert daemon.exec("bomb", "echo", "alive", container="calm") == "alive\n"


@pytest.mark.fields("spec.containers[].resources", "status.qosClass")
def test_limits_are_written_to_the_cgroup(beside: Daemon) -> None:
    resources = {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}
    beside.apply(pod("bounded", tool("main", resources=resources)))
    found = beside.wait_for("bounded", "Running")
    assert found["status"]["qosClass"] == "Burstable"
    ident = status(found)["containerID"].removeprefix("podrt://")
    values: dict[str, str] = {}
    for path in beside.cgroups():
        if path.endswith(ident):
            for name in (
                "memory.limit_in_bytes",
                "memory.max",
                "cpu.cfs_quota_us",
                "cpu.max",
                "cpu.shares",
                "cpu.weight",
            ):
                if Path(path, name).exists():
                    values[name] = Path(path, name).read_text().strip()
    assert values.get("memory.limit_in_bytes", values.get("memory.max")) == str(64 * MIB)
    assert values.get("cpu.cfs_quota_us", values.get("cpu.max", "").split(" ")[0]) == "50000"
    assert values.get("cpu.shares", "256") == "256"


def test_the_limit_of_open_files_is_a_services(two: Daemon) -> None:
    soft, hard = two.exec("pair", "sh", "-c", "ulimit -Sn; ulimit -Hn", container="one").split()
    assert int(soft) == 1024
    assert hard == "unlimited" or int(hard) >= 1024
