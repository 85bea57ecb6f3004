"""Sandboxes connected by Debian's CNI plugins: bridge, host-local, portmap, bandwidth, tuning, in a network namespace
that they take for the host's.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from podrt.engine.specs import IdMap, NamespaceMode, PortMapping, SandboxStatus
from podrt.errors import UnavailableError
from podrt.linux import namespace
from tests.framework import cni, probes
from tests.framework.cni import FakePlugins, OtherHost, write
from tests.framework.engine import Lab, eventually

pytestmark = [
    probes.needs(cni.available(), "Debian's package containernetworking-plugins"),
    probes.needs(probes.has_command("iptables-save"), "iptables, which the plugins portmap and bridge run"),
    probes.needs(probes.has_ipv6(), "IPv6"),
]

PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[OtherHost]:
    host = OtherHost(tmp_path / "host")
    try:
        yield host
        assert host.left() == []
    finally:
        host.destroy()


@pytest_asyncio.fixture
async def lab(daemon_base: Path, host: OtherHost, tmp_path: Path) -> AsyncIterator[Lab]:
    fake = FakePlugins(tmp_path / "fake")
    settings = {
        "cri_network": "cni",
        "cni_conf_dir": tmp_path / "net.d",
        "cni_bin_dirs": f"{host.bin}:{fake.bin}",
    }
    async with Lab.open(daemon_base, **settings) as lab:
        yield lab


@pytest.fixture
def fake(tmp_path: Path, lab: Lab) -> FakePlugins:
    return FakePlugins(tmp_path / "fake")


def configure(lab: Lab, body: dict[str, Any]) -> None:
    write(lab.config.cni_conf_dir, "10-cluster.conflist", body)


def inside(sandbox: SandboxStatus, *command: str) -> str:
    return subprocess.run(
        ["nsenter", f"--net={sandbox.netns}", *command], check=True, capture_output=True, text=True
    ).stdout


def interface(sandbox: SandboxStatus, name: str = "eth0") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(inside(sandbox, "ip", "-j", "addr", "show", name))[0]
    return found


def said(netns: str | Path, address: str, port: int) -> str:
    """What a server at this address says to someone in a network namespace; empty as long as there is none."""
    fd = namespace.open_pinned(netns)
    try:
        with namespace.in_netns(fd, lambda: socket.create_connection((address, port), timeout=10)) as client:
            return client.recv(100).decode()
    except OSError:
        return ""
    finally:
        os.close(fd)


async def test_dual_stack_with_both_families_in_order(lab: Lab, host: OtherHost) -> None:
    configure(lab, host.network())
    sandbox = await lab.sandbox("one", owner="cri")
    assert [":" in ip for ip in sandbox.ips] == [False, True]
    assert sandbox.ips[0].startswith("10.77.0.")
    eth0 = interface(sandbox)
    assert {entry["local"] for entry in eth0["addr_info"] if entry["scope"] == "global"} == set(sandbox.ips)
    assert "UP" in interface(sandbox, "lo")["flags"]
    assert host.leased() == set(sandbox.ips)
    assert "cni0" in host.links()
    container = await lab.run(sandbox, "c")
    hosts = await lab.sh(container, "cat /etc/hosts")
    assert all(f"{ip}\tone-host" in hosts for ip in sandbox.ips)
    other = await lab.sandbox("two", owner="cri")
    container = await lab.run(other, "server", "sh", "-c", "while true; do echo hi | nc -l -p 8000; done")
    for ip in other.ips:
        assert await eventually(lambda ip=ip: said(sandbox.netns, ip, 8000)) == "hi\n"  # type: ignore[misc]
    await lab.engine.stop_sandbox(sandbox.id)
    assert host.leased() == set(other.ips)
    await lab.engine.stop_sandbox(sandbox.id)


async def test_pods_of_the_api_stay_on_the_bridge(lab: Lab, host: OtherHost) -> None:
    configure(lab, host.network())
    mine, theirs = await asyncio.gather(lab.sandbox("api"), lab.sandbox("cri", owner="cri"))
    assert theirs.ips[0].startswith("10.77.0.")
    assert not mine.ips[0].startswith("10.77.0.")
    assert host.leased() == set(theirs.ips)
    await lab.engine.remove_sandbox(mine.id)
    assert host.leased() == set(theirs.ips)


async def test_host_ports_through_portmap(lab: Lab, host: OtherHost) -> None:
    configure(lab, host.network(PORTMAP))
    sandbox = await lab.sandbox(
        "web", owner="cri", port_mappings=(PortMapping(container_port=80, host_port=18080, host_ip="127.0.0.1"),)
    )
    await lab.run(sandbox, "server", "sh", "-c", "while true; do echo hello | nc -l -p 80; done")
    assert any("18080" in rule and "127.0.0.1" in rule for rule in host.rules())

    assert await eventually(lambda: said(host.netns, "127.0.0.1", 18080)) == "hello\n"
    await lab.engine.remove_sandbox(sandbox.id)
    assert host.rules() == []


async def test_bandwidth_mac_and_tuning(lab: Lab, host: OtherHost) -> None:
    configure(
        lab,
        host.network(
            {"type": "tuning", "capabilities": {"mac": True}, "sysctl": {"net.core.somaxconn": "500"}},
            {"type": "bandwidth", "capabilities": {"bandwidth": True}},
        ),
    )
    annotations = {
        "kubernetes.io/ingress-bandwidth": "10M",
        "kubernetes.io/egress-bandwidth": "5M",
        "podrt.dev/mac": "0A:58:0a:4d:00:63",
    }
    sandbox = await lab.sandbox("limited", owner="cri", annotations=annotations)
    assert interface(sandbox)["address"] == "0a:58:0a:4d:00:63"
    assert inside(sandbox, "cat", "/proc/sys/net/core/somaxconn").strip() == "500"
    shaped = host.run("tc", "qdisc", "show")
    assert "rate 10Mbit" in shaped and "rate 5Mbit" in shaped
    await lab.engine.remove_sandbox(sandbox.id)
    assert "tbf" not in host.run("tc", "qdisc", "show")


async def test_a_user_namespace_has_a_network_too(lab: Lab, host: OtherHost) -> None:
    configure(lab, host.network())
    maps = (IdMap(inside=0, outside=300_000, count=65_536),)
    sandbox = await lab.sandbox("mapped", owner="cri", uid_maps=maps, gid_maps=maps)
    assert len(interface(sandbox)["addr_info"]) >= 2


async def test_names_from_the_network_count_where_the_spec_says_nothing(lab: Lab, host: OtherHost) -> None:
    body = host.network()
    body["plugins"][0]["dns"] = {
        "nameservers": ["10.77.0.10"],
        "search": ["cluster.example"],
        "options": ["ndots:3"],
    }
    configure(lab, body)
    plain = await lab.sandbox("plain", owner="cri")
    container = await lab.run(plain, "c")
    assert await lab.sh(container, "cat /etc/resolv.conf") == (
        "nameserver 10.77.0.10\nsearch cluster.example\noptions ndots:3\n"
    )
    told = await lab.sandbox("told", owner="cri", dns_servers=("10.0.0.10",))
    assert await lab.sh(await lab.run(told, "c"), "cat /etc/resolv.conf") == "nameserver 10.0.0.10\n"


async def test_more_sandboxes_than_addresses(lab: Lab, host: OtherHost) -> None:
    configure(lab, host.network(subnet="10.77.1.0/30"))
    first = await lab.sandbox("first", owner="cri")
    with pytest.raises(
        UnavailableError, match=r"CNI network cluster: ADD of plugin bridge: .*no IP addresses available"
    ):
        await lab.sandbox("second", owner="cri")
    assert [sandbox.id for sandbox in lab.engine.list_sandboxes()] == [first.id]
    assert host.leased() == set(first.ips)
    assert len(host.links()) == 3
    await lab.engine.remove_sandbox(first.id)
    assert (await lab.sandbox("third", owner="cri")).ips[0] == first.ips[0]


async def test_a_plugin_at_the_end_that_fails_undoes_the_chain(lab: Lab, host: OtherHost, fake: FakePlugins) -> None:
    fake.add("last")
    fake.does("last", "ADD", exit=1, stdout=json.dumps({"code": 11, "msg": "not yet"}))
    configure(lab, host.network(PORTMAP, {"type": "last"}))
    port = (PortMapping(container_port=80, host_port=18081),)
    with pytest.raises(UnavailableError, match=r"last: not yet \(code 11"):
        await lab.sandbox("web", owner="cri", port_mappings=port)
    assert lab.engine.list_sandboxes() == []
    assert host.left() == []


async def test_a_restart_keeps_connections_and_checks_them(
    lab: Lab, host: OtherHost, caplog: pytest.LogCaptureFixture
) -> None:
    configure(lab, host.network(PORTMAP))
    sandbox = await lab.sandbox("web", owner="cri")
    for path in lab.config.cni_conf_dir.iterdir():
        path.unlink()
    engine = await lab.restart()
    sweeping = engine._machine.network._cni._sweeping
    assert sweeping is not None
    await sweeping
    assert engine.sandbox_status(sandbox.id).ips == sandbox.ips
    assert "not as it was made" not in caplog.text
    await engine._machine.network._cni.check(sandbox.id)
    inside(sandbox, "ip", "route", "del", "default")
    with pytest.raises(UnavailableError, match="CHECK of plugin bridge"):
        await engine._machine.network._cni.check(sandbox.id)
    await engine.remove_sandbox(sandbox.id)
    assert host.left() == []


async def test_after_a_reboot_leases_are_given_back(lab: Lab, host: OtherHost) -> None:
    """The namespace is gone with the machine; host-local's files are not."""
    configure(lab, host.network(PORTMAP))
    sandbox = await lab.sandbox("web", owner="cri")
    record = lab.config.state_dir / "cni" / f"{sandbox.id}.json"
    saved = record.read_bytes()
    leases = {path: path.read_bytes() for path in host.leases.rglob("*") if path.is_file()}
    await lab.engine.remove_sandbox(sandbox.id)
    assert not record.exists() and host.leased() == set()
    for path, data in leases.items():
        path.write_bytes(data)
    record.write_bytes(saved)
    await lab.restart()
    await eventually(lambda: not record.exists())
    assert host.leased() == set()


