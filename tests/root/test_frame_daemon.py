"""The test framework's daemon: whatever became of it, nothing of it stays."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path

import pytest

from tests.framework.daemon import Daemon
from tests.framework.patience import scaled


def test_a_daemon_that_dies_in_its_start_takes_its_supervisor_with_it(daemon_base: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        daemon = Daemon(daemon_base / "dying", cri=True, cri_stream_address=address)
        try:
            with pytest.raises(AssertionError, match="podrtd exited with 1 at its start"):
                daemon.start()
            supervisor = os.pidfd_open(daemon.supervisor_pid)
        finally:
            assert daemon.destroy() == []
    try:
        assert select.select([supervisor], [], [], scaled(10))[0], "the supervisor lives on"
    finally:
        os.close(supervisor)
