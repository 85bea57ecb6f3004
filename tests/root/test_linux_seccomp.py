"""The default filter on a real process."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import errno, os, socket, sys, threading
from podrt.linux import abi, caps, libc, seccomp
program = seccomp.compile("RuntimeDefault", caps.DEFAULT)
libc.set_no_new_privs()
libc.set_seccomp(program)
found = []
def attempt(function):
    try:
        function()
        found.append("yes")
    except OSError as error:
        found.append(errno.errorcode[error.errno])
attempt(lambda: libc.unshare(abi.CLONE_NEWUTS))
attempt(lambda: libc.mount("none", "/tmp", "tmpfs"))
attempt(lambda: libc.keyctl_join_session())
attempt(lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close())
attempt(lambda: socket.socket().close())
attempt(lambda: libc.clone3())
thread = threading.Thread(target=lambda: found.append("thread"))
thread.start()
thread.join()
print(*found, flush=True)
os.execv("/bin/echo", ["echo", "executed"])
"""


def test_the_default_filter_on_a_process() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=20)
    assert done.stdout.split() == ["EPERM", "EPERM", "EPERM", "EPERM", "yes", "ENOSYS", "thread", "executed"], (
        done.stderr
    )
