"""Logs, exec, attach and port-forward over the socket, with a fake agent and sessions on pipes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from podrt.errors import ConflictError, LaunchError, NotFoundError
from tests.unit.test_api_server import PODS, FakeSession, Harness, eventually, serving

Json = Any
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
EXEC = f"{PODS}/p/exec"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Harness]:
    async with serving(tmp_path) as harness:
        yield harness


# Logs


async def test_logs(api: Harness) -> None:
    await api.pod()
    api.agent.lines = [b"one\n", b"two\n"]
    code, headers, data = await api.raw("GET", f"{PODS}/p/log")
    assert (code, data) == (200, b"one\ntwo\n") and headers["Content-Type"].startswith("text/plain")
    query = "tailLines=5&sinceSeconds=60&timestamps=true&previous=1&limitBytes=100&follow=false&container=a"
    await api.raw("GET", f"{PODS}/p/log?{query}")
    container, options = api.agent.asked[-1]
    assert container == "a"
    assert (options.tail_lines, options.since_seconds, options.limit_bytes) == (5, 60, 100)
    assert options.timestamps and options.previous and not options.follow
    await api.raw("GET", f"{PODS}/p/log?sinceTime=2026-01-31T12:00:00Z")
    assert api.agent.asked[-1][1].since_time == 1769860800.0


async def test_follow_streams_and_ends_with_the_client(api: Harness, caplog: pytest.LogCaptureFixture) -> None:
    await api.pod()
    api.agent.lines = [b"one\n"]
    async with api.http.get(f"http://podrt{PODS}/p/log?follow=true") as response:
        assert await response.content.readline() == b"one\n"
        api.agent.follow.put_nowait(b"two\n")
        assert await response.content.readline() == b"two\n"
        assert not api.agent.log_closed.is_set()
    await asyncio.wait_for(api.agent.log_closed.wait(), 5)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_follow_of_a_silent_container_answers_at_once(api: Harness) -> None:
    await api.pod()
    async with api.http.get(f"http://podrt{PODS}/p/log?follow=true") as response:
        assert response.status == 200
        api.agent.follow.put_nowait(None)
        assert await response.read() == b""


async def test_log_that_fails_midway_is_cut_off(api: Harness, caplog: pytest.LogCaptureFixture) -> None:
    await api.pod()

    async def breaking(*_: object) -> AsyncIterator[bytes]:
        yield b"one\n"
        await asyncio.sleep(0.2)
        raise RuntimeError("secret")

    api.agent.logs = breaking  # type: ignore[method-assign,assignment]
    async with api.http.get(f"http://podrt{PODS}/p/log") as response:
        assert await response.content.readline() == b"one\n"
        with pytest.raises(aiohttp.ClientError):
            await response.read()
    assert "secret" in caplog.text
    assert not [record for record in caplog.records if record.name == "aiohttp.server"]
    assert (await api.raw("GET", "/healthz"))[0] == 200


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        ("container=z", 400, "container z is not valid for pod p"),
        ("", 400, "a container name must be specified for pod p, choose one of: [a b]"),
        ("container=a&tailLines=-1", 400, "tailLines"),
        ("container=a&tailLines=x", 400, "tailLines"),
        ("container=a&limitBytes=0", 400, "limitBytes"),
        ("container=a&sinceSeconds=0", 400, "sinceSeconds"),
        ("container=a&sinceTime=yesterday", 400, "sinceTime"),
        ("container=a&sinceTime=2026-01-31T12:00:00Z&sinceSeconds=1", 422, "at most one of"),
        ("container=a&follow=perhaps", 400, "follow"),
        ("container=a&stream=both", 400, "stream"),
    ],
)
async def test_log_refusals(api: Harness, query: str, code: int, words: str) -> None:
    await api.pod(containers=[{"name": "a", "image": "x"}, {"name": "b", "image": "x"}])
    found = await api.call("GET", f"{PODS}/p/log?{query}")
    assert found[0] == code and words in found[1]["message"]


async def test_default_container_annotation(api: Harness) -> None:
    await api.pod(containers=[{"name": "a", "image": "x"}, {"name": "b", "image": "x"}])
    patch = {"metadata": {"annotations": {"kubectl.kubernetes.io/default-container": "b"}}}
    await api.call("PATCH", f"{PODS}/p", patch, kind="application/merge-patch+json")
    assert (await api.raw("GET", f"{PODS}/p/log"))[0] == 200
    assert api.agent.asked[-1][0] == "b"


async def test_log_of_a_waiting_container_is_a_bad_request(api: Harness) -> None:
    await api.pod()
    api.agent.error = ConflictError('container "a" in pod "p" is waiting to start: ContainerCreating')
    code, found = await api.call("GET", f"{PODS}/p/log")
    assert (code, found["reason"]) == (400, "BadRequest") and "is waiting to start" in found["message"]
    assert (await api.call("GET", f"{PODS}/nope/log"))[0] == 404


# exec


class Remote:
    """The client's side of an exec or attach."""

    def __init__(self, api: Harness, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.api = api
        self.socket = socket
        self.got: dict[int, bytes] = {}

    @property
    def session(self) -> FakeSession:
        assert self.api.agent.session is not None
        return self.api.agent.session

    async def ready(self) -> FakeSession:
        await eventually(lambda: self.api.agent.session is not None, "the session is open")
        return self.session

    async def finish(self) -> Json:
        """Read to the end; the final Status."""
        async with asyncio.timeout(10):
            async for message in self.socket:
                assert message.type is aiohttp.WSMsgType.BINARY
                self.got[message.data[0]] = self.got.get(message.data[0], b"") + message.data[1:]
        assert self.socket.close_code == 1000
        return json.loads(self.got[3])


@contextlib.asynccontextmanager
async def remote(
    api: Harness, query: str, *, path: str = EXEC, protocols: tuple[str, ...] = (V5,), method: str = "GET"
) -> AsyncIterator[Remote]:
    async with api.http.ws_connect(f"http://podrt{path}?{query}", protocols=protocols, method=method) as socket:
        assert socket.protocol == protocols[0]
        yield Remote(api, socket)


@pytest.mark.parametrize("protocol", [V4, V5])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_exec_output_and_success(api: Harness, protocol: str, method: str) -> None:
    await api.pod()
    query = "command=sh&command=-c&command=echo%20hi&stdout=true&stderr=true"
    async with remote(api, query, protocols=(protocol,), method=method) as client:
        session = await client.ready()
        assert api.agent.asked == [("a", ["sh", "-c", "echo hi"], False)]
        session.say("stdout", b"hi\n")
        session.say("stderr", b"oh\n")
        session.end(0)
        status = await client.finish()
    assert client.got[1] == b"hi\n" and client.got[2] == b"oh\n"
    assert status["status"] == "Success" and status["kind"] == "Status"
    await eventually(lambda: session.closed, "the session is closed")


async def test_exit_code(api: Harness) -> None:
    await api.pod()
    async with remote(api, "command=false&stdout=true") as client:
        (await client.ready()).end(42)
        status = await client.finish()
    assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode")
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "42"}]


