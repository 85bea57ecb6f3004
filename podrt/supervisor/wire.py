"""Messages over a SOCK_SEQPACKET unix socket, with descriptors beside them; used by both ends of the protocol.

A message is one JSON object. One that is larger than :data:`~podrt.supervisor.protocol.INLINE_BYTES` travels in a
sealed memfd, the first descriptor of ``{"memfd": length}``. Received descriptors are close-on-exec and belong to the
caller.

``_socket`` and not ``socket``: the latter's imports would double the supervisor's start time.
"""

from __future__ import annotations

import _socket
import fcntl
import json
import os
import struct
from collections.abc import Sequence
from typing import Any

from podrt.supervisor.protocol import INLINE_BYTES, MAX_FDS, Credentials, LaunchSpec, Log, ProcessRecord, Stdio

Message = dict[str, Any]

_MAX_MEMFD = 64 * 1024 * 1024
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

# Made once: dumps and loads look for their options each time.
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


class WireError(Exception):
    """The peer sent what is no message: cut off, not JSON, not an object, or of another version."""


def pack(message: Message) -> bytes:
    """The message's bytes, UTF-8; lone surrogates of undecodable file names survive as JSON escapes."""
    return _encode(message).encode()


def unpack(data: bytes) -> Message:
    """The inverse of :func:`pack`. Raises WireError."""
    try:
        message = _decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise WireError(f"not a JSON message: {error}") from error
    if not isinstance(message, dict):
        raise WireError(f"a message must be an object, not {type(message).__name__}")
    return message


def send(sock: _socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one message. Raises BlockingIOError if a non-blocking socket is full, OSError as sendmsg(2)."""
    send_packed(sock, pack(message), fds)


def send_packed(sock: _socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """:func:`send` of a message that is packed already."""
    if len(fds) > MAX_FDS:
        raise ValueError(f"{len(fds)} descriptors in one message; {MAX_FDS} is the most")
    if len(data) <= INLINE_BYTES:
        sock.sendmsg([data], _rights(fds))
        return
    memfd = sealed_memfd("podrt-message", data)
    try:
        sock.sendmsg([b'{"memfd":%d}' % len(data)], _rights([memfd, *fds]))
    finally:
        os.close(memfd)


def receive(sock: _socket.socket) -> tuple[Message, list[int]] | None:
    """One message and its descriptors; None at end of file.

    Raises BlockingIOError if a non-blocking socket has none, WireError for garbage, OSError as recvmsg(2).
    """
    data, ancillary, flags, _ = sock.recvmsg(
        INLINE_BYTES, _socket.CMSG_SPACE((MAX_FDS + 1) * 4), _socket.MSG_CMSG_CLOEXEC
    )
    fds = [
        fd
        for level, kind, content in ancillary
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS
        for (fd,) in struct.iter_unpack("i", content[: len(content) // 4 * 4])
    ]
    try:
        if flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
            raise WireError("a message was cut off")
        if not data:
            close_all(fds)
            return None
        message = unpack(data)
        if "memfd" in message:
            message = unpack(_read_memfd(fds.pop(0) if fds else -1, message["memfd"]))
    except WireError:
        close_all(fds)
        raise
    return message, fds


def sealed_memfd(name: str, data: bytes) -> int:
    """A memfd with ``data`` that nobody can change any more; read it from offset 0."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def spec_to_wire(spec: LaunchSpec) -> list[Any]:
    """The spec as a JSON-safe list."""
    return list(spec)


def spec_from_wire(value: Any) -> LaunchSpec:
    """The inverse of :func:`spec_to_wire`. Raises WireError for a list of another shape."""
    try:
        spec = LaunchSpec(*value)
        if len(value) != len(LaunchSpec._fields):
            raise WireError(f"a launch spec has {len(LaunchSpec._fields)} fields, not {len(value)}")
        return spec._replace(
            cgroup_tasks=tuple(spec.cgroup_tasks),
            join=tuple((kind, index) for kind, index in spec.join),
            unshare=tuple(spec.unshare),
            uid_map=tuple((a, b, c) for a, b, c in spec.uid_map),
            gid_map=tuple((a, b, c) for a, b, c in spec.gid_map),
            sysctls=tuple((path, text) for path, text in spec.sysctls),
            mounts=tuple(tuple(operation) for operation in spec.mounts),
            report_namespaces=tuple(spec.report_namespaces),
            rlimits=tuple((name, soft, hard) for name, soft, hard in spec.rlimits),
            stdio=Stdio(*spec.stdio),
            log=None if spec.log is None else Log(*spec.log),
            credentials=_credentials(spec.credentials),
            argv=tuple(spec.argv),
            env=tuple(spec.env),
        )
    except (TypeError, ValueError) as error:
        raise WireError(f"not a launch spec of this version: {error}") from error


def record_from_wire(value: Any) -> ProcessRecord:
    """A ProcessRecord from its JSON list. Raises WireError."""
    try:
        record = ProcessRecord(*value)
    except TypeError as error:
        raise WireError(f"not a process record of this version: {error}") from error
    if not isinstance(value[0], str) or not all(isinstance(number, int) for number in value[2:4]):
        raise WireError(f"not a process record: {value!r}")
    return record


def _credentials(value: Any) -> Credentials:
    given = Credentials(*value)
    return given._replace(
        extra_gids=tuple(given.extra_gids), bounding=tuple(given.bounding), ambient=tuple(given.ambient)
    )


def _rights(fds: Sequence[int]) -> list[tuple[int, int, bytes]]:
    return [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []


def _read_memfd(fd: int, length: Any) -> bytes:
    if fd < 0:
        raise WireError("a large message came without its memfd")
    try:
        if not isinstance(length, int) or not 0 <= length <= _MAX_MEMFD or os.fstat(fd).st_size != length:
            raise WireError(f"a large message's length is wrong: {length!r}")
        # Unsealed, its sender could still truncate it under us.
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
            raise WireError("a large message's memfd is not sealed")
        return os.pread(fd, length, 0)
    except OSError as error:
        raise WireError(f"a large message can't be read: {error}") from error
    finally:
        os.close(fd)
