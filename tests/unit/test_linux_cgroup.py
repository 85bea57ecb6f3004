"""Conversions between the cgroup versions, rules as text and program, and layouts of hierarchies."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from podrt.errors import InvalidError
from podrt.linux.cgroup import DEFAULT_RULES, DeviceRule, Limits, Manager, cpu, devices, hugetlb, pressure
from podrt.linux.cgroup.hierarchy import Hierarchies, parse
from podrt.linux.cgroup.manager import _ancestors
from podrt.linux.cgroup.pressure import Pressure, Stall


@pytest.mark.parametrize(
    ("shares", "container", "pod"),
    [(0, 1, 1), (2, 1, 1), (102, 17, 4), (512, 59, 20), (1024, 100, 39), (2048, 174, 79), (262144, 10000, 10000)],
)
def test_weights(shares: int, container: int, pod: int) -> None:
    assert (cpu.weight_of_container(shares), cpu.weight_of_pod(shares)) == (container, pod)


def test_weights_rise_and_stay_in_range() -> None:
    weights = [cpu.weight_of_container(shares) for shares in range(2, 262145, 97)]
    assert weights == sorted(weights)
    assert weights[0] == 1
    assert max(weights) <= 10000


@pytest.mark.parametrize(("size", "name"), [("2Mi", "2MB"), ("1Gi", "1GB"), ("64K", "64KB"), ("2MB", "2MB")])
def test_page_sizes(size: str, name: str) -> None:
    assert hugetlb.kernel_size(size) == name


@pytest.mark.parametrize("size", ["", "2", "Mi", "../2MB", "2Mi/"])
def test_page_sizes_that_are_none(size: str) -> None:
    with pytest.raises(InvalidError, match="huge page size"):
        hugetlb.kernel_size(size)


def test_layouts() -> None:
    hybrid = (
        "1 0 0:1 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
        "2 1 0:2 / /sys/fs/cgroup/cpu,cpuacct rw shared:3 - cgroup cgroup rw,cpu,cpuacct\n"
        "3 1 0:3 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
        "4 1 0:4 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    )
    cpu_path = "/sys/fs/cgroup/cpu,cpuacct"
    assert parse(hybrid) == ("/sys/fs/cgroup/unified", {"cpu": cpu_path, "cpuacct": cpu_path})
    assert parse("4 1 0:4 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n") == ("/sys/fs/cgroup", {})


def test_ancestors() -> None:
    assert _ancestors("/a/b/c") == ["/", "/a", "/a/b"]
    assert _ancestors("/a") == ["/"]


@pytest.mark.parametrize("path", ["", "/", "//", "relative", "/a/../..", "/.."])
def test_the_root_is_never_killed_or_removed(path: str) -> None:
    manager = Manager("/x", Hierarchies("v2", "/nonexistent", {}, ()))
    with pytest.raises(ValueError, match="not the path of a cgroup"):
        manager.kill(path)
    with pytest.raises(ValueError, match="not the path of a cgroup"):
        manager.remove(path)


def test_rules_as_text() -> None:
    assert devices.text_v1(DeviceRule("c", 136, -1)) == "c 136:* rwm"
    assert devices.text_v1(DeviceRule("b", -1, -1, "m")) == "b *:* m"


def run(program: bytes, kind: int, access: int, major: int, minor: int) -> int:
    """Interpret the few instructions that the programs consist of."""
    memory = struct.pack("=III", access << 16 | kind, major, minor)
    registers = [0] * 11
    at = 0
    for _ in range(10_000):
        code, both, offset, constant = struct.unpack_from("=BBhi", program, at * 8)
        target, source = both & 15, both >> 4
        at += 1
        match code:
            case 0x61:
                registers[target] = struct.unpack_from("=I", memory, offset)[0]
            case 0x54:
                registers[target] &= constant
            case 0x74:
                registers[target] >>= constant
            case 0xBF:
                registers[target] = registers[source]
            case 0xB7:
                registers[target] = constant
            case 0x55:
                at += offset if registers[target] != constant else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")
    raise AssertionError("the program does not end")


CHAR, BLOCK = 2, 1
MKNOD, READ, WRITE = 1, 2, 4


@pytest.mark.parametrize(
    ("rules", "kind", "access", "major", "minor", "allowed"),
    [
        (DEFAULT_RULES, CHAR, READ | WRITE, 1, 3, True),
        (DEFAULT_RULES, CHAR, READ, 1, 1, False),
        (DEFAULT_RULES, CHAR, MKNOD, 1, 1, True),
        (DEFAULT_RULES, CHAR, MKNOD | READ, 1, 1, False),
        (DEFAULT_RULES, BLOCK, MKNOD, 8, 0, True),
        (DEFAULT_RULES, BLOCK, READ, 8, 0, False),
        (DEFAULT_RULES, BLOCK, READ, 1, 3, False),
        (DEFAULT_RULES, CHAR, READ, 136, 77, True),
        (DEFAULT_RULES, CHAR, WRITE, 5, 2, True),
        (DEFAULT_RULES, CHAR, WRITE, 5, 3, False),
        ([DeviceRule("b", 8, 1, "r")], BLOCK, READ, 8, 1, True),
        ([DeviceRule("b", 8, 1, "r")], BLOCK, WRITE, 8, 1, False),
        ([DeviceRule("b", 8, 1, "r")], BLOCK, READ, 8, 2, False),
        ([], CHAR, READ, 1, 3, False),
    ],
)
def test_the_program_decides(
    rules: Sequence[DeviceRule], kind: int, access: int, major: int, minor: int, allowed: bool
) -> None:
    assert run(devices.program_v2(rules), kind, access, major, minor) == int(allowed)


def test_pressure() -> None:
    some = "some avg10=0.12 avg60=1.50 avg300=0.00 total=4217"
    waited = Stall(4217, 0.12, 1.5, 0.0)
    both = f"{some}\nfull avg10=0.00 avg60=0.00 avg300=0.03 total=7\n"
    assert pressure.parse(both) == Pressure(waited, Stall(7, 0.0, 0.0, 0.03))
    assert pressure.parse(some) == Pressure(waited, Stall())


@pytest.mark.parametrize(("write", "name"), [(hugetlb.write_v1, "limit_in_bytes"), (hugetlb.write_v2, "max")])
def test_huge_pages_that_are_not_counted_can_only_be_forbidden(
    tmp_path: Path, write: Callable[[str, Limits], None], name: str
) -> None:
    file = tmp_path / f"hugetlb.2MB.{name}"
    file.touch()
    write(str(tmp_path), Limits(hugepages={"2Mi": 0, "1Gi": 0}))
    assert file.read_text() == "0"
    with pytest.raises(FileNotFoundError, match="1GB"):
        write(str(tmp_path), Limits(hugepages={"1Gi": 1 << 30}))
