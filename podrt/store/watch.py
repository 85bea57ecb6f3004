"""Watches: what changed since a revision, as Kubernetes tells it.

A :class:`Hub` keeps the last ``window`` changes of each resource in memory and hands every new one to the watchers. A
watcher with a selector sees an object that comes to match as ADDED and one that ceases to as DELETED. Nothing is
unbounded: a watcher that lets ``queue_size`` events pile up is cut off with ExpiredError, as is one that asks for a
revision older than the window, and then lists anew. History is not kept over a restart, where every older revision is
Expired.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import NamedTuple, TypeVar

import msgspec

from podrt.errors import ExpiredError
from podrt.model.kinds import BY_NAME, Object
from podrt.model.meta import ObjectMeta

T = TypeVar("T", bound=Object)

ADDED = "ADDED"
MODIFIED = "MODIFIED"
DELETED = "DELETED"
BOOKMARK = "BOOKMARK"

Predicate = Callable[[Object], bool]


class Change(NamedTuple):
    """One write. ``old`` is None at creation; ``new`` is None at removal, and ``old`` then has the revision of the
    removal.
    """

    revision: int
    resource: str
    old: Object | None
    new: Object | None

    @property
    def object(self) -> Object:
        """The object as it is now, or as it was last."""
        obj = self.new or self.old
        assert obj is not None
        return obj

    @property
    def type(self) -> str:
        if self.old is None:
            return ADDED
        return DELETED if self.new is None else MODIFIED


class WatchEvent(NamedTuple):
    """What a watcher is given: ADDED, MODIFIED, DELETED with the object, or BOOKMARK with only a revision in it."""

    type: str
    object: Object


def at_revision(obj: T, revision: int) -> T:
    """A copy of an object with another resourceVersion."""
    metadata = msgspec.structs.replace(obj.metadata, resource_version=str(revision))
    return msgspec.structs.replace(obj, metadata=metadata)


class Watcher:
    """An endless asynchronous iterator of :class:`WatchEvent`. Close it, or use ``with``.

    Iteration raises ExpiredError once it was cut off, and ends after :meth:`close`.
    """

    def __init__(
        self,
        hub: Hub,
        resource: str,
        namespace: str | None,
        predicate: Predicate | None,
        *,
        queue_size: int,
        bookmark_interval: float | None,
    ) -> None:
        self._hub = hub
        self.resource = resource
        self.namespace = namespace
        self._predicate = predicate
        self._queue: deque[WatchEvent] = deque()
        self._queue_size = queue_size
        self._bookmark_interval = bookmark_interval
        self._wake = asyncio.Event()
        self._expired = False
        self._closed = False

    def _matches(self, obj: Object | None) -> bool:
        if obj is None or (self.namespace is not None and obj.metadata.namespace != self.namespace):
            return False
        return self._predicate is None or self._predicate(obj)

    def translate(self, change: Change) -> WatchEvent | None:
        """The event that a change is for this watcher's selection; None if it is nothing to it."""
        before, after = self._matches(change.old), self._matches(change.new)
        if after:
            assert change.new is not None
            return WatchEvent(MODIFIED if before else ADDED, change.new)
        if before:
            assert change.old is not None
            return WatchEvent(DELETED, at_revision(change.old, change.revision))
        return None

    def preload(self, events: Iterable[WatchEvent]) -> None:
        """Events to give first; they don't count against the queue's bound."""
        self._queue.extend(events)
        self._queue_size += len(self._queue)
        if self._queue:
            self._wake.set()

    def offer(self, change: Change) -> None:
        """Take a new change; called by the hub."""
        event = self.translate(change)
        if event is None or self._expired:
            return
        if len(self._queue) >= self._queue_size:
            self._expired = True
            self._queue.clear()
            self._hub.remove(self)
        else:
            self._queue.append(event)
        self._wake.set()

    def get_nowait(self) -> WatchEvent | None:
        """The next event if there is one. Raises ExpiredError once cut off."""
        if self._expired:
            raise ExpiredError(f"the watch of {self.resource} fell too far behind and was ended: list again")
        if not self._queue:
            self._wake.clear()
            return None
        return self._queue.popleft()

    async def get(self) -> WatchEvent | None:
        """Wait for the next event; None once closed. Idle for ``bookmark_interval`` seconds: a BOOKMARK."""
        while True:
            event = self.get_nowait()
            if event is not None:
                return event
            if self._closed:
                return None
            try:
                await asyncio.wait_for(self._wake.wait(), self._bookmark_interval)
            except TimeoutError:
                # An event may have come since the timer went off: a bookmark before it would claim that it was given.
                if not self._wake.is_set():
                    return self._hub.bookmark(self.resource)

    async def __aiter__(self) -> AsyncIterator[WatchEvent]:
        while (event := await self.get()) is not None:
            yield event

    def close(self) -> None:
        """End the watch. Events not yet taken are dropped."""
        self._closed = True
        self._queue.clear()
        self._hub.remove(self)
        self._wake.set()

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Hub:
    """History and watchers of all resources."""

    def __init__(self, revision: int, window: int, queue_size: int) -> None:
        self.revision = revision
        self._start = revision
        self._window = window
        self._queue_size = queue_size
        self._history: dict[str, deque[Change]] = {}
        self._floor: dict[str, int] = {}
        self._watchers: dict[str, list[Watcher]] = {}

    def publish(self, change: Change) -> None:
        """Record a committed change and hand it to the watchers of its resource."""
        self.revision = change.revision
        history = self._history.setdefault(change.resource, deque())
        history.append(change)
        if len(history) > self._window:
            self._floor[change.resource] = history.popleft().revision
        for watcher in tuple(self._watchers.get(change.resource, ())):
            watcher.offer(change)

    def since(self, resource: str, revision: int) -> list[Change]:
        """All changes after a revision, oldest first. Raises ExpiredError if some may be missing."""
        floor = self._floor.get(resource, self._start)
        if revision < floor or revision > self.revision:
            raise ExpiredError(
                f"too old resource version: {revision} ({floor})"
                if revision < floor
                else f"resource version {revision} is newer than the store's ({self.revision}): list again"
            )
        changes: list[Change] = []
        for change in reversed(self._history.get(resource, ())):
            if change.revision <= revision:
                break
            changes.append(change)
        changes.reverse()
        return changes

    def add(
        self,
        resource: str,
        namespace: str | None,
        predicate: Predicate | None,
        bookmark_interval: float | None,
    ) -> Watcher:
        watcher = Watcher(
            self, resource, namespace, predicate, queue_size=self._queue_size, bookmark_interval=bookmark_interval
        )
        self._watchers.setdefault(resource, []).append(watcher)
        return watcher

    def remove(self, watcher: Watcher) -> None:
        watchers = self._watchers.get(watcher.resource, [])
        if watcher in watchers:
            watchers.remove(watcher)

    def watchers(self) -> int:
        """How many watches are open (for metrics)."""
        return sum(map(len, self._watchers.values()))

    def bookmark(self, resource: str) -> WatchEvent:
        """A BOOKMARK of the current revision: its object has a resourceVersion and nothing else."""
        struct = BY_NAME[resource].struct
        return WatchEvent(BOOKMARK, struct(metadata=ObjectMeta(resource_version=str(self.revision))))
