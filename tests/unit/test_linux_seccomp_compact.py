"""Shortened filters decide as the ones they are made from: asked with every number that makes a difference."""

from __future__ import annotations

import errno
import platform
import random
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podrt.errors import InvalidError
from podrt.linux import caps, seccomp
from podrt.linux.seccomp_compact import Instruction, compact, parse

ARCHITECTURES = (0xC000003E, 0x40000003, 0xC00000B7, 0x40000028, 0, 0xFFFFFFFF)
ARGUMENTS = (0, 1, 2, 8, 16, 40, 0x7E020000, 0x10000000, 0x20008, 0xFFFFFFFF, 2**64 - 1)


def decide(code: Sequence[Instruction], number: int, architecture: int, arguments: Sequence[int]) -> int:
    """What the kernel would return for a call: seccomp(2), and the instructions of bpf(4) that libseccomp uses."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments)
    at = held = 0
    while True:
        one = code[at]
        at += 1
        if one.code == 0x06:
            return one.value
        if one.code == 0x20:
            (held,) = struct.unpack_from("=I", data, one.value)
        elif one.code == 0x54:
            held &= one.value
        elif one.code == 0x05:
            at += one.value
        else:
            test = {0x15: held == one.value, 0x25: held > one.value, 0x35: held >= one.value, 0x45: held & one.value}
            at += one.yes if test[one.code] else one.no


def compiled(monkeypatch: pytest.MonkeyPatch, profile: Any, capabilities: Sequence[str] = ()) -> bytes:
    """A profile's program as libseccomp makes it."""
    with monkeypatch.context() as patch:
        patch.setattr(seccomp, "compact", lambda program: program)
        return seccomp.compile_profile(profile, "test", capabilities)


def assert_same(program: bytes, rounds: int) -> None:
    before, after = parse(program), parse(compact(program))
    compared = {one.value + offset for one in before if one.code & 7 == 5 for offset in (-1, 0, 1)}
    numbers = sorted({*range(600), *range(0x40000000, 0x40000258), 2**32 - 1, *compared} - {-1, 2**32})
    chance = random.Random(rounds)
    for architecture in ARCHITECTURES:
        for number in numbers:
            for _ in range(rounds):
                arguments = chance.choices(ARGUMENTS, k=6)
                expected = decide(before, number, architecture, arguments)
                assert decide(after, number, architecture, arguments) == expected, (number, architecture, arguments)


@pytest.mark.parametrize("capabilities", [(), caps.DEFAULT, ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_BPF")])
def test_the_default_filter(monkeypatch: pytest.MonkeyPatch, capabilities: Sequence[str]) -> None:
    program = compiled(monkeypatch, seccomp.default_profile(capabilities), capabilities)
    assert len(compact(program)) < len(program) / 2
    assert_same(program, 6)


CONDITION = st.fixed_dictionaries(
    {
        "index": st.integers(0, 2),
        "value": st.sampled_from(ARGUMENTS),
        "valueTwo": st.sampled_from(ARGUMENTS),
        "op": st.sampled_from(
            [f"SCMP_CMP_{operator}" for operator in ("EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ")]
        ),
    }
)
RULE = st.fixed_dictionaries(
    {
        "names": st.lists(st.sampled_from(["read", "write", "clone", "socket", "ioctl", "personality"]), min_size=1),
        "action": st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_KILL_PROCESS"]),
        "args": st.lists(CONDITION, max_size=2, unique_by=lambda one: str(one["index"])),  # type: ignore[index]
    }
)


@settings(max_examples=20, deadline=None)
@given(
    rules=st.lists(RULE, max_size=4),
    default=st.sampled_from(["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW"]),
    architectures=st.sampled_from([[], ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]]),
)
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names its architectures")
def test_any_profile(rules: list[dict[str, Any]], default: str, architectures: list[str]) -> None:
    profile = {"defaultAction": default, "architectures": architectures, "syscalls": rules}
    with pytest.MonkeyPatch.context() as patch:
        try:
            program = compiled(patch, profile)
        except (ValueError, OSError, InvalidError):
            return  # libseccomp refuses rules that contradict each other
    assert_same(program, 3)


def program(*rows: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=HBBI", *row) for row in rows)


@pytest.mark.parametrize(
    "rows",
    [
        # A number's bits, an architecture's order, an unknown instruction, a comparison before a load.
        ((0x20, 0, 0, 0), (0x45, 0, 1, 1), (0x06, 0, 0, 1), (0x06, 0, 0, 2)),
        ((0x20, 0, 0, 4), (0x25, 0, 1, 1), (0x06, 0, 0, 1), (0x06, 0, 0, 2)),
        ((0x20, 0, 0, 0), (0x74, 0, 0, 1), (0x15, 0, 1, 1), (0x06, 0, 0, 1), (0x06, 0, 0, 2)),
        ((0x15, 0, 1, 1), (0x06, 0, 0, 1), (0x06, 0, 0, 2)),
    ],
)
def test_what_is_not_understood_stays(rows: tuple[tuple[int, int, int, int], ...]) -> None:
    assert compact(program(*rows)) == program(*rows)


def test_ranges_of_equal_answers_become_one() -> None:
    allow, deny = 0x7FFF0000, 0x00050000 | errno.EPERM
    rows = [(0x20, 0, 0, 0), *((0x15, 100 - number, 0, number) for number in range(100)), (0x06, 0, 0, deny)]
    long = program(*rows, (0x06, 0, 0, allow))
    short = compact(long)
    assert len(parse(short)) < 8
    for number in (0, 1, 50, 99, 100, 2**32 - 1):
        assert decide(parse(short), number, 7, [0] * 6) == (allow if number < 100 else deny)
