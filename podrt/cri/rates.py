"""CPU use as a rate: ``usage_nano_cores``, from two readings of a counter.

The window of a rate ends now and begins at the last earlier reading that is at least a second old, so that two clients
don't shorten each other's windows: a kubelet that asks every ten seconds gets windows of ten seconds. Before the first
reading stands the making of the cgroup, when its counter was 0. Readings live as long as the daemon.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

MIN_WINDOW = 1.0


class Sample(NamedTuple):
    at: float
    """Unix time."""
    usage: int
    """CPU nanoseconds."""


class Rates:
    """Keeps the last two readings of each subject that are a second apart."""

    def __init__(self) -> None:
        self._samples: dict[str, tuple[Sample, ...]] = {}

    def of(self, subject: str, at: float, usage: int, born: float) -> int | None:
        """Nanocores: CPU nanoseconds in each second of the window. ``born``: when the counter was 0.

        None where the clock or the counter went back."""
        birth = Sample(born, 0)
        samples = self._samples.get(subject, (birth,))
        if samples[-1].at > at:
            samples = (birth,)
        # A window that begins with the birth may be short: what it counts is exact.
        begin = next((one for one in reversed(samples) if at - one.at >= MIN_WINDOW or one == birth), samples[0])
        if samples[-1] == birth or at - samples[-1].at >= MIN_WINDOW:
            self._samples[subject] = (samples[-1], Sample(at, usage))
        if at <= begin.at or usage < begin.usage:
            return None
        return round((usage - begin.usage) / (at - begin.at))

    def keep(self, subjects: Collection[str]) -> None:
        """Forget all but these."""
        if len(self._samples) > len(subjects):
            self._samples = {one: samples for one, samples in self._samples.items() if one in subjects}
