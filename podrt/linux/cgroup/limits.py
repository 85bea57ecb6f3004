"""Limits of one cgroup, as every controller's file takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol


class LimitsLike(Protocol):
    """Anything with the fields of :class:`Limits`, such as the engine's ``Resources``."""

    @property
    def cpu_shares(self) -> int: ...
    @property
    def cpu_quota(self) -> int: ...
    @property
    def cpu_period(self) -> int: ...
    @property
    def memory_limit(self) -> int: ...
    @property
    def memory_swap(self) -> int: ...
    @property
    def pids_limit(self) -> int: ...
    @property
    def cpuset_cpus(self) -> str: ...
    @property
    def cpuset_mems(self) -> str: ...
    @property
    def hugepages(self) -> Mapping[str, int]: ...
    @property
    def unified(self) -> Mapping[str, str]: ...
    @property
    def oom_group(self) -> bool: ...


class Limits(NamedTuple):
    """In v1 units. 0 or empty: leave as it is; -1: no limit. Sizes are bytes, times microseconds."""

    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 100_000
    memory_limit: int = 0
    memory_swap: int = 0
    """Memory plus swap; 0: equal to ``memory_limit``, that is no swap."""
    pids_limit: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    hugepages: Mapping[str, int] = {}
    """Page size as ``2Mi``, ``2MB`` or ``2M`` -> bytes."""
    unified: Mapping[str, str] = {}
    """Name of a cgroup v2 file -> value; ignored where there is no cgroup v2 controller."""
    oom_group: bool = True
    """With a memory limit, on cgroup v2: when memory runs out all processes are killed, not one."""