async def test_stdin_and_its_end(api: Harness) -> None:
    await api.pod()
    async with remote(api, "command=cat&stdin=true&stdout=true") as client:
        session = await client.ready()
        await client.socket.send_bytes(b"\x00hello ")
        await client.socket.send_bytes(b"\x00world")
        await client.socket.send_bytes(b"\xff\x00")
        await eventually(lambda: session.stdin is None, "stdin is closed")
        assert os.read(session.ends["stdin"], 100) == b"hello world"
        assert os.read(session.ends["stdin"], 100) == b""
        await client.socket.send_bytes(b"\x00too late")
        session.end(0)
        assert (await client.finish())["status"] == "Success"


async def test_v4_has_no_close_message(api: Harness) -> None:
    await api.pod()
    async with remote(api, "command=cat&stdin=true&stdout=true", protocols=(V4,)) as client:
        session = await client.ready()
        await client.socket.send_bytes(b"\xff\x00")
        await client.socket.send_bytes(b"\x00x")
        await asyncio.sleep(0.05)
        assert session.stdin is not None and os.read(session.ends["stdin"], 10) == b"x"
        session.end(0)
        await client.finish()


async def test_resize(api: Harness) -> None:
    await api.pod()
    async with remote(api, "command=sh&stdin=true&stdout=true&tty=true") as client:
        session = await client.ready()
        assert api.agent.asked[0][2] is True
        for text in ('{"Width":120,"Height":40}', "nonsense", '{"Width":0,"Height":1}', '{"Width":80,"Height":99999}'):
            await client.socket.send_bytes(b"\x04" + text.encode())
        await eventually(lambda: session.sizes, "the terminal is resized")
        session.end(0)
        await client.finish()
        assert session.sizes == [(120, 40)]


