"""Pods that count lines without end, to find any that is lost or doubled while something is killed."""

from __future__ import annotations

import itertools
import re

from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import COUNTER, container, pod, status

LINE = re.compile(r"line (\d+)")


def numbers(daemon: Daemon, name: str, container_name: str = "main") -> list[int]:
    return [int(found) for found in LINE.findall(daemon.logs(name, container_name))]


def assert_whole(found: list[int], doubles: int = 0) -> None:
    """0, 1, 2 ... with none missing; at most ``doubles`` stretches written twice."""
    assert found, "no lines at all"
    steps = [after - before for before, after in itertools.pairwise(found)]
    jumps = [step for step in steps if step != 1]
    assert found[0] == 0
    assert all(jump <= 0 for jump in jumps), f"lines are missing: {[j for j in jumps if j > 1]}"
    assert len(jumps) <= doubles, f"lines were written twice {len(jumps)} times"
    assert sorted(set(found)) == list(range(max(found) + 1))


def container_ids(daemon: Daemon) -> dict[str, str]:
    return {found["metadata"]["name"]: status(found)["containerID"] for found in daemon.pods()}


def chatter(daemon: Daemon, count: int, prefix: str = "chatter") -> list[str]:
    """Start that many and wait until each has written some lines; returns their names."""
    names = [f"{prefix}-{index}" for index in range(count)]
    for name in names:
        daemon.apply(pod(name, container(script=COUNTER)))
    for name in names:
        daemon.wait_for(name, "Running", 60)
    for name in names:
        eventually(lambda name=name: len(numbers(daemon, name)) > 5)  # type: ignore[misc]
    return names


def lines_flow(daemon: Daemon, names: list[str]) -> None:
    """Every counter goes on counting."""
    before = {name: len(numbers(daemon, name)) for name in names}
    eventually(lambda: all(len(numbers(daemon, name)) > before[name] for name in names), 30)
