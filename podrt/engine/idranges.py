"""Ranges of host ids for sandboxes with a user namespace of their own: one slot for each, whoever made it. Pure.

A slot is free if no sandbox that the engine knows holds it, so who chooses one must hand it to the engine without
letting anything else run between."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from podrt.engine.specs import IdMap, SandboxSpec
from podrt.errors import ExhaustedError

RANGE = 65_536
"""Ids of one sandbox."""
FIRST = 1 << 30
"""The first host id; beyond what distributions give out in /etc/subuid."""
SLOTS = 16_000


def maps(slot: int) -> tuple[IdMap, ...]:
    """The rows of uid_map and gid_map for a slot."""
    return (IdMap(inside=0, outside=FIRST + slot * RANGE, count=RANGE),)


def choose(key: str, held: set[int]) -> int:
    """A free slot; the same one for the same ``key`` unless another has it. Raises ExhaustedError."""
    if len(held) >= SLOTS:
        raise ExhaustedError(f"all {SLOTS} id ranges for user namespaces are taken; remove some Pods that have one")
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) % SLOTS
    return next(slot % SLOTS for slot in range(start, start + SLOTS) if slot % SLOTS not in held)


def taken(specs: Iterable[SandboxSpec]) -> set[int]:
    """The slots that sandboxes hold, be it in part: a kubelet chooses ids by a rule of its own."""
    held: set[int] = set()
    for spec in specs:
        for entry in (*spec.uid_maps, *spec.gid_maps):
            first = max((entry.outside - FIRST) // RANGE, 0)
            last = min((entry.outside + entry.count - 1 - FIRST) // RANGE, SLOTS - 1)
            held.update(range(first, last + 1))
    return held
