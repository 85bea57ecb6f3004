"""How long a test waits before it calls something broken: seconds on a real machine, more on an emulated one.

``PODRT_TEST_TIMEOUT_FACTOR`` (default 1) multiplies every time limit of the framework. It never makes a test wait
longer for what does happen.
"""

from __future__ import annotations

import os

FACTOR = float(os.environ.get("PODRT_TEST_TIMEOUT_FACTOR", "1"))


def scaled(seconds: float) -> float:
    """A time limit for this machine."""
    return seconds * FACTOR
