"""The URLs of the CRI's streams: good once, for a minute, and bounded in number."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from cri_api.v1 import api_pb2 as api

from podrt.config import Config
from podrt.cri import streams
from podrt.cri.own import OWNER
from podrt.engine.specs import ContainerState, SandboxState
from podrt.errors import ExhaustedError, InvalidError, UnavailableError
from podrt.streaming import strangers
from tests.framework.patience import scaled
from tests.framework.remote import SPDY, open_remote
from tests.framework.spdy import Refused, SpdyClient
from tests.unit.test_api_server import FakeSession

ID = "c" * 64
BOX = "b" * 64


class FakeEngine:
    """One container in one sandbox."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.error: Exception | None = None
        self.lasts = False
        self.sessions: list[FakeSession] = []

    def sandbox_status(self, identity: str) -> Any:
        return SimpleNamespace(id=BOX, state=SandboxState.READY, spec=SimpleNamespace(owner=OWNER))

    def list_sandboxes(self) -> list[Any]:
        return [self.sandbox_status(BOX)]

    def container_status(self, identity: str) -> Any:
        return SimpleNamespace(id=ID, sandbox_id=BOX, state=ContainerState.RUNNING)

    def list_containers(self, sandbox_id: str = "") -> list[Any]:
        return [self.container_status(ID)]

    async def exec(self, container_id: str, argv: list[str], **flags: bool) -> FakeSession:
        self.asked.append((container_id, argv))
        if self.error is not None:
            raise self.error
        session = FakeSession(stdin=flags["stdin"], stdout=flags["stdout"], stderr=flags["stderr"])
        if not self.lasts:
            session.end(0)
        self.sessions.append(session)
        return session


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def server(tmp_path: Path, engine: FakeEngine) -> AsyncIterator[streams.StreamServer]:
    server = streams.StreamServer(Config.under(tmp_path, "t"), engine)  # type: ignore[arg-type]
    await server.start()
    yield server
    await server.close()


def exec_request(**fields: Any) -> api.ExecRequest:
    return api.ExecRequest(**{"container_id": ID, "cmd": ["true"], "stdout": True} | fields)


async def test_what_the_url_was_made_for_is_done(server: streams.StreamServer, engine: FakeEngine) -> None:
    request = exec_request(container_id=ID[:12])
    url = server.exec_url(request)
    request.cmd[:] = ["changed", "afterwards"]
    async with open_remote(SPDY, url) as remote:
        assert (await remote.finish())["status"] == "Success"
    assert engine.asked == [(ID, ["true"])]


async def test_urls_are_secrets_and_age(server: streams.StreamServer, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = {server.exec_url(exec_request()) for _ in range(50)}
    assert len(urls) == 50 and all(len(url.rpartition("/")[2]) >= 43 for url in urls)  # 256 bits
    monkeypatch.setattr(streams, "LIFE", 0.0)
    with pytest.raises(Refused, match="good for one use within a minute"):
        await SpdyClient.dial(server.exec_url(exec_request()), "v4.channel.k8s.io")


async def test_there_is_a_bound(server: streams.StreamServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LIFE", 0.0)
    for _ in range(2 * streams.MAX_WAITING):  # those that have aged don't count
        server.exec_url(exec_request())
    monkeypatch.undo()
    for _ in range(streams.MAX_WAITING):
        server.exec_url(exec_request())
    with pytest.raises(ExhaustedError, match="1000 streaming URLs"):
        server.attach_url(api.AttachRequest(container_id=ID, stdout=True))


async def connect(server: streams.StreamServer, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Whoever finds the port: any user of the machine may connect."""
    parts = urlsplit(server.exec_url(exec_request()))
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(sent)
    return reader, writer


@pytest.mark.parametrize("sent", [b"", b"GET /exec/x HTTP/1.1\r\nHost:", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"])
async def test_who_shows_no_url_is_cut_off(
    server: streams.StreamServer, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(strangers, "PATIENCE", 0.2)
    reader, writer = await connect(server, sent)
    try:
        async with asyncio.timeout(scaled(10)):
            with contextlib.suppress(ConnectionResetError):
                while await reader.read(1024):
                    pass
    finally:
        writer.close()


async def test_a_crowd_without_a_url_takes_nobodys_place(
    server: streams.StreamServer, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "MOST", 20)
    crowd = [await connect(server) for _ in range(60)]
    try:
        async with open_remote(SPDY, server.exec_url(exec_request())) as remote:
            assert (await remote.finish())["status"] == "Success"
        async with asyncio.timeout(scaled(10)):
            for reader, _ in crowd[:40]:
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
    finally:
        for _, writer in crowd:
            writer.close()


async def test_a_stream_may_last(
    server: streams.StreamServer, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "PATIENCE", 0.2)
    engine.lasts = True
    async with open_remote(SPDY, server.exec_url(exec_request())) as remote:
        await asyncio.sleep(0.6)  # three times what a stranger has
        engine.sessions[0].end(0)
        assert (await remote.finish())["status"] == "Success"


async def test_a_failure_that_nobody_meant_keeps_its_words(
    server: streams.StreamServer, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.error = RuntimeError("secret")
    async with open_remote(SPDY, server.exec_url(exec_request())) as remote:
        status = await remote.finish()
    assert (status["reason"], status["code"]) == ("InternalError", 500) and "secret" not in status["message"]
    assert "secret" in caplog.text


async def test_addresses(tmp_path: Path, engine: FakeEngine) -> None:
    def make(address: str) -> streams.StreamServer:
        return streams.StreamServer(Config.under(tmp_path, "t", cri_stream_address=address), engine)  # type: ignore[arg-type]

    with pytest.raises(InvalidError, match="cri_stream_address: must be a loopback address"):
        make("0.0.0.0:0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=f"cri_stream_address: can't listen on {address}"):
            await make(address).start()
    six = make("[::1]:0")
    await six.start()
    try:
        async with open_remote(SPDY, six.exec_url(exec_request())) as remote:
            assert (await remote.finish())["status"] == "Success"
    finally:
        await six.close()
