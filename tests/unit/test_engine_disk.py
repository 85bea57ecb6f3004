"""When writable layers are walked, how long a question waits, and that a walk goes on without it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from podrt.engine import disk
from podrt.engine.disk import LayerUsage, Measured, together
from tests.framework.patience import scaled


@pytest.fixture
async def layers() -> AsyncIterator[LayerUsage]:
    made = LayerUsage()
    yield made
    await made.close()


def make(root: Path, files: int) -> Path:
    root.mkdir()
    for number in range(files):
        (root / str(number)).write_bytes(b"x" * 5000)
    return root


async def test_a_layer_is_measured_and_again_when_it_may_have_changed(
    tmp_path: Path, layers: LayerUsage, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = make(tmp_path / "upper", 3)
    first = (await layers.of([("a", layer)]))["a"]
    assert first.inodes == 3 and first.bytes >= 15000 and time.time() - first.at < scaled(5)
    (layer / "more").touch()
    monkeypatch.setattr(disk, "_FRESH", 1e6)
    monkeypatch.setattr(disk, "_COST_FACTOR", 0.0)
    assert (await layers.of([("a", layer)]))["a"] == first, "it was measured just now"
    monkeypatch.setattr(disk, "_FRESH", 0.0)
    assert (await layers.of([("a", layer)]))["a"].inodes == 4
    layers.forget("a")
    assert (await layers.of([("b", tmp_path / "missing")]))["b"].inodes == 0


async def test_a_question_does_not_wait_for_a_long_walk(
    tmp_path: Path, layers: LayerUsage, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()
    walks: list[Path] = []

    def slow(directory: Path) -> tuple[int, int]:
        walks.append(directory)
        begun.set()
        assert go.wait(scaled(30))
        return 7, 1

    monkeypatch.setattr(disk, "disk_usage", slow)
    monkeypatch.setattr(disk, "PATIENCE", 0.01)
    try:
        assert await layers.of([("a", tmp_path)]) == {"a": Measured()}
        assert await asyncio.to_thread(begun.wait, scaled(30))
        assert (await layers.of([("a", tmp_path)]))["a"].at == 0 and len(walks) == 1, "nor is another begun"
    finally:
        go.set()
    async with asyncio.timeout(scaled(30)):
        while not (found := (await layers.of([("a", tmp_path)]))["a"]).at:
            await asyncio.sleep(0.01)
    assert (found.bytes, found.inodes) == (7, 1)
    assert (await layers.of([("a", tmp_path)]))["a"] == found and len(walks) == 1, "a dear walk is not repeated soon"


async def test_a_layer_that_cannot_be_read_does_not_stop_the_others(
    tmp_path: Path, layers: LayerUsage, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    found = await layers.of([("bad", tmp_path / "file"), ("good", make(tmp_path / "upper", 2))])
    assert found["bad"].at == 0 and found["good"].inodes == 2
    assert "bad" in caplog.text


async def test_closing_ends_the_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr(disk, "disk_usage", lambda _: (go.wait(scaled(30)), (0, 0))[1])
    monkeypatch.setattr(disk, "PATIENCE", 1e6)
    layers = LayerUsage()
    asking = asyncio.create_task(layers.of([("a", tmp_path)]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(scaled(20)):
            await layers.close()
            assert await asking == {"a": Measured()}
    finally:
        go.set()


def test_together() -> None:
    assert together([Measured(5.0, 10, 1, 0.1), Measured(3.0, 1, 1), Measured()]) == Measured(3.0, 11, 2)
    assert together([Measured()]) == Measured()
