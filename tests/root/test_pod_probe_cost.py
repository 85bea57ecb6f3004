"""Probes cost little: the CPU time of the daemon and its supervisor with many of them."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from bench.probes import HANDLERS, cpu_seconds, pod
from tests.framework.daemon import Daemon

PODS = 20
BUDGET = 0.15 / 300
"""Seconds of CPU for each probe: 100 Pods with three probes a second may take 15 % of one core."""


@pytest.mark.parametrize("handlers", ["httpGet, tcpSocket, httpGet", "exec, httpGet, tcpSocket"])
def test_three_probes_a_second_stay_below_the_budget(daemon_factory: Callable[..., Daemon], handlers: str) -> None:
    daemon = daemon_factory(log_level="warning")
    names = [f"probed-{number}" for number in range(PODS)]
    for name in names:
        daemon.apply(pod(name, HANDLERS[handlers]))
    for name in names:
        daemon.wait_for(name, "Ready", 60)
    time.sleep(2)
    # What else runs on the machine can only make it dearer (shared caches, sibling hardware threads).
    each = []
    while not each or (len(each) < 4 and min(each) >= BUDGET):
        each.append(cost((daemon.pid, daemon.supervisor_pid)))
    assert min(each) < BUDGET, f"{', '.join(f'{1e6 * one:.0f}' for one in each)} us for each probe"


def cost(processes: tuple[int, ...]) -> float:
    """Seconds of CPU that a probe takes, over 6 seconds."""
    before, start = sum(map(cpu_seconds, processes)), time.monotonic()
    time.sleep(6)
    spent, took = sum(map(cpu_seconds, processes)) - before, time.monotonic() - start
    return spent / took / PODS / 3
