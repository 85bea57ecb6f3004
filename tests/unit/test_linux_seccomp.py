"""Compiled filters, run by a small interpreter of classic BPF."""

from __future__ import annotations

import errno
import json
import platform
import struct
from pathlib import Path
from typing import Any

import pytest

from podrt.errors import InvalidError
from podrt.linux import caps, seccomp

pytest.importorskip("pyseccomp")
pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers below are those of x86_64")

ALLOW, ERRNO, LOG = 0x7FFF0000, 0x00050000, 0x7FFC0000
X86_64, I386 = 0xC000003E, 0x40000003
CALLS = {
    "read": 0,
    "clone": 56,
    "mount": 165,
    "reboot": 169,
    "socket": 41,
    "personality": 135,
    "clone3": 435,
    "bpf": 321,
}
CALLS |= {"keyctl": 250, "io_uring_setup": 425, "chroot": 161, "ptrace": 101, "x32": 0x40000000}


def run(program: bytes, number: int, *arguments: int, arch: int = X86_64) -> int:
    """The filter's answer to a call."""
    data = struct.pack("=IIQ6Q", number, arch, 0, *(list(arguments) + [0] * 6)[:6])
    accumulator, at = 0, 0
    while True:
        code, true, false, k = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("=I", data, k)[0]
            case 0x15:
                at += true if accumulator == k else false
            case 0x25:
                at += true if accumulator > k else false
            case 0x35:
                at += true if accumulator >= k else false
            case 0x05:
                at += k
            case 0x54:
                accumulator &= k
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


def default(name: str, *arguments: int, capabilities: tuple[str, ...] = caps.DEFAULT) -> int:
    return run(seccomp.compile("RuntimeDefault", capabilities), CALLS[name], *arguments)


@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("read", (), ALLOW),
        ("ptrace", (), ALLOW),
        ("mount", (), ERRNO | errno.EPERM),
        ("keyctl", (), ERRNO | errno.EPERM),
        ("io_uring_setup", (), ERRNO | errno.EPERM),
        ("bpf", (), ERRNO | errno.EPERM),
        ("clone3", (), ERRNO | errno.ENOSYS),
        ("clone", (0x11,), ALLOW),
        ("clone", (0x10000000,), ERRNO | errno.EPERM),
        ("clone", (0x00020000,), ERRNO | errno.EPERM),
        ("socket", (2,), ALLOW),
        ("socket", (40,), ERRNO | errno.EPERM),
        ("socket", (41,), ALLOW),
        ("personality", (0,), ALLOW),
        ("personality", (0xFFFFFFFF,), ALLOW),
        ("personality", (0x0400000,), ERRNO | errno.EPERM),
        ("chroot", (), ALLOW),
    ],
)
def test_the_default_filter(call: str, arguments: tuple[int, ...], expected: int) -> None:
    assert default(call, *arguments) == expected


def test_capabilities_open_calls() -> None:
    admin = (*caps.DEFAULT, "CAP_SYS_ADMIN")
    assert default("mount", capabilities=admin) == ALLOW
    assert default("clone3", capabilities=admin) == ALLOW
    assert default("clone", 0x10000000, capabilities=admin) == ALLOW
    assert default("reboot", capabilities=admin) == ERRNO | errno.EPERM
    assert default("reboot", capabilities=("CAP_SYS_BOOT",)) == ALLOW
    assert default("bpf", capabilities=("CAP_BPF",)) == ALLOW
    assert default("chroot", capabilities=()) == ERRNO | errno.EPERM


def test_calls_of_tomorrow_do_not_exist_yet() -> None:
    program = seccomp.compile("RuntimeDefault", caps.DEFAULT)
    assert run(program, 9999) == ERRNO | errno.ENOSYS


def test_other_architectures() -> None:
    program = seccomp.compile("RuntimeDefault", caps.DEFAULT)
    assert run(program, 3, arch=I386) == ALLOW
    assert run(program, 21, arch=I386) == ERRNO | errno.EPERM  # mount
    assert run(program, 0, arch=0xC00000B7) == 0  # a foreign architecture is killed
    assert run(program, CALLS["x32"]) == ALLOW


def test_compiled_once() -> None:
    assert seccomp.compile("RuntimeDefault", caps.DEFAULT) is seccomp.compile("RuntimeDefault", list(caps.DEFAULT))


def write(path: Path, profile: Any) -> str:
    path.write_text(profile if isinstance(profile, str) else json.dumps(profile))
    return str(path)


def test_a_profile_of_the_user(tmp_path: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": ["chroot", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
            {"names": ["read"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}]},
            {
                "names": ["socket"],
                "action": "SCMP_ACT_KILL_PROCESS",
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}],
            },
            {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_BPF"]}},
            {"names": ["reboot"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_SYS_BOOT"]}},
        ],
    }
    program = seccomp.compile(write(tmp_path / "p.json", profile), ())
    assert run(program, CALLS["chroot"]) == ERRNO | 5
    assert run(program, CALLS["read"], 7) == LOG
    assert run(program, CALLS["read"], 8) == ALLOW
    assert [run(program, CALLS["socket"], family) for family in (1, 2, 3)] == [0x80000000, 0x80000000, ALLOW]
    assert run(program, CALLS["bpf"]) == ERRNO | errno.EPERM
    assert run(program, CALLS["reboot"]) == ALLOW
    assert run(program, 9999) == ALLOW


def test_a_profile_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    first = seccomp.compile(write(path, {"defaultAction": "SCMP_ACT_ALLOW"}))
    second = seccomp.compile(write(path, {"defaultAction": "SCMP_ACT_LOG"}))
    assert run(first, 0) == ALLOW
    assert run(second, 0) == LOG


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("{", "not valid JSON"),
        ([], "must be a JSON object"),
        ({}, "defaultAction: None"),
        ({"defaultAction": "ALLOW"}, "defaultAction: 'ALLOW' is not one of"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"]}, "SCMP_ARCH_Z80"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}, "syscalls: must be a list"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": "read"}]}, r"syscalls\[0\]: must be"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"]}]}, r"syscalls\[0\]: action: None"),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG", "args": [{"index": 9, "value": 1}]}],
            },
            r"syscalls\[0\]: args",
        ),
    ],
)
def test_profiles_that_are_wrong(tmp_path: Path, profile: Any, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        seccomp.compile(write(tmp_path / "p.json", profile))


def test_profiles_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        seccomp.compile(str(tmp_path / "none.json"))
    with pytest.raises(IsADirectoryError):
        seccomp.compile(str(tmp_path))
    (tmp_path / "big").write_bytes(b" " * (2 << 20))
    with pytest.raises(InvalidError, match="larger than"):
        seccomp.compile(str(tmp_path / "big"))