async def test_strange_messages_do_no_harm(api: Harness) -> None:
    await api.pod()
    async with remote(api, "command=cat&stdout=true") as client:
        session = await client.ready()
        for data in (b"", b"\x09x", b"\x00x", b"\xff", b"\xff\x07", b"\x01x"):
            await client.socket.send_bytes(data)
        await client.socket.send_str("\x00text")
        session.end(0)
        assert (await client.finish())["status"] == "Success"


async def test_a_megabyte_each_way_through_small_pipes(api: Harness) -> None:
    await api.pod()
    data = os.urandom(1 << 20)
    async with remote(api, "command=cat&stdin=true&stdout=true") as client:
        session = await client.ready()

        async def send() -> None:
            for start in range(0, len(data), 100_000):
                await client.socket.send_bytes(b"\x00" + data[start : start + 100_000])
            await client.socket.send_bytes(b"\xff\x00")

        async def echo() -> None:
            """The process: cat."""
            while True:
                try:
                    chunk = os.read(session.ends["stdin"], 65536)
                except BlockingIOError:
                    await asyncio.sleep(0)
                    continue
                if not chunk:
                    break
                while chunk:
                    try:
                        chunk = chunk[os.write(session.ends["stdout"], chunk) :]
                    except BlockingIOError:
                        await asyncio.sleep(0)
            session.end(0)

        status, _, _ = await asyncio.gather(client.finish(), send(), echo())
    assert status["status"] == "Success" and client.got[1] == data


async def test_slow_client_holds_the_process_back(api: Harness) -> None:
    await api.pod()
    async with remote(api, "command=yes&stdout=true") as client:
        session = await client.ready()
        written = 0
        idle = 0
        while idle < 20:
            try:
                written += os.write(session.ends["stdout"], b"y" * 65536)
                idle = 0
            except BlockingIOError:
                idle += 1
            await asyncio.sleep(0.01)
        # What fits in pipe, sockets and buffers, no more.
        assert written < 8 << 20
        session.end(0)
        await client.finish()
        assert len(client.got[1]) == written


async def test_leftover_child_does_not_hold_the_stream(api: Harness) -> None:
    await api.pod()
    async with remote(api, "command=sh&stdout=true&stderr=true") as client:
        session = await client.ready()
        session.say("stdout", b"last words")
        session.end(0, keep=("stdout", "stderr"))
        assert (await client.finish())["status"] == "Success"
        assert client.got[1] == b"last words"


async def test_client_that_goes_away_ends_the_session(api: Harness) -> None:
    await api.pod()
    async with remote(api, "command=sleep&stdout=true") as client:
        session = await client.ready()
    await eventually(lambda: session.closed, "the session is closed")


async def test_server_that_stops_ends_sessions(api: Harness) -> None:
    await api.pod()
    async with remote(api, "command=sleep&stdout=true") as client:
        session = await client.ready()
        await asyncio.wait_for(api.server.close(), 6)
        assert session.closed


