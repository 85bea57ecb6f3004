"""One exec or attach: the engine's session joined to a client, whatever the client speaks.

Back-pressure holds both ways: output is read only as fast as the client takes it, and input is taken from the client
only as fast as the process reads it, up to a bounded pipe that lets what follows pass. A client that goes away ends
the session, which kills an exec; a container that was attached to goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

import msgspec

from podrt.engine.api import Session
from podrt.errors import LaunchError
from podrt.streaming import status
from podrt.streaming.descriptors import read_some, write_all
from podrt.streaming.pipe import Pipe
from podrt.streaming.tasks import stop

logger = logging.getLogger(__name__)

_DRAIN_IDLE = 0.25
"""Seconds without output after the exit, until a stream that a left-over process still holds open is given up."""
_LAST_INPUT = 1.0
"""Seconds that a process has to read what a client sent before it went away."""
_MAX_SIZE = 256
"""Bytes of a terminal's size as JSON."""

Open = Callable[[], Awaitable[Session]]
Explain = Callable[[Exception], status.Status]
"""The Status of an error that is no LaunchError; the caller's words for it."""


class Wanted(NamedTuple):
    """The streams that a client asks for. With a terminal it has no stderr, but sizes."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool = False


class Client(Protocol):
    """The client's side of a session. Sending raises ConnectionError when the client has gone."""

    stdin: Pipe
    sizes: Pipe
    gone: asyncio.Task[None]
    """Done when the client has gone."""

    async def send(self, stream: str, data: bytes) -> None:
        """More of ``stdout`` or ``stderr``; dropped if the client has no such stream."""

    async def end(self, stream: str) -> None:
        """The end of ``stdout`` or ``stderr``."""

    async def finish(self, ending: status.Status) -> None:
        """The last word."""


async def serve(client: Client, open_session: Open, explain: Explain, *, exit_code: bool = True) -> None:
    """Run a session to its end and tell the client how it ended. Raises nothing for what goes wrong in it.

    Without ``exit_code`` every end of the process is a success.
    """
    text = b""
    try:
        code = await _run(client, open_session)
        ending = status.exit_status(code) if exit_code else status.SUCCESS
    except ConnectionError:
        return
    except LaunchError as error:
        ending = status.failed_launch(error)
        text = ending.message.encode() + b"\n"
    except Exception as error:
        ending = explain(error)
    with contextlib.suppress(ConnectionError):
        if text:
            await client.send("stderr", text)
        await client.finish(ending)


async def _run(client: Client, open_session: Open) -> int:
    session = await open_session()
    outputs = [_Output(client, name, fd) for name in ("stdout", "stderr") if (fd := getattr(session, name)) is not None]
    ended = asyncio.create_task(_wait(session), name="session end")
    inputs = [
        asyncio.create_task(_feed(session, client.stdin), name="stdin"),
        asyncio.create_task(_resize(session, client.sizes), name="terminal sizes"),
    ]
    try:
        await asyncio.wait({client.gone, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            # What it sent is passed on, and with it that it has gone: stdinOnce closes a container's stdin then.
            await asyncio.wait(inputs, timeout=_LAST_INPUT)
            raise ConnectionResetError("the client closed the stream")
        for output in outputs:
            await output.drain(client.gone)
        return ended.result()
    finally:
        tasks = [ended, *inputs, *(output.task for output in outputs)]
        await stop(*tasks, then=session.close)


async def _wait(session: Session) -> int:
    return await session.wait()


class _Output:
    """Copies one stream of the process to the client."""

    def __init__(self, client: Client, name: str, fd: int) -> None:
        self._client = client
        self._name = name
        self._fd = fd
        self._sending = False
        self._count = 0
        self.task = asyncio.create_task(self._copy(), name=name)

    async def _copy(self) -> None:
        while data := await read_some(self._fd):
            self._sending = True
            self._count += 1
            await self._client.send(self._name, data)
            self._sending = False
        await self._client.end(self._name)

    async def drain(self, gone: asyncio.Task[None]) -> None:
        """Wait for the end of the stream, or until nothing has come for a while (the process has ended already).

        Raises ConnectionError if the client goes first, OSError.
        """
        while not self.task.done():
            count = self._count
            await asyncio.wait({self.task, gone}, timeout=_DRAIN_IDLE, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and not self.task.done():
                raise ConnectionResetError("the client closed the stream")
            if not self._sending and self._count == count and not self.task.done():
                self.task.cancel()
                await asyncio.wait({self.task})
        if not self.task.cancelled():
            self.task.result()


async def _feed(session: Session, pipe: Pipe) -> None:
    """Write what comes to the process, then close its stdin; what comes when it takes no more is dropped."""
    try:
        while session.stdin is not None and (data := await pipe.get()):
            await write_all(session.stdin, data)
        if session.stdin is not None:
            await session.close_stdin()
    except OSError:
        pass  # the process has closed its stdin
    finally:
        pipe.drop()


class _Size(msgspec.Struct, rename="pascal"):
    width: int
    height: int


async def _resize(session: Session, pipe: Pipe) -> None:
    """JSON objects ``{"Width": columns, "Height": rows}``, one after the other; others are passed over."""
    text = b""
    try:
        while data := await pipe.get():
            *whole, text = (text + data).split(b"}")
            text = text[-_MAX_SIZE:]
            for document in whole:
                with contextlib.suppress(msgspec.MsgspecError):
                    size = msgspec.json.decode(document[document.rfind(b"{") :] + b"}", type=_Size)
                    if 0 < size.width < 65536 and 0 < size.height < 65536:
                        session.resize(size.width, size.height)
    except OSError:
        pass  # the terminal has gone
    finally:
        pipe.drop()
