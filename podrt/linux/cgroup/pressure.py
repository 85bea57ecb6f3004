"""Pressure stall information: how long tasks waited for CPU, memory and I/O. In cgroup v2, if the kernel has it.

See Documentation/accounting/psi.rst of the kernel.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from podrt.linux.cgroup.files import read

KINDS = ("cpu", "memory", "io")
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EOPNOTSUPP)
"""EOPNOTSUPP: built in, but switched off at boot (psi=0)."""


class Stall(NamedTuple):
    """How long tasks waited: since the cgroup was made, and percents of the last 10, 60 and 300 seconds."""

    total_us: int = 0
    avg10: float = 0.0
    avg60: float = 0.0
    avg300: float = 0.0


class Pressure(NamedTuple):
    """Of one resource. ``some``: at least one task waited; ``full``: all that could run."""

    some: Stall = Stall()
    full: Stall = Stall()


def stats(directory: str) -> dict[str, Pressure]:
    """By KINDS; empty where there is none. Raises OSError."""
    result: dict[str, Pressure] = {}
    for name in KINDS:
        try:
            result[name] = parse(read(directory, f"{name}.pressure"))
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
    return result


def parse(text: str) -> Pressure:
    """``some avg10=0.00 avg60=0.00 avg300=0.00 total=42``, and for most resources ``full`` in a second line."""
    stalls: dict[str, Stall] = {}
    for line in text.splitlines():
        kind, *fields = line.split(" ")
        values = dict(field.split("=", 1) for field in fields)
        averages = (float(values.get(name, 0)) for name in ("avg10", "avg60", "avg300"))
        stalls[kind] = Stall(int(values.get("total", 0)), *averages)
    return Pressure(stalls.get("some", Stall()), stalls.get("full", Stall()))
