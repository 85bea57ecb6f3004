"""Sandboxes of the CRI on CNI plugins: what a kubelet sees, and a daemon that is killed while plugins run."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cri_api.v1 import api_pb2

from tests.framework import cni, leaks, probes
from tests.framework.cni import FakePlugins, OtherHost, write
from tests.framework.cri import CriClient, refused, sandbox
from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import pod


class Node:
    """A daemon whose CRI uses CNI, a client of it, and its plugins."""

    def __init__(self, make: Callable[..., Daemon], root: Path, host: OtherHost | None) -> None:
        self.fake = FakePlugins(root / "fake")
        self.fake.add("first", "second")
        self.host = host
        self.conf = root / "net.d"
        directories = [str(self.fake.bin), *([str(host.bin)] if host else [])]
        self.daemon = make(cri_network="cni", cni_conf_dir=self.conf, cni_bin_dirs=":".join(directories))
        self.cri = CriClient(self.daemon.config.cri_socket)

    def configure(self, *plugins: dict[str, Any], **fields: Any) -> None:
        body = {"cniVersion": "1.1.0", "name": "net", "plugins": list(plugins)} | fields
        write(self.conf, "10-net.conflist", body)

    def network_ready(self) -> Any:
        """The condition NetworkReady."""
        conditions = self.cri.call("Status").status.conditions
        return next(condition for condition in conditions if condition.type == "NetworkReady")

    @property
    def records(self) -> list[str]:
        directory = self.daemon.config.state_dir / "cni"
        return sorted(path.stem for path in directory.iterdir()) if directory.exists() else []


@pytest.fixture
def node(daemon_factory: Callable[..., Daemon], tmp_path: Path) -> Iterator[Node]:
    node = Node(daemon_factory, tmp_path, None)
    yield node
    node.cri.close()


@pytest.fixture
def real_node(daemon_factory: Callable[..., Daemon], tmp_path: Path) -> Iterator[Node]:
    host = OtherHost(tmp_path / "host")
    try:
        node = Node(daemon_factory, tmp_path, host)
        yield node
        node.cri.clear()
        node.cri.close()
        assert host.left() == []
    finally:
        host.destroy()


def test_network_ready_follows_the_directory(node: Node) -> None:
    condition = node.network_ready()
    assert (condition.status, condition.reason) == (False, "NetworkPluginNotReady")
    assert str(node.conf) in condition.message
    with refused("UNAVAILABLE", str(node.conf)):
        node.cri.run_sandbox()
    assert node.cri.sandboxes() == []
    write(node.conf, "05-broken.conflist", "{")
    assert "05-broken.conflist" in node.network_ready().message
    node.configure({"type": "first"})
    condition = node.network_ready()
    assert condition.status and not condition.reason
    assert json.loads(node.cri.call("Status", verbose=True).info["info"])["cni"]["name"] == "net"
    made = node.cri.run_sandbox()
    (node.conf / "10-net.conflist").unlink()
    assert not node.network_ready().status
    assert node.cri.sandbox_status(made).network.ip == "10.1.0.2"
    node.cri.remove_sandbox(made)
    assert node.fake.names("DEL") == ["first"]


def test_status_of_plugins_counts(node: Node) -> None:
    node.fake.does("first", "STATUS", exit=1, stdout=json.dumps({"code": 50, "msg": "the agent is down"}))
    node.configure({"type": "first"})
    condition = node.network_ready()
    assert not condition.status
    assert "the agent is down" in condition.message and str(node.conf) in condition.message


def test_what_plugins_are_told_of_a_sandbox(node: Node) -> None:
    taken = ("portMappings", "dns", "bandwidth", "io.kubernetes.cri.pod-annotations", "cgroupPath")
    node.configure({"type": "first", "capabilities": dict.fromkeys(taken, True)})
    annotations = {"kubernetes.io/egress-bandwidth": "1M", "team": "a"}
    config = sandbox(
        "web",
        annotations=annotations,
        dns_config=api_pb2.DNSConfig(servers=["10.0.0.10"], searches=["svc"], options=["ndots:5"]),
        port_mappings=[api_pb2.PortMapping(container_port=53, host_port=5300, protocol=api_pb2.UDP)],
    )
    made = node.cri.run_sandbox(config)
    call = node.fake.calls("ADD")[0]
    told = call["stdin"]["runtimeConfig"]
    assert told["portMappings"] == [{"hostPort": 5300, "containerPort": 53, "protocol": "udp"}]
    assert told["dns"] == {"servers": ["10.0.0.10"], "searches": ["svc"], "options": ["ndots:5"]}
    assert told["bandwidth"]["egressRate"] == 1_000_000
    assert told["io.kubernetes.cri.pod-annotations"] == annotations
    assert told["cgroupPath"].startswith("/")
    arguments = dict(pair.split("=") for pair in call["environment"]["CNI_ARGS"].split(";"))
    assert arguments == {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": "default",
        "K8S_POD_NAME": "web",
        "K8S_POD_INFRA_CONTAINER_ID": made,
        "K8S_POD_UID": config.metadata.uid,
    }
    assert Path(call["environment"]["CNI_NETNS"]).parent == node.daemon.config.netns_dir
    node.cri.remove_sandbox(made)


def test_an_error_of_a_plugin_reaches_the_kubelet(node: Node) -> None:
    node.configure({"type": "first"}, {"type": "second"})
    node.fake.does("second", "ADD", exit=1, stdout=json.dumps({"code": 7, "msg": "bad", "details": "mtu is 0"}))
    with refused("UNAVAILABLE", "CNI network net: ADD of plugin second: bad: mtu is 0 (code 7)"):
        node.cri.run_sandbox()
    assert node.fake.names("DEL") == ["second", "first"]
    assert node.cri.sandboxes() == [] and node.records == []


def test_stop_is_tried_again_after_a_plugin_failed(node: Node) -> None:
    node.configure({"type": "first"})
    made = node.cri.run_sandbox()
    node.fake.does("first", "DEL", exit=1, stdout=json.dumps({"code": 11, "msg": "busy"}))
    with refused("UNAVAILABLE", "busy"):
        node.cri.stop_sandbox(made)
    node.fake.does("first", "DEL")
    node.cri.stop_sandbox(made)
    node.cri.stop_sandbox(made)
    node.cri.remove_sandbox(made)
    assert node.fake.names("DEL") == ["first", "first"]
    assert node.records == []


def in_background(work: Callable[[], Any]) -> threading.Thread:
    """A call that the daemon's death will end."""

    def run() -> None:
        try:
            work()
        except grpc.RpcError:
            return

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def runs(pid: int) -> bool:
    """Whether a process is there, and not a zombie that nobody has waited for."""
    return any(process.pid == pid for process in leaks.processes())


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_a_daemon_killed_while_a_plugin_runs(node: Node, tmp_path: Path, command: str) -> None:
    """The plugin outlives the daemon; it is ended before DEL is run for what it may have done."""
    node.configure({"type": "first"}, {"type": "second"})
    made = node.cri.run_sandbox() if command == "DEL" else ""
    node.fake.does("second", command, wait_for=str(tmp_path / "never"))
    work = in_background(lambda: node.cri.remove_sandbox(made) if made else node.cri.run_sandbox())
    eventually(lambda: "second" in node.fake.names(command), what="the plugin runs")
    plugin = node.fake.calls(command)[-1]["pid"]
    node.daemon.kill()
    work.join()
    assert runs(plugin)
    node.fake.does("second", command)
    node.fake.forget()
    node.daemon.start()
    eventually(lambda: node.records == [], what="DEL has run")
    assert not runs(plugin)
    assert node.fake.names("DEL") == ["second", "first"]
    assert node.cri.sandboxes() == []


