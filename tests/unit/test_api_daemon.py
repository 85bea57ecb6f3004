"""The composition root's own small parts: arguments, the lock, systemd's notifications, fault injection."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from podrt import daemon
from podrt.errors import UnavailableError


def test_wrong_configuration_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.toml"
    config.write_text("frob = 1\n")
    assert daemon.main(["--config", str(config)]) == 2
    assert "unknown key 'frob'" in capsys.readouterr().err
    assert daemon.main(["--config", str(tmp_path / "nope.toml")]) == 2
    assert "can't read the configuration" in capsys.readouterr().err


@pytest.fixture
def root_logger() -> Iterator[None]:
    """What the daemon sets up for logging ends with the test: its stream is pytest's, and closed then."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_only_root_may_run_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, root_logger: None
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert daemon.main(["--config", str(config)]) == 2
    assert "must be root" in capsys.readouterr().err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--version", "--help"):
        with pytest.raises(SystemExit) as ended:
            daemon.main([option])
        assert ended.value.code == 0
        assert "podrt" in capsys.readouterr().out


def test_one_daemon_for_a_run_directory(tmp_path: Path) -> None:
    path = tmp_path / "podrtd.pid"
    with daemon._only_one(path):
        assert path.read_text() == f"{os.getpid()}\n"
        with pytest.raises(UnavailableError, match=rf"another daemon \(pid {os.getpid()}\)"), daemon._only_one(path):
            pass
        assert path.read_text() == f"{os.getpid()}\n"
    with daemon._only_one(path):
        pass


def test_lock_of_a_killed_daemon_is_free(tmp_path: Path) -> None:
    path = tmp_path / "podrtd.pid"
    code = (
        "import sys, pathlib, os; from podrt import daemon; held = daemon._only_one(pathlib.Path(sys.argv[1]));"
        "held.__enter__(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False, cwd=Path(daemon.__file__).parents[1])
    assert path.read_text().strip().isdigit()
    with daemon._only_one(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_fault_injection_kills_at_the_named_step_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PODRT_FAULT_AT", raising=False)
    assert daemon._fault_hook() is None
    code = (
        "from podrt import daemon;h=daemon._fault_hook();h('before');print('alive',flush=True);h('here');print('dead')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PODRT_FAULT_AT": "here"},
        cwd=Path(daemon.__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (-signal.SIGKILL, "alive\n")


@pytest.mark.parametrize("abstract", [False, True])
async def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = f"@podrt-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name[1:] if abstract else name)
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        monkeypatch.setenv("WATCHDOG_USEC", "40000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        notifier = daemon.Notifier()
        assert "NOTIFY_SOCKET" not in os.environ
        notifier.send("READY=1")
        assert receiver.recv(100) == b"READY=1"
        watchdog = asyncio.create_task(notifier.watchdog())
        for _ in range(3):
            assert await asyncio.to_thread(receiver.recv, 100) == b"WATCHDOG=1"
        watchdog.cancel()
        await asyncio.gather(watchdog, return_exceptions=True)


async def test_without_systemd_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    notifier = daemon.Notifier()
    notifier.send("READY=1")
    await asyncio.wait_for(notifier.watchdog(), 1)


async def test_systemd_that_is_gone_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    daemon.Notifier().send("READY=1")
    assert "systemd can't be told" in caplog.text
