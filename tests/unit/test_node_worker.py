"""A Pod's worker survives what one round of it comes to."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from podrt.errors import InvalidError
from podrt.node import worker
from podrt.node.worker import PodWorker


@pytest.mark.parametrize("error", [RecursionError("deep"), ValueError("odd"), OSError(5, "I/O"), InvalidError("no")])
async def test_a_failing_round_is_tried_again(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Whatever it is: one Pod must not end the daemon for all, and again after each start."""
    monkeypatch.setattr(worker, "RETRY_AFTER_ERROR", 0.01)
    rounds: list[int] = []

    async def step(_: PodWorker) -> float | None:
        rounds.append(1)
        if len(rounds) < 3:
            raise error
        return None

    monkeypatch.setattr(PodWorker, "_step", step)
    made = cast(Any, PodWorker.__new__(PodWorker))
    made._wake = asyncio.Event()
    made._namespace, made._name, made._last = "default", "p", None
    part = SimpleNamespace(close=lambda: None, resume=lambda pod: None)
    made._attendant = made._volumes = made._images = made._resizer = part
    await asyncio.wait_for(made.run(), 5)
    assert len(rounds) == 3
