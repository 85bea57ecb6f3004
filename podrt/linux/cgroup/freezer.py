"""Stopping and continuing all processes of a cgroup at once."""

from __future__ import annotations

import time

from podrt.errors import DeadlineError
from podrt.linux.cgroup.files import read, read_table, write


def set_v1(directory: str, frozen: bool, timeout: float) -> None:
    """Raises DeadlineError if the processes aren't frozen in time; they are then let go."""
    state = "FROZEN" if frozen else "THAWED"
    deadline = time.monotonic() + timeout
    while True:
        # v1 has to be told again while new processes appear.
        write(directory, "freezer.state", state)
        if read(directory, "freezer.state").strip() == state:
            return
        if time.monotonic() > deadline:
            write(directory, "freezer.state", "THAWED")
            raise DeadlineError(f"cgroup {directory}: not {state} within {timeout} seconds")
        time.sleep(0.002)


def set_v2(directory: str, frozen: bool, timeout: float) -> None:
    """Raises DeadlineError if the processes aren't frozen in time; they are then let go."""
    write(directory, "cgroup.freeze", "1" if frozen else "0")
    deadline = time.monotonic() + timeout
    while read_table(directory, "cgroup.events").get("frozen") != int(frozen):
        if time.monotonic() > deadline:
            write(directory, "cgroup.freeze", "0")
            raise DeadlineError(f"cgroup {directory}: frozen is not {int(frozen)} within {timeout} seconds")
        time.sleep(0.002)
