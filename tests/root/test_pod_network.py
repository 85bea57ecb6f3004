"""Pods on the network: Pod to Pod, Pod to host, host to Pod, host ports, port-forward, names. IPv4 and IPv6."""

from __future__ import annotations

import contextlib
import http.server
import ipaddress
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.framework.daemon import Daemon, cli_command, eventually
from tests.framework.pods import TOOLS, container, pod


def serving(name: str, **fields: Any) -> dict[str, Any]:
    listen = "socat TCP6-LISTEN:8080,ipv6only=0,reuseaddr,fork SYSTEM:'echo hello from '$(hostname)"
    return pod(name, container("server", listen, image=TOOLS, **fields))


def client(name: str = "client", **spec: Any) -> dict[str, Any]:
    return pod(name, container("main", image=TOOLS), **spec)


def fetch(address: str, port: int, timeout: float = 3.0) -> str:
    """What a connection from the host gets; "" if it is refused."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout) as connection:
        data = b""
        while chunk := connection.recv(4096):
            data += chunk
        return data.decode()
    return ""


def fetch_from(daemon: Daemon, name: str, address: str, port: int = 8080) -> str:
    target = f"[{address}]" if ":" in address else address
    script = f"socat -T 3 - TCP:{target}:{port},connect-timeout=3 </dev/null"
    return daemon.exec(name, "sh", "-c", script, check=False)


def addresses(daemon: Daemon, name: str) -> list[str]:
    return [one["ip"] for one in daemon.pod(name)["status"]["podIPs"]]


@pytest.fixture
def pods(shared_daemon: Daemon) -> Daemon:
    shared_daemon.apply(serving("server"))
    shared_daemon.apply(client())
    shared_daemon.wait_for("server", "Running")
    shared_daemon.wait_for("client", "Running")
    eventually(lambda: fetch(addresses(shared_daemon, "server")[0], 8080))
    return shared_daemon


def test_pod_to_pod_and_host_to_pod_on_both_families(pods: Daemon) -> None:
    found = addresses(pods, "server")
    assert [ipaddress.ip_address(address).version for address in found] == [4, 6]
    for address in found:
        assert fetch_from(pods, "client", address) == "hello from server\n"
        assert fetch(address, 8080) == "hello from server\n"


class _Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"from {self.client_address[0]}".encode())

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def on_the_bridge(pods: Daemon) -> Iterator[int]:
    """A server on the bridge's address of the host; its port."""
    gateway = str(ipaddress.ip_network(pods.config.subnet_v4)[1])
    server = http.server.ThreadingHTTPServer((gateway, 0), _Hello)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_pod_to_host_keeps_its_address(pods: Daemon, on_the_bridge: int) -> None:
    gateway = str(ipaddress.ip_network(pods.config.subnet_v4)[1])
    text = pods.exec("client", "curl", "-s", "--max-time", "5", f"http://{gateway}:{on_the_bridge}/")
    assert text == f"from {addresses(pods, 'client')[0]}"


def test_a_pod_reaches_itself_and_localhost(pods: Daemon) -> None:
    for address in [*addresses(pods, "server"), "127.0.0.1", "::1"]:
        assert fetch_from(pods, "server", address) == "hello from server\n"


