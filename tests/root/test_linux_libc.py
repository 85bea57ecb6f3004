"""System call wrappers that the other tests don't come by."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from podrt.linux import abi, libc, namespace


def run(code: str) -> Any:
    """The value of ``result`` after ``code`` has run in a process of its own."""
    program = "import json, os\nfrom podrt.linux import abi, libc, namespace, process\n" + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", program + "\nprint(json.dumps(result))"], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_tee_and_splice() -> None:
    first, second = os.pipe(), os.pipe()
    try:
        os.write(first[1], b"hello world")
        assert libc.tee(first[0], second[1], 5) == 5
        assert os.read(second[0], 100) == b"hello"
        assert libc.splice(first[0], second[1], 100) == 11
        assert os.read(second[0], 100) == b"hello world"
        with pytest.raises(BlockingIOError):
            libc.tee(first[0], second[1], 5, abi.SPLICE_F_NONBLOCK)
        os.close(first[1])
        assert libc.tee(first[0], second[1], 5) == 0
    finally:
        os.close(first[0])
        for fd in second:
            os.close(fd)


def test_an_error_carries_errno_call_and_path(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"mount\('none', '.*/none', 'tmpfs'") as caught:
        libc.mount("none", str(tmp_path / "none"), "tmpfs")
    assert caught.value.errno == errno.ENOENT
    assert caught.value.filename == str(tmp_path / "none")


def test_openat2_stays_inside(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/mine").touch()
    root = os.open(tmp_path, os.O_PATH)
    try:
        fd = libc.openat2(root, "link/mine", os.O_RDONLY, 0, abi.RESOLVE_IN_ROOT)
        assert not os.get_inheritable(fd)
        os.close(fd)
        with pytest.raises(OSError, match="openat2"):
            libc.openat2(root, "link/mine", os.O_RDONLY, 0, abi.RESOLVE_BENEATH)
    finally:
        os.close(root)


def test_a_clone_and_its_exit() -> None:
    code = """
    import os, signal, select
    pid, pidfd = libc.clone3()
    if pid == 0:
        signal.pause()
        os._exit(0)
    before = process.pidfd_exit_info(pidfd)
    signal.pidfd_send_signal(pidfd, 15)
    select.select([pidfd], [], [])
    unreaped = process.pidfd_exit_info(pidfd)
    status = os.waitpid(pid, 0)[1]
    result = [before, unreaped, os.waitstatus_to_exitcode(status), process.pidfd_exit_info(pidfd)]
    """
    before, unreaped, waited, after = run(code)
    assert (before, waited) == (None, -signal.SIGTERM)
    assert unreaped in (None, -signal.SIGTERM)
    assert after in (None, -signal.SIGTERM)


def test_the_interpreter_works_after_a_clone() -> None:
    """Signals, threads and a further fork in the child: the interpreter's own fork handlers have run."""
    code = """
    import os, signal, socket, threading
    r, w = os.pipe()
    pid, pidfd = libc.clone3(abi.CLONE_NEWUTS)
    if pid == 0:
        got = []
        signal.signal(signal.SIGUSR1, lambda *_: got.append("signal"))
        os.kill(os.getpid(), signal.SIGUSR1)
        thread = threading.Thread(target=lambda: got.append("thread"))
        thread.start()
        thread.join()
        child = os.fork()
        if child == 0:
            os._exit(3)
        got.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        socket.sethostname("inside")
        libc.setdomainname("domain")
        got += [os.uname().nodename, open("/proc/sys/kernel/domainname").read().strip()]
        os.write(w, json.dumps(got).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    result = [json.loads(os.read(r, 1000)), os.uname().nodename == "inside"]
    """
    assert run(code) == [["signal", "thread", 3, "inside", "domain"], False]


def test_a_working_directory_outside_the_root(tmp_path: Path) -> None:
    """CVE-2024-21626: the kernel says so, where the C library would look for another answer."""
    code = f"""
    os.mkdir({str(tmp_path / "root")!r})
    os.chdir({str(tmp_path)!r})
    os.chroot("root")
    result = libc.getcwd()
    """
    assert run(code).startswith("(unreachable)")


def test_close_range() -> None:
    code = """
    kept, closed = os.dup(0), os.dup(0)
    os.set_inheritable(closed, True)
    libc.close_range(closed, closed, abi.CLOSE_RANGE_CLOEXEC)
    result = [os.get_inheritable(closed)]
    libc.close_range(closed, closed)
    try:
        os.fstat(closed)
    except OSError:
        result.append("closed")
    os.fstat(kept)
    """
    assert run(code) == [False, "closed"]


def test_a_session_keyring() -> None:
    assert run("result = libc.keyctl_join_session() > 0") is True


def test_in_netns_leaves_this_thread_where_it_is() -> None:
    before = namespace.inode("/proc/thread-self/ns/net")
    made: list[int] = []

    def make() -> int:
        libc.unshare(abi.CLONE_NEWNET)
        made.append(namespace.open_current("net"))
        return 5

    own = namespace.open_current("net")
    assert namespace.in_netns(own, make) == 5
    assert namespace.in_netns(made[0], lambda: namespace.inode("/proc/thread-self/ns/net")) == namespace.inode(made[0])
    assert namespace.inode("/proc/thread-self/ns/net") == before
    os.close(own)
    os.close(made[0])


def test_id_maps() -> None:
    code = """
    r, w = os.pipe()
    pid, pidfd = libc.clone3(abi.CLONE_NEWUSER)
    if pid == 0:
        os.close(w)
        os.read(r, 1)
        os._exit(0)
    namespace.write_id_maps(pid, [(0, 100000, 1000), (1000, 0, 1)], [(0, 200000, 65536)])
    result = [open(f"/proc/{pid}/uid_map").read().split(), open(f"/proc/{pid}/gid_map").read().split()]
    os.close(w)
    os.waitpid(pid, 0)
    """
    assert run(code) == [["0", "100000", "1000", "1000", "0", "1"], ["0", "200000", "65536"]]