@pytest.mark.parametrize(
    ("error", "reason", "code", "stderr"),
    [
        (LaunchError("exec", 2, "/nope", 'exec "/nope": no such file'), "NonZeroExitCode", "127", b"no such file"),
        (LaunchError("exec", 13, "/etc", 'exec "/etc": permission denied'), "NonZeroExitCode", "126", b"permission"),
        (ConflictError("container a of pod p is not running"), "Conflict", None, None),
        (NotFoundError("container a never ran"), "NotFound", None, None),
        (RuntimeError("secret"), "InternalError", None, None),
    ],
)
async def test_failure_to_start_comes_on_the_error_channel(
    api: Harness, error: Exception, reason: str, code: str | None, stderr: bytes | None
) -> None:
    await api.pod()
    api.agent.error = error
    async with remote(api, "command=/nope&stdout=true&stderr=true") as client:
        status = await client.finish()
    assert (status["status"], status["reason"]) == ("Failure", reason)
    assert "secret" not in status["message"]
    if code is not None:
        assert status["details"]["causes"] == [{"reason": "ExitCode", "message": code}]
    assert (stderr is None) == (2 not in client.got)
    if stderr is not None:
        assert stderr in client.got[2]


@pytest.mark.parametrize(
    ("path", "query", "headers", "code", "words"),
    [
        (EXEC, "command=sh&stdout=1", {}, 400, "Upgrade request required"),
        (EXEC, "command=sh&stdout=1", {"Connection": "Upgrade", "Upgrade": "SPDY/2"}, 400, "Upgrade"),
        (EXEC, "command=sh&stdout=1", "v1.channel.k8s.io", 501, "v1.channel.k8s.io"),
        (EXEC, "command=sh", V5, 400, "at least 1 of stdin, stdout, stderr"),
        (EXEC, "stdout=1", V5, 400, "at least one command"),
        (EXEC, "command=sh&stdout=1&container=z", V5, 400, "container z is not valid"),
        (f"{PODS}/nope/exec", "command=sh&stdout=1", V5, 404, 'pods "nope" not found'),
        (f"{PODS}/p/attach", "stdin=1", V5, 400, "has no stdin"),
        (f"{PODS}/p/attach", "stdout=1&tty=1", V5, 400, "has no terminal"),
        (f"{PODS}/p/portforward", "", V4, 400, "at least one port"),
        (f"{PODS}/p/portforward", "ports=0", V4, 400, "'0' is no port"),
        (f"{PODS}/p/portforward", "ports=80,x", V4, 400, "'x' is no port"),
        (
            f"{PODS}/p/portforward",
            "",
            "v9.channel.k8s.io",
            501,
            "use v4.channel.k8s.io or v4.base64.channel.k8s.io or portforward.k8s.io or SPDY",
        ),
    ],
)
async def test_refusals_before_the_upgrade(
    api: Harness, path: str, query: str, headers: Json, code: int, words: str
) -> None:
    await api.pod()
    if isinstance(headers, str):
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol": headers,
        }
    async with api.http.get(f"http://podrt{path}?{query}", headers=headers) as response:
        found = await response.json()
    assert response.status == found["code"] == code and words in found["message"]
    assert api.agent.session is None


async def test_exec_in_a_completed_pod(api: Harness) -> None:
    await api.pod()
    patch = {"status": {"phase": "Succeeded"}}
    await api.call("PATCH", f"{PODS}/p/status", patch, kind="application/merge-patch+json")
    async with api.http.get(f"http://podrt{EXEC}?command=sh&stdout=1") as response:
        found = await response.json()
    assert response.status == 400 and "completed pod; current phase is Succeeded" in found["message"]


