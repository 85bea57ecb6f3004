"""Pressure stall information: how long tasks waited for CPU, memory and I/O. In cgroup v2, if the kernel has it."""

from __future__ import annotations

import errno

from podrt.linux.cgroup.files import read

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EOPNOTSUPP)
"""EOPNOTSUPP: built in, but switched off at boot (psi=0)."""


def stats(directory: str) -> dict[str, int]:
    """``psi_<cpu|memory|io>_<some|full>_us``: microseconds since the cgroup was made; empty where there is none."""
    result: dict[str, int] = {}
    for name in ("cpu", "memory", "io"):
        try:
            text = read(directory, f"{name}.pressure")
        except OSError as error:
            if error.errno in _ABSENT:
                continue
            raise
        result |= {f"psi_{name}_{kind}_us": total for kind, total in parse(text).items()}
    return result


def parse(text: str) -> dict[str, int]:
    """``some avg10=0.00 avg60=0.00 avg300=0.00 total=42`` -> {"some": 42}."""
    totals = {}
    for line in text.splitlines():
        kind, *fields = line.split(" ")
        for field in fields:
            if field.startswith("total="):
                totals[kind] = int(field.removeprefix("total="))
    return totals
