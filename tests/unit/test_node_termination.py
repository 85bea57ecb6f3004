"""Where a termination message must not come from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podrt.model.container import Container
from podrt.node.termination import read_message

SECRET = b"2026-01-01T00:00:00Z stdout F secret\n"


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["link", "fifo", "plain"])
def test_neither_file_is_a_link_or_fifo(tmp_path: Path, kind: str) -> None:
    """A Pod with the log directory in a volume has no file of the host's shown in a status, nor the daemon wait."""
    (tmp_path / "secret").write_bytes(SECRET)
    for name in ("message", "0.log"):
        if kind == "link":
            (tmp_path / name).symlink_to(tmp_path / "secret")
        elif kind == "fifo":
            os.mkfifo(tmp_path / name)
        elif name == "0.log":
            (tmp_path / name).write_bytes(SECRET)
    container = Container(name="c", termination_message_policy="FallbackToLogsOnError")
    found = read_message(container, tmp_path / "message", tmp_path / "0.log", 1)
    assert found == ("secret\n" if kind == "plain" else "")
