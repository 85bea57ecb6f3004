"""Probes cost little: the daemon's CPU time with many of them."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.probes import HANDLERS, cpu_seconds, pod
from tests.framework.daemon import Daemon

PODS = 20
BUDGET = 0.15 / 300
"""Seconds of CPU for each probe: 100 Pods with three probes a second may take 15 % of one core."""


def test_three_probes_a_second_stay_below_the_budget(daemon_factory: Callable[..., Daemon]) -> None:
    daemon = daemon_factory(log_level="warning")
    names = [f"probed-{number}" for number in range(PODS)]
    for name in names:
        daemon.apply(pod(name, HANDLERS["httpGet, tcpSocket, httpGet"]))
    for name in names:
        daemon.wait_for(name, "Ready", 60)
    time.sleep(2)
    before, start = cpu_seconds(daemon.pid), time.monotonic()
    time.sleep(6)
    spent, took = cpu_seconds(daemon.pid) - before, time.monotonic() - start
    assert spent < BUDGET * 3 * PODS * took, f"{1e6 * spent / took / PODS / 3:.0f} us for each probe"
