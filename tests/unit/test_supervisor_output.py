"""The pump on plain FIFOs: nothing is consumed before it is logged, clients, back-pressure, fairness."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from podrt.supervisor.logfile import LogFile
from podrt.supervisor.output import Scratch, Stream
from podrt.supervisor.poll import IN, Loop


class Pump:
    """One stream with its FIFO, log and loop. ``writer`` is what a container has as its descriptor 1."""

    def __init__(self, path: Path, logged: bool = True) -> None:
        self.path = path
        self.errors: list[BaseException] = []
        self.loop = Loop(self.errors.append)
        self.scratch = Scratch()
        os.mkfifo(path / "fifo")
        self.writer = os.open(path / "fifo", os.O_RDWR | os.O_NONBLOCK)
        self.log = LogFile(str(path / "log"), 0, 1, print) if logged else None
        self.fds: list[int] = []
        self.stream = self.open()

    def open(self) -> Stream:
        return Stream(
            self.loop,
            self.scratch,
            os.open(self.path / "fifo", os.O_RDONLY | os.O_NONBLOCK),
            "stdout",
            self.log,
            False,
        )

    def attach(self) -> int:
        reader, writer = os.pipe2(os.O_NONBLOCK)
        self.fds.append(reader)
        self.stream.attach(writer)
        return reader

    def turns(self, count: int = 10) -> None:
        self.loop.later(0, lambda: None)
        for _ in range(count):
            self.loop.later(0, lambda: None)
            self.loop.turn()
        assert not self.errors

    def texts(self) -> list[str]:
        return [line.split(" ", 2)[2] for line in (self.path / "log").read_text().splitlines()]

    def waiting(self) -> bytes:
        """What is still in the FIFO."""
        return self.scratch.peek(self.writer) or b""


@pytest.fixture
def pump(tmp_path: Path) -> Iterator[Pump]:
    made = Pump(tmp_path)
    yield made
    made.stream.close()
    for fd in (*made.fds, made.writer):
        os.close(fd)
    if made.log is not None:
        made.log.close()


def test_whole_lines_are_logged_and_the_rest_stays_in_the_fifo(pump: Pump) -> None:
    os.write(pump.writer, b"one\ntwo\nunfin")
    pump.turns()
    assert pump.texts() == ["F one", "F two"] and pump.waiting() == b"unfin"
    os.write(pump.writer, b"ished\n")
    pump.turns()
    assert pump.texts() == ["F one", "F two", "F unfinished"] and pump.waiting() == b""


def test_an_unfinished_line_costs_no_turns(pump: Pump) -> None:
    os.write(pump.writer, b"prompt> ")
    pump.turns()
    pump.loop.later(0.2, lambda: None)
    start = time.process_time()
    pump.loop.turn()
    assert time.process_time() - start < 0.05, "the loop spins on an unfinished line"


def test_a_reader_that_dies_loses_nothing(pump: Pump) -> None:
    """Between peek and consume nothing is gone: the next reader sees it all again."""
    os.write(pump.writer, b"a\nb\nc")
    assert pump.scratch.peek(pump.stream.fd) == b"a\nb\nc"
    pump.stream.close()
    os.write(pump.writer, b"d\n")
    pump.stream = pump.open()
    pump.turns()
    assert pump.texts() == ["F a", "F b", "F cd"]


def test_a_pipe_of_one_page_holds_up_no_long_line(pump: Pump) -> None:
    fcntl.fcntl(pump.writer, 1031, 4096)
    line = b"x" * 10000 + b"\n"
    sent = 0
    while sent < len(line):
        try:
            sent += os.write(pump.writer, line[sent : sent + 1500])
        except BlockingIOError:
            pump.turns(2)
    pump.turns()
    texts = pump.texts()
    assert "".join(text[2:] for text in texts) == "x" * 10000 and texts[-1].startswith("F ")


def test_clients_get_unfinished_lines_once(pump: Pump) -> None:
    client = pump.attach()
    os.write(pump.writer, b"name: ")
    pump.turns()
    assert os.read(client, 100) == b"name: "
    late = pump.attach()
    os.write(pump.writer, b"x\nmore")
    pump.turns()
    assert os.read(client, 100) == b"x\nmore" == os.read(late, 100)
    assert pump.texts() == ["F name: x"] and pump.waiting() == b"more"


def test_a_full_client_pauses_the_stream_and_is_served_in_order(pump: Pump) -> None:
    client = pump.attach()
    sent = got = b""
    for number in range(40000):
        line = b"%06d\n" % number
        try:
            os.write(pump.writer, line)
        except BlockingIOError:
            pump.turns(3)
            try:
                os.write(pump.writer, line)
            except BlockingIOError:
                break
        sent += line
    else:
        pytest.fail("the writer was never held up")
    assert pump.stream.paused and len(pump.stream.attachers[0].pending) <= 64 * 1024
    while len(got) < len(sent):
        try:
            got += os.read(client, 50000)
        except BlockingIOError:
            pump.turns(3)
    assert got == sent
    pump.turns()
    assert [int(text[2:]) for text in pump.texts()] == list(range(len(sent) // 7))


def test_a_client_that_hangs_up_is_dropped(pump: Pump) -> None:
    client = pump.attach()
    pump.fds.remove(client)
    os.close(client)
    pump.turns()
    assert pump.stream.attachers == []
    os.write(pump.writer, b"on\n")
    pump.turns()
    assert pump.texts() == ["F on"]


def test_a_client_that_hangs_up_while_it_is_full_lets_the_stream_go_on(pump: Pump) -> None:
    client = pump.attach()
    while not pump.stream.paused:
        os.write(pump.writer, (b"y" * 1023 + b"\n") * 60)
        pump.turns()
    assert pump.stream.paused
    pump.fds.remove(client)
    os.close(client)
    pump.turns()
    assert not pump.stream.paused and pump.waiting() == b""


def test_without_a_log_everything_is_consumed(tmp_path: Path) -> None:
    pump = Pump(tmp_path, logged=False)
    os.write(pump.writer, b"no newline")
    pump.turns()
    assert pump.waiting() == b""
    pump.stream.close()
    os.close(pump.writer)


def test_the_end_flushes_a_partial_record_and_closes_clients(pump: Pump) -> None:
    client = pump.attach()
    os.write(pump.writer, b"last words")
    pump.stream.drain()
    pump.stream.finish()
    assert pump.texts() == ["P last words"]
    assert os.read(client, 100) == b"last words" and os.read(client, 100) == b""


def test_a_slow_client_gets_the_end_too(pump: Pump) -> None:
    client = pump.attach()
    data = (b"z" * 999 + b"\n") * 60
    for _ in range(3):
        os.write(pump.writer, data)
        pump.stream.drain()
    pump.stream.finish()
    got = b""
    while True:
        try:
            chunk = os.read(client, 65536)
        except BlockingIOError:
            pump.turns(2)
            continue
        if not chunk:
            break
        got += chunk
    assert got == data * 3


def test_the_hang_up_is_seen_behind_an_unfinished_line(tmp_path: Path) -> None:
    pump = Pump(tmp_path)
    os.write(pump.writer, b"half")
    pump.turns()
    assert pump.stream.writers
    os.close(pump.writer)
    pump.turns()
    assert not pump.stream.writers
    pump.stream.finish()
    assert pump.texts() == ["P half"]
    assert pump.log is not None
    pump.log.close()


def test_work_is_shared_fairly_and_errors_are_contained() -> None:
    errors: list[BaseException] = []
    loop = Loop(errors.append)
    counts = {"greedy": 0, "small": 0}

    def greedy() -> bool:
        counts["greedy"] += 1
        return counts["greedy"] < 1000

    def small() -> bool:
        counts["small"] += 1
        return False

    def broken() -> bool:
        raise RuntimeError("defect")

    loop.queue(greedy)
    loop.turn()
    loop.queue(small)
    loop.queue(broken)
    loop.turn()
    assert counts == {"greedy": 2, "small": 1} and len(errors) == 1


def test_callbacks_of_descriptors_closed_in_the_same_round_are_not_called() -> None:
    loop = Loop(lambda error: pytest.fail(repr(error)))
    reader, writer = os.pipe()
    other, other_writer = os.pipe()
    os.write(writer, b"x")
    os.write(other_writer, b"x")
    called = []

    def close_both(_: int) -> None:
        called.append(1)
        for fd in (reader, other):
            loop.unwatch(fd)
            os.close(fd)

    loop.watch(reader, IN, close_both)
    loop.watch(other, IN, close_both)
    loop.turn()
    assert called == [1]
    os.close(writer)
    os.close(other_writer)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("writers", [True, False])
def test_a_container_that_reads_its_own_output_stops_nobody(tmp_path: Path, writers: bool) -> None:
    """It has its FIFO open for reading too, so what was looked at may be gone when it is to be taken away."""
    pump = Pump(tmp_path)
    os.write(pump.writer, b"one\ntwo\n")
    assert pump.scratch.peek(pump.stream.fd) == b"one\ntwo\n"
    assert os.read(pump.writer, 6) == b"one\ntw"
    if not writers:
        os.close(pump.writer)
    pump.scratch.consume(pump.stream.fd, 8)
    if writers:
        os.write(pump.writer, b"three\n")
        pump.turns()
        assert pump.texts() == ["F three"]
        os.close(pump.writer)
    pump.stream.finish()


def test_output_that_can_not_be_read_is_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that fails after tee(2) leaves nothing behind in the pipe that all streams share."""
    pump = Pump(tmp_path)
    os.write(pump.writer, b"secret\n")
    real = os.read

    def fail(fd: int, count: int) -> bytes:
        if fd == pump.scratch.reader:
            raise OSError(5, "Input/output error")
        return real(fd, count)

    monkeypatch.setattr(os, "read", fail)
    with pytest.raises(OSError):
        pump.scratch.peek(pump.stream.fd)
    pump.loop.turn()
    assert len(pump.errors) == 1
    monkeypatch.undo()
    with pytest.raises(BlockingIOError):
        os.read(pump.scratch.reader, 100)
    # The stream itself goes on, too.
    pump.errors.clear()
    os.write(pump.writer, b"more\n")
    pump.turns()
    assert pump.texts() == ["F secret", "F more"]
    os.close(pump.writer)
    pump.stream.finish()
