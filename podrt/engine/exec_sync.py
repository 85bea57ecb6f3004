"""Run a command in a container to its end, for its exit code and output: probes, hooks, ExecSync.

:func:`run_list` is the cheap way, one request to the supervisor and one answer; see :mod:`podrt.engine.quick`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from podrt.engine import quick
from podrt.engine.kill import kill_tree
from podrt.engine.state import Container, Machine
from podrt.engine.supervisor_link import Reply
from podrt.engine.undo import finish
from podrt.errors import LaunchError, PodrtError, UnavailableError
from podrt.supervisor import wire

_log = logging.getLogger(__name__)

_CHUNK = 64 * 1024
_CHUNKS = 4
_REST_SECONDS = 0.1
"""How long what a command has left running may keep its streams from ending."""
_READ_AFTER = 0.02
"""Most commands have ended by then, with less output than a pipe holds: it is read once, and never waited for."""
_KILLED_WITHIN = 10.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a command wrote, each stream cut off at the caller's limit, and its exit code (128 + signal)."""

    stdout: bytes
    stderr: bytes
    code: int


class Collector:
    """Reads a non-blocking pipe into :attr:`data`; what is beyond ``limit`` bytes is dropped, so that the writer goes
    on. The descriptor stays the caller's. Usable in ``with``, which ends the reading."""

    def __init__(self, fd: int, limit: int) -> None:
        self.data = bytearray()
        self.ended = False
        self._fd = fd
        self._limit = limit
        self._watched = False
        self._done: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Read whenever there is something, from now on."""
        if not self.ended and not self._watched:
            asyncio.get_running_loop().add_reader(self._fd, self.read)
            self._watched = True

    def read(self) -> None:
        """Take what is there, but no more than a pipe holds: its writer may be as fast as this, and never end."""
        for _ in range(_CHUNKS):
            if self.ended:
                return
            try:
                data = os.read(self._fd, _CHUNK)
            except BlockingIOError:
                return
            if not data:
                self.ended = True
                self.stop()
            self.data += data[: max(0, self._limit - len(self.data))]

    def stop(self) -> None:
        if self._watched:
            asyncio.get_running_loop().remove_reader(self._fd)
            self._watched = False
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    async def end(self) -> None:
        """Returns at the end of file."""
        self.start()
        if not self.ended:
            self._done = asyncio.get_running_loop().create_future()
            await self._done

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


async def rest(streams: Sequence[Collector]) -> None:
    """After the exit: what the command wrote is there already; what it left running may hold the pipes open."""
    for stream in streams:
        stream.read()
    left = [stream for stream in streams if not stream.ended]
    if left:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REST_SECONDS):
                for stream in left:
                    await stream.end()


async def run_list(machine: Machine, unit: Container, argv: Sequence[str], max_bytes: int) -> Result | None:
    """Run ``argv`` by its list; None if nothing was executed and the ordinary way has to be taken, which also tells
    what is wrong. Raises UnavailableError if the supervisor goes away meanwhile. Cancelled, it kills the command."""
    try:
        listed = quick.list_of(machine, machine.sandbox(unit.record.sandbox_id), unit, argv)
        # A bad descriptor would cost the connection to the supervisor.
        if listed is None or unit.pidfd < 0:
            return None
        group = machine.cgroups.open_fd(unit.record.cgroup)
    except (PodrtError, OSError, ValueError):
        return None
    unit.execs += 1
    identity = f"{unit.id}/exec/{machine.session}-{unit.execs}"
    (our_output, output), (our_error, error) = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    try:
        try:
            ended = machine.supervisor.run(identity, (output, error, unit.pidfd, group, listed))
        except UnavailableError:
            return None
        finally:
            wire.close_all((output, error, group))
        os.set_blocking(our_output, False)
        os.set_blocking(our_error, False)
        with Collector(our_output, max_bytes) as first, Collector(our_error, max_bytes) as second:
            code = await _end(machine, identity, ended, (first, second))
            if code is None:
                quick.drop(unit, argv)
                return None
            await rest((first, second))
            return Result(bytes(first.data), bytes(second.data), code)
    finally:
        os.close(our_output)
        os.close(our_error)


async def _end(
    machine: Machine, identity: str, ended: asyncio.Future[Reply], streams: Sequence[Collector]
) -> int | None:
    """The exit code (128 + signal) of a command under way; None: a step before its execution has failed."""

    def read() -> None:
        for stream in streams:
            stream.start()

    reading = asyncio.get_running_loop().call_later(_READ_AFTER, read)
    try:
        reply, _ = await ended
    except asyncio.CancelledError:
        await finish(_kill(machine, identity), f"kill {identity}")
        raise
    finally:
        reading.cancel()
    if "error" in reply:
        _log.debug("%s: %s", identity, reply["error"]["message"])
        return None
    code, number = int(reply["code"]), int(reply["signal"])
    return 128 + number if number else code


async def _kill(machine: Machine, identity: str) -> None:
    """With those of its descendants that still hang below it. Returns when it is gone."""
    try:
        process = await machine.supervisor.handle(identity)
    except (LaunchError, UnavailableError):
        return  # it has ended, or has died with the supervisor
    loop = asyncio.get_running_loop()
    with process:
        kill_tree(process)
        gone = asyncio.Event()
        loop.add_reader(process.pidfd, gone.set)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_KILLED_WITHIN):
                    await gone.wait()
        finally:
            loop.remove_reader(process.pidfd)
