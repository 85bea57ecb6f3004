"""The parent's side of a launch: fork, then listen to the child's reports without ever waiting for it.

A child that hangs (a mount of a dead server, say) holds up nobody else: its socket is one more descriptor of the
main loop.

A new PID namespace comes from clone3(2), on every cgroup layout; a joined one is entered by the supervisor itself
just for the fork, since setns(2) with a PID namespace only concerns future children.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed has only signal
import _socket
import contextlib
import errno
import os
from collections.abc import Sequence
from typing import Any

from podrt.linux import abi, libc, namespace, process
from podrt.supervisor import wire
from podrt.supervisor.child import Child
from podrt.supervisor.protocol import LaunchSpec

_ALL_SIGNALS = frozenset(_signal.valid_signals())


class Launch:
    """A launch under way. ``fds`` are the descriptors the child handed back: terminal master first, if any."""

    __slots__ = (
        "answered",
        "channel",
        "error",
        "fds",
        "pid",
        "pidfd",
        "ready",
        "seq",
        "spec",
        "start_time",
        "terminal",
        "user",
        "warnings",
    )

    def __init__(self, seq: int, spec: LaunchSpec, pid: int, pidfd: int, channel: _socket.socket) -> None:
        self.seq = seq
        self.spec = spec
        self.pid = pid
        self.pidfd = pidfd
        # Read while it can't have been reaped.
        self.start_time = process.start_time(pid)
        self.channel = channel
        self.ready = False
        self.answered = False
        self.terminal = False
        self.warnings: list[str] = []
        self.user: list[Any] | None = None
        self.fds: list[int] = []
        self.error: dict[str, Any] | None = None

    def on_report(self) -> bool:
        """Take what the child has sent. True when its socket is closed: exec has succeeded, or the child is gone."""
        while True:
            try:
                received = wire.receive(self.channel)
            except BlockingIOError:
                return False
            except (wire.WireError, ConnectionError) as error:
                self.error = self.error or failure("start", 0, "", f"the child's report is broken: {error}")
                return True
            if received is None:
                return True
            message, fds = received
            if "map" in message:
                wire.close_all(fds)
                self._write_maps()
            elif "ready" in message:
                self.ready = True
                self.terminal = bool(message["terminal"])
                self.warnings = message["warnings"]
                self.user = message["user"]
                self.fds = fds
            else:
                wire.close_all(fds)
                self.error = message.get("error") or failure("start", 0, "", "the child sent an unknown report")

    def close(self) -> None:
        self.channel.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        wire.close_all(self.fds)
        self.fds = []

    def _write_maps(self) -> None:
        try:
            namespace.write_id_maps(self.pid, self.spec.uid_map, self.spec.gid_map)
            wire.send(self.channel, {"ok": True})
        except OSError as error:
            self.error = failure("user namespace", error.errno or 0, str(error.filename or ""), str(error))
            with contextlib.suppress(OSError):
                _signal.pidfd_send_signal(self.pidfd, _signal.SIGKILL)


def failure(step: str, number: int, path: str, message: str) -> dict[str, Any]:
    """The error of a reply."""
    return {"step": step, "errno": number, "path": path, "message": message}


def fork(seq: int, spec: LaunchSpec, fds: Sequence[int], own_pid_namespace: int, nofile: tuple[int, int]) -> Launch:
    """Fork the child of ``spec``; ``fds`` stay the caller's. Raises OSError (EAGAIN: a pids limit; ENOMEM: the PID
    namespace to join has no init any more)."""
    ours, theirs = _socket_pair()
    joined = next((fds[index] for kind, index in spec.join if kind == "pid"), None)
    flags = abi.CLONE_NEWPID if "pid" in spec.unshare else 0
    cgroup_fd = -1 if spec.cgroup_fd is None else fds[spec.cgroup_fd]
    # A signal between the fork and the child's own dispositions would be handled as the supervisor's.
    mask = _signal.pthread_sigmask(_signal.SIG_SETMASK, _ALL_SIGNALS)
    try:
        if joined is not None:
            libc.setns(joined, abi.CLONE_NEWPID)
        try:
            pid, pidfd = libc.clone3(flags, cgroup_fd=cgroup_fd)
            if pid == 0:
                try:
                    ours.detach()
                    Child(spec, fds, theirs).run(nofile)
                finally:
                    # Whatever happens, no second supervisor comes of it.
                    os._exit(125)
        finally:
            if joined is not None:
                libc.setns(own_pid_namespace, abi.CLONE_NEWPID)
    except OSError as error:
        ours.close()
        if joined is not None and error.errno == errno.ENOMEM:
            raise OSError(errno.ENOMEM, "the shared PID namespace has ended: its first process is gone") from error
        raise
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        theirs.close()
    ours.setblocking(False)
    return Launch(seq, spec, pid, pidfd, ours)


def _socket_pair() -> tuple[_socket.socket, _socket.socket]:
    first, second = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    return first, second
