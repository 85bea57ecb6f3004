"""Removing together what several threads want removed.

For each removal of a link or of nftables elements the kernel waits for an RCU grace period, 10 to 20 ms, one after the
other. One request that names many waits once. So what is asked for while a removal runs is put together for the next.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from podrt.linux import netlink

Item = TypeVar("Item")

_GROUP = 0x706F6472
"""The group of links that are about to be removed. No link stays in it."""


class Together(Generic[Item]):
    """Calls ``action`` with the items of all waiting threads, which must be in the same network namespace.

    If a common call fails, each thread makes its own, so an error reaches the one whom it concerns.
    """

    def __init__(self, action: Callable[[list[Item]], None]) -> None:
        self._action = action
        self._lock = threading.Lock()
        self._running = threading.Lock()
        self._waiting: dict[Item, None] = {}

    def __call__(self, items: Iterable[Item]) -> None:
        """Return when the action has been carried out for ``items``. Raises what the action raises."""
        own = list(items)
        if not own:
            return
        with self._lock:
            self._waiting.update(dict.fromkeys(own))
        with self._running:
            with self._lock:
                if not any(item in self._waiting for item in own):
                    return  # The one before took them along.
                batch = list(self._waiting)
            try:
                self._action(batch)
            except Exception:
                with self._lock:
                    for item in own:
                        self._waiting.pop(item, None)
                if len(batch) == len(own):
                    raise
                self._action(own)
            else:
                with self._lock:
                    for item in batch:
                        self._waiting.pop(item, None)


def remove(names: list[str]) -> None:
    """Remove links, each that is there. Raises OSError."""
    if len(names) > 1:
        netlink.send([netlink.set_group(name, _GROUP) for name in names], ignore=(errno.ENODEV,))
        netlink.send([netlink.del_group(_GROUP)], ignore=(errno.ENODEV,))
    else:
        netlink.send([netlink.del_link(name) for name in names], ignore=(errno.ENODEV,))
