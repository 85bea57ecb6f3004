"""The one work queue of all controllers: keys, each at most once in it, with back-off and delays.

A key that failed comes back after 5 ms, doubling to 1000 s; one that asks to be called at a time is called then. A sync
of many Pods takes its time and is called for by each change of each of them, so after a long one its key rests: changes
meanwhile are one. One task works the queue, so no two syncs ever run at the same time, and between two syncs the event
loop turns. The clock is given, so that tests run in virtual time.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from podrt.errors import PodrtError

logger = logging.getLogger(__name__)

BACKOFF_FIRST = 0.005
BACKOFF_LAST = 1000.0
LONG = 0.0005
"""Seconds; a sync that takes longer makes its key rest."""
REST = 20.0
"""Times as long as the sync took: at most a twentieth of the machine goes into one key."""
REST_LAST = 0.1
"""Seconds; the longest rest."""

_MANY_RESTS = 1000


class Key(NamedTuple):
    """One object to look at: the controller's name, then the object's namespace and name."""

    controller: str
    namespace: str
    name: str


Sync = Callable[[Key], float | None]
"""Brings one object one step nearer to what it should be; seconds after which to be called again, or None."""


class WorkQueue:
    """``add`` from anywhere on the event loop; ``run`` is the one worker."""

    def __init__(self, sync: Sync, clock: Callable[[], float] = time.monotonic) -> None:
        self._sync = sync
        self._clock = clock
        self._ready: dict[Key, None] = {}
        self._timers: list[tuple[float, Key]] = []
        self._due: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._rests: dict[Key, float] = {}
        """Until when a key rests."""
        self._wake = asyncio.Event()

    def add(self, key: Key) -> None:
        """Call for ``key`` soon. Many calls before that are one."""
        rest = self._rests.get(key)
        if rest is not None:
            if (left := rest - self._clock()) > 0:
                self.add_after(key, left)
                return
            del self._rests[key]
        self._ready[key] = None
        self._wake.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Call for ``key`` in ``seconds``, if nothing calls for it before: the earliest time counts."""
        due = self._clock() + max(seconds, 0.0)
        if self._due.get(key, due + 1) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._timers, (due, key))
        self._wake.set()

    def backoff(self, key: Key) -> float:
        """Seconds that the key's next failure makes it wait."""
        return float(min(BACKOFF_FIRST * 2 ** min(self._failures.get(key, 0), 30), BACKOFF_LAST))

    def step(self) -> bool:
        """Work one key that is due; False if there is none."""
        self._ring()
        key = next(iter(self._ready), None)
        if key is None:
            return False
        del self._ready[key]
        began = self._clock()
        try:
            again = self._sync(key)
        except PodrtError as error:
            delay = self._failed(key)
            logger.info("%s %s/%s: %s; again in %.3f s", key.controller, key.namespace, key.name, error, delay)
        except Exception:
            # One object that nobody thought of must not hold up all others, or the Pods of the machine.
            delay = self._failed(key)
            logger.exception("%s %s/%s: failed; again in %.3f s", key.controller, key.namespace, key.name, delay)
        else:
            self._failures.pop(key, None)
            self._rest(key, began)
            if again is not None:
                self.add_after(key, again)
        return True

    def _rest(self, key: Key, began: float) -> None:
        """Not for what the sync itself asks for: only changes can wait."""
        now = self._clock()
        if now - began > LONG:
            if len(self._rests) > _MANY_RESTS:
                self._rests = {one: until for one, until in self._rests.items() if until > now}
            rest = min(REST * (now - began), REST_LAST)
            self._rests[key] = now + rest
            if key in self._ready:
                # By what the sync has written itself.
                del self._ready[key]
                self.add_after(key, rest)

    def _failed(self, key: Key) -> float:
        """Bring a key back after its back-off, in seconds."""
        delay = self.backoff(key)
        self._failures[key] = self._failures.get(key, 0) + 1
        self.add_after(key, delay)
        return delay

    def next_due(self) -> float | None:
        """Seconds until the next timer, None if there is none."""
        return None if not self._timers else max(0.0, self._timers[0][0] - self._clock())

    def _ring(self) -> None:
        now = self._clock()
        while self._timers and self._timers[0][0] <= now:
            due, key = heapq.heappop(self._timers)
            if self._due.get(key) == due:
                del self._due[key]
                self._ready[key] = None

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            while self.step():
                await asyncio.sleep(0)
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), self.next_due())
            except TimeoutError:
                continue
