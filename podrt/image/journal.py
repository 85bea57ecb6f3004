"""What pulls that were cut off had brought already: kept for their next try, across a crash of the daemon as well.

A pull writes down which blobs and layers its image has before it fetches the first, in ``<root>/<hex>.json`` by the
manifest's digest. The file goes when the image is recorded, and when it turned out to be wrong. What is left belongs
to pulls that were interrupted; for a day the start-up sweep spares what is listed there and whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from podrt import fsutil

_KEPT_FOR = 86400.0


class Kept(NamedTuple):
    """Digests of blobs, and chain ids."""

    blobs: frozenset[str]
    layers: frozenset[str]


class Journal:
    """The files below ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def begin(self, manifest: str, blobs: Sequence[str], layers: Sequence[str]) -> None:
        document = {"blobs": list(blobs), "layers": list(layers)}
        fsutil.write_atomic(self._path(manifest), json.dumps(document).encode())

    def end(self, manifest: str) -> None:
        fsutil.unlink_missing_ok(self._path(manifest))

    def clear(self) -> None:
        """Keep nothing any longer."""
        for entry in list(os.scandir(self._root)):
            fsutil.unlink_missing_ok(entry.path)

    def kept(self) -> Kept:
        """What to spare. Files that are old or broken are removed."""
        blobs: set[str] = set()
        layers: set[str] = set()
        for entry in list(os.scandir(self._root)):
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                if time.time() - entry.stat().st_mtime < _KEPT_FOR:
                    document = json.loads(Path(entry.path).read_bytes())
                    blobs.update(map(str, document["blobs"]))
                    layers.update(map(str, document["layers"]))
                    continue
            fsutil.unlink_missing_ok(entry.path)
        return Kept(frozenset(blobs), frozenset(layers))

    def _path(self, manifest: str) -> Path:
        return self._root / f"{manifest.partition(':')[2]}.json"
