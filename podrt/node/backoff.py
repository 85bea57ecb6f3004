"""Back-off of restarts and image pulls: the kubelet's numbers, without state of its own.

A container carries its *level* (how many restarts without a long good run came before it) in an annotation of its
engine record, so the next delay follows from facts and survives a restart of the daemon.
"""

from __future__ import annotations

INITIAL = 10.0
"""Seconds before the second restart; the first is immediate."""
MAXIMUM = 300.0
RESET_AFTER = 600.0
"""A run of this many seconds without a failure starts the series anew."""
SANDBOX_INITIAL = 1.0
SANDBOX_MAXIMUM = 60.0


def restart_delay(level: int) -> float:
    """Seconds from the end of a container to its restart: 0, 10, 20, 40, ... 300 for level 0, 1, 2, ..."""
    if level <= 0:
        return 0.0
    return min(INITIAL * 2.0 ** min(level - 1, 30), MAXIMUM)


def level_after(level: int, started_at: float, finished_at: float) -> int:
    """The level that counts when a container of ``level`` ended: 0 after a long run, else its own."""
    return 0 if started_at and finished_at - started_at >= RESET_AFTER else level


def retry_delay(failures: int, initial: float = INITIAL, maximum: float = MAXIMUM) -> float:
    """Seconds until the next try after ``failures`` (1 or more) failed ones: 10, 20, 40, ... 300."""
    return min(initial * 2.0 ** min(failures - 1, 30), maximum)
