"""The bounded pipe between a connection that is read and one receiver."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podrt.streaming.pipe import LIMIT, Pipe


@given(st.lists(st.integers(0, 200_000), max_size=20), st.lists(st.booleans(), max_size=60))
@settings(max_examples=60, deadline=None)
def test_what_goes_in_comes_out_and_little_waits(sizes: list[int], turns: list[bool]) -> None:
    data = [bytes([number % 256]) * size for number, size in enumerate(sizes)]

    async def run() -> None:
        pipe = Pipe()
        ahead = 0

        async def put() -> None:
            nonlocal ahead
            for piece in data:
                ahead += len(piece)
                await pipe.put(piece)
                assert ahead <= LIMIT
            pipe.end()

        putting = asyncio.create_task(put())
        order = iter(turns)
        got = b""
        while piece := await pipe.get():
            got += piece
            ahead -= len(piece)
            assert len(piece) <= LIMIT + 200_000
            if next(order, False):
                await asyncio.sleep(0)
        await putting
        assert got == b"".join(data)

    asyncio.run(run())


async def test_a_receiver_that_takes_no_more_holds_nobody() -> None:
    pipe = Pipe()
    putting = asyncio.create_task(pipe.put(b"x" * (LIMIT + 1)))
    await asyncio.sleep(0)
    assert not putting.done()
    pipe.drop()
    await putting
    await pipe.put(b"x" * (LIMIT + 1))
    pipe.end()
    assert await pipe.get() == b""


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
async def test_a_peer_that_closes_behind_unread_bytes_is_noticed(
    family: socket.AddressFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podrt.streaming.pipe._PATIENCE", 0.05)
    ours, theirs = socket.socketpair() if family == socket.AF_UNIX else _tcp()
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                theirs.send(b"x" * 65536)
        pipe = Pipe(writer.transport)
        putting = asyncio.create_task(pipe.put(await reader.readexactly(1) * (LIMIT + 1)))
        await asyncio.sleep(0.2)
        assert not putting.done()  # the bytes that wait don't wake it
        theirs.close()
        if family == socket.AF_INET:
            # Its FIN stands in line behind what our window has no room for; a ping is answered with a reset.
            await asyncio.sleep(0.2)
            assert not putting.done()
            writer.write(b"ping")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(putting, 5)
    finally:
        theirs.close()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def _tcp() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        return server.accept()[0], theirs
