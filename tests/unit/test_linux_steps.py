"""Lists of system calls: their layout, and the program that carries them out."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from pathlib import Path

import pytest

from podrt.linux import caps, steps
from podrt.linux.cgroup import detect
from podrt.supervisor.child import candidates, environment
from podrt.supervisor.quick import PROGRAM

pytestmark = pytest.mark.skipif(not steps.supported(), reason="no table of system calls for this machine")
as_root = pytest.mark.skipif(os.geteuid() != 0 or not detect().unified, reason="it takes root and a cgroup2 hierarchy")

TOKEN = "0123456789abcdef"


def own_cgroup() -> str:
    """The directory of this process in cgroup2."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        return detect().unified + next(line[3:].rstrip() for line in file if line.startswith("0::"))


def carry_out(made: bytes, tmp_path: Path) -> tuple[int, bytes, tuple[bytes, int, int] | None]:
    """Exit code, output, and report of the program with a list; a process of this PID namespace is the container's."""
    listed = tmp_path / "list"
    listed.write_bytes(made)
    reader, writer = os.pipe()
    pidfd = os.pidfd_open(os.getpid())
    group = os.open(own_cgroup(), os.O_RDONLY | os.O_DIRECTORY)
    with listed.open("rb") as file, open(os.devnull, "rb") as null:
        # By way of high numbers: those that are given may be those that are wanted.
        fds = f"23>&{writer} 24<&{pidfd} 25</dev/fd/{file.fileno()} 26<&{group}"
        wanted = f"{steps.REPORT_FD}>&23 {steps.PIDFD}<&24 {steps.LIST_FD}<&25 {steps.CGROUP_FD}<&26"
        script = f'exec {fds}; exec {wanted} "$@"'
        done = subprocess.run(
            ["bash", "-c", script, "sh", "bash", "-c", f'exec -a podrt-steps "{PROGRAM}" {TOKEN}'],
            stdin=null,
            stdout=subprocess.PIPE,
            pass_fds=(writer, pidfd, group, file.fileno()),
            check=False,
            timeout=60,
        )
    for fd in (writer, pidfd, group):
        os.close(fd)
    with open(reader, "rb") as file:
        started, *reports = steps.REPORT.iter_unpack(file.read())
    assert (done.returncode, started[:2]) == (steps.FAILED, (TOKEN.encode(), steps.STARTED))
    # The copy is our child, as it is the supervisor's.
    _, status = os.waitpid(started[2], 0)
    return os.waitstatus_to_exitcode(status), done.stdout, reports[0] if reports else None


def test_the_layout() -> None:
    made = steps.Steps()
    path = made.text("/x")
    made.call("close", 7, tolerate=(errno.EBADF, errno.EINTR))
    made.expect(path, 0xFF, ord("/"), errno.EXDEV)
    data = made.finish()
    count, first = struct.unpack_from("2Q", data)
    assert (count, path) == (2, steps.BASE + 16)
    words = struct.unpack_from("14Q", data, first - steps.BASE)
    assert words[1:7] == (7, 0, 0, 0, 0, 1 << errno.EBADF | 1 << errno.EINTR)
    assert words[7:12] == (2**64 - 1, path, 0xFF, ord("/"), errno.EXDEV)


def test_what_a_list_can_not_hold() -> None:
    made = steps.Steps()
    with pytest.raises(ValueError, match="null byte"):
        made.text("a\0b")
    made.data(bytes(steps.MAX_BYTES))
    with pytest.raises(ValueError, match="is the most"):
        made.finish()


@as_root
def test_a_list_is_carried_out(tmp_path: Path) -> None:
    made = steps.Steps()
    text = b"written\n"
    made.call("close", 999, tolerate=(errno.EBADF,))
    made.call("write", 1, made.data(text), len(text))
    arguments = made.texts(["sh", "-c", 'echo "$A $#"', "sh", "one"])
    variables = made.texts(["A=b"])
    made.call("execve", made.text("/nowhere/sh"), arguments, variables, tolerate=(errno.ENOENT,))
    made.call("execve", made.text("/bin/sh"), arguments, variables)
    assert carry_out(made.finish(), tmp_path) == (0, b"written\nb 1\n", None)


@as_root
def test_the_failing_step_is_reported(tmp_path: Path) -> None:
    made = steps.Steps()
    made.call("umask", 0o22)
    made.call("close", 999, tolerate=(errno.EINTR,))
    token = TOKEN.encode()
    assert carry_out(made.finish(), tmp_path) == (steps.FAILED, b"", (token, 1, errno.EBADF))
    made = steps.Steps()
    here = made.data(b"(unreachable)/")
    made.expect(here, 0xFF, ord("("), errno.EINVAL)
    made.expect(here, 0xFF, ord("/"), errno.EXDEV)
    assert carry_out(made.finish(), tmp_path) == (steps.FAILED, b"", (token, 1, errno.EXDEV))
    # A list without an exec at its end is a failure too.
    assert carry_out(steps.Steps().finish(), tmp_path) == (steps.FAILED, b"", (token, -1, 0))


@pytest.mark.parametrize("uid", [0, 1000])
def test_the_final_sets_of_capabilities(uid: int) -> None:
    bounding, ambient = ("CAP_CHOWN", "CAP_KILL"), ("CAP_KILL", "CAP_SYS_ADMIN")
    kill, chown = caps.NUMBERS["CAP_KILL"], caps.NUMBERS["CAP_CHOWN"]
    permitted = 1 << kill | (1 << chown if uid == 0 else 0)
    assert caps.final_sets(bounding, ambient, uid) == (permitted, 1 << kill, [kill])
    assert set(caps.dropped(bounding)) | {kill, chown} == set(range(max(caps.dropped(())) + 1))
    assert not {kill, chown} & set(caps.dropped(bounding))


def test_where_a_command_is_looked_for() -> None:
    assert candidates("true", {"PATH": "/a::/b/"}) == ["/a/true", "./true", "/b//true"]
    assert candidates("true", {})[-1] == "/bin/true"
    assert environment(["A=1", "=x", "A=2", "B"], "/home") == {"A": "2", "B": "", "HOME": "/home"}
    assert environment(["HOME=/own"], "/home")["HOME"] == "/own"
