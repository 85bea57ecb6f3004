"""The undo stack: what a multi-step set-up takes back when it fails.

Each step names itself and its undo *before* it acts, so every undo must be idempotent: it may run although its step
never began. Undos run in reverse order, go on past one that fails, survive the cancellation of the task and have a
deadline together. What can't be undone in time is logged and left to the next start's recovery, which finds it by its
record.

Fault injection: every step announces its name to :data:`hook` before it acts, as do the steps of removals through
:func:`checkpoint`. Only the daemon (``PODRT_FAULT_AT``) and tests set the hook.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Self, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
Undo = Callable[[], Awaitable[object] | object]

hook: Callable[[str], None] | None = None
"""Called with the name of each step before it acts; None in normal operation."""


def checkpoint(name: str) -> None:
    """Announce the step ``name`` to :data:`hook`."""
    if hook is not None:
        hook(name)


class UndoStack:
    """An async context: on an exception the undos run in reverse, then the exception goes on.

    ``subject`` names the object in log lines; ``deadline`` is the seconds that all undos have together.
    """

    def __init__(self, subject: str, deadline: float = 30.0) -> None:
        self._subject = subject
        self._deadline = deadline
        self._steps: list[tuple[str, Undo]] = []

    def step(self, name: str, undo: Undo | None = None) -> None:
        """Register the undo of the step that follows, and announce the step."""
        if undo is not None:
            self._steps.append((name, undo))
        checkpoint(name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            await self.unwind()

    async def unwind(self) -> None:
        """Run all undos now. Returns when they have ended or the deadline is over, even if the caller is cancelled."""
        await finish(self._unwind(), name=f"undo {self._subject}")

    async def _unwind(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._deadline
        while self._steps:
            name, undo = self._steps.pop()
            try:
                async with asyncio.timeout_at(end):
                    result = undo()
                    if inspect.isawaitable(result):
                        await result
            except TimeoutError:
                left = [name, *(other for other, _ in reversed(self._steps))]
                log.error(
                    "%s: undo did not end in %g s; left to recovery: %s", self._subject, self._deadline, ", ".join(left)
                )
                self._steps.clear()
            except Exception as error:
                log.warning("%s: undo of %s failed: %s", self._subject, name, error, exc_info=error)


async def finish(work: Coroutine[object, object, T], name: str) -> T:
    """Run ``work`` to its end even if the calling task is cancelled meanwhile; the cancellation is delivered after
    it.
    """
    task = asyncio.create_task(work, name=name)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled() and task.exception() is not None:
            log.warning("%s: failed: %s", name, task.exception())
        raise cancelled
    return task.result()
