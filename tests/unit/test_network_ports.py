"""Host ports: what goes into the maps, who has what."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from podrt.errors import ConflictError, InvalidError
from podrt.network import nft
from podrt.network.nft import Element
from podrt.network.ports import HostPorts, elements
from podrt.network.types import Port

IPS = ("10.0.0.2", "fd00::2")


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        (Port(80, 0), []),
        (Port(80, 8080), [("any4", "tcp . 8080 : 10.0.0.2 . 80"), ("any6", "tcp . 8080 : fd00::2 . 80")]),
        (Port(80, 8080, "UDP", "0.0.0.0"), [("any4", "udp . 8080 : 10.0.0.2 . 80")]),
        (Port(80, 8080, "SCTP", "::"), [("any6", "sctp . 8080 : fd00::2 . 80")]),
        (Port(80, 8080, host_ip="192.0.2.1"), [("host4", "192.0.2.1 . tcp . 8080 : 10.0.0.2 . 80")]),
        (Port(80, 8080, host_ip="2001:DB8::1"), [("host6", "2001:db8::1 . tcp . 8080 : fd00::2 . 80")]),
    ],
)
def test_elements(port: Port, expected: list[tuple[str, str]]) -> None:
    assert [(one.map, one.text()) for one in elements([port, port], IPS)] == expected


def test_keys_and_values_as_the_kernel_keeps_them() -> None:
    one = Element("TCP", "192.0.2.1", 8080, "10.0.0.2", 80)
    assert one.key() == bytes.fromhex("c0000201060000001f900000")
    assert one.value() == bytes.fromhex("0a00000200500000")


@pytest.mark.parametrize(
    ("port", "message"),
    [
        (Port(80, 8080, "ICMP"), "protocol 'ICMP'"),
        (Port(80, 70000), "1 to 65535"),
        (Port(0, 80), "1 to 65535"),
        (Port(80, -1), "1 to 65535"),
        (Port(80, 80, host_ip="localhost"), "hostIP 'localhost'"),
        (Port(80, 80, host_ip="1.2.3.4; flush ruleset"), "hostIP"),
    ],
)
def test_what_cannot_be_published(port: Port, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        elements([port], IPS)


@pytest.fixture
def ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostPorts:
    monkeypatch.setattr(nft, "check_free", lambda *arguments: True)
    made = HostPorts(tmp_path)
    made.load()
    return made


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        (Port(80, 8080), Port(81, 8080), True),
        (Port(80, 8080), Port(80, 8081), False),
        (Port(80, 8080), Port(80, 8080, "UDP"), False),
        (Port(80, 8080), Port(80, 8080, host_ip="192.0.2.1"), True),
        (Port(80, 8080, host_ip="192.0.2.1"), Port(80, 8080, host_ip="::"), False),
        (Port(80, 8080, host_ip="192.0.2.1"), Port(80, 8080, host_ip="192.0.2.2"), False),
        (Port(80, 8080, host_ip="192.0.2.1"), Port(80, 8080, host_ip="192.0.2.1"), True),
    ],
)
def test_conflicts(ports: HostPorts, first: Port, second: Port, clash: bool) -> None:
    ports.reserve("one", elements([first], IPS))
    if clash:
        with pytest.raises(ConflictError, match="taken by sandbox one"):
            ports.reserve("two", elements([second], IPS))
        assert ports.owners() == {"one"}
        ports.release("one")
    ports.reserve("two", elements([second], IPS))


def test_they_outlive_the_daemon(ports: HostPorts, tmp_path: Path) -> None:
    wanted = elements([Port(80, 8080)], IPS)
    ports.reserve("one", wanted)
    (tmp_path / "broken").write_text("{")
    (tmp_path / "odd").write_text("[[1]]")
    again = HostPorts(tmp_path)
    assert sorted(again.load()) == ["broken", "odd"]
    assert again.of("one") == wanted
    again.release("one")
    again.release("one")
    assert not (tmp_path / "one").exists()


def test_a_port_that_a_process_of_the_host_has() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        number = server.getsockname()[1]
        server.listen()
        assert not nft.check_free("TCP", "127.0.0.1", number, socket.AF_INET)
        assert not nft.check_free("TCP", "", number, socket.AF_INET)
    assert nft.check_free("TCP", "127.0.0.1", number, socket.AF_INET)
    assert nft.check_free("SCTP", "", number, socket.AF_INET)
    with pytest.raises(OSError, match="assign requested address"):
        nft.check_free("TCP", "192.0.2.99", number, socket.AF_INET)


def test_the_ruleset_names_its_own_table_only() -> None:
    text = nft.ruleset("podrt-x", "br0", "10.0.0.0/16", "fd00::/64", elements([Port(80, 8080)], IPS))
    lines = text.splitlines()
    assert all("inet podrt-x" in line for line in lines)
    assert "add element inet podrt-x any4 { tcp . 8080 : 10.0.0.2 . 80 }" in lines
    assert "flush map inet podrt-x any4" in lines
    assert "ip6 saddr" not in nft.ruleset("t", "b", "10.0.0.0/16", "", None)
    assert "flush map" not in nft.ruleset("t", "b", "10.0.0.0/16", "", None)
