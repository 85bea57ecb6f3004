"""Every file of examples/ does on a real daemon what its comment says."""

from __future__ import annotations

import http.client
import re

from tests.framework.client import Object
from tests.framework.daemon import Daemon, eventually
from tests.framework.images import REPOSITORY

EXAMPLES = REPOSITORY / "examples"


def _container(pod: Object, name: str) -> Object:
    statuses: list[Object] = pod["status"]["containerStatuses"]
    return next(status for status in statuses if status["name"] == name)


def _apply(daemon: Daemon, name: str) -> None:
    daemon.cli("apply", "-f", str(EXAMPLES / f"{name}.yaml"))


def test_two_containers(shared_daemon: Daemon) -> None:
    _apply(shared_daemon, "two-containers")
    shared_daemon.wait_for("two-containers", "Ready")
    logs = eventually(lambda: "hello" in shared_daemon.logs("two-containers", "client"), what="the client fetches")
    assert logs
    table = shared_daemon.cli("get", "pods").stdout
    assert re.search(r"^two-containers\s+2/2\s+Running\s+0", table, re.MULTILINE), table


def test_restart_keeps_the_sandbox(shared_daemon: Daemon) -> None:
    _apply(shared_daemon, "restart")
    first = shared_daemon.wait_for("restart", "Running")
    again = shared_daemon.wait_for("restart", lambda pod: _container(pod, "flaky")["restartCount"] >= 1, 40)
    assert again["status"]["podIP"] == first["status"]["podIP"]
    assert again["metadata"]["uid"] == first["metadata"]["uid"]
    assert _container(again, "steady")["restartCount"] == 0
    assert _container(again, "flaky")["lastState"]["terminated"]["exitCode"] == 3
    assert "giving up" in shared_daemon.logs("restart", "flaky", previous=True)


def test_limits(shared_daemon: Daemon) -> None:
    _apply(shared_daemon, "limits")
    pod = shared_daemon.wait_for("limits", lambda pod: "terminated" in _container(pod, "hog")["state"], 40)
    ended = _container(pod, "hog")["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
    assert "running" in _container(pod, "quiet")["state"]
    assert "running" in _container(pod, "spinner")["state"]


def test_shared_volume(shared_daemon: Daemon) -> None:
    _apply(shared_daemon, "shared-volume")
    address = shared_daemon.wait_for("shared-volume", "Running")["status"]["podIP"]

    def fetch() -> bytes:
        connection = http.client.HTTPConnection(address, 80, timeout=2)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            return answer.read() if answer.status == 200 else b""
        except OSError:
            return b""
        finally:
            connection.close()

    first = eventually(fetch, what="nginx serves what the writer wrote")
    eventually(lambda: fetch() not in (first, b""), what="the page changes")


def test_host_port(shared_daemon: Daemon) -> None:
    _apply(shared_daemon, "host-port")
    address = shared_daemon.wait_for("host-port", "Running")["status"]["podIP"]

    def fetch() -> str:
        connection = http.client.HTTPConnection("127.0.0.1", 8088, timeout=2)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode()
        except OSError:
            return ""
        finally:
            connection.close()

    assert eventually(fetch, what="the host's port answers") == f"hello from host-port at {address}\n"


def test_terminal(shared_daemon: Daemon) -> None:
    _apply(shared_daemon, "terminal")
    shared_daemon.wait_for("terminal", "Running")
    assert shared_daemon.exec("terminal", "sh", "-c", "readlink /proc/1/fd/0").startswith("/dev/pts/")


def test_shared_pids(shared_daemon: Daemon) -> None:
    _apply(shared_daemon, "shared-pids")
    shared_daemon.wait_for("shared-pids", "Running")
    listing = shared_daemon.exec("shared-pids", "ps", container="watcher")
    assert "sleep infinity" in listing


def test_locked_down(shared_daemon: Daemon) -> None:
    _apply(shared_daemon, "locked-down")
    shared_daemon.wait_for("locked-down", "Running")
    logs = eventually(lambda: _if("wrote", shared_daemon.logs("locked-down")), what="the log of locked-down")
    assert re.search(r"^uid=1000\(user\) gid=1000\(user\)", logs, re.MULTILINE), logs
    assert re.search(r"^CapEff:\s+0000000000000000$", logs, re.MULTILINE), logs
    assert re.search(r"^NoNewPrivs:\s+1$", logs, re.MULTILINE), logs
    assert re.search(r"^Seccomp:\s+2$", logs, re.MULTILINE), logs
    assert "/x: Read-only file system" in logs


def _if(part: str, text: str) -> str:
    return text if part in text else ""


def test_no_example_is_untested() -> None:
    here = {name.removeprefix("test_").replace("_", "-") for name in globals() if name.startswith("test_")}
    files = list(EXAMPLES.glob("*.yaml"))
    assert files
    for file in files:
        assert any(name.startswith(file.stem) for name in here), f"{file.name} has no test"
