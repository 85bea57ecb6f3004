"""Processes by pid, start time and pidfd."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from podrt.linux import process


def test_start_time_of_oneself() -> None:
    assert process.start_time(os.getpid()) > 0
    with pytest.raises(ProcessLookupError):
        process.start_time(2**22 + 1)


def test_a_process_whose_name_is_odd() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "open('/proc/self/comm','w').write(') S 1 (x'); input()"], stdin=-1
    ) as child:
        assert process.start_time(child.pid) >= process.start_time(os.getpid())
        child.communicate(b"\n")


def test_a_handle_lives_and_ends() -> None:
    with subprocess.Popen(["sleep", "100"]) as child, process.ProcessHandle.open(child.pid) as handle:
        assert handle.alive()
        assert handle.exit_code() is None
        assert handle.signal(signal.SIGTERM)
        assert handle.wait(5)
        assert not handle.alive()
        child.wait()
        assert handle.exit_code() in (-signal.SIGTERM, None)
        assert not handle.signal(signal.SIGTERM)


def test_another_start_time_is_another_process() -> None:
    with pytest.raises(ProcessLookupError, match="not the one"):
        process.pidfd_open(os.getpid(), process.start_time(os.getpid()) + 1)
    with pytest.raises(ProcessLookupError):
        process.pidfd_open(2**22 - 1, 5)
