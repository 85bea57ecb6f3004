"""Which device nodes may be opened and made: a list of rules, all else is denied.

v1 takes the rules as text. In v2 it is a small BPF program (BPF_PROG_TYPE_CGROUP_DEVICE) on the cgroup's directory, put
together here by hand: one comparison per field of a rule, first match wins.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

from podrt.linux import abi, libc
from podrt.linux.cgroup.files import write_each


class DeviceRule(NamedTuple):
    """What is allowed. ``kind`` is ``c``, ``b`` or ``a`` (both); a number of -1 means any; ``access`` of ``rwm``."""

    kind: str
    major: int
    minor: int
    access: str = "rwm"


DEFAULT_RULES: tuple[DeviceRule, ...] = (
    DeviceRule("c", -1, -1, "m"),
    DeviceRule("b", -1, -1, "m"),
    DeviceRule("c", 1, 3),  # null
    DeviceRule("c", 1, 5),  # zero
    DeviceRule("c", 1, 7),  # full
    DeviceRule("c", 1, 8),  # random
    DeviceRule("c", 1, 9),  # urandom
    DeviceRule("c", 5, 0),  # tty
    DeviceRule("c", 5, 1),  # console
    DeviceRule("c", 5, 2),  # ptmx
    DeviceRule("c", 136, -1),  # pts
)
"""What every container needs. Nodes may be made of any device, as containerd and docker have it; not opened."""


def text_v1(rule: DeviceRule) -> str:
    """``c 1:3 rwm``; an empty kind stands for both and all."""
    if rule.kind == "a":
        return "a"
    major = "*" if rule.major < 0 else str(rule.major)
    minor = "*" if rule.minor < 0 else str(rule.minor)
    return f"{rule.kind} {major}:{minor} {rule.access}"


def write_v1(directory: str, rules: Sequence[DeviceRule]) -> None:
    if not any(rule.kind == "a" for rule in rules):
        write_each(directory, "devices.deny", ["a"])
        write_each(directory, "devices.allow", [text_v1(rule) for rule in rules])


_KIND = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_LOAD_WORD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_MOVE = 0xBF  # BPF_ALU64 | BPF_MOV | BPF_X
_MOVE_CONSTANT = 0xB7
_AND_CONSTANT = 0x54  # BPF_ALU | BPF_AND | BPF_K: 32 bits
_SHIFT_RIGHT = 0x74
_JUMP_IF_NOT = 0x55  # BPF_JMP | BPF_JNE | BPF_K
_EXIT = 0x95


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, constant: int = 0) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | target, offset, constant)


def program_v2(rules: Sequence[DeviceRule]) -> bytes:
    """Instructions that return 1 if a rule allows the access and else 0.

    Input: struct bpf_cgroup_dev_ctx {access << 16 | type, major, minor} in r1.
    """
    code = [
        _instruction(_LOAD_WORD, 2, 1, 0),
        _instruction(_AND_CONSTANT, 2, constant=0xFFFF),
        _instruction(_LOAD_WORD, 3, 1, 0),
        _instruction(_SHIFT_RIGHT, 3, constant=16),
        _instruction(_LOAD_WORD, 4, 1, 4),
        _instruction(_LOAD_WORD, 5, 1, 8),
    ]
    for rule in rules:
        code += _rule(rule)
    code += [_instruction(_MOVE_CONSTANT, 0, constant=0), _instruction(_EXIT)]
    return b"".join(code)


def _rule(rule: DeviceRule) -> list[bytes]:
    tests: list[tuple[int, int]] = []
    if rule.kind != "a":
        tests.append((2, _KIND[rule.kind]))
    allowed = sum(_ACCESS[letter] for letter in set(rule.access)) if rule.kind != "a" else 7
    if rule.major >= 0:
        tests.append((4, rule.major))
    if rule.minor >= 0:
        tests.append((5, rule.minor))
    access = [] if allowed == 7 else [_instruction(_MOVE, 1, 3), _instruction(_AND_CONSTANT, 1, constant=7 & ~allowed)]
    length = len(tests) + (len(access) + 1 if access else 0) + 2
    code: list[bytes] = []
    for register, value in tests:
        code.append(_instruction(_JUMP_IF_NOT, register, offset=length - len(code) - 1, constant=value))
    if access:
        code += access
        code.append(_instruction(_JUMP_IF_NOT, 1, offset=length - len(code) - 1, constant=0))
    return [*code, _instruction(_MOVE_CONSTANT, 0, constant=1), _instruction(_EXIT)]


def attach_v2(directory: str, rules: Sequence[DeviceRule]) -> None:
    """Load the program and attach it to the cgroup, which keeps it from then on."""
    if any(rule.kind == "a" for rule in rules):
        return
    program = libc.bpf_prog_load(abi.BPF_PROG_TYPE_CGROUP_DEVICE, program_v2(rules), "Apache-2.0", "podrt_devices")
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            libc.bpf_prog_attach(fd, program, abi.BPF_CGROUP_DEVICE, abi.BPF_F_ALLOW_MULTI)
        finally:
            os.close(fd)
    finally:
        os.close(program)
