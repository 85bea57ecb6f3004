"""Start of the supervisor process: its mount namespace, its limits, its sockets.

Run by :mod:`podrt.supervisor.interpreter`'s command line. Arguments: the run directory, the directory of pinned network
namespaces, and ``connection=FD`` (the daemon's end of a socket pair) or ``state=FD`` (after a re-exec in place).

The mount namespace is its own, so that the mounts below the run directory (pins, shm of every sandbox) are not copied
into every container's: the copy is what makes creating a Pod slower the more Pods there are.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import fcntl
import gc
import os
import resource
import signal
import time

from podrt.linux import abi, libc, mount_table
from podrt.supervisor import interpreter, reexec, server
from podrt.supervisor.child import forbid_imports
from podrt.supervisor.supervisor import Supervisor

_NAME = b"podrt-superviso"
_LOCK_SECONDS = 1.0
_CONTAINER_FILES = 1024


def main(arguments: list[str]) -> None:
    """Runs until ``shutdown``."""
    run_dir, netns_dir, *options = arguments
    search_path = interpreter.search_path()
    given = dict(option.split("=", 1) for option in options)
    os.umask(0o022)
    os.chdir("/")
    _name_process()
    supervisor = reexec.restore(int(given["state"])) if "state" in given else _first_start(run_dir, netns_dir, given)
    supervisor.search_path = search_path
    forbid_imports()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    gc.collect()
    gc.freeze()
    supervisor.run()
    for name in ("supervisor.sock", "supervisor.pid"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{run_dir}/{name}")


def _first_start(run_dir: str, netns_dir: str, given: dict[str, str]) -> Supervisor:
    # What the daemon has inherited without close-on-exec from whoever started it; 3 is the connection.
    libc.close_range(4, 2**32 - 1)
    libc.set_subreaper()
    lock = _lock(run_dir)
    _own_mounts((run_dir, netns_dir))
    supervisor = Supervisor(run_dir, netns_dir, _raise_descriptor_limit())
    connection = None
    if "connection" in given:
        fd = int(given["connection"])
        os.set_inheritable(fd, False)
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
    listener = server.listen(f"{run_dir}/supervisor.sock")
    supervisor.lock_fd = lock
    supervisor.start(listener, connection)
    return supervisor


def _lock(run_dir: str) -> int:
    """The pid file, locked as long as the supervisor lives: there is one supervisor for a run directory.

    Raises SystemExit if another one is alive.
    """
    path = f"{run_dir}/supervisor.pid"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            # The children that a dead supervisor was just launching share its lock until they are gone too.
            if time.monotonic() > deadline:
                raise SystemExit(f"{path}: another supervisor runs") from None
            time.sleep(0.01)
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    return fd


def _own_mounts(directories: tuple[str, ...]) -> None:
    libc.unshare(abi.CLONE_NEWNS)
    libc.mount(None, "/", flags=abi.MS_SLAVE | abi.MS_REC)
    for directory in directories:
        points = mount_table.mount_points(directory) if os.path.isdir(directory) else []
        if not points:
            continue
        if os.path.realpath(directory) == points[0].path:
            libc.mount(None, directory, flags=abi.MS_PRIVATE)
            points = points[1:]
        for point in reversed(points):
            try:
                libc.umount2(point.path, abi.MNT_DETACH | abi.UMOUNT_NOFOLLOW)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOENT):
                    raise


def _raise_descriptor_limit() -> tuple[int, int]:
    """A few descriptors for each container: take what is allowed. Returns the limit that containers get.

    Their soft limit is that of a service under systemd and containerd, whatever the daemon has: programs that close
    all descriptors one by one, or size a table by the limit, are slow with a million. Who needs more raises it.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return (_CONTAINER_FILES if hard == resource.RLIM_INFINITY else min(_CONTAINER_FILES, hard)), hard


def _name_process() -> None:
    """``podrt-superviso`` in ps and top, instead of the memfd's number."""
    with open("/proc/self/comm", "wb", buffering=0) as file:
        file.write(_NAME)
