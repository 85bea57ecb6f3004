"""The log reader: tail from the end, filters, rotation, following."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from podrt.engine.logs import LogOptions, read_log
from podrt.errors import InvalidError


def record(text: str, *, second: int = 0, stream: str = "stdout", tag: str = "F") -> str:
    return f"2026-01-02T03:04:{second:02d}.000000001Z {stream} {tag} {text}\n"


async def read(path: Path, options: LogOptions | None = None) -> bytes:
    return b"".join([chunk async for chunk in read_log(path, options or LogOptions())])


async def test_missing_log_is_empty(tmp_path: Path) -> None:
    assert await read(tmp_path / "0.log") == b""


async def test_all_lines_and_joined_partials(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text(record("a") + record("b1 ", tag="P") + record("b2", tag="F") + record("", stream="stderr"))
    assert await read(path) == b"a\nb1 b2\n\n"


async def test_text_keeps_spaces_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(b"2026-01-02T03:04:05Z stdout F   two  \xff spaces \n")
    assert await read(path) == b"  two  \xff spaces \n"


@pytest.mark.parametrize(
    ("tail", "wanted"),
    [(0, b""), (1, b"c1c2\n"), (2, b"b\nc1c2\n"), (3, b"a\nb\nc1c2\n"), (9, b"a\nb\nc1c2\n")],
)
async def test_tail_counts_complete_lines(tmp_path: Path, tail: int, wanted: bytes) -> None:
    path = tmp_path / "0.log"
    path.write_text(record("a") + record("b") + record("c1", tag="P") + record("c2"))
    assert await read(path, LogOptions(tail_lines=tail)) == wanted


@pytest.mark.parametrize(
    ("tail", "wanted"),
    [(0, b""), (1, b"c1c2"), (2, b"b\nc1c2"), (3, b"a\nb\nc1c2"), (4, b"z\na\nb\nc1c2"), (9, b"z\na\nb\nc1c2")],
)
async def test_tail_counts_a_last_line_that_nothing_has_ended(tmp_path: Path, tail: int, wanted: bytes) -> None:
    path = tmp_path / "0.log"
    (tmp_path / "0.log.20260102-030405").write_text(record("z"))
    path.write_text(record("a") + record("b") + record("c1", tag="P") + record("c2", tag="P"))
    assert await read(path, LogOptions(tail_lines=tail)) == wanted
    path.write_text(record("c1", tag="P") + record("c2", tag="P"))
    assert await read(path, LogOptions(tail_lines=1)) == b"c1c2"


async def test_tail_of_a_large_log_reads_only_its_end(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    with path.open("w") as file:
        for number in range(300_000):
            file.write(record(f"line {number} {'x' * 100}"))
    begin = time.perf_counter()
    text = await read(path, LogOptions(tail_lines=1000))
    elapsed = time.perf_counter() - begin
    lines = text.splitlines()
    assert len(lines) == 1000
    assert lines[0].startswith(b"line 299000 ")
    assert lines[-1].startswith(b"line 299999 ")
    assert elapsed < 0.25  # reading all 45 MB takes more


async def test_tail_goes_back_into_rotated_files(tmp_path: Path) -> None:
    (tmp_path / "0.log.20260101-000000").write_text(record("a") + record("b"))
    (tmp_path / "0.log.20260101-000001").write_text(record("c"))
    (tmp_path / "0.log.20250101-000000.gz").write_bytes(b"not read")
    path = tmp_path / "0.log"
    path.write_text(record("d"))
    assert await read(path, LogOptions(tail_lines=3)) == b"b\nc\nd\n"
    assert await read(path, LogOptions(tail_lines=10)) == b"a\nb\nc\nd\n"
    assert await read(path) == b"a\nb\nc\nd\n"


async def test_tail_of_long_lines_that_cross_chunks(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    long = "y" * 100_000
    path.write_text(record("first") + record(long) + record("last"))
    assert await read(path, LogOptions(tail_lines=2)) == f"{long}\nlast\n".encode()
    assert await read(path) == f"first\n{long}\nlast\n".encode()


async def test_since_timestamps_stream_and_limit(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text(record("a", second=1) + record("b", second=2, stream="stderr") + record("c", second=3))
    second_two = 1767323042.0  # 2026-01-02T03:04:02Z
    assert await read(path, LogOptions(since_time=second_two)) == b"b\nc\n"
    assert await read(path, LogOptions(stream="Stderr")) == b"b\n"
    assert await read(path, LogOptions(timestamps=True, tail_lines=1)) == b"2026-01-02T03:04:03.000000001Z c\n"
    assert await read(path, LogOptions(limit_bytes=3)) == b"a\nb"
    assert await read(path, LogOptions(since_seconds=5)) == b""


async def test_timestamp_only_at_the_start_of_a_joined_line(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text(record("a", tag="P") + record("b"))
    assert await read(path, LogOptions(timestamps=True)) == b"2026-01-02T03:04:00.000000001Z ab\n"


@pytest.mark.parametrize(
    "options",
    [
        LogOptions(tail_lines=-1),
        LogOptions(limit_bytes=0),
        LogOptions(since_seconds=-1),
        LogOptions(since_seconds=1, since_time=1),
        LogOptions(stream="Both"),
    ],
)
async def test_bad_options_are_refused(tmp_path: Path, options: LogOptions) -> None:
    with pytest.raises(InvalidError):
        await read(tmp_path / "0.log", options)


async def test_torn_last_record_is_shown_and_garbage_is_not(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text("garbage\n" + record("a") + record("torn")[:-1])
    assert await read(path) == b"a\ntorn\n"


async def test_follow_across_rotation_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text(record("start"))
    finished = False
    wanted = ["start"]

    async def write() -> None:
        nonlocal finished
        number = 0
        for rotation in range(4):
            with path.open("a") as file:
                for _ in range(200):
                    file.write(record(f"n{number}"))
                    wanted.append(f"n{number}")
                    number += 1
                    if number % 50 == 0:
                        file.flush()
                        await asyncio.sleep(0.005)
            # Two rotations may fall between two reads.
            path.rename(tmp_path / f"0.log.2026010{rotation}")
            path.touch()
        await asyncio.sleep(0.05)
        with path.open("a") as file:
            file.write(record("end"))
            wanted.append("end")
        finished = True

    writer = asyncio.create_task(write())
    chunks = [chunk async for chunk in read_log(path, LogOptions(follow=True), lambda: finished)]
    await writer
    assert b"".join(chunks).decode().split() == wanted


async def test_follow_notices_within_100_ms(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text(record("start"))
    follower = read_log(path, LogOptions(follow=True, tail_lines=0), lambda: False)
    task = asyncio.ensure_future(anext(follower))
    await asyncio.sleep(0.4)
    with path.open("a") as file:
        file.write(record("x"))
    begin = time.perf_counter()
    assert await task == b"x\n"
    assert time.perf_counter() - begin < 0.3
    await follower.aclose()


async def test_follow_of_a_log_that_appears_later(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    ended = False
    task = asyncio.ensure_future(_collect(path, lambda: ended))
    await asyncio.sleep(0.05)
    path.write_text(record("late"))
    ended = True
    assert await task == b"late\n"


async def _collect(path: Path, stopped: object) -> bytes:
    assert callable(stopped)
    return b"".join([chunk async for chunk in read_log(path, LogOptions(follow=True), stopped)])


@pytest.mark.parametrize("options", [LogOptions(), LogOptions(tail_lines=5), LogOptions(follow=True)])
@pytest.mark.parametrize("kind", ["link", "fifo", "rotated"])
async def test_a_log_that_a_pod_has_replaced(tmp_path: Path, kind: str, options: LogOptions) -> None:
    """Who has the log directory in a volume can't have files of the host read, or a thread of the daemon held."""
    secret = tmp_path / "secret"
    secret.write_text(record("secret"))
    path = tmp_path / "0.log"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(secret)
    else:
        path.write_text(record("mine"))
        (tmp_path / "0.log.20260101-000000").symlink_to(secret)
    with pytest.raises(InvalidError, match="plain file"):
        await asyncio.wait_for(read(path, options), 5)
