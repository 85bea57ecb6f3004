"""Work in a thread of its own.

Not of a pool: a call into the file system of a server that is gone may never return, and as many of them as a pool has
threads would stop all that goes through it. Such a thread is given up; it ends when the kernel lets it.
"""

from __future__ import annotations

import _thread
import asyncio
import errno
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 60.0
"""For what a healthy file server answers in milliseconds."""


async def in_own_thread(function: Callable[[], T], discard: Callable[[T], None] | None = None) -> T:
    """Run ``function`` in a new thread that ends with it. If the caller is cancelled, the function still runs on, and
    ``discard`` is given its result.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            if error is None and discard is not None:
                discard(result)  # type: ignore[arg-type]
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def tell(result: T | None, error: BaseException | None) -> None:
        try:
            loop.call_soon_threadsafe(finish, result, error)
        except RuntimeError:
            # The loop is closed: the daemon has ended, and with it goes whatever was opened.
            return

    def run() -> None:
        try:
            result = function()
        except BaseException as error:
            tell(None, error)
        else:
            tell(result, None)

    # threading.Thread.start waits until the thread runs, which here means until it has lost its time slice to it.
    _thread.start_new_thread(run, ())
    return await future


async def patiently(function: Callable[[], T], what: str, discard: Callable[[T], None] | None = None) -> T:
    """The same with a time limit. Raises TimeoutError that names ``what``."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await in_own_thread(function, discard)
    except TimeoutError as error:
        if error.errno is not None:
            raise
        text = f"{what}: no answer in {PATIENCE_SECONDS:g} s: is it on a file server that is gone?"
        raise TimeoutError(errno.ETIMEDOUT, text) from None
