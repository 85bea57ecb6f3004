"""Running one CNI plugin: a program that gets environment and stdin and answers on stdout (CNI spec 1.1, section 2).

asyncio's subprocesses start by vfork, so the daemon's Python is never forked. A plugin leads a process group of its
own, which is ended with it when its time is over (not a session: children in other sessions are taken for a dead
supervisor's and reaped). What it writes is read with a bound, the rest is thrown away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from asyncio.subprocess import Process, SubprocessStreamProtocol
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from podrt.errors import DeadlineError, UnavailableError
from podrt.linux.process import ProcessHandle
from podrt.network.cni_result import shown

log = logging.getLogger(__name__)

MAX_ANSWER = 1 << 20
MAX_LOG = 64 << 10
_CHUNK = 64 << 10
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PRIVATE = ("PYTHON", "VIRTUAL_ENV", "CNI_", "PODRT_")
"""Beginnings of the daemon's own variables that are none of a plugin's business."""


class Call(NamedTuple):
    """The parameters of one operation; empty ones are not given."""

    command: str
    container: str = ""
    netns: str = ""
    ifname: str = ""
    args: str = ""


class Answer(NamedTuple):
    """How a plugin ended and what it wrote."""

    code: int
    stdout: bytes
    stderr: bytes


def find(program: str, directories: Sequence[str]) -> Path:
    """The first executable of that name. Raises UnavailableError that says where it was looked for."""
    for directory in directories:
        path = Path(directory, program)
        if path.is_file() and os.access(path, os.X_OK):
            return path
    raise UnavailableError(f"CNI plugin {program!r} is not in {':'.join(directories) or 'any directory'}: install it")


def environment(call: Call, directories: Sequence[str]) -> dict[str, str]:
    """The daemon's variables (a proxy's, for example) and the protocol's."""
    values = {name: value for name, value in os.environ.items() if not name.startswith(_PRIVATE)}
    values["PATH"] = f"{os.environ['PATH']}:{_SEARCH_PATH}" if os.environ.get("PATH") else _SEARCH_PATH
    given = {
        "CNI_COMMAND": call.command,
        "CNI_CONTAINERID": call.container,
        "CNI_NETNS": call.netns,
        "CNI_IFNAME": call.ifname,
        "CNI_ARGS": call.args,
        "CNI_PATH": ":".join(directories),
    }
    return values | {name: value for name, value in given.items() if value}


async def run(path: Path, call: Call, directories: Sequence[str], stdin: bytes, timeout: float) -> Answer:
    """Run a plugin. Raises DeadlineError after ``timeout`` seconds, UnavailableError if it can't be started."""
    what = f"CNI plugin {path} ({call.command})"
    loop = asyncio.get_running_loop()
    try:
        # As create_subprocess_exec does it, which keeps the transport to itself.
        transport, protocol = await loop.subprocess_exec(
            lambda: SubprocessStreamProtocol(_CHUNK, loop),
            path,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(call, directories),
            cwd="/",
            process_group=0,
        )
    except OSError as error:
        raise UnavailableError(f"{what} can't be run: {error.strerror}") from error
    process = Process(transport, protocol, loop)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    output, errors = bytearray(), bytearray()
    try:
        async with asyncio.timeout(timeout):
            await asyncio.gather(
                _feed(process.stdin, stdin),
                _read(process.stdout, output, MAX_ANSWER),
                _read(process.stderr, errors, MAX_LOG),
            )
            code = await process.wait()
    except TimeoutError:
        raise DeadlineError(f"{what}: not done after {timeout:g} s{_last_words(errors)}") from None
    finally:
        try:
            await _end(process)
        finally:
            # The pipes stay open as long as anybody has the other ends: what a plugin left running may for ever.
            transport.close()
    if errors:
        log.log(logging.WARNING if code else logging.DEBUG, "%s: %s", what, shown(bytes(errors)))
    return Answer(code, bytes(output), bytes(errors))


def _last_words(errors: bytearray) -> str:
    text = shown(bytes(errors))
    return f"; it wrote: {text}" if text else ""


async def _feed(stream: asyncio.StreamWriter, data: bytes) -> None:
    # A plugin need not read what it has no use for.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(data)
        await stream.drain()
    stream.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await stream.wait_closed()


async def _read(stream: asyncio.StreamReader, into: bytearray, limit: int) -> None:
    while data := await stream.read(_CHUNK):
        into += data[: limit - len(into)]


async def _end(process: Process) -> None:
    """Kill a plugin that still runs, with its process group."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), 5)


def end_strays(adding: Collection[str], added: Collection[str]) -> list[int]:
    """Kill plugins that an earlier daemon has started and not seen the end of: they would go on connecting what is
    about to be disconnected. Blocks until they are gone, at most 5 seconds each. Returns their pids.

    They are told by their environment, which plugins also hand to the programs that they run: the container, and ADD
    for those of ``adding``, anything else for those of ``added``, too. What was started by an ADD that has ended is a
    helper that the plugin has left to run. Containers are not looked at: their environment is theirs to choose, and
    lies in memory that they could make the reader wait for.
    """
    found = []
    own = os.stat("/proc/self/ns/pid").st_ino
    for pid in _processes():
        # Opened first: the environment read after that belongs to this process or to none.
        with contextlib.suppress(OSError), ProcessHandle.open(pid) as handle:
            if os.stat(f"/proc/{pid}/ns/pid").st_ino != own:
                continue
            data = Path(f"/proc/{pid}/environ").read_bytes()
            variables = dict(pair.partition(b"=")[::2] for pair in data.split(b"\0"))
            container = variables.get(b"CNI_CONTAINERID", b"").decode(errors="replace")
            ended = variables.get(b"CNI_COMMAND") == b"ADD" and container not in adding
            if not ended and (container in adding or container in added):
                handle.signal(signal.SIGKILL)
                handle.wait(5)
                found.append(pid)
    return found


def _processes() -> Iterable[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
