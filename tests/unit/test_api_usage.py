"""The rate that ``top`` shows, of a container that is held to a tenth of a cpu, in virtual time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from podrt.api.usage import Sampler
from podrt.engine.specs import Stats
from podrt.model.meta import ObjectMeta
from podrt.model.pod import Pod

POD = Pod(metadata=ObjectMeta(name="a", namespace="n", uid="1"))


class Throttled:
    """It spends 10 ms at the start of each period of 100 ms, as cfs_quota_us has it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "time", lambda: self.now)
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def pod_stats(self, pod: Pod) -> dict[str, Stats]:
        periods, rest = divmod(round(self.now * 1000), 100)
        return {"main": Stats(at=self.now, cpu_usage_ns=(periods * 10 + min(rest, 10)) * 1_000_000)}


async def usage(sampler: Sampler) -> tuple[int, float]:
    """Millicores and the window in seconds."""
    (found,) = await sampler.pods([POD])
    document: Any = found["containers"][0]["usage"]["cpu"]
    return int(document.removesuffix("n")) // 1_000_000, float(found["window"].removesuffix("s"))


@pytest.mark.parametrize("phase", [0.0, 0.005, 0.05, 0.095])
@pytest.mark.parametrize("gaps", [(0.0,), (0.003, 0.003), (1.2, 0.005, 0.02, 0.4), (30.0, 0.001, 70.0, 0.001)])
async def test_the_window_is_long_whoever_asks_how_often(
    monkeypatch: pytest.MonkeyPatch, phase: float, gaps: tuple[float, ...]
) -> None:
    agent = Throttled(monkeypatch)
    agent.now += phase
    sampler = Sampler(agent)  # type: ignore[arg-type]
    found = [await usage(sampler)]
    for gap in gaps:
        agent.now += gap
        found.append(await usage(sampler))
    assert all(80 <= cpu <= 120 and window >= 0.5 for cpu, window in found), found
