"""A lock that many hold together or one holds alone, for tasks of one event loop.

CNI demands it: any number of ADD and DEL may run at once, and a GC only while none does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Gate:
    """Fair to the one who wants it alone: nobody new comes in while that one waits."""

    def __init__(self) -> None:
        self._turnstile = asyncio.Lock()
        self._inside = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @contextlib.asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        async with self._turnstile:
            self._inside += 1
            self._empty.clear()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._turnstile:
            await self._empty.wait()
            yield