@pytest.mark.parametrize("plugin", ["first", "second"])
def test_a_plugin_that_kills_the_daemon_and_goes_on(node: Node, plugin: str) -> None:
    node.configure({"type": "first"}, {"type": "second"})
    node.fake.does(plugin, "ADD", kill=[str(node.daemon.config.run_dir / "podrtd.pid")])
    with pytest.raises(grpc.RpcError):
        node.cri.run_sandbox()
    assert node.daemon.process is not None and node.daemon.process.wait(20) != 0
    assert len(node.records) == 1
    node.fake.does(plugin, "ADD")
    node.daemon.start()
    eventually(lambda: node.records == [], what="DEL has run")
    assert node.fake.names("DEL") == ["second", "first"]
    eventually(lambda: node.fake.names("GC") == ["first", "second"], what="GC has run")
    assert node.fake.calls("GC")[0]["stdin"]["cni.dev/valid-attachments"] == []
    made = node.cri.run_sandbox()
    node.cri.remove_sandbox(made)


def test_pods_of_the_api_and_sandboxes_of_the_cri_side_by_side(node: Node) -> None:
    node.configure({"type": "first"})
    made = node.cri.run_sandbox()
    node.daemon.apply(pod("mine"))
    mine = node.daemon.wait_for("mine", "Ready")
    assert mine["status"]["podIP"] != "10.1.0.2"
    assert len(node.fake.calls("ADD")) == 1
    node.daemon.kill()
    node.daemon.start()
    assert node.cri.sandbox_status(made).network.ip == "10.1.0.2"
    node.daemon.delete("mine", grace=0)
    assert node.fake.calls("DEL") == []
    node.cri.remove_sandbox(made)


@probes.needs(cni.available(), "Debian's package containernetworking-plugins")
@probes.needs(probes.has_command("iptables-save"), "iptables, which the plugins portmap and bridge run")
@probes.needs(probes.has_ipv6(), "IPv6")
@pytest.mark.parametrize("kill", ["daemon", "both"])
def test_real_plugins_and_a_daemon_that_dies(real_node: Node, kill: str) -> None:
    host = real_node.host
    assert host is not None
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    write(real_node.conf, "10-net.conflist", host.network({"type": "first"}, portmap))
    ports = [api_pb2.PortMapping(container_port=80, host_port=18090)]
    kept = real_node.cri.run_sandbox(port_mappings=ports)
    status = real_node.cri.sandbox_status(kept).network
    addresses = {status.ip, *(one.ip for one in status.additional_ips)}
    assert len(addresses) == 2 and host.leased() == addresses
    pids = [str(real_node.daemon.config.run_dir / "podrtd.pid")]
    if kill == "both":
        pids.insert(0, str(real_node.daemon.config.run_dir / "supervisor.pid"))
    real_node.fake.does("first", "ADD", kill=pids)
    with pytest.raises(grpc.RpcError):
        real_node.cri.run_sandbox()
    assert real_node.daemon.process is not None
    real_node.daemon.process.wait(20)
    assert len(host.leased()) == 4
    real_node.fake.does("first", "ADD")
    real_node.daemon.start()
    eventually(lambda: host.leased() == addresses, what="the leases of the dead sandbox are given back")
    assert [one.id for one in real_node.cri.sandboxes()] == [kept]
    assert any("18090" in rule for rule in host.rules())
    assert real_node.cri.sandbox_status(kept).network.ip == status.ip
    os.stat(f"{real_node.daemon.config.netns_dir}/podrt-{kept[:12]}")
