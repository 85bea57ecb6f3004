"""Garbage collection of images by disk use, as the kubelet does it.

Above the high threshold of the file system's use, images are removed, the least recently used first, until it would be
below the low one. Never removed: what a container uses, what is pinned (by a pattern of the configuration: images that
no registry can give back), and what came or was used in the last minutes, as a Pod may be about to start with it.

Where a kubelet is served it does this itself, and ``high`` is 100. What always goes are images that were retired
(removed while a container used them) and lost their containers while no daemon ran.
"""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import os
import time
from collections.abc import Sequence
from typing import NamedTuple

from podrt.errors import ConflictError, NotFoundError
from podrt.image.service import ImageStore
from podrt.image.types import Image

_LOG = logging.getLogger(__name__)
MINIMUM_AGE = 120.0
"""Seconds an image is kept after its last use: the kubelet's imageMinimumGCAge."""
PERIOD = 300.0
"""Seconds between two looks: the kubelet's."""


class Disk(NamedTuple):
    """A file system: bytes."""

    total: int
    available: int
    """To anyone but root."""

    @property
    def percent(self) -> float:
        return 100.0 * (self.total - self.available) / self.total if self.total else 0.0


def patterns(text: str) -> tuple[str, ...]:
    """The configuration's ``image_pinned``: patterns separated by commas."""
    return tuple(part for one in text.split(",") if (part := one.strip()))


def is_pinned(image: Image, pinned: Sequence[str]) -> bool:
    """Whether one of the image's names fits a pattern (fnmatch(3))."""
    return any(fnmatch.fnmatchcase(name, pattern) for name in image.names for pattern in pinned)


class ImageCollector:
    """Looks after one store; ``high`` and ``low`` are percent of its file system, 100 for never."""

    def __init__(self, store: ImageStore, high: int, low: int, pinned: Sequence[str] = ()) -> None:
        self._store = store
        self._high = high
        self._low = min(low, high)
        self._pinned = tuple(pinned)

    def pinned(self, image: Image) -> bool:
        """Whether one of the image's names is pinned."""
        return is_pinned(image, self._pinned)

    async def run(self) -> None:
        """Collect every few minutes, until cancelled."""
        while True:
            await asyncio.sleep(PERIOD)
            try:
                await asyncio.to_thread(self.collect)
            except OSError:
                _LOG.exception("images can't be collected")

    def collect(self, disk: Disk | None = None) -> list[Image]:
        """Remove images if the disk is too full; those removed. ``disk`` is for tests."""
        self._store.collect_retired()
        found = disk or self.disk()
        if found.percent < self._high:
            return []
        target = found.total - found.available - found.total * self._low // 100
        removed: list[Image] = []
        freed = 0
        for image in self.candidates():
            if freed >= target:
                break
            try:
                freed += self._store.collect(image)
            except (ConflictError, NotFoundError):
                continue  # taken into use, or removed, since the look
            removed.append(image)
        text = f"disk of {self._store.root} is {found.percent:.0f}% full: removed {len(removed)} images, {freed} bytes"
        if freed < target:
            _LOG.warning("%s, where %d bytes were to be freed; the rest is used, pinned or new", text, target)
        else:
            _LOG.info("%s", text)
        return removed

    def candidates(self) -> list[Image]:
        """What may be removed, the least recently used first."""
        before = time.time() - MINIMUM_AGE
        ages = [(self._store.last_used(image), image) for image in self._store.list()]
        return [
            image
            for used, image in sorted(ages, key=lambda pair: (pair[0], pair[1].id))
            if used < before and not self._store.holders(image) and not self.pinned(image)
        ]

    def disk(self) -> Disk:
        found = os.statvfs(self._store.root)
        return Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)
