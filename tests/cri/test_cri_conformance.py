"""What the CRI's validation suite asks, and no other test here: names, resolvers and host ports of the built-in bridge,
and logs that are there as soon as a start has succeeded."""

from __future__ import annotations

import contextlib
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from cri_api.v1 import api_pb2 as api

from tests.framework.cri import CriClient, refused, sandbox
from tests.framework.daemon import eventually
from tests.framework.registry import free_port

SERVER = ("sh", "-c", "mkdir /www; echo fine > /www/index.html; exec httpd -f -p 8080 -h /www")


def fetched(address: str) -> str:
    """What an HTTP server says, empty while it does not answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError), opener.open(f"http://{address}/", timeout=5) as answer:
        text: str = answer.read().decode().strip()
        return text
    return ""


def test_the_log_is_there_when_the_start_has_succeeded(cri: CriClient, tmp_path: Path) -> None:
    """Also of a container that says nothing, or has ended already: a kubelet opens it as soon as it knows."""
    config = sandbox("logs", tmp_path)
    sandbox_id = cri.run_sandbox(config)
    for number in range(30):
        cri.run(sandbox_id, config, name=f"c{number}", command=["true"], log_path=f"c{number}.log")
        assert (tmp_path / f"c{number}.log").exists(), number


def test_host_name_and_resolvers(cri: CriClient) -> None:
    dns = {"servers": ["10.10.10.10", "fd00::1"], "searches": ["google.com", "example.org"], "options": ["ndots:8"]}
    config = sandbox("names", hostname="test-hostname", dns_config=dns)
    sandbox_id = cri.run_sandbox(config)
    container_id = cri.run(sandbox_id, config)
    assert cri.exec(container_id, "hostname") == (0, "test-hostname\n", "")
    assert cri.exec(container_id, "cat", "/etc/hostname")[1] == "test-hostname\n"
    resolv = cri.exec(container_id, "cat", "/etc/resolv.conf")[1].splitlines()
    assert [line for line in resolv if line.startswith("nameserver")] == [
        "nameserver 10.10.10.10",
        "nameserver fd00::1",
    ]
    assert "search google.com example.org" in resolv
    assert "options ndots:8" in resolv
    address = cri.sandbox_status(sandbox_id).network.ip
    assert f"{address}\ttest-hostname" in cri.exec(container_id, "cat", "/etc/hosts")[1]


@pytest.mark.parametrize("published", [True, False])
def test_ports(cri: CriClient, published: bool) -> None:
    """The sandbox's address reaches every port, the host's only one with a host port; stopping gives it up."""
    port = free_port()
    mapping: dict[str, Any] = {"container_port": 8080, "protocol": api.TCP}
    if published:
        mapping["host_port"] = port
    config = sandbox("ports", port_mappings=[mapping])
    sandbox_id = cri.run_sandbox(config)
    cri.run(sandbox_id, config, command=SERVER)
    address = cri.sandbox_status(sandbox_id).network.ip
    assert eventually(lambda: fetched(f"{address}:8080"), what="the server answers") == "fine"
    assert fetched(f"127.0.0.1:{port}") == ("fine" if published else "")
    if published:
        with refused("FAILED_PRECONDITION", str(port)):
            cri.run_sandbox(port_mappings=[mapping])
        cri.stop_sandbox(sandbox_id)
        assert fetched(f"127.0.0.1:{port}") == ""
        cri.run_sandbox(port_mappings=[mapping])
