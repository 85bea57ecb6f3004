"""logs, exec, run and port-forward."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.test_cli_support import (
    PODS,
    FakeServer,
    Handler,
    Request,
    client,
    gone_after,
    listed,
    pod,
    podrt,
    server,
)
from tests.unit.test_cli_websocket import Peer, failure, upgrade

__all__ = ["client", "server"]

# logs


def test_logs(server: FakeServer) -> None:
    server.routes["GET", f"{PODS}/web"] = pod("web")
    server.routes["GET", f"{PODS}/web/log"] = b"one\ntwo\n"
    args = ["--tail=5", "--since=1m", "-p", "--timestamps"]
    assert podrt(server, "logs", "web", *args).output == "one\ntwo\n"
    query = dict(server.requests[-1].query)
    assert query == {
        "previous": "true",
        "timestamps": "true",
        "tailLines": "5",
        "sinceSeconds": "60",
        "container": "c",
    }
    assert podrt(server, "logs", "pod/web", "--prefix").output == "[pod/web/c] one\n[pod/web/c] two\n"


def test_logs_of_several(server: FakeServer) -> None:
    two = pod("web", containers=[{"name": "a", "image": "i"}, {"name": "b", "image": "i"}])
    server.routes["GET", f"{PODS}/web"] = two
    server.routes["GET", PODS] = listed(two)
    server.routes["GET", f"{PODS}/web/log"] = lambda handler, request: handler.reply(
        200, f"from {request.param('container')}\n".encode()
    )
    result = podrt(server, "logs", "web")
    assert result.stdout == "from a\n"
    assert result.stderr == 'Defaulted container "a" out of: a, b\n'
    assert podrt(server, "logs", "web", "--all-containers").output == "from a\nfrom b\n"
    followed = podrt(server, "logs", "web", "--all-containers", "-f", "--prefix").output
    assert sorted(followed.splitlines()) == ["[pod/web/a] from a", "[pod/web/b] from b"]
    assert podrt(server, "logs", "-l", "app=x").stdout == "from a\n"
    assert server.requests[-1].param("tailLines") == "10"


def test_logs_with_bad_arguments(server: FakeServer) -> None:
    for args in (
        [],
        ["web", "--since=1m", "--since-time=x"],
        ["web", "-c", "a", "--all-containers"],
        ["web", "-l", "a"],
    ):
        assert podrt(server, "logs", *args).exit_code == 2
    assert podrt(server, "logs", "node/x").exit_code == 1
    assert podrt(server, "logs", "web", "--since=abc").exit_code == 1
    assert not server.requests


# exec, run


def test_exec_hands_on_the_exit_code(server: FakeServer) -> None:
    server.routes["GET", f"{PODS}/web"] = pod("web")
    server.routes["GET", f"{PODS}/web/exec"] = upgrade(lambda peer, _: peer.finish(failure(42)))
    assert podrt(server, "exec", "web", "--", "sh", "-c", "", "-x").exit_code == 42
    query = server.requests[-1].query
    assert [value for key, value in query if key == "command"] == ["sh", "-c", "", "-x"]
    assert ("container", "c") in query
    assert ("stdout", "true") in query
    assert "stdin" not in dict(query)


def test_an_option_of_the_command_before_the_dashes_is_explained(server: FakeServer) -> None:
    result = podrt(server, "exec", "web", "ls", "-l")
    assert result.exit_code == 2 and "a command's own options come after --" in result.stderr


def test_exec_without_a_command_is_wrong_usage(server: FakeServer) -> None:
    assert podrt(server, "exec", "web").exit_code == 2


def test_run_prints_and_creates(server: FakeServer) -> None:
    server.routes["POST", PODS] = lambda handler, request: handler.reply(201, request.json)
    args = [
        "--image=nginx",
        "--port=80",
        "--env=A=b=c",
        "--labels=x=y",
        "--limits=cpu=1,memory=64Mi",
        "--restart=Never",
    ]
    result = podrt(server, "run", "web", *args, "--command", "--", "sleep", "-1")
    assert (result.exit_code, result.output) == (0, "pod/web created\n")
    sent = server.requests[0].json
    assert sent["metadata"] == {"name": "web", "labels": {"x": "y"}, "namespace": "default"}
    assert sent["spec"]["restartPolicy"] == "Never"
    assert sent["spec"]["containers"] == [
        {
            "name": "web",
            "image": "nginx",
            "command": ["sleep", "-1"],
            "ports": [{"containerPort": 80}],
            "env": [{"name": "A", "value": "b=c"}],
            "resources": {"limits": {"cpu": "1", "memory": "64Mi"}},
        }
    ]
    dry = podrt(server, "run", "x", "--image=i", "--dry-run=client", "-o", "yaml")
    assert "    run: x\n" in dry.output
    assert len(server.requests) == 1


def test_run_rm_attaches_and_removes(server: FakeServer) -> None:
    gone_after(server, "job", 0)
    state: dict[str, Any] = {"ended": False}

    def current() -> dict[str, Any]:
        value = pod("job", "Failed" if state["ended"] else "Running", containers=[{"name": "job", "stdin": True}])
        terminated = {"terminated": {"exitCode": 3}}
        value["status"]["containerStatuses"][0]["state"] = terminated if state["ended"] else {"running": {}}
        return value | {"spec": value["spec"] | {"restartPolicy": "Never"}}

    def collection(handler: Handler, request: Request) -> None:
        deleted = bool(server.sent("DELETE"))
        handler.reply(200, listed(*([] if deleted else [current()])))

    def attached(peer: Peer, _: Request) -> None:
        peer.send(b"\x01hello\n")
        state["ended"] = True
        peer.finish({"status": "Success"})

    server.routes["POST", PODS] = lambda handler, _: handler.reply(201, current())
    server.routes["GET", PODS] = collection
    server.routes["GET", f"{PODS}/job/attach"] = upgrade(attached)
    result = podrt(server, "run", "job", "--image=i", "-i", "--rm", "--", "x")
    assert result.exit_code == 3
    assert server.requests[0].json["spec"]["restartPolicy"] == "Never"
    assert 'pod "job" deleted' in result.stderr
    assert len(server.sent("DELETE")) == 1


@pytest.mark.parametrize(
    "args", [["x"], ["x", "--image=i", "-t"], ["x", "--image=i", "--rm"], ["x", "--image=i", "--env=novalue"]]
)
def test_run_with_bad_arguments(server: FakeServer, args: list[str]) -> None:
    assert podrt(server, "run", *args).exit_code == 2
    assert not server.requests


@pytest.fixture
def echo_port() -> Iterator[int]:

    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data.upper())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def test_port_forward(server: FakeServer, echo_port: int) -> None:
    """A whole `podrt port-forward`, whose pod is an echo server; the other side half-closes."""

    server.routes["GET", f"{PODS}/web"] = pod("web")

    def forward(peer: Peer, request: Request) -> None:
        port = request.param("ports")
        assert port is not None
        number = int(port).to_bytes(2, "little")
        peer.send(b"\x00" + number)
        peer.send(b"\x01" + number)
        if port == "9":
            peer.send(b"\x01connection refused")
            return
        with socket.create_connection(("127.0.0.1", echo_port)) as target:
            while (message := peer.receive()) is not None and message != b"\xff\x00":
                target.sendall(message[1:])
            target.shutdown(socket.SHUT_WR)
            while data := target.recv(65536):
                peer.send(b"\x00" + data)
        peer.send(b"\x03\xe8", opcode=8)

    server.routes["GET", f"{PODS}/web/portforward"] = upgrade(forward, "v4.channel.k8s.io")
    code = "from podrt.cli.main import main; main()"
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, "--socket", server.path, "port-forward", "web", ":80", ":9"]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process, contextlib.ExitStack() as ending:
        ending.callback(process.kill)  # where an assertion fails, nobody has told it to end
        assert process.stdout is not None and process.stderr is not None
        ports = {}
        while len(ports) < 2:
            words = process.stdout.readline().split()
            assert words[:2] == ["Forwarding", "from"], process.stderr.read()
            ports.setdefault(words[-1], int(words[2].rpartition(":")[2]))
        data = os.urandom(200_000).hex().encode()
        with socket.create_connection(("127.0.0.1", ports["80"]), timeout=10) as local:
            sender = threading.Thread(target=lambda: (local.sendall(data), local.shutdown(socket.SHUT_WR)))
            sender.start()
            received = b""
            while piece := local.recv(65536):
                received += piece
            sender.join()
        assert received == data.upper()
        with socket.create_connection(("127.0.0.1", ports["9"]), timeout=10) as local:
            assert local.recv(10) == b""
        assert "connection refused" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read().strip() == ""


@pytest.mark.parametrize("ports", ["x", "1:2:3", "70000", "80:0", "-1"])
def test_port_forward_with_bad_ports(server: FakeServer, ports: str) -> None:
    assert podrt(server, "port-forward", "web", "--", ports).exit_code == 2
    assert not server.requests