def test_nobody_else_has_a_pods_address(pods: Daemon) -> None:
    assert set(addresses(pods, "server")).isdisjoint(addresses(pods, "client"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.fields("spec.containers[].ports")
def test_host_port(shared_daemon: Daemon) -> None:
    port = free_port()
    shared_daemon.apply(serving("ported", ports=[{"containerPort": 8080, "hostPort": port}]))
    shared_daemon.apply(client())
    shared_daemon.wait_for("ported", "Running")
    shared_daemon.wait_for("client", "Running")
    gateway = str(ipaddress.ip_network(shared_daemon.config.subnet_v4)[1])
    assert eventually(lambda: fetch("127.0.0.1", port)) == "hello from ported\n"
    assert fetch(gateway, port) == "hello from ported\n"
    assert fetch_from(shared_daemon, "client", gateway, port) == "hello from ported\n"
    assert fetch_from(shared_daemon, "ported", gateway, port) == "hello from ported\n"
    shared_daemon.delete("ported")
    assert fetch("127.0.0.1", port) == ""


def test_a_host_port_that_is_taken(shared_daemon: Daemon) -> None:
    port = free_port()
    shared_daemon.apply(serving("first", ports=[{"containerPort": 8080, "hostPort": port}]))
    shared_daemon.wait_for("first", "Running")
    shared_daemon.apply(serving("second", ports=[{"containerPort": 8080, "hostPort": port}]))

    def told() -> bool:
        events = shared_daemon.api("GET", "/api/v1/namespaces/default/events")["items"]
        return any(e["involvedObject"]["name"] == "second" and "free ports" in e["message"] for e in events)

    eventually(told)
    assert shared_daemon.pod("second")["status"]["phase"] == "Pending"
    shared_daemon.delete("first")
    shared_daemon.wait_for("second", "Running", 20)


@pytest.mark.fields("spec.hostNetwork", "status.hostIP")
def test_host_network(shared_daemon: Daemon) -> None:
    shared_daemon.apply(client("hosted", hostNetwork=True))
    found = shared_daemon.wait_for("hosted", "Running")
    assert found["status"]["podIP"] == found["status"]["hostIP"]
    inside = shared_daemon.exec("hosted", "readlink", "/proc/self/ns/net").strip()
    assert inside == str(Path("/proc/self/ns/net").readlink())
    assert shared_daemon.exec("hosted", "hostname") == f"{socket.gethostname()}\n"


@pytest.mark.fields("spec.dnsPolicy", "spec.dnsConfig", "spec.hostAliases", "spec.hostname", "spec.subdomain")
def test_resolv_conf_and_host_aliases(shared_daemon: Daemon) -> None:
    config = {"nameservers": ["192.0.2.53"], "searches": ["example.test"], "options": [{"name": "ndots", "value": "3"}]}
    aliases = [{"ip": "192.0.2.7", "hostnames": ["one.test", "two.test"]}]
    spec = client("named", dnsPolicy="None", dnsConfig=config, hostAliases=aliases, hostname="box", subdomain="sub")
    shared_daemon.apply(spec)
    shared_daemon.wait_for("named", "Running")
    lines = shared_daemon.exec("named", "cat", "/etc/resolv.conf").splitlines()
    assert {"nameserver 192.0.2.53", "search example.test", "options ndots:3"} <= set(lines)
    hosts = shared_daemon.exec("named", "cat", "/etc/hosts")
    assert "192.0.2.7\tone.test\ttwo.test" in hosts
    assert "box.sub.default.svc.cluster.local\tbox" in hosts
    assert shared_daemon.exec("named", "hostname") == "box\n"
    assert shared_daemon.exec("named", "cat", "/etc/hostname") == "box\n"


def test_port_forward(shared_daemon: Daemon) -> None:
    shared_daemon.apply(serving("forwarded"))
    shared_daemon.wait_for("forwarded", "Running")
    process = subprocess.Popen(
        [*cli_command(), "port-forward", "forwarded", ":8080"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=shared_daemon.cli_env,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.search(r"127\.0\.0\.1:(\d+) -> 8080", line)
        assert match, line
        for _ in range(3):
            assert fetch("127.0.0.1", int(match.group(1))) == "hello from forwarded\n"
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)


def test_addresses_survive_a_crash_of_the_daemon(pods: Daemon) -> None:
    before = addresses(pods, "server")
    pods.kill()
    pods.start()
    pods.apply(client("newcomer"))
    pods.wait_for("newcomer", "Running")
    assert addresses(pods, "server") == before
    assert set(addresses(pods, "newcomer")).isdisjoint([*before, *addresses(pods, "client")])
    assert fetch_from(pods, "newcomer", before[0]) == "hello from server\n"
