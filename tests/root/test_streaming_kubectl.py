"""exec, attach, cp and port-forward of stock kubectl, with its websockets and without: SPDY as older ones speak it."""

from __future__ import annotations

import os
import pty
import random
import re
import select
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.framework.daemon import Daemon, eventually
from tests.framework.kubectl import Kubectl, needs_kubectl
from tests.framework.patience import FACTOR, scaled
from tests.framework.pods import container, pod

pytestmark = [needs_kubectl, pytest.mark.timeout(240 * FACTOR)]
SWITCHES = ("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS")
SERVER = "mkdir -p /tmp/www; echo hello > /tmp/www/index.html; exec busybox httpd -f -p 8080 -h /tmp/www"
MIB = 40 if FACTOR == 1 else 2


@pytest.mark.parametrize("websockets", ["true", "false"])
def test_kubectl_streams(daemon_factory: Callable[..., Daemon], tmp_path: Path, websockets: str) -> None:
    daemon = daemon_factory(listen="127.0.0.1:0")
    kubectl = Kubectl(daemon, tmp_path, **dict.fromkeys(SWITCHES, websockets))
    shell = container("shell", "read x; echo got $x; sleep 10000", stdin=True)
    kubectl("apply", "-f", "-", input=yaml.safe_dump(pod("one", container(script=SERVER), shell)))
    kubectl("wait", "--for=condition=Ready", "pod/one", "--timeout=60s")
    execs(kubectl, "websocket" if websockets == "true" else "SPDY/3.1")
    terminal(kubectl)
    copies(kubectl, tmp_path)
    attaches(kubectl)
    forwards(kubectl)


def execs(kubectl: Kubectl, upgrade: str) -> None:
    said = kubectl("exec", "-v=8", "one", "-c", "main", "--", "sh", "-c", "echo out; echo err >&2")
    assert "out\n" in said and "err\n" in said
    assert f"Upgrade: {upgrade}" in said
    assert "exit code 7" in kubectl("exec", "one", "-c", "main", "--", "sh", "-c", "exit 7", code=7)
    assert kubectl("exec", "-i", "one", "-c", "main", "--", "wc", "-c", input="x" * 300_000) == "300000\n"
    assert "nosuch" in kubectl("exec", "one", "-c", "main", "--", "nosuch", code=127)


def terminal(kubectl: Kubectl) -> None:
    """kubectl on a terminal of a size, which the container's takes; and the typed word goes in."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    script = 'read x; until stty size | grep "33 99"; do usleep 10000; done; echo got $x'
    command = kubectl.command("exec", "-it", "one", "-c", "main", "--", "sh", "-c", script)
    subprocess.run(["stty", "rows", "33", "cols", "99"], stdin=slave, check=True)
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=kubectl.environment) as process:
        os.close(slave)
        said = b""
        typed = 0.0
        end = time.monotonic() + scaled(30)
        while b"got word" not in said and time.monotonic() < end:
            # What is typed before kubectl has made its terminal raw is echoed twice, no more.
            if not typed and process.poll() is None:
                typed = time.monotonic()
                os.write(master, b"word\r")
            if select.select([master], [], [], 0.2)[0]:
                try:
                    said += os.read(master, 4096)
                except OSError:
                    break
        assert process.wait(scaled(30)) == 0
    os.close(master)
    assert b"33 99" in said and b"got word" in said, said


def copies(kubectl: Kubectl, directory: Path) -> None:
    there, back = directory / "there", directory / "back"
    there.write_bytes(random.Random(2).randbytes(MIB << 20))
    kubectl("cp", "-c", "main", str(there), "one:/copy")
    kubectl("cp", "-c", "main", "one:/copy", str(back))
    assert there.read_bytes() == back.read_bytes()


def attaches(kubectl: Kubectl) -> None:
    command = kubectl.command("attach", "-i", "one", "-c", "shell")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=kubectl.environment
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"a word\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"got a word\n"
        process.terminate()
        process.communicate(timeout=scaled(30))


def forwards(kubectl: Kubectl) -> None:
    command = kubectl.command("port-forward", "one", ":8080")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=kubectl.environment
    ) as process:
        assert process.stdout is not None
        found = re.search(rb"127\.0\.0\.1:(\d+) -> 8080", process.stdout.readline())
        assert found is not None
        try:
            for _ in range(20):
                assert eventually(lambda: fetch(int(found[1])).endswith(b"hello\n"))
        finally:
            process.terminate()
            process.communicate(timeout=scaled(30))


def fetch(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=scaled(20)) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(65536), b""))
