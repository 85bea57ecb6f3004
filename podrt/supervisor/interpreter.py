"""The sealed copy of the Python interpreter that the supervisor runs from, and the command line it is run with.

A container's process can reach the executable of a process of the host that enters its namespaces, through
``/proc/PID/exe``, and overwrite it (CVE-2019-5736). The supervisor and so every child between fork and exec are
executed from a memfd that is sealed against writing: there is nothing to overwrite. Used by the daemon (first start)
and by the supervisor (re-exec in place).
"""

from __future__ import annotations

import fcntl
import os
import sys

_MFD_EXEC = 0x10
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

_PROGRAM = "import sys;sys.path[:0]=sys.argv[1].split(':');from podrt.supervisor.main import main;main(sys.argv[2:])"


def sealed_copy(program: str = sys.executable) -> int:
    """A close-on-exec memfd with the bytes of ``program``, executable and sealed. Raises OSError."""
    source = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fd = _memfd("podrt-supervisor")
        try:
            left = os.fstat(source).st_size
            offset = 0
            while left > 0:
                sent = os.sendfile(fd, source, offset, left)
                if sent == 0:
                    break
                offset += sent
                left -= sent
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(fd)
            raise
        return fd
    finally:
        os.close(source)


def search_path() -> list[str]:
    """The directories the supervisor imports from beside the standard library: this package's and python-prctl's."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = [package]
    # -S leaves site-packages out; prctl (for linux.caps) lies there.
    for path in sys.path:
        if path not in paths and os.path.exists(os.path.join(path, "prctl.py")):
            paths.append(path)
            break
    return paths


def command_line(arguments: list[str], paths: list[str] | None = None) -> list[str]:
    """argv of the supervisor. argv[0] stays the real path: the interpreter finds its library by it.

    ``paths`` is :func:`search_path`, for a caller that has emptied its own sys.path.
    """
    return [sys.executable, "-I", "-S", "-c", _PROGRAM, ":".join(paths or search_path()), *arguments]


def environment() -> dict[str, str]:
    """Empty but for what makes malloc give memory back: nothing of the daemon's is inherited by containers'
    children."""
    return {"MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "65536", "LC_ALL": "C.UTF-8"}


def _memfd(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_EXEC)
    except OSError:
        # Before Linux 6.3 there is no MFD_EXEC, and a memfd is always executable.
        return os.memfd_create(name, flags)
