"""When did it happen? A watch on all Pods in a thread of its own notes when each came to run and when each went."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path

from bench.pod import CONTAINERS
from tests.framework.client import Client, Object, path_of


class Observer:
    """``running[name]`` and ``gone[name]`` are times of :func:`time.perf_counter`."""

    def __init__(self, socket: Path) -> None:
        self.running: dict[str, float] = {}
        self.gone: dict[str, float] = {}
        self._changed = threading.Condition()
        self._events = Client(socket).watch(path_of("Pod"), timeout=86400)
        self._thread = threading.Thread(target=self._follow, name="observer", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        for event in self._events:
            now = time.perf_counter()
            name = event["object"]["metadata"]["name"]
            with self._changed:
                if event["type"] == "DELETED":
                    self.gone[name] = now
                elif _all_run(event["object"]):
                    self.running.setdefault(name, now)
                self._changed.notify_all()

    def wait(self, table: dict[str, float], names: Iterable[str], timeout: float = 120.0) -> None:
        """Wait until all ``names`` are in ``table``. Raises TimeoutError that names one that isn't."""
        wanted = list(names)
        with self._changed:
            if not self._changed.wait_for(lambda: all(name in table for name in wanted), timeout):
                missing = next(name for name in wanted if name not in table)
                raise TimeoutError(f"Pod {missing}: not seen to run or go within {timeout:g} s")


def _all_run(pod: Object) -> bool:
    statuses = pod.get("status", {}).get("containerStatuses", ())
    return len(statuses) == CONTAINERS and all("running" in status.get("state", {}) for status in statuses)
