"""Fixtures of the CRI tier: every daemon serves the CRI; ``cri`` is a client of the file's daemon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.framework.cri import CriClient
from tests.framework.daemon import Daemon


@pytest.fixture(scope="session")
def daemon_settings() -> dict[str, Any]:
    return {"cri": True}


@pytest.fixture
def cri(shared_daemon: Daemon) -> Iterator[CriClient]:
    """A client of the file's daemon. What the test leaves is stopped and removed; then leaks are looked for."""
    with CriClient(shared_daemon.config.cri_socket) as client:
        yield client
