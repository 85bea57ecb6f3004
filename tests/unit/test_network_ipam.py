"""Leases of addresses."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podrt.errors import ExhaustedError
from podrt.network.ipam import Pool


def pool(directory: Path, network: str = "10.9.0.0/29") -> Pool:
    made = Pool(ipaddress.ip_network(network), directory)
    made.load()
    return made


def test_addresses_in_turn(tmp_path: Path) -> None:
    first = pool(tmp_path)
    assert first.gateway == "10.9.0.1"
    assert [first.acquire(name) for name in "abc"] == ["10.9.0.2", "10.9.0.3", "10.9.0.4"]
    assert first.release("b") == ["10.9.0.3"]
    assert first.release("b") == []
    assert [first.acquire(name) for name in "de"] == ["10.9.0.5", "10.9.0.6"]
    assert first.acquire("f") == "10.9.0.3"
    with pytest.raises(ExhaustedError, match="no address is free"):
        first.acquire("g")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"10.9.0.{n}" for n in range(2, 7)]


def test_leases_outlive_the_daemon(tmp_path: Path) -> None:
    first = pool(tmp_path)
    for name in "abc":
        first.acquire(name)
    first.release("c")
    (tmp_path / "ports").mkdir()
    (tmp_path / "fd00::2").write_text("other")
    second = pool(tmp_path)
    assert second.owners() == {"a", "b"}
    assert second.acquire("d") == "10.9.0.4"
    assert second.release("a") == ["10.9.0.2"]


def test_ipv6_has_no_broadcast(tmp_path: Path) -> None:
    made = pool(tmp_path, "fd00::/126")
    assert [made.acquire("x"), made.acquire("y")] == ["fd00::2", "fd00::3"]
    with pytest.raises(ExhaustedError):
        made.acquire("z")
    assert pool(tmp_path, "fd00::/64").acquire("w") == "fd00::4"


def test_a_file_that_appears_is_respected(tmp_path: Path) -> None:
    made = pool(tmp_path)
    (tmp_path / "10.9.0.2").write_text("someone")
    assert made.acquire("a") == "10.9.0.3"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=40))
def test_no_address_twice(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int]]) -> None:
    directory = tmp_path_factory.mktemp("leases")
    made = pool(directory)
    held: dict[str, list[str]] = {}
    for take, owner in steps:
        if not take:
            assert sorted(made.release(str(owner))) == sorted(held.pop(str(owner), []))
        elif sum(map(len, held.values())) < 5:
            address = made.acquire(str(owner))
            assert all(address not in addresses for addresses in held.values())
            held.setdefault(str(owner), []).append(address)
    assert {path.name for path in directory.iterdir()} == {name for names in held.values() for name in names}
