"""Killing a process with all that hangs below it."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from podrt.linux.process import ProcessHandle

_MAX_TREE = 10_000


def kill_tree(process: ProcessHandle) -> None:
    """SIGKILL to a process and its descendants. The parents are stopped first, so that none forks meanwhile."""
    process.signal(signal.SIGSTOP)
    found: list[ProcessHandle] = [process]
    try:
        for handle in found:
            _await_stop(handle.pid)
            for pid in _children(handle.pid):
                if len(found) >= _MAX_TREE:
                    break
                with contextlib.suppress(ProcessLookupError):
                    child = ProcessHandle.open(pid)
                    child.signal(signal.SIGSTOP)
                    found.append(child)
        for handle in found:
            handle.signal(signal.SIGKILL)
    finally:
        for handle in found[1:]:
            handle.close()


def _await_stop(pid: int) -> None:
    """Until a process that was sent SIGSTOP has stopped: a fork that was under way has its child by then.

    At most 20 ms; one in an uninterruptible sleep doesn't fork meanwhile."""
    for _ in range(40):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                state = file.read().rpartition(b")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state in (b"T", b"t", b"Z", b"X", b"D"):
            return
        time.sleep(0.0005)


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                children += map(int, file.read().split())
    return children
