"""The built-in driver: who leaves while others are being disconnected leaves together with them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from podrt.network.driver import BridgeDriver


class Bridge:
    """Notes each call; ``gate`` holds it up, ids in ``broken`` fail."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.gate = threading.Event()
        self.broken: set[str] = set()

    def detach(self, *sandbox_ids: str) -> None:
        self.calls.append(sandbox_ids)
        assert self.gate.wait(10)
        for one in sandbox_ids:
            if one in self.broken:
                raise OSError(16, f"{one} is busy")


@pytest.fixture
def bridge() -> Bridge:
    return Bridge()


async def leave(bridge: Any, *sandbox_ids: str) -> list[Any]:
    """The results of all; the first is under way when the others come."""
    driver = BridgeDriver(bridge)
    first, *rest = sandbox_ids
    tasks = [asyncio.create_task(driver.detach(first))]
    while not bridge.calls:
        await asyncio.sleep(0.001)
    tasks += [asyncio.create_task(driver.detach(one)) for one in rest]
    await asyncio.sleep(0)
    bridge.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await driver.close()
    return results


async def test_together(bridge: Bridge) -> None:
    assert await leave(bridge, "a", "b", "c", "b") == [None] * 4
    assert bridge.calls == [("a",), ("b", "c")]


async def test_an_error_reaches_the_one_whom_it_concerns(bridge: Bridge) -> None:
    bridge.broken = {"b"}
    results = await leave(bridge, "a", "b", "c")
    assert [str(one) for one in results] == ["None", "[Errno 16] b is busy", "None"]
    assert bridge.calls == [("a",), ("b", "c"), ("b",), ("c",)]


async def test_one_that_gives_up_waiting_holds_up_nobody(bridge: Bridge) -> None:
    driver = BridgeDriver(bridge)  # type: ignore[arg-type]
    tasks = [asyncio.create_task(driver.detach(one)) for one in ("a", "b")]
    while not bridge.calls:
        await asyncio.sleep(0.001)
    tasks[0].cancel()
    bridge.gate.set()
    await tasks[1]
    await driver.detach("c")
    assert bridge.calls == [("a", "b"), ("c",)]
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
