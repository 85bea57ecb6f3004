"""exec and attach over SPDY, and what both protocols share: back-pressure, half-closes, clients that go."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import json
import os
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from podrt.errors import ConflictError, LaunchError
from podrt.streaming import pipe, spdy
from tests.framework.spdy import Refused, SpdyClient
from tests.unit.test_api_server import PODS, FakeSession, Harness, eventually, serving

V4, V3, V2, V1 = "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"
EXEC = f"{PODS}/p/exec"
ALL = "command=sh&stdin=1&stdout=1&stderr=1"
TTY = "command=sh&stdin=1&stdout=1&tty=1"


@pytest.fixture
async def api(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Harness]:
    async with serving(tmp_path) as harness:
        await harness.pod()
        yield harness
    assert not [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


class Exec:
    """A client that has opened its streams."""

    def __init__(self, api: Harness, client: SpdyClient) -> None:
        self.api = api
        self.client = client
        self.streams: dict[str, int] = {}

    @property
    def session(self) -> FakeSession:
        assert self.api.agent.session is not None
        return self.api.agent.session

    def got(self, name: str) -> bytes:
        return bytes(self.client.got.get(self.streams[name], b""))

    async def finish(self) -> Any:
        """Read to the end of all streams and the connection; the Status."""
        await self.client.finished(*self.streams.values())
        await self.client.until(lambda: self.client.away)
        await self.client.until(lambda: self.client.closed)
        return json.loads(self.got("error"))


@contextlib.asynccontextmanager
async def spdy_exec(
    api: Harness, query: str = ALL, *protocols: str, path: str = EXEC, streams: str = "error stdin stdout stderr"
) -> AsyncIterator[Exec]:
    api.agent.session = None
    dialled = SpdyClient.dial(f"http://podrt{path}?{query}", *(protocols or (V4,)), socket=api.config.socket)
    async with await dialled as client:
        remote = Exec(api, client)
        for name in streams.split():
            remote.streams[name] = await client.open(name)
        if "error" in remote.streams and api.agent.error is None:
            await eventually(lambda: api.agent.session, "the session is open")
        yield remote


async def test_output_input_and_success(api: Harness) -> None:
    async with spdy_exec(api) as remote:
        assert remote.client.protocol == V4
        session = remote.session
        session.say("stdout", b"hi\n")
        session.say("stderr", b"oh\n")
        await remote.client.send(remote.streams["stdin"], b"hello ")
        await remote.client.send(remote.streams["stdin"], b"world", last=True)
        await eventually(lambda: session.stdin is None, "stdin is closed")
        assert os.read(session.ends["stdin"], 100) == b"hello world"
        session.end(0)
        assert (await remote.finish())["status"] == "Success"
    assert (remote.got("stdout"), remote.got("stderr")) == (b"hi\n", b"oh\n")
    assert remote.client.ended == set(remote.streams.values())
    await eventually(lambda: session.closed, "the session is closed")


async def test_exit_code(api: Harness) -> None:
    async with spdy_exec(api) as remote:
        remote.session.end(42)
        status = await remote.finish()
    assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode")
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "42"}]


@pytest.mark.parametrize("protocol", [V3, V2, V1])
async def test_old_protocols_end_with_a_line(api: Harness, protocol: str) -> None:
    async with spdy_exec(api, ALL, protocol) as remote:
        remote.session.end(3)
        await remote.client.finished(*remote.streams.values())
    assert remote.got("error") == b"command terminated with non-zero exit code: exit status 3"
    async with spdy_exec(api, ALL, protocol) as remote:
        remote.session.end(0)
        await remote.client.finished(*remote.streams.values())
    assert remote.got("error") == b""


@pytest.mark.parametrize("protocol", [V4, V3])
async def test_sizes_in_any_pieces(api: Harness, protocol: str) -> None:
    async with spdy_exec(api, TTY, protocol, streams="error stdin stdout resize") as remote:
        sizes = b'{"Width":120,"Height":40}\n{"Width":0,"Height":1}\nnonsense}{"Width":80,"Height":99999}'
        for byte in sizes + b'{"Height":24,"Width":80}\n' + b"x" * 1000 + b'{"Width":1,"Height":2}':
            await remote.client.send(remote.streams["resize"], bytes([byte]))
        await eventually(lambda: len(remote.session.sizes) == 3, "the terminal is resized")
        remote.session.end(0)
        await remote.client.finished(*remote.streams.values())
    assert remote.session.sizes == [(120, 40), (80, 24), (1, 2)]


async def test_v2_with_a_terminal_has_no_sizes(api: Harness) -> None:
    async with spdy_exec(api, TTY, V2, streams="error stdin stdout resize") as remote:
        assert remote.client.reset[remote.streams["resize"]] == spdy.REFUSED_STREAM
        remote.session.end(0)
        await remote.client.finished(remote.streams["error"])


async def test_the_clients_first_choice_is_taken(api: Harness) -> None:
    async with spdy_exec(api, ALL, "v9.channel.k8s.io", f"{V3}, {V4}") as remote:
        assert remote.client.protocol == V3


@pytest.mark.parametrize(
    ("protocols", "query", "code", "words"),
    [
        ((), ALL, 400, b"X-Stream-Protocol-Version is missing"),
        (("v9.channel.k8s.io",), ALL, 403, b"use v4.channel.k8s.io or v3"),
        ((V4,), "command=sh", 400, b"at least 1 of stdin"),
        ((V4,), "command=sh&stdout=1&container=z", 400, b"container z is not valid"),
    ],
)
async def test_refusals(api: Harness, protocols: tuple[str, ...], query: str, code: int, words: bytes) -> None:
    with pytest.raises(Refused) as caught:
        await SpdyClient.dial(f"http://podrt{EXEC}?{query}", *protocols, socket=api.config.socket)
    assert caught.value.status == code and words in caught.value.body


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_request_may_have_an_empty_body(api: Harness, method: str) -> None:
    url = f"http://podrt{EXEC}?{ALL}"
    empty = ("Transfer-Encoding: chunked", "0\r\n\r\n")
    async with await SpdyClient.dial(url, V4, socket=api.config.socket, method=method, body=empty) as client:
        assert await client.open("error") in client.replied
    with pytest.raises(Refused, match="to upgrade the connection can"):
        await SpdyClient.dial(url, V4, socket=api.config.socket, method=method, body=("Content-Length: 2", "hi"))


async def test_failure_to_start(api: Harness) -> None:
    api.agent.error = LaunchError("exec", 2, "/nope", 'exec "/nope": no such file')
    async with spdy_exec(api) as remote:
        status = await remote.finish()
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "127"}]
    assert remote.got("stderr") == b'exec "/nope": no such file\n'
    api.agent.error = ConflictError("container a of pod p is not running")
    async with spdy_exec(api) as remote:
        status = await remote.finish()
    assert (status["reason"], status["code"]) == ("Conflict", 409) and remote.got("stderr") == b""


async def test_streams_that_make_no_sense_are_refused(api: Harness) -> None:
    async with spdy_exec(api) as remote:
        client = remote.client
        twice, unknown = await client.open("stdout"), await client.open("frob")
        assert {client.reset[twice], client.reset[unknown]} == {spdy.REFUSED_STREAM}
        # An even number, and one that was used: a connection's own rules.
        for number in (2, 1):
            await client.wire.write(client._encoder.open(number, {"streamType": "stdin"}))
            await client.until(lambda number=number: number in client.reset)
            assert client.reset[number] == spdy.PROTOCOL_ERROR
        await client.send(99, b"for nobody")
        await client.wire.write(spdy.ping(7) + spdy.ping(2))
        await client.until(lambda: 7 in client.pongs)
        remote.session.end(0)
        assert (await remote.finish())["status"] == "Success"
    assert client.pongs == {7}


@pytest.mark.parametrize(
    "garbage", [b"\xff" * 100, struct.pack(">HHI", 0x8003, 1, 1 << 23), struct.pack(">HHI", 0x8002, 6, 4)]
)
async def test_garbage_ends_the_connection_and_the_command(api: Harness, garbage: bytes) -> None:
    async with spdy_exec(api) as remote:
        await remote.client.wire.write(garbage)
        await remote.client.until(lambda: remote.client.closed)
        await eventually(lambda: remote.session.closed, "the session is closed")


async def test_a_client_that_opens_too_few_streams(api: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podrt.streaming.remote._OPENING", 0.2)
    async with spdy_exec(api, streams="stdin stdout") as remote:
        await remote.client.until(lambda: remote.client.closed)
    assert api.agent.session is None


async def test_a_client_that_goes_ends_the_session(api: Harness) -> None:
    async with spdy_exec(api) as remote:
        session = remote.session
    await eventually(lambda: session.closed, "the session is closed")


async def test_a_client_that_goes_while_its_input_waits(api: Harness) -> None:
    """Nothing is read of it any more, so its end is behind what waits, in the kernel."""
    async with spdy_exec(api) as remote:
        session = remote.session
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await remote.client.send(remote.streams["stdin"], b"x" * 65536)
    await eventually(lambda: session.closed, "the session is closed")


async def test_server_that_stops_ends_sessions(api: Harness) -> None:
    async with spdy_exec(api) as remote:
        await asyncio.wait_for(api.server.close(), 6)
        assert remote.session.closed


async def test_slow_client_holds_the_process_back(api: Harness) -> None:
    async with spdy_exec(api) as remote:
        written = await _fill(remote.session.ends["stdout"])
        assert written < 8 << 20
        remote.session.end(0)
        await remote.finish()
        assert len(remote.got("stdout")) == written


async def test_slow_process_holds_the_client_back_and_sizes_pass(api: Harness) -> None:
    async with spdy_exec(api, TTY, streams="error stdin stdout resize") as remote:
        sent = 0
        for _ in range(4):  # less than what the pipe takes
            await remote.client.send(remote.streams["stdin"], b"x" * (pipe.LIMIT // 4))
            sent += pipe.LIMIT // 4
        await remote.client.send(remote.streams["resize"], b'{"Width":9,"Height":8}')
        await eventually(lambda: remote.session.sizes, "a size passes")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await remote.client.send(remote.streams["stdin"], b"x" * 65536)
                    sent += 65536
        assert sent < 8 << 20
        remote.session.end(0)
        assert (await remote.finish())["status"] == "Success"


async def _fill(fd: int) -> int:
    """Write until nothing is taken for a while; how much it was."""
    written = idle = 0
    while idle < 20:
        try:
            written += os.write(fd, b"y" * 65536)
            idle = 0
        except BlockingIOError:
            idle += 1
        await asyncio.sleep(0.01)
    return written


async def test_ten_megabytes_each_way(api: Harness) -> None:
    data = os.urandom(10 << 20)
    async with spdy_exec(api, "command=cat&stdin=1&stdout=1", streams="error stdin stdout") as remote:
        session = remote.session
        fcntl.fcntl(session.ends["stdout"], fcntl.F_SETPIPE_SZ, 4096)

        async def send() -> None:
            for start in range(0, len(data), 100_001):
                await remote.client.send(remote.streams["stdin"], data[start : start + 100_001])
            await remote.client.send(remote.streams["stdin"], last=True)

        status, _, _ = await asyncio.gather(remote.finish(), send(), _echo(session))
    assert status["status"] == "Success" and remote.got("stdout") == data


async def _echo(session: FakeSession) -> None:
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


async def test_nothing_is_left_of_a_connection(api: Harness) -> None:
    runner = api.server._runner
    assert runner is not None and runner.server is not None
    before, tasks, files = len(runner.server.connections), asyncio.all_tasks(), set(os.listdir("/proc/self/fd"))
    for end in (True, False, True):
        async with spdy_exec(api) as remote:
            if end:
                remote.session.end(0)
                await remote.finish()
        await eventually(lambda remote=remote: remote.session.closed, "the session is closed")
    await eventually(lambda: len(runner.server.connections) == before, "the connections are forgotten")
    await eventually(lambda: asyncio.all_tasks() <= tasks, "the tasks have ended")
    assert set(os.listdir("/proc/self/fd")) == files


# Websockets: what test_api_streams leaves out


@contextlib.asynccontextmanager
async def websocket(api: Harness, query: str, *protocols: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with api.http.ws_connect(f"http://podrt{EXEC}?{query}", protocols=protocols) as socket:
        assert socket.protocol == (protocols[0] if protocols else None)
        await eventually(lambda: api.agent.session, "the session is open")
        yield socket


@pytest.mark.parametrize("protocol", ["base64.channel.k8s.io", "v4.base64.channel.k8s.io"])
async def test_base64(api: Harness, protocol: str) -> None:
    async with websocket(api, ALL, protocol) as socket:
        session = api.agent.session
        assert session is not None
        await socket.send_str("0" + base64.b64encode(b"\x00in\xff").decode())
        session.say("stdout", b"\xff\x00out")
        assert await socket.receive_str() == "1" + base64.b64encode(b"\xff\x00out").decode()
        await eventually(lambda: os.read(session.ends["stdin"], 10) == b"\x00in\xff", "input")
        session.end(5)
        last = await socket.receive_str()
        text = base64.b64decode(last[1:])
        assert last[0] == "3" and b"exit status 5" in text
        assert (json.loads(text)["reason"] == "NonZeroExitCode") if protocol.startswith("v4") else text[:1] != b"{"
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE


async def test_what_is_no_base64_ends_the_session(api: Harness) -> None:
    async with websocket(api, ALL, "base64.channel.k8s.io") as socket:
        await socket.send_str("0!!!")
        assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
    assert api.agent.session is not None and api.agent.session.closed


@pytest.mark.parametrize("protocols", [(), (V1,)])
async def test_the_oldest_protocol(api: Harness, protocols: tuple[str, ...]) -> None:
    async with websocket(api, ALL, *protocols) as socket:
        assert api.agent.session is not None
        api.agent.session.say("stderr", b"err")
        assert await socket.receive_bytes() == b"\x02err"
        api.agent.session.end(0)
        assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE


async def test_websocket_that_goes_while_its_input_waits(api: Harness) -> None:
    async with websocket(api, ALL, "v5.channel.k8s.io") as socket:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await socket.send_bytes(b"\x00" + b"x" * 65536)
        _abort(socket)
    assert api.agent.session is not None
    session = api.agent.session
    await eventually(lambda: session.closed, "the session is closed")


async def test_websocket_is_kept_while_its_input_waits(api: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """kubectl takes a server that does not answer its pings for dead, but pongs that it did not ask for calm it."""
    monkeypatch.setattr("podrt.streaming.channels._KEEP", 0.1)
    async with api.http.ws_connect(
        f"http://podrt{EXEC}?{ALL}", protocols=("v5.channel.k8s.io",), autoping=False
    ) as socket:
        await eventually(lambda: api.agent.session, "the session is open")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await socket.send_bytes(b"\x00" + b"x" * 65536)
        for _ in range(3):
            assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.PONG
        _abort(socket)


def _abort(socket: aiohttp.ClientWebSocketResponse) -> None:
    assert socket._conn is not None and socket._conn.transport is not None
    socket._conn.transport.abort()


async def test_an_attached_client_that_goes_closes_stdin(api: Harness) -> None:
    """What stdinOnce is about; the engine's session knows whether it is set."""
    patch = {"metadata": {"name": "q"}, "spec": {"containers": [{"name": "a", "image": "x", "stdin": True}]}}
    await api.call("POST", PODS, {"apiVersion": "v1", "kind": "Pod", **patch})
    async with spdy_exec(api, "stdin=1&stdout=1", path=f"{PODS}/q/attach", streams="error stdin stdout") as remote:
        session = remote.session
        closed: list[bool] = []
        close_stdin = session.close_stdin

        async def noted() -> None:
            closed.append(session.closed)
            await close_stdin()

        session.close_stdin = noted  # type: ignore[method-assign]
        await remote.client.send(remote.streams["stdin"], b"last words")
    await eventually(lambda: session.closed, "the session is closed")
    assert closed == [False]