async def test_what_plugins_connected_they_disconnect_after_a_change_to_the_bridge(lab: Lab, host: OtherHost) -> None:
    configure(lab, host.network())
    sandbox = await lab.sandbox("before", owner="cri")
    lab.config = dataclasses.replace(lab.config, cri_network="bridge")
    engine = await lab.restart()
    after = await lab.sandbox("after", owner="cri")
    assert not after.ips[0].startswith("10.77.")
    await engine.remove_sandbox(sandbox.id)
    assert host.left() == []


async def test_without_a_network_only_the_hosts_can_be_had(lab: Lab) -> None:
    ready = await lab.engine.cri_network()
    assert (ready.ready, ready.reason) == (False, "NetworkPluginNotReady")
    assert str(lab.config.cni_conf_dir) in ready.message
    with pytest.raises(UnavailableError, match=str(lab.config.cni_conf_dir)):
        await lab.sandbox("pod", owner="cri")
    await lab.sandbox("static", owner="cri", network=NamespaceMode.NODE)
    await lab.sandbox("api")


async def test_many_at_once(lab: Lab, host: OtherHost) -> None:
    configure(lab, host.network(PORTMAP))
    sandboxes = await asyncio.gather(*(lab.sandbox(f"pod-{number}", owner="cri") for number in range(12)))
    assert len({ip for sandbox in sandboxes for ip in sandbox.ips}) == 24
    await asyncio.gather(*(lab.engine.remove_sandbox(sandbox.id) for sandbox in sandboxes))
    assert host.left() == []
