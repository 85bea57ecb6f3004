"""A small HTTP server on a unix socket, and objects for it to serve: what the tests of the CLI share."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import pytest
from click.testing import CliRunner, Result

from podrt.cli.client import Client
from podrt.cli.main import cli


class Request(NamedTuple):
    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes

    def param(self, name: str) -> str | None:
        return dict(self.query).get(name)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def setup(self) -> None:
        super().setup()
        self.client_address = ("local", 0)

    def log_message(self, *_: Any) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def handle_one(self) -> None:
        self.close_connection = True
        url = urlsplit(self.path)
        routes = self.server.routes
        answer = routes.get((self.command, url.path), routes.get(("ANY", url.path)))
        body = b"" if getattr(answer, "reads_body", False) else self._body()
        query = parse_qsl(url.query, keep_blank_values=True)
        headers = {key.lower(): value for key, value in self.headers.items()}
        request = Request(self.command, url.path, query, headers, body)
        self.server.requests.append(request)
        if answer is None:
            message = f"no route {self.command} {url.path}"
            self.reply(404, {"kind": "Status", "reason": "NotFound", "message": message, "code": 404})
        elif callable(answer):
            answer(self, request)
        else:
            self.reply(200, answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one

    def reply(self, code: int, value: Any, **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        for key, text in headers.items():
            self.send_header(key.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def start_chunks(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))


class FakeServer(ThreadingUnixStreamServer):
    """``routes`` maps (method or "ANY", path) to a JSON value, or to a function of (handler, request)."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: str) -> None:
        super().__init__(path, Handler)
        self.path = path
        self.routes: dict[tuple[str, str], Any] = {}
        self.requests: list[Request] = []
        self.problems: list[BaseException] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        import sys

        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):
            self.problems.append(error)

    def sent(self, method: str) -> list[Request]:
        return [request for request in self.requests if request.method == method]


def start_server(path: str) -> Iterator[FakeServer]:
    server = FakeServer(path)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert not server.problems, server.problems


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with tempfile.TemporaryDirectory(prefix="pcli") as directory:
        yield from start_server(os.path.join(directory, "s"))


@pytest.fixture
def client(server: FakeServer) -> Client:
    return Client(server.path)


NS = "/api/v1/namespaces/default"
PODS = f"{NS}/pods"
COLUMNS = [{"name": "Name"}, {"name": "Status"}, {"name": "IP", "priority": 1}]


def podrt(server: FakeServer, *args: str, input: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["--socket", server.path, *args], input=input, prog_name="podrt")


def table(*names: str, version: str = "5") -> dict[str, Any]:
    rows = [
        {"cells": [name, "Running", "10.0.0.1"], "object": {"metadata": {"name": name, "namespace": "default"}}}
        for name in names
    ]
    return {"kind": "Table", "columnDefinitions": COLUMNS, "rows": rows, "metadata": {"resourceVersion": version}}


def pod(name: str, phase: str = "Running", **spec: Any) -> dict[str, Any]:
    statuses = [{"name": "c", "ready": True, "restartCount": 2, "state": {"running": {"startedAt": None}}}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": f"u-{name}", "labels": {"app": "x"}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": "n1"} | spec,
        "status": {"phase": phase, "containerStatuses": statuses, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def listed(*items: dict[str, Any], kind: str = "PodList") -> dict[str, Any]:
    return {"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": "9"}, "items": list(items)}


def not_found(handler: Handler, request: Request) -> None:
    name = request.path.rpartition("/")[2]
    message = f'pods "{name}" not found'
    handler.reply(404, {"kind": "Status", "reason": "NotFound", "message": message, "code": 404, "details": {}})


def gone_after(server: FakeServer, name: str, delay: float) -> None:
    """A pod that ends ``delay`` seconds after its DELETE."""
    state = {"deleted": 0.0}

    def item(handler: Handler, request: Request) -> None:
        if request.method == "DELETE":
            state["deleted"] = time.monotonic()
        handler.reply(200, pod(name))

    def collection(handler: Handler, request: Request) -> None:
        left = state["deleted"] + delay - time.monotonic()
        if request.param("watch") is None:
            handler.reply(200, listed(*([pod(name)] if left > 0 else [])))
            return
        handler.start_chunks()
        time.sleep(max(0.0, left))
        handler.chunk(json.dumps({"type": "DELETED", "object": pod(name)}).encode() + b"\n")
        handler.wfile.write(b"0\r\n\r\n")

    server.routes["ANY", f"{PODS}/{name}"] = item
    server.routes["GET", PODS] = collection
