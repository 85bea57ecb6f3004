"""Reading and writing raw non-blocking descriptors from the event loop, one waiter at a time.

A reader is registered only while somebody waits for data, so a slow receiver stops the reading and the pipe's own bound
pushes back on the process. Limits: descriptors that epoll(7) knows (pipes, FIFOs, sockets, terminals), not regular
files.
"""

from __future__ import annotations

import asyncio
import errno
import os

CHUNK = 64 * 1024
"""What a pipe holds."""


async def read_some(fd: int, limit: int = CHUNK) -> bytes:
    """The next bytes, at most ``limit``; empty at the end. A terminal whose other side is closed is at its end, too."""
    while True:
        try:
            return os.read(fd, limit)
        except BlockingIOError:
            await _ready(fd, write=False)
        except OSError as error:
            if error.errno == errno.EIO:
                return b""
            raise


async def write_all(fd: int, data: bytes) -> None:
    """All of ``data``, waiting as the reader of the other end requires. Raises BrokenPipeError, OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await _ready(fd, write=True)


async def _ready(fd: int, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    add(fd, wake)
    try:
        await ready
    finally:
        remove(fd)
