"""The server itself over a real unix socket: life of the socket, discovery, health, errors.

Also the harness of the other ``test_api_*`` files: :func:`serving` runs a server with the real store and a fake agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import logging
import os
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from podrt import errors
from podrt.api import server, status
from podrt.api.server import ApiServer
from podrt.config import Config
from podrt.engine.logs import LogOptions
from podrt.engine.specs import Stats
from podrt.image.service import ImageStore
from podrt.model.meta import ObjectMeta
from podrt.model.node import Node
from podrt.model.pod import Pod
from podrt.store.objects import Registry
from podrt.store.store import Store
from tests.framework.patience import scaled

Json = Any


class FakeSession:
    """A session on pipes; the test plays the process."""

    def __init__(self, *, stdin: bool, stdout: bool, stderr: bool) -> None:
        self.ends: dict[str, int] = {}
        self.stdin = self._pipe("stdin", stdin, ours_writes=False)
        self.stdout = self._pipe("stdout", stdout, ours_writes=True)
        self.stderr = self._pipe("stderr", stderr, ours_writes=True)
        self.exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.sizes: list[tuple[int, int]] = []
        self.closed = False
        self.received = b""

    def _pipe(self, name: str, wanted: bool, *, ours_writes: bool) -> int | None:
        if not wanted:
            return None
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.ends[name] = writer if ours_writes else reader
        return reader if ours_writes else writer

    def say(self, name: str, data: bytes) -> None:
        assert os.write(self.ends[name], data) == len(data)

    def end(self, code: int, keep: Sequence[str] = ()) -> None:
        """The process exits; ``keep`` are streams that a child of it still holds open."""
        for name in [name for name in ("stdout", "stderr") if name in self.ends and name not in keep]:
            os.close(self.ends.pop(name))
        self.exit.set_result(code)

    def resize(self, columns: int, rows: int) -> None:
        self.sizes.append((columns, rows))

    async def wait(self) -> int:
        return await self.exit

    async def close_stdin(self) -> None:
        assert self.stdin is not None
        os.close(self.stdin)
        self.stdin = None

    async def close(self) -> None:
        self.closed = True
        for fd in (self.stdin, self.stdout, self.stderr):
            if fd is not None:
                os.close(fd)
        for fd in self.ends.values():
            os.close(fd)
        self.ends.clear()


class FakeAgent:
    """What the tests set it to do."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.error: Exception | None = None
        self.asked: list[Json] = []
        self.session: FakeSession | None = None
        self.follow: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.log_closed = asyncio.Event()
        self.port = 0
        self.stats: dict[str, Stats] = {}
        self.usage = Stats(at=0)
        self.images_loaded = 0

    async def logs(self, pod: Pod, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        self.asked.append((container, options))
        try:
            if self.error:
                raise self.error
            for line in self.lines:
                yield line
            while options.follow and (chunk := await self.follow.get()) is not None:
                yield chunk
        finally:
            self.log_closed.set()

    async def exec(
        self, pod: Pod, container: str, argv: Sequence[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool
    ) -> FakeSession:
        self.asked.append((container, list(argv), tty))
        if self.error:
            raise self.error
        self.session = FakeSession(stdin=stdin, stdout=stdout, stderr=stderr)
        return self.session

    async def attach(self, pod: Pod, container: str, *, stdin: bool, stdout: bool, stderr: bool) -> FakeSession:
        return await self.exec(pod, container, (), tty=False, stdin=stdin, stdout=stdout, stderr=stderr)

    async def port_forward(self, pod: Pod, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.asked.append(port)
        if not self.port:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def pod_stats(self, pod: Pod) -> Mapping[str, Stats]:
        if self.error:
            raise self.error
        return self.stats

    def node_stats(self) -> Stats:
        return self.usage

    def images_changed(self) -> None:
        self.images_loaded += 1


class Harness:
    """One server and a client of it."""

    def __init__(self, root: Path) -> None:
        self.config = Config.under(root, "api", socket_group="root", node_name="node1")
        self.config.state_dir.mkdir(parents=True)
        self.store = Store(self.config.state_dir / "store.db", window=50)
        self.registry = Registry(self.store)
        self.agent = FakeAgent()
        self.images = ImageStore(self.config.state_dir / "images")
        self.server = self.new_server()
        self.http: aiohttp.ClientSession

    def new_server(self) -> ApiServer:
        return ApiServer(self.config, self.registry, self.agent, self.images, lambda: {"kind": "SystemInfo"})

    async def call(self, method: str, path: str, body: Json = None, **options: Any) -> tuple[int, Json]:
        """Status and decoded body."""
        code, _, data = await self.raw(method, path, body, **options)
        return code, json.loads(data)

    async def raw(
        self, method: str, path: str, body: Json = None, *, kind: str = "application/json", accept: str = "*/*"
    ) -> tuple[int, Mapping[str, str], bytes]:
        data = None if body is None else io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        headers = {"Accept": accept} | ({"Content-Type": kind} if data is not None else {})
        async with self.http.request(method, f"http://podrt{path}", data=data, headers=headers) as response:
            return response.status, response.headers, await response.read()

    async def pod(self, name: str = "p", **spec: Any) -> Json:
        """Create a Pod with one container ``a``."""
        code, created = await self.call("POST", PODS, pod_document(name, **spec))
        assert code == 201, created
        return created


PODS = "/api/v1/namespaces/default/pods"


def pod_document(name: str = "p", **spec: Any) -> Json:
    containers = spec.pop("containers", [{"name": "a", "image": "x"}])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": containers, **spec},
    }


@contextlib.asynccontextmanager
async def serving(root: Path) -> AsyncIterator[Harness]:
    harness = Harness(root)
    try:
        await harness.server.start()
        connector = aiohttp.UnixConnector(path=str(harness.config.socket))
        async with aiohttp.ClientSession(connector=connector) as harness.http:
            yield harness
    finally:
        await harness.server.close()
        harness.store.close()
        harness.images.close()


async def eventually(check: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 5
    while not check():
        assert time.monotonic() < deadline, f"not within 5 s: {what}"
        await asyncio.sleep(0.005)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Harness]:
    async with serving(tmp_path) as harness:
        yield harness


# The socket


async def test_socket_has_mode_0660_and_goes_with_the_server(tmp_path: Path) -> None:
    async with serving(tmp_path) as harness:
        mode = harness.config.socket.stat().st_mode
        assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o660
    assert not harness.config.socket.exists()


async def test_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "run" / "podrt.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(tmp_path) as harness:
        assert (await harness.raw("GET", "/healthz"))[2] == b"ok"
        with pytest.raises(errors.UnavailableError, match="another daemon"):
            await harness.new_server().start()
        assert (await harness.raw("GET", "/healthz"))[2] == b"ok"


async def test_file_in_the_sockets_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "run" / "podrt.sock"
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(errors.UnavailableError, match="is no socket"):
        async with serving(tmp_path):
            pass
    assert path.read_text() == "precious"


async def test_unknown_group_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    harness = Harness(tmp_path)
    harness.config = Config.under(tmp_path, "api", socket_group="no-such-group")
    server = harness.new_server()
    await server.start()
    await server.close()
    harness.store.close()
    harness.images.close()
    assert "no-such-group" in caplog.text


# Discovery and health


async def test_health_and_version(api: Harness) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        assert (await api.raw("GET", path))[::2] == (200, b"ok")
    api.server.ready = False
    code, found = await api.call("GET", "/readyz")
    assert (code, found["reason"]) == (503, "ServiceUnavailable")
    assert (await api.raw("GET", "/livez"))[0] == 200
    assert b"check passed" in (await api.raw("GET", "/healthz?verbose"))[2]
    version = (await api.call("GET", "/version"))[1]
    assert version["major"] == "1" and version["gitVersion"].startswith("v1.")


async def test_discovery(api: Harness) -> None:
    assert (await api.call("GET", "/api"))[1]["versions"] == ["v1"]
    groups = (await api.call("GET", "/apis"))[1]["groups"]
    assert {"storage.k8s.io", "metrics.k8s.io", "podrt.dev"} <= {group["name"] for group in groups}
    resources = {r["name"]: r for r in (await api.call("GET", "/api/v1"))[1]["resources"]}
    assert resources["pods"]["shortNames"] == ["po"] and "watch" in resources["pods"]["verbs"]
    assert resources["pods/exec"]["kind"] == "PodExecOptions"
    assert "deletecollection" not in resources["namespaces"]["verbs"]
    for group in groups:
        assert (await api.call("GET", f"/apis/{group['name']}"))[1]["name"] == group["name"]
        path = f"/apis/{group['preferredVersion']['groupVersion']}"
        assert (await api.call("GET", path))[1]["resources"]


@pytest.mark.parametrize("version", ["v2", "v2beta1"])
async def test_aggregated_discovery(api: Harness, version: str) -> None:
    accept = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList,application/json;q=0.9"
    _, headers, data = await api.raw("GET", "/api", accept=accept)
    assert f"v={version}" in headers["Content-Type"] and "APIGroupDiscoveryList" in headers["Content-Type"]
    (core,) = json.loads(data)["items"]
    pods = next(r for r in core["versions"][0]["resources"] if r["resource"] == "pods")
    assert pods["scope"] == "Namespaced" and pods["responseKind"]["kind"] == "Pod"
    names = {item["metadata"]["name"] for item in (await api.call("GET", "/apis", accept=accept))[1]["items"]}
    assert {"storage.k8s.io", "metrics.k8s.io", "podrt.dev"} <= names and "" not in names


async def test_openapi_tells_of_field_validation_and_has_schemas(api: Harness) -> None:
    index = (await api.call("GET", "/openapi/v3"))[1]
    document = (await api.call("GET", index["paths"]["api/v1"]["serverRelativeURL"]))[1]
    operation = document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"]
    assert operation["x-kubernetes-group-version-kind"] == {"group": "", "version": "v1", "kind": "Pod"}
    assert "fieldValidation" in {parameter["name"] for parameter in operation["parameters"]}
    assert document["components"]["schemas"]["Container"]["properties"]["image"]["type"] == "string"
    assert b'"null"' not in json.dumps(document).encode()
    assert (await api.call("GET", "/openapi/v3/apis/x/v1"))[0] == 404


async def test_metrics(api: Harness) -> None:
    await api.pod()
    await api.call("GET", PODS + "/nope")
    text = (await api.raw("GET", "/metrics"))[2].decode()
    assert 'podrt_pods{phase="Pending"} 1.0' in text
    assert 'podrt_api_request_duration_seconds_count{code="201",resource="pods",verb="create"} 1.0' in text
    assert 'podrt_api_request_duration_seconds_count{code="404",resource="pods",verb="get"} 1.0' in text
    assert "podrt_build_info{version=" in text


# Errors


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (errors.InvalidError("x"), 422, "Invalid"),
        (errors.MalformedError("x"), 400, "BadRequest"),
        (errors.NotFoundError("x"), 404, "NotFound"),
        (errors.AlreadyExistsError("x"), 409, "AlreadyExists"),
        (errors.ConflictError("x"), 409, "Conflict"),
        (errors.ExpiredError("x"), 410, "Expired"),
        (errors.ForbiddenError("x"), 403, "Forbidden"),
        (errors.UnsupportedError("x"), 501, "NotImplemented"),
        (errors.UnavailableError("x"), 503, "ServiceUnavailable"),
        (errors.DeadlineError("x"), 504, "Timeout"),
        (errors.ExhaustedError("x"), 507, "InsufficientStorage"),
        (errors.ImageError("x"), 422, "Invalid"),
        (errors.LaunchError("exec", 2, "/x", "x"), 500, "InternalError"),
    ],
)
async def test_every_error_is_a_status(api: Harness, error: Exception, code: int, reason: str) -> None:
    await api.pod()
    api.agent.error = error
    found = await api.call("GET", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/p")
    assert found[0] == found[1]["code"] == code
    assert found[1]["kind"] == "Status" and found[1]["status"] == "Failure"
    assert (found[1]["reason"], found[1]["message"]) == (reason, "x")


def test_every_error_class_has_a_code() -> None:
    for cls in errors.PodrtError.__subclasses__():
        if cls.__module__ == "podrt.errors":
            assert cls in status._CODES, cls


async def test_bug_is_500_with_a_log_and_no_traceback(api: Harness, caplog: pytest.LogCaptureFixture) -> None:
    await api.pod()
    api.agent.error = RuntimeError("secret detail")
    code, found = await api.call("GET", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/p")
    assert (code, found["reason"]) == (500, "InternalError")
    assert "secret" not in json.dumps(found)
    assert "secret detail" in caplog.text
    api.agent.error = OSError(errno.ENOSPC, "full", "/var/x")
    code, found = await api.call("GET", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/p")
    assert code == 500 and "No space left on device (/var/x)" in found["message"]


@pytest.mark.parametrize(
    ("method", "path", "code", "reason"),
    [
        ("GET", "/nope", 404, "NotFound"),
        ("GET", "/api/v1/frobs", 404, "NotFound"),
        ("GET", "/api/v1/namespaces/default/frobs/x", 404, "NotFound"),
        ("POST", "/version", 405, "MethodNotAllowed"),
        ("DELETE", "/api/v1/namespaces", 405, "MethodNotAllowed"),
    ],
)
async def test_unknown_paths_and_methods(api: Harness, method: str, path: str, code: int, reason: str) -> None:
    found = await api.call(method, path)
    assert found[0] == found[1]["code"] == code and found[1]["reason"] == reason


async def test_too_large_a_body(api: Harness) -> None:
    code, found = await api.call("POST", PODS, b'"' + b"x" * (4 << 20) + b'"')
    assert (code, found["reason"]) == (413, "RequestEntityTooLarge")


async def test_garbage_on_the_socket_does_no_harm(api: Harness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "aiohttp.server")
    for data in (b"\0" * 100, b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n", b""):
        reader, writer = await asyncio.open_unix_connection(str(api.config.socket))
        writer.write(data)
        writer.write_eof()
        await reader.read()
        writer.close()
        await writer.wait_closed()
    assert (await api.raw("GET", "/healthz"))[0] == 200


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost:", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"])
async def test_idle_connections_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(server, "_IDLE", 0.2)
    async with serving(tmp_path) as api:
        reader, writer = await asyncio.open_unix_connection(str(api.config.socket))
        writer.write(sent)
        async with asyncio.timeout(scaled(10)):
            assert (b"200 OK" in await reader.read()) is sent.endswith(b"\r\n\r\n")
        writer.close()


async def test_what_is_being_answered_is_not_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_IDLE", 0.2)
    async with serving(tmp_path) as api:
        await api.pod()
        async with (
            api.http.get(f"http://podrt{PODS}?watch=true") as watch,
            api.http.get(f"http://podrt{PODS}/p/log?follow=true") as log,
        ):
            assert (await watch.content.readline()).startswith(b'{"type":"ADDED"')
            await asyncio.sleep(0.6)  # three times what an idle one has
            await api.pod("q")
            assert b'"name":"q"' in await watch.content.readline()
            api.agent.follow.put_nowait(b"line\n")
            assert await log.content.readline() == b"line\n"


# Usage


async def test_usage_is_a_rate_between_two_readings(api: Harness) -> None:
    await api.pod()
    path = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods"
    assert (await api.call("GET", path))[1]["items"] == []
    started = time.time()

    class Burning(dict[str, Stats]):
        def items(self) -> Any:
            now = time.time()
            return [("a", Stats(at=now, cpu_usage_ns=int((now - started) * 5e8), memory_working_set=1 << 20))]

        def __iter__(self) -> Any:
            return iter(["a"])

    api.agent.stats = Burning(a=Stats(at=0))
    (item,) = (await api.call("GET", path))[1]["items"]
    usage = item["containers"][0]["usage"]
    assert item["metadata"]["name"] == "p" and item["containers"][0]["name"] == "a"
    assert usage["memory"] == "1024Ki"
    assert 0.45e9 < int(usage["cpu"].removesuffix("n")) < 0.55e9


async def test_node_usage(api: Harness) -> None:
    api.registry.create(Node(metadata=ObjectMeta(name="node1")))
    api.agent.usage = Stats(at=time.time(), memory_working_set=4096)
    code, found = await api.call("GET", "/apis/metrics.k8s.io/v1beta1/nodes")
    assert code == 200 and found["kind"] == "NodeMetricsList"
    assert found["items"][0]["usage"] == {"cpu": "0n", "memory": "4Ki"}
    assert (await api.call("GET", "/apis/metrics.k8s.io/v1beta1/nodes/nope"))[0] == 404


@pytest.mark.parametrize("sent", [b"GET / HTTP/nine\r\n\r\n", b"GET / HTTP/1.1\r\nA\x00B\x1b[2J: c\r\n\r\n"])
async def test_what_is_not_http_is_one_line(api: Harness, caplog: pytest.LogCaptureFixture, sent: bytes) -> None:
    caplog.set_level(logging.INFO)
    reader, writer = await asyncio.open_unix_connection(str(api.config.socket))
    writer.write(sent)
    assert b" 400 " in await reader.readline()
    writer.close()
    (record,) = [record for record in caplog.records if record.name == "podrt.http"]
    assert record.levelno == logging.INFO and record.exc_info is None
    assert record.getMessage().startswith("a client sent what is not HTTP: ") and record.getMessage().isprintable()