async def test_attach(api: Harness) -> None:
    await api.pod(containers=[{"name": "a", "image": "x", "stdin": True}])
    async with remote(api, "stdin=true&stdout=true", path=f"{PODS}/p/attach") as client:
        session = await client.ready()
        await client.socket.send_bytes(b"\x00in")
        session.say("stdout", b"out")
        await eventually(lambda: os.read(session.ends["stdin"], 10) == b"in" if _readable(session) else None, "input")
        session.end(0)
        assert (await client.finish())["status"] == "Success"
    assert client.got[1] == b"out"


def _readable(session: FakeSession) -> bool:
    import select

    return bool(select.select([session.ends["stdin"]], [], [], 0)[0])


# Port forwarding


@contextlib.asynccontextmanager
async def echo_server(api: Harness) -> AsyncIterator[None]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (data := await reader.read(65536)) and not data.startswith(b"bye"):
            writer.write(data.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    api.agent.port = server.sockets[0].getsockname()[1]
    async with server:
        yield


@pytest.mark.parametrize("protocol", [V4, "portforward.k8s.io"])
async def test_port_forward(api: Harness, protocol: str) -> None:
    await api.pod()
    path = f"http://podrt{PODS}/p/portforward?ports=8080&ports=9090"
    async with echo_server(api), api.http.ws_connect(path, protocols=(protocol,)) as socket:
        heads = [await socket.receive_bytes() for _ in range(4)]
        assert heads == [b"\x00\x90\x1f", b"\x01\x90\x1f", b"\x02\x82\x23", b"\x03\x82\x23"]
        await socket.send_bytes(b"\x00hello")
        assert await socket.receive_bytes() == b"\x00HELLO"
        await socket.send_bytes(b"\x02world")
        assert await socket.receive_bytes() == b"\x02WORLD"
        await socket.send_bytes(b"\x07nobody")
        for channel in (b"\x00", b"\x02"):
            await socket.send_bytes(channel + b"bye")
        message = await socket.receive(timeout=5)
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    assert sorted(api.agent.asked) == [8080, 9090]


async def test_port_forward_moves_a_megabyte(api: Harness) -> None:
    await api.pod()
    data = b"x" * (1 << 20)
    path = f"http://podrt{PODS}/p/portforward?ports=80"
    async with echo_server(api), api.http.ws_connect(path, protocols=(V4,)) as socket:
        for _ in range(2):
            await socket.receive_bytes()

        async def send() -> None:
            for start in range(0, len(data), 50_000):
                await socket.send_bytes(b"\x00" + data[start : start + 50_000])

        sending = asyncio.create_task(send())
        got = b""
        while len(got) < len(data):
            got += (await asyncio.wait_for(socket.receive_bytes(), 5))[1:]
        await sending
        assert got == data.upper()


async def test_port_forward_passes_on_that_the_client_has_sent_all(api: Harness) -> None:
    """A server that answers when it has read to the end (``nc -l``) answers, and what follows the end is dropped."""
    await api.pod()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"got " + await reader.read())
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    api.agent.port = server.sockets[0].getsockname()[1]
    path = f"http://podrt{PODS}/p/portforward?ports=80"
    async with server, api.http.ws_connect(path, protocols=(V4,)) as socket:
        for _ in range(2):
            await socket.receive_bytes()
        for message in (b"\x00all", b"\xff\x01", b"\xff\x07", b"\xff", b"\xff\x00", b"\x00too late", b"\xff\x00"):
            await socket.send_bytes(message)
        assert await asyncio.wait_for(socket.receive_bytes(), 5) == b"\x00got all"
        assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE


async def test_port_forward_to_a_closed_port_says_so(api: Harness) -> None:
    await api.pod()
    path = f"http://podrt{PODS}/p/portforward?ports=80"
    async with api.http.ws_connect(path, protocols=(V4,)) as socket:
        for _ in range(2):
            await socket.receive_bytes()
        message = await socket.receive_bytes()
        assert message[:1] == b"\x01" and b"error forwarding port 80" in message and b"refused" in message
        assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
