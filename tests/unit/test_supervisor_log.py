"""The log's format, its cutting into records, and rotation."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podrt.supervisor import logfile
from podrt.supervisor.logfile import PARTIAL, LogFile, cut, format_lines, timestamp

NOW = 1_700_000_000_123_456_789
RECORD = re.compile(rb"^2023-11-14T22:13:20\.123456789Z (stdout|stderr) ([FP]) (.*)$", re.DOTALL)

chunks = st.lists(
    st.one_of(
        st.just(b"\n"),
        st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"") + b"\n"),
        st.integers(PARTIAL - 2, 2 * PARTIAL + 2).map(lambda size: b"x" * size),
        st.integers(PARTIAL - 2, 2 * PARTIAL + 2).map(lambda size: b"x" * size + b"\n"),
    ),
    max_size=6,
).map(b"".join)


def parse(records: bytes) -> list[tuple[bytes, bytes]]:
    """(tag, text) of each record."""
    assert not records or records.endswith(b"\n")
    result = []
    for line in records[:-1].split(b"\n") if records else []:
        match = RECORD.match(line)
        assert match is not None, line[:80]
        result.append((match[2], match[3]))
    return result


def join(records: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(text + (b"\n" if tag == b"F" else b"") for tag, text in records)


@given(chunks)
def test_joined_records_are_the_output(data: bytes) -> None:
    records = parse(format_lines(data, "stdout", NOW))
    assert join(records) == data
    assert all(len(text) <= PARTIAL for _, text in records)


@given(chunks, st.lists(st.floats(0, 1), max_size=12))
def test_output_in_any_pieces_gives_the_same_text(data: bytes, cuts: list[float]) -> None:
    """As the pump does it: of each piece what can be cut, at the end the rest."""
    left, written = b"", b""
    places = sorted(round(place * len(data)) for place in cuts)
    for start, end in itertools.pairwise([0, *places, len(data)]):
        left += data[start:end]
        count = cut(left)
        assert 0 <= len(left) - count < PARTIAL
        written += format_lines(left[:count], "stderr", NOW)
        left = left[count:]
    written += format_lines(left, "stderr", NOW)
    assert join(parse(written)) == data


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n", [(b"F", b"")]),
        (b"a\nb\n", [(b"F", b"a"), (b"F", b"b")]),
        (b"a", [(b"P", b"a")]),
        (b"a\n\nb", [(b"F", b"a"), (b"F", b""), (b"P", b"b")]),
        (b"x" * PARTIAL + b"\n", [(b"F", b"x" * PARTIAL)]),
        (b"x" * (PARTIAL + 1) + b"\n", [(b"P", b"x" * PARTIAL), (b"F", b"x")]),
        (b"a\r\n", [(b"F", b"a\r")]),
    ],
)
def test_records(data: bytes, expected: list[tuple[bytes, bytes]]) -> None:
    assert parse(format_lines(data, "stdout", NOW)) == expected


def test_timestamps() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000000000Z"
    assert timestamp(999_999_999) == "1970-01-01T00:00:00.999999999Z"
    assert timestamp(NOW) == "2023-11-14T22:13:20.123456789Z"


def test_cut_keeps_the_unfinished_line() -> None:
    assert cut(b"") == 0
    assert cut(b"abc") == 0
    assert cut(b"a\nbc") == 2
    assert cut(b"x" * (PARTIAL * 2 + 5)) == PARTIAL * 2
    assert cut(b"a\n" + b"x" * PARTIAL) == 2 + PARTIAL


def test_rotation_keeps_the_newest_files(tmp_path: Path) -> None:
    warnings: list[str] = []
    log = LogFile(str(tmp_path / "c.log"), 1000, 3, warnings.append)
    (tmp_path / "c.logother").write_text("not mine")
    lines = [b"%05d\n" % number * 20 for number in range(60)]
    for line in lines:
        log.write(line)
    log.close()
    rotated = sorted(path.name for path in tmp_path.glob("c.log.*"))
    assert len(rotated) == 2 and all(re.fullmatch(r"c\.log\.\d{8}-\d{6}\.\d{9}", name) for name in rotated)
    kept = b"".join((tmp_path / name).read_bytes() for name in [*rotated, "c.log"])
    assert b"".join(lines).endswith(kept) and len(kept) >= 2000
    assert (tmp_path / "c.logother").exists() and not warnings


def test_a_reader_can_follow_over_a_rotation(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "c.log"), 10, 2, print)
    with open(tmp_path / "c.log", "rb") as reader:
        log.write(b"0123456789\n")
        log.write(b"new\n")
        assert reader.read() == b"0123456789\n" and (tmp_path / "c.log").read_bytes() == b"new\n"
    log.close()


def test_an_existing_log_is_continued_and_counted(tmp_path: Path) -> None:
    (tmp_path / "c.log").write_bytes(b"x" * 95 + b"\n")
    log = LogFile(str(tmp_path / "c.log"), 100, 2, print)
    log.write(b"12345\n")
    assert len(list(tmp_path.glob("c.log.*"))) == 1
    log.close()


def test_a_full_disk_is_one_warning_and_leaves_no_half_record() -> None:
    warnings: list[str] = []
    log = LogFile("/dev/full", 0, 1, warnings.append)
    for _ in range(3):
        log.write(b"text\n")
    assert len(warnings) == 1 and "/dev/full: No space left on device" in warnings[0]
    log.close()


def test_half_a_write_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    log = LogFile(str(tmp_path / "c.log"), 0, 1, warnings.append)
    log.write(b"first\n")
    real = os.write
    calls = []

    def half(fd: int, data: bytes) -> int:
        calls.append(fd)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(fd, bytes(data)[:3])

    monkeypatch.setattr(logfile.os, "write", half)
    log.write(b"second\n")
    monkeypatch.undo()
    log.write(b"third\n")
    assert (tmp_path / "c.log").read_bytes() == b"first\nthird\n" and len(warnings) == 1
    log.close()


def test_a_directory_that_was_removed_comes_back_at_rotation(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    warnings: list[str] = []
    log = LogFile(str(directory / "c.log"), 5, 2, warnings.append)
    (directory / "c.log").unlink()
    directory.rmdir()
    log.write(b"123456\n")
    log.write(b"7\n")
    assert (directory / "c.log").read_bytes() == b"7\n" and not warnings
    log.close()


def test_a_link_in_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    (tmp_path / "c.log").symlink_to(victim)
    warnings: list[str] = []
    log = LogFile(str(tmp_path / "c.log"), 0, 1, warnings.append)
    log.write(b"evil\n")
    assert victim.read_text() == "safe" and len(warnings) == 1
    log.close()
