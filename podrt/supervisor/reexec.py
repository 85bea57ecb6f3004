"""Re-exec in place: the supervisor becomes a newer version of itself without letting go of anything.

The state is written to a memfd as JSON, the descriptors it names are kept over exec, and execve of a fresh sealed copy
of the interpreter follows. The process stays the same, so its children stay its children. A failing execve leaves
the old image running.
"""

from __future__ import annotations

import _socket
import base64
import json
import os
import signal
from typing import TYPE_CHECKING, Any, NoReturn

from podrt.supervisor import interpreter
from podrt.supervisor.processes import Process, describe
from podrt.supervisor.protocol import Log, ProcessRecord, Stdio

if TYPE_CHECKING:
    from podrt.supervisor.supervisor import Supervisor

_FORMAT = 1


def execute(supervisor: Supervisor, seq: int | None) -> NoReturn:
    """Replace the running image; ``seq`` is the request that the new image answers. Raises OSError if that fails."""
    assert supervisor.listener is not None
    kept = [supervisor.listener.fileno(), supervisor.lock_fd]
    if supervisor.connection.fd is not None:
        kept.append(supervisor.connection.fd)
    state: dict[str, Any] = {
        "format": _FORMAT,
        "run_dir": supervisor.run_dir,
        "netns_dir": supervisor.netns_dir,
        "nofile": supervisor.nofile,
        "seq": seq,
        "listener": supervisor.listener.fileno(),
        "lock": supervisor.lock_fd,
        "connection": supervisor.connection.fd,
        "processes": [_save(one, kept) for one in supervisor.table.by_id.values()],
        "runs": supervisor.children.runs.save(supervisor.connection.generation, kept),
    }
    image = interpreter.sealed_copy()
    memfd = os.memfd_create("podrt-state", os.MFD_CLOEXEC)
    kept.append(memfd)
    mask = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        with open(os.dup(memfd), "wb") as file:
            file.write(json.dumps(state).encode())
        for fd in kept:
            os.set_inheritable(fd, True)
        arguments = [supervisor.run_dir, supervisor.netns_dir, f"state={memfd}"]
        os.execve(image, interpreter.command_line(arguments, supervisor.search_path), interpreter.environment())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for fd in kept:
            os.set_inheritable(fd, False)
        os.close(image)
        os.close(memfd)


def restore(memfd: int) -> Supervisor:
    """The supervisor whose state :func:`execute` wrote. It is serving when this returns."""
    from podrt.supervisor.supervisor import Supervisor

    with open(memfd, "rb") as file:
        file.seek(0)
        state = json.load(file)
    if state["format"] != _FORMAT:
        raise SystemExit(f"the state of the supervisor before the re-exec has format {state['format']}, not {_FORMAT}")
    supervisor = Supervisor(state["run_dir"], state["netns_dir"], tuple(state["nofile"]))
    supervisor.lock_fd = _own(state["lock"])
    for saved in state["processes"]:
        _restore_process(supervisor, saved)
    if "runs" in state:  # version 1 had none
        supervisor.children.runs.restore(state["runs"], supervisor.connection.generation + 1)
    connection = None
    if state["connection"] is not None:
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, _own(state["connection"]))
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, _own(state["listener"]))
    listener.setblocking(False)
    supervisor.start(listener, connection)
    if state["seq"] is not None:
        supervisor.connection.send({"seq": state["seq"], "pid": os.getpid()})
    return supervisor


def _save(one: Process, kept: list[int]) -> dict[str, Any]:
    streams = {}
    for name, stream in one.streams.items():
        if stream.closed:
            continue
        kept.append(stream.fd)
        kept.extend(attacher.fd for attacher in stream.attachers)
        streams[name] = {
            "fd": stream.fd,
            "seen": stream.seen,
            "tail": _text(stream.tail),
            "attachers": [[attacher.fd, _text(attacher.pending)] for attacher in stream.attachers],
        }
    kept.extend(fd for fd in (one.stdin, one.pidfd) if fd is not None)
    return {
        "process": describe(one),
        "adopted": one.adopted,
        "streams": streams,
        "stdin": one.stdin,
        "pidfd": one.pidfd,
    }


def _restore_process(supervisor: Supervisor, saved: dict[str, Any]) -> None:
    record, stdio, log = saved["process"]
    one = Process(ProcessRecord(*record), Stdio(*stdio), None if log is None else Log(*log))
    one.adopted = saved["adopted"]
    supervisor.table.by_id[one.record.id] = one
    if saved["pidfd"] is not None:
        os.close(saved["pidfd"])
    stdin = None if saved["stdin"] is None else _own(saved["stdin"])
    outputs = {name: _own(stream["fd"]) for name, stream in saved["streams"].items()}
    if outputs:
        supervisor.table.open_log(one)
    supervisor.table.start_output(one, outputs, stdin)
    for name, stream in saved["streams"].items():
        one.streams[name].seen = stream["seen"]
        one.streams[name].tail = base64.b64decode(stream["tail"])
        for fd, pending in stream["attachers"]:
            one.streams[name].attach(_own(fd), base64.b64decode(pending))
    if one.running():
        if one.adopted:
            supervisor.adopted.watch(one)
        else:
            supervisor.children.by_pid[one.record.pid] = one


def _own(fd: int) -> int:
    os.set_inheritable(fd, False)
    return fd


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
