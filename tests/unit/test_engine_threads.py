"""Work that may never return, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading

import pytest

from podrt.engine import threads


async def test_result_and_error() -> None:
    def fails() -> None:
        raise FileNotFoundError(2, "gone")

    assert await threads.patiently(lambda: 5, "it") == 5
    with pytest.raises(FileNotFoundError):
        await threads.patiently(fails, "it")


async def test_patience_has_an_end_and_what_comes_later_is_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "PATIENCE_SECONDS", 0.05)
    go, thrown = threading.Event(), asyncio.Event()

    def slow() -> int:
        go.wait(10)
        return 7

    def discard(result: int) -> None:
        assert result == 7
        thrown.set()

    with pytest.raises(TimeoutError, match="the volume v: no answer in 0"):
        await threads.patiently(slow, "the volume v", discard)
    go.set()
    await asyncio.wait_for(thrown.wait(), 5)
