"""Ending the tasks of a connection, also while the handler itself is cancelled: the client goes at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from podrt.engine.undo import finish


async def stop(*tasks: asyncio.Task[Any], then: Callable[[], Awaitable[None]] | None = None) -> None:
    """Cancel ``tasks``, wait for their ends, and do ``then``; a cancellation of the caller is delivered after that."""
    for task in tasks:
        task.cancel()
    await finish(_ended(tasks, then), "end of a stream")


async def _ended(tasks: tuple[asyncio.Task[Any], ...], then: Callable[[], Awaitable[None]] | None) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
    if then is not None:
        await then()
