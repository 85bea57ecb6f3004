"""The undo stack: order, failures, cancellation, deadline, checkpoints."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from podrt.engine import undo
from podrt.engine.undo import UndoStack, finish


@pytest.fixture
def announced() -> Iterator[list[str]]:
    names: list[str] = []
    undo.hook = names.append
    yield names
    undo.hook = None


async def test_success_undoes_nothing(announced: list[str]) -> None:
    done: list[str] = []
    async with UndoStack("x") as stack:
        stack.step("a", lambda: done.append("a"))
        stack.step("b")
    assert done == []
    assert announced == ["a", "b"]


async def test_failure_undoes_in_reverse_and_raises() -> None:
    done: list[str] = []

    async def slow() -> None:
        await asyncio.sleep(0)
        done.append("b")

    with pytest.raises(ValueError, match="first"):
        async with UndoStack("x") as stack:
            stack.step("a", lambda: done.append("a"))
            stack.step("b", slow)
            stack.step("c", lambda: done.append("c"))
            raise ValueError("first")
    assert done == ["c", "b", "a"]


async def test_goes_on_past_a_failing_undo(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    def fail() -> None:
        raise OSError("no")

    with pytest.raises(ValueError), caplog.at_level(logging.WARNING):
        async with UndoStack("sandbox x") as stack:
            stack.step("a", lambda: done.append("a"))
            stack.step("b", fail)
            raise ValueError
    assert done == ["a"]
    assert "sandbox x: undo of b failed: no" in caplog.text


async def test_survives_cancellation_twice() -> None:
    done: list[str] = []
    entered = asyncio.Event()
    undoing = asyncio.Event()

    async def slow() -> None:
        undoing.set()
        await asyncio.sleep(0.02)
        done.append("a")

    async def work() -> None:
        async with UndoStack("x") as stack:
            stack.step("a", slow)
            entered.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    await undoing.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["a"]


async def test_deadline_names_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []
    with pytest.raises(ValueError), caplog.at_level(logging.ERROR):
        async with UndoStack("x", deadline=0.02) as stack:
            stack.step("first", lambda: done.append("first"))
            stack.step("second", lambda: done.append("second"))
            stack.step("hangs", lambda: asyncio.sleep(60))
            raise ValueError
    assert done == []
    assert "hangs, second, first" in caplog.text


async def test_a_step_that_fails_at_its_checkpoint_is_undone() -> None:
    done: list[str] = []

    def explode(name: str) -> None:
        if name == "b":
            raise RuntimeError("injected")

    undo.hook = explode
    try:
        with pytest.raises(RuntimeError, match="injected"):
            async with UndoStack("x") as stack:
                stack.step("a", lambda: done.append("a"))
                stack.step("b", lambda: done.append("b"))
    finally:
        undo.hook = None
    assert done == ["b", "a"]


async def test_finish_returns_the_result() -> None:
    async def work() -> int:
        return 7

    assert await finish(work(), "x") == 7


async def test_finish_ends_the_work_before_the_cancellation() -> None:
    done: list[int] = []

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.append(1)

    task = asyncio.create_task(finish(work(), "x"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1]
