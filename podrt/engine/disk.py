"""What the containers' writable layers take of the disk, without a walk for every question.

A layer is walked by whoever asks, and then not again for a second, nor for fifty times as long as the walk took (two
minutes at most): so all walks of one layer together take 2% of the time. One thread walks one layer after the other,
small ones first, and rests as long as it works. Who asks waits for half a second; after that the last known numbers
are told, with the time they are of, while the walk goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from podrt.engine import threads
from podrt.linux import abi, libc

log = logging.getLogger(__name__)

PATIENCE = 0.5
"""Seconds that a question waits for walks."""
_FRESH = 1.0
_COST_FACTOR = 50.0
_MAX_AGE = 120.0
_SPELL = 0.02
"""Seconds of work before a rest: with the interpreter's lock a walk takes from the event loop."""
_RESOLVE = abi.RESOLVE_BENEATH | abi.RESOLVE_NO_SYMLINKS | abi.RESOLVE_NO_XDEV


class Measured(NamedTuple):
    """One layer's, or several layers' together."""

    at: float = 0.0
    """Unix time of the end of the walk (for several: of the oldest); 0: not known yet."""
    bytes: int = 0
    inodes: int = 0
    cost: float = 0.0
    """Seconds that the walk took."""


class LayerUsage:
    """Of the layers of one engine, by id."""

    def __init__(self) -> None:
        self._known: dict[str, Measured] = {}
        self._walking: dict[str, asyncio.Task[None]] = {}
        self._lock = asyncio.Lock()
        """Held while the one thread walks."""
        self._closed = False

    async def of(self, layers: Iterable[tuple[str, Path]]) -> dict[str, Measured]:
        """By id, of (id, directory); ``Measured()`` where the first walk is still under way."""
        wanted = dict(layers)
        now = time.time()
        due = [identity for identity in wanted if identity not in self._walking and self._due(identity, now)]
        if due and not self._closed:
            due.sort(key=lambda identity: self._known.get(identity, Measured()).cost)
            task = asyncio.create_task(
                self._walk([(identity, wanted[identity]) for identity in due]), name="disk usage"
            )
            self._walking.update(dict.fromkeys(due, task))
        if waiting := {self._walking[identity] for identity in wanted if identity in self._walking}:
            await asyncio.wait(waiting, timeout=PATIENCE)
        return {identity: self._known.get(identity, Measured()) for identity in wanted}

    def forget(self, identity: str) -> None:
        """The layer is gone."""
        self._known.pop(identity, None)

    async def close(self) -> None:
        """Give up what is being walked; its thread ends soon."""
        self._closed = True
        tasks = set(self._walking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _due(self, identity: str, now: float) -> bool:
        last = self._known.get(identity)
        return last is None or not 0 <= now - last.at < max(_FRESH, min(last.cost * _COST_FACTOR, _MAX_AGE))

    async def _walk(self, layers: Sequence[tuple[str, Path]]) -> None:
        try:
            async with self._lock:
                await threads.in_own_thread(partial(self._measure, layers))
        finally:
            for identity, _ in layers:
                self._walking.pop(identity, None)

    def _measure(self, layers: Sequence[tuple[str, Path]]) -> None:
        for identity, directory in layers:
            if self._closed:
                return
            begin = time.monotonic()
            try:
                used, inodes = disk_usage(directory)
            except OSError as error:
                log.warning("disk usage of %s is not known: %s", identity[:12], error)
                continue
            self._known[identity] = Measured(time.time(), used, inodes, time.monotonic() - begin)


def together(measured: Iterable[Measured]) -> Measured:
    """The sum; known as soon as one of them is."""
    known = [one for one in measured if one.at]
    if not known:
        return Measured()
    return Measured(min(one.at for one in known), sum(one.bytes for one in known), sum(one.inodes for one in known))


def disk_usage(directory: Path) -> tuple[int, int]:
    """(bytes allocated, inodes) below a directory, each hard-linked file once, other file systems left out.

    A container works in it meanwhile: no link that it exchanges for a directory is followed, and what can't be opened
    (gone, or nested deeper than a path can be long) is not counted.
    """
    used = inodes = 0
    seen: set[int] = set()
    try:
        top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0, 0
    try:
        pending = ["."]
        spell = time.monotonic()
        while pending:
            path = pending.pop()
            try:
                fd = libc.openat2(top, path, os.O_RDONLY | os.O_DIRECTORY, 0, _RESOLVE)
            except OSError:
                continue
            for name, found in _entries(fd):
                if stat.S_ISDIR(found.st_mode):
                    pending.append(f"{path}/{name}")
                elif found.st_nlink > 1:
                    if found.st_ino in seen:
                        continue
                    seen.add(found.st_ino)
                used += found.st_blocks * 512
                inodes += 1
                if inodes % 256 == 0:
                    spell = _rest(spell)
            spell = _rest(spell)
    finally:
        os.close(top)
    return used, inodes


def _rest(since: float) -> float:
    """Sleep if there was work for long enough; when the work now begins again."""
    worked = time.monotonic() - since
    if worked < _SPELL:
        return since
    time.sleep(worked)
    return time.monotonic()


def _entries(fd: int) -> Iterator[tuple[str, os.stat_result]]:
    """What is in a directory; closes ``fd``."""
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    yield entry.name, entry.stat(follow_symlinks=False)
    finally:
        os.close(fd)
