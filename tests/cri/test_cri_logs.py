"""Logs as a kubelet reads and rotates them, and commands run to their end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.conftest import DaemonFactory
from tests.framework.cri import CriClient, container, refused, sandbox
from tests.framework.daemon import Daemon, eventually
from tests.framework.patience import scaled

COUNT = ("sh", "-c", "i=0; while :; do echo line $i; i=$((i+1)); usleep 2000; done")


def numbers(*paths: Path) -> list[int]:
    return [int(line.rsplit(" ", 1)[1]) for path in paths for line in path.read_text().splitlines()]


def test_a_renamed_log_is_written_on_until_it_is_reopened(
    cri: CriClient, shared_daemon: Daemon, tmp_path: Path
) -> None:
    config = sandbox(log_directory=tmp_path)
    box = cri.run_sandbox(config)
    unit = cri.run(box, config, container(command=COUNT, log_path="c.log"))
    log, old = tmp_path / "c.log", tmp_path / "c.log.1"
    eventually(lambda: log.exists() and len(numbers(log)) > 20)
    log.rename(old)
    before = len(numbers(old))
    eventually(lambda: len(numbers(old)) > before + 20)
    cri.call("ReopenContainerLog", container_id=unit)
    eventually(lambda: log.exists() and len(numbers(log)) > 20)
    assert cri.status(unit).log_path == str(log)
    shared_daemon.restart()
    cri.stop(unit)
    found = numbers(old, log)
    assert found == list(range(len(found)))
    with refused("FAILED_PRECONDITION", "not running"):
        cri.call("ReopenContainerLog", container_id=unit)


def test_a_log_is_not_rotated_by_podrt(daemon_factory: DaemonFactory, tmp_path: Path) -> None:
    daemon = daemon_factory(log_max_bytes=4096)
    with CriClient(daemon.config.cri_socket) as cri:
        config = sandbox(log_directory=tmp_path)
        unit = cri.run(cri.run_sandbox(config), config, container(command=("seq", "5000"), log_path="c.log"))
        eventually(lambda: cri.status(unit).finished_at, what="the end")
    assert [path.name for path in tmp_path.iterdir()] == ["c.log"]
    assert len(numbers(tmp_path / "c.log")) == 5000


def test_without_a_log(cri: CriClient, tmp_path: Path) -> None:
    config = sandbox()
    box = cri.run_sandbox(config)
    unit = cri.run(box, config, container(command=("echo", "x"), log_path="c.log"))
    eventually(lambda: cri.status(unit).finished_at, what="the end")
    assert cri.status(unit).log_path == ""
    config = sandbox(log_directory=tmp_path)
    box = cri.run_sandbox(config)
    for wrong in ("/etc/x", "../x"):
        with refused("INVALID_ARGUMENT", "log_path"):
            cri.create(box, config, container(log_path=wrong))


def test_exec_sync(cri: CriClient) -> None:
    config = sandbox()
    unit = cri.run(cri.run_sandbox(config), config)
    assert cri.exec(unit, "sh", "-c", "cat; echo a; echo b >&2; exit 9") == (9, "a\n", "b\n")
    begin = time.monotonic()
    with refused("DEADLINE_EXCEEDED", "did not end in 1 s"):
        cri.exec(unit, "sleep", "77777", timeout=1)
    assert time.monotonic() - begin < scaled(10)
    assert "77777" not in cri.exec(unit, "ps")[1]
    with refused("INVALID_ARGUMENT", "cmd: required"):
        cri.exec(unit)
    with refused("UNKNOWN", "no-such-command"):
        cri.exec(unit, "no-such-command")
    code, out, err = cri.exec(unit, "sh", "-c", "head -c 20000000 /dev/zero; echo end >&2")
    assert code == 0 and 16_000_000 < len(out) < 16 * 1024 * 1024 and err == ""


@pytest.mark.parametrize("stop", [("TERM", 0), ("KILL", 137)])
def test_stopping_waits_as_long_as_it_is_told(cri: CriClient, stop: tuple[str, int]) -> None:
    config = sandbox()
    box = cri.run_sandbox(config)
    trap = "trap 'exit 0' TERM" if stop[0] == "TERM" else "trap '' TERM"
    unit = cri.run(
        box, config, container(command=("sh", "-c", f"{trap}; echo ready > /r; while :; do sleep 0.05; done"))
    )
    eventually(lambda: cri.exec(unit, "test", "-e", "/r")[0] == 0)
    begin = time.monotonic()
    cri.stop(unit, timeout=2)
    took = time.monotonic() - begin
    assert cri.status(unit).exit_code == stop[1]
    assert took < scaled(2) if stop[0] == "TERM" else took >= 2
