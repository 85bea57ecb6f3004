"""SELinux labels of sandboxes and containers, of what is asked for and what the policy has: pure functions.

The level is the sandbox's own: a pair of categories that no other has, so that containers can't get at the files of
another Pod even as root. Nothing is labelled where the kernel has no SELinux.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import NamedTuple

from podrt.linux.selinux import Defaults

CATEGORIES = 1024


class Labels(NamedTuple):
    """Of processes and of files; both empty for none."""

    process: str = ""
    file: str = ""


class Options(NamedTuple):
    """Parts of a label that are asked for; empty: as the policy has it, or the sandbox."""

    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


def level(uid: str, taken: Collection[str]) -> str:
    """A Pod's level, ``s0:c1,c2``: by its uid, and not one of ``taken``."""
    turn = 0
    while True:
        digest = hashlib.sha256(f"{uid}/{turn}".encode()).digest()
        first, second = (int.from_bytes(digest[start : start + 4]) % CATEGORIES for start in (0, 4))
        found = f"s0:c{min(first, second)},c{max(first, second)}"
        if first != second and found not in taken:
            return found
        turn += 1


def level_of(label: str) -> str:
    """The level in a label; "" if it has none."""
    return ":".join(label.split(":")[3:])


def labels(options: Options, defaults: Defaults | None, own_level: str, *, unconfined: bool) -> Labels:
    """``unconfined``: what shares the host's processes or is privileged has a label only where one is asked for."""
    if defaults is None or (options == Options() and (unconfined or not defaults.usable)):
        return Labels()
    user, role, kind, *levels = defaults.process.split(":")
    file_user, file_role, file_kind, *_ = defaults.file.split(":")
    # A policy without levels has labels of three parts.
    ends = options.level or (own_level or ":".join(levels) if levels else "")
    process = (options.user or user, options.role or role, options.type or kind, ends)
    file = (options.user or file_user, file_role, file_kind, ends)
    return Labels(*(":".join(part for part in label if part) for label in (process, file)))
