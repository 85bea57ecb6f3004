"""exec and attach over a websocket: the ``v4`` and ``v5.channel.k8s.io`` subprotocols.

Every message is binary; its first byte is the channel: 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 a terminal
size as JSON ``{"Width": columns, "Height": rows}``. In v5, 255 followed by a channel's number closes that channel (the
only way to end stdin). The server closes the websocket after the Status.

Back-pressure holds both ways: output is read only as fast as the client takes it, and stdin is taken from the client
only as fast as the process reads it, up to a small queue that lets resizes pass. Source: client-go ``remotecommand``,
kubelet ``streaming``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import WSMsgType, web

from podrt.api.descriptors import read_some, write_all
from podrt.engine.api import Session
from podrt.model.meta import Status, StatusCause, StatusDetails

logger = logging.getLogger(__name__)

V5 = "v5.channel.k8s.io"
V4 = "v4.channel.k8s.io"
PROTOCOLS = (V5, V4)

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255

_STDIN_QUEUE = 16
_DRAIN_IDLE = 0.25
"""Seconds without output after the exit, until a stream that a left-over process still holds open is given up."""


class _Size(msgspec.Struct, rename="pascal"):
    width: int
    height: int


class _Output:
    """Copies one stream to one channel."""

    def __init__(self, socket: web.WebSocketResponse, channel: int, fd: int) -> None:
        self._socket = socket
        self._prefix = bytes([channel])
        self._fd = fd
        self.sending = False
        self.count = 0
        self.task = asyncio.create_task(self._copy())

    async def _copy(self) -> None:
        while data := await read_some(self._fd):
            self.sending = True
            self.count += len(data)
            await self._socket.send_bytes(self._prefix + data)
            self.sending = False

    async def drain(self) -> None:
        """Wait for the end of the stream, or until nothing has come for a while (the process has ended already)."""
        while not self.task.done():
            count = self.count
            await asyncio.wait({self.task}, timeout=_DRAIN_IDLE)
            if not self.sending and self.count == count and not self.task.done():
                self.task.cancel()
                await asyncio.wait({self.task})


async def serve(socket: web.WebSocketResponse, open_session: Callable[[], Awaitable[Session]]) -> Status:
    """Run a session over an accepted websocket, to its end. Returns the Status that was sent.

    ``open_session`` may raise: the caller maps that. A client that goes away ends the session (an exec is killed).
    Raises ConnectionResetError then.
    """
    session = await open_session()
    outputs: list[_Output] = []
    work: set[asyncio.Task[object]] = set()
    try:
        for channel, fd in ((STDOUT, session.stdout), (STDERR, session.stderr)):
            if fd is not None:
                outputs.append(_Output(socket, channel, fd))
        incoming = asyncio.create_task(_receive(socket, session), name="websocket input")
        ended = asyncio.create_task(_wait(session), name="session end")
        work = {incoming, ended}
        await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            incoming.result()
            raise ConnectionResetError("the client closed the stream")
        for output in outputs:
            await output.drain()
            if not output.task.cancelled():
                output.task.result()
        return exit_status(ended.result())
    finally:
        tasks = work | {output.task for output in outputs}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await session.close()


async def _wait(session: Session) -> int:
    return await session.wait()


async def _receive(socket: web.WebSocketResponse, session: Session) -> None:
    """Take messages until the client goes. Ends early never: a closed stdin leaves resizes to be heard."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue(_STDIN_QUEUE)
    feeder = asyncio.create_task(_feed(session, queue), name="stdin")
    try:
        async for message in socket:
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT) or not message.data:
                continue
            data = message.data if isinstance(message.data, bytes) else message.data.encode()
            await _handle(data[0], data[1:], session, queue, closable=socket.ws_protocol == V5)
    finally:
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)


async def _handle(
    channel: int, data: bytes, session: Session, queue: asyncio.Queue[bytes | None], *, closable: bool
) -> None:
    if channel == STDIN and data:
        await queue.put(data)
    elif channel == RESIZE:
        with contextlib.suppress(msgspec.MsgspecError):
            size = msgspec.json.decode(data, type=_Size)
            if 0 < size.width < 65536 and 0 < size.height < 65536:
                session.resize(size.width, size.height)
    elif channel == CLOSE and closable and data[:1] == bytes([STDIN]):
        await queue.put(None)


async def _feed(session: Session, queue: asyncio.Queue[bytes | None]) -> None:
    """Write what comes to the process; what comes after its stdin is closed, on either side, is dropped."""
    open_ = session.stdin is not None
    while True:
        data = await queue.get()
        if not open_ or session.stdin is None:
            continue
        if data is None:
            open_ = False
            await session.close_stdin()
            continue
        try:
            await write_all(session.stdin, data)
        except OSError:
            open_ = False


def exit_status(code: int) -> Status:
    """The Status of an exit code, as remotecommand's v4 has it."""
    if code == 0:
        return Status(status="Success")
    return failed_command(code, f"command terminated with non-zero exit code: exit status {code}")


def failed_command(code: int, message: str) -> Status:
    cause = StatusCause(reason="ExitCode", message=str(code))
    details = StatusDetails(causes=(cause,))
    return Status(status="Failure", reason="NonZeroExitCode", message=message, details=details)


async def finish(socket: web.WebSocketResponse, status: Status, *, text: str = "", stderr: bool = False) -> None:
    """Send ``text`` to the client's stderr (if it takes one) and the Status, then close. A client that is gone is no
    error.
    """
    with contextlib.suppress(ConnectionError):
        if text and stderr:
            await socket.send_bytes(bytes([STDERR]) + text.encode() + b"\n")
        await socket.send_bytes(bytes([ERROR]) + msgspec.json.encode(status))
    await socket.close()
