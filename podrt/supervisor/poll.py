"""The event loop: one epoll, callbacks by descriptor, a queue of work that yields after each piece, and timers.

Descriptors are watched edge-triggered where the callback asks for it (pipes that keep an unfinished line),
level-triggered otherwise. Work that may go on (a container that floods its output) is queued and gets one piece in
turn, so nobody starves.
"""

from __future__ import annotations

import heapq
import select
import time
from collections import deque
from collections.abc import Callable

EDGE = select.EPOLLET
IN = select.EPOLLIN
OUT = select.EPOLLOUT

Callback = Callable[[int], None]


class Loop:
    """Callbacks get the event mask; they must not block and must not raise."""

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._callbacks: dict[int, Callback] = {}
        self._work: deque[Callable[[], bool]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_number = 0
        self._on_error = on_error

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        """Call ``callback`` on ``events`` (IN, OUT, EDGE), hang-up and error of ``fd``."""
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Before the descriptor is closed; nothing if it isn't watched."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def queue(self, work: Callable[[], bool]) -> None:
        """Run ``work`` in turn with all other work, again as long as it returns True."""
        self._work.append(work)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self._timer_number += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._timer_number, action))

    def turn(self) -> None:
        """Wait for something to do, and do one round of it."""
        try:
            events = self._epoll.poll(self._patience(), 64)
        except InterruptedError:
            return
        for fd, mask in events:
            callback = self._callbacks.get(fd)
            # None: an earlier callback of this round has closed it.
            if callback is not None:
                try:
                    callback(mask)
                except Exception as error:
                    self._on_error(error)
        for _ in range(len(self._work)):
            work = self._work.popleft()
            try:
                again = work()
            except Exception as error:
                self._on_error(error)
                again = False
            if again:
                self._work.append(work)
        while self._timers and self._timers[0][0] <= time.monotonic():
            action = heapq.heappop(self._timers)[2]
            try:
                action()
            except Exception as error:
                self._on_error(error)

    def _patience(self) -> float:
        if self._work:
            return 0
        if self._timers:
            return max(self._timers[0][0] - time.monotonic(), 0) + 0.001
        return -1
