"""Huge pages, by page size."""

from __future__ import annotations

import re

from podrt.errors import InvalidError
from podrt.linux.cgroup.files import limit_v2, write
from podrt.linux.cgroup.limits import LimitsLike

_SIZE = re.compile(r"(\d+)([KMG])(?:i|B|iB)?")


def kernel_size(size: str) -> str:
    """The kernel's name of a page size: ``2Mi``, ``2M`` and ``2MB`` are ``2MB``. Raises InvalidError."""
    match = _SIZE.fullmatch(size)
    if match is None:
        raise InvalidError(f"huge page size {size!r}: must be like 2Mi or 1Gi")
    return f"{match[1]}{match[2]}B"


def write_v1(directory: str, limits: LimitsLike) -> None:
    for size, value in limits.hugepages.items():
        _write(directory, f"hugetlb.{kernel_size(size)}.limit_in_bytes", str(value), value)


def write_v2(directory: str, limits: LimitsLike) -> None:
    for size, value in limits.hugepages.items():
        _write(directory, f"hugetlb.{kernel_size(size)}.max", limit_v2(value), value)


def _write(directory: str, name: str, text: str, value: int) -> None:
    """A kubelet says 0 of every size that it has heard of, also where this kernel doesn't count them."""
    try:
        write(directory, name, text)
    except FileNotFoundError:
        if value:
            raise
