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
    processes = (daemon.pid, daemon.supervisor_pid)
    before, start = sum(map(cpu_seconds, processes)), time.monotonic()
    time.sleep(6)
    spent, took = sum(map(cpu_seconds, processes)) - before, time.monotonic() - start
    assert spent < BUDGET * 3 * PODS * took, f"{1e6 * spent / took / PODS / 3:.0f} us for each probe"
