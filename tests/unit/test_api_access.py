"""Who may use the door on loopback: only those who show its token, whatever else they send."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from podrt.api.access import Access
from podrt.api.status import UnauthorizedError
from podrt.errors import UnavailableError
from podrt.model.configuration import ServiceAccount
from podrt.model.meta import ObjectMeta
from podrt.node.volumes.token import Signer
from podrt.streaming import strangers
from tests.framework.patience import scaled

TOKEN = "the-token-of-this-door"


@pytest.fixture
def access(tmp_path: Path) -> Access:
    made = Access(tmp_path, "")
    made._token = TOKEN.encode()
    return made


def request(authorization: str | None, family: int = socket.AF_INET) -> Any:
    """As aiohttp gives it: bytes that are no UTF-8 come as surrogates."""
    peer = SimpleNamespace(get_extra_info=lambda name: SimpleNamespace(family=family))
    headers = {} if authorization is None else {"Authorization": authorization}
    return SimpleNamespace(transport=peer, headers=headers)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_token_opens(access: Access, scheme: str) -> None:
    access.check(request(f"{scheme} {TOKEN}"))


def test_the_socket_is_its_own_lock(access: Access) -> None:
    access.check(request(None, socket.AF_UNIX))


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer \udcff", "Bearer é"],
)
def test_nothing_else_does(access: Access, authorization: str | None) -> None:
    with pytest.raises(UnauthorizedError):
        access.check(request(authorization))


def test_no_token_of_an_account_does(access: Access, tmp_path: Path) -> None:
    account = ServiceAccount(metadata=ObjectMeta(name="default", namespace="kube-system", uid="u"))
    given = Signer(tmp_path / "key", "https://issuer").sign(account, (), 600, 0.0)
    with pytest.raises(UnauthorizedError):
        access.check(request(f"Bearer {given}"))


def test_a_door_without_a_token_stays_shut(tmp_path: Path) -> None:
    with pytest.raises(UnauthorizedError):
        Access(tmp_path, "").check(request("Bearer "))


# Over TLS


class Door:
    """An Access that serves one answer, which :attr:`ready` holds back."""

    def __init__(self, directory: Path, listen: str = "127.0.0.1:0") -> None:
        self.access = Access(directory, listen)
        self.ready = asyncio.Event()
        self.ready.set()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            self.access.check(request)  # type: ignore[arg-type]
        except UnauthorizedError:
            return web.Response(status=401)
        await self.ready.wait()
        return web.Response(text="come in")

    async def connect(self, sent: bytes | None = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """None: without a handshake."""
        document = self.access.document()
        address = urlsplit(document["server"])
        context = None if sent is None else ssl.create_default_context(cadata=self.access.certificate())
        reader, writer = await asyncio.open_connection(address.hostname, address.port, ssl=context)
        writer.write(sent or b"")
        return reader, writer

    async def ask(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        token = self.access.document()["token"]
        return await self.connect(f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n".encode())


@pytest.fixture
async def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    """Without a time limit but for the tests that set one."""
    monkeypatch.setattr(strangers, "PATIENCE", 600)
    made = Door(tmp_path / "access")
    server = web.Server(made.answer)
    assert await made.access.start(server, 100)
    try:
        yield made
    finally:
        made.access.stop()
        await server.shutdown(0)


async def cut_off(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server has had enough."""
    found = b""
    async with asyncio.timeout(scaled(10)):
        with contextlib.suppress(ConnectionResetError):
            while content := await reader.read(1024):
                found += content
    return found


STRANGERS = {
    "no handshake": None,
    "nothing": b"",
    "half a request": b"GET / HTTP/1.1\r\nHost:",
    "no token": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("case", STRANGERS)
async def test_who_shows_no_token_is_cut_off(door: Door, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.setattr(strangers, "PATIENCE", 0.5)
    reader, writer = await door.connect(STRANGERS[case])
    try:
        answer = await cut_off(reader)
        assert answer.startswith(b"HTTP/1.1 401") if case == "no token" else not answer
    finally:
        writer.close()


@pytest.mark.parametrize("sent", [None, b""], ids=["no handshake", "nothing"])
async def test_a_crowd_without_the_token_takes_nobody_s_place(
    door: Door, monkeypatch: pytest.MonkeyPatch, sent: bytes | None
) -> None:
    monkeypatch.setattr(strangers, "MOST", 20)
    crowd = [await door.connect(sent) for _ in range(60)]
    try:
        reader, writer = await door.ask()
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        for one, _ in crowd[:40]:
            assert await cut_off(one) == b""
    finally:
        for _, other in crowd:
            other.close()


async def test_who_has_shown_the_token_may_stay(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "PATIENCE", scaled(0.5))
    monkeypatch.setattr(strangers, "MOST", 1)
    door.ready.clear()
    reader, writer = await door.ask()
    await asyncio.sleep(scaled(1.0))  # twice what a stranger has
    crowd = [await door.connect() for _ in range(3)]
    door.ready.set()
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    for _, one in ((reader, writer), *crowd):
        one.close()


async def test_a_port_that_is_taken(door: Door, tmp_path: Path) -> None:
    other = Access(tmp_path / "other", door.access.document()["server"].removeprefix("https://"))
    with pytest.raises(UnavailableError, match=r"listen: can't bind 127.0.0.1:\d+: "):
        await other.start(web.Server(door.answer), 100)
