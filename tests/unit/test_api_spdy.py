"""SPDY frames, and kubectl's tunnel for port forwarding over a real websocket."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from podrt.api import spdy, tunnel
from tests.unit.test_api_server import PODS, Harness, serving


def test_the_dictionary_is_the_one_that_zlib_streams_name() -> None:
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2


def test_frames_in_odd_pieces() -> None:
    encoder = spdy.Encoder()
    sent = encoder.open(1, {"streamType": "error", "port": "80"}) + encoder.open(3, {"StreamType": "data"})
    sent += (
        spdy.data(3, b"hello") + spdy.pong(spdy.Ping(7)) + spdy.reset(1, spdy.REFUSED_STREAM) + spdy.data(3, b"", True)
    )
    sent += struct.pack(">HHII", 0x8003, 9, 4, 0)  # no frame that counts
    decoder = spdy.Decoder()
    found = [frame for index in range(0, len(sent), 3) for frame in decoder.feed(sent[index : index + 3])]
    assert found == [
        spdy.Opened(1, {"streamtype": "error", "port": "80"}, False),
        spdy.Opened(3, {"streamtype": "data"}, False),
        spdy.Data(3, b"hello", False),
        spdy.Ping(7),
        spdy.Reset(1),
        spdy.Data(3, b"", True),
    ]


def _opening(block: bytes) -> bytes:
    return struct.pack(">HHI", 0x8003, 1, 10 + len(block)) + struct.pack(">IIH", 1, 0, 0) + block


def _packed(text: bytes) -> bytes:
    packer = zlib.compressobj(zdict=spdy.DICTIONARY)
    return packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (struct.pack(">HHI", 0x8002, 6, 4) + b"1234", "version 2"),
        (struct.pack(">II", 1, (1 << 24) - 1), "too large"),
        (struct.pack(">HHI", 0x8003, 6, 2) + b"12", "too short"),
        (struct.pack(">HHI", 0x8003, 1, 0), "too short"),
        (_opening(b"not zlib"), "can't be read"),
        (_opening(zlib.compress(b"without the dictionary")), "too short|can't be read"),
        (_opening(_packed(struct.pack(">II", 1, 1 << 31))), "too short"),
        (_opening(_packed(struct.pack(">I", 1 << 30))), "too short"),
        (_opening(_packed(b"\0" * (1 << 20))), "too large"),
    ],
)
def test_what_breaks_the_protocol_is_said(sent: bytes, words: str) -> None:
    with pytest.raises(spdy.ProtocolError, match=words):
        list(spdy.Decoder().feed(sent))


# The tunnel


class Client:
    """kubectl's side."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.encoder = spdy.Encoder()
        self.decoder = spdy.Decoder()
        self.got: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.refused: set[int] = set()

    async def open(self, stream: int, kind: str, port: str = "80", request: str = "0") -> None:
        headers = {"streamType": kind, "port": port, "requestID": request}
        await self.socket.send_bytes(self.encoder.open(stream, headers))

    async def connect(self, stream: int, request: str = "0") -> None:
        await self.open(stream, "error", request=request)
        await self.open(stream + 2, "data", request=request)

    async def until(self, *ended: int) -> None:
        """Read until these streams have ended or were refused."""
        async with asyncio.timeout(10):
            while not set(ended) <= self.ended | self.refused:
                # Replies (SYN_REPLY) are no frames to the decoder, which is a server's.
                for frame in self.decoder.feed(await self.socket.receive_bytes()):
                    if isinstance(frame, spdy.Data):
                        self.got[frame.stream] = self.got.get(frame.stream, b"") + frame.data
                        if frame.last:
                            self.ended.add(frame.stream)
                    elif isinstance(frame, spdy.Reset):
                        self.refused.add(frame.stream)
                    elif isinstance(frame, spdy.Ping):
                        self.ended.add(-frame.number)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Harness]:
    """The API, and a server in the Pod that answers when it has read to the end."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"%d bytes" % len(await reader.read()))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with serving(tmp_path) as harness, server:
        await harness.pod()
        harness.agent.port = server.sockets[0].getsockname()[1]
        yield harness


@pytest.fixture
async def kubectl(api: Harness) -> AsyncIterator[Client]:
    url = f"http://podrt{PODS}/p/portforward"
    async with api.http.ws_connect(url, protocols=(tunnel.PROTOCOL,)) as socket:
        assert socket.protocol == tunnel.PROTOCOL
        yield Client(socket)


async def test_connections_side_by_side_and_half_closed(kubectl: Client) -> None:
    await kubectl.connect(1, "0")
    await kubectl.connect(5, "1")
    for _ in range(50):
        await kubectl.socket.send_bytes(spdy.data(3, b"x" * 30_000))
    await kubectl.socket.send_bytes(spdy.data(7, b"abc", last=True))
    await kubectl.until(5, 7)
    assert (kubectl.got[7], kubectl.got[5], kubectl.ended) == (b"3 bytes", b"", {5, 7})
    await kubectl.socket.send_bytes(spdy.data(3, b"", last=True))
    await kubectl.until(1, 3)
    assert kubectl.got[3] == b"1500000 bytes"


async def test_a_closed_port_is_told_on_the_error_stream(api: Harness, kubectl: Client) -> None:
    api.agent.port = 1
    await kubectl.connect(1)
    await kubectl.until(1, 3)
    assert kubectl.got[1].startswith(b"error forwarding port 80: Connect") and kubectl.got[3] == b""
    await kubectl.socket.send_bytes(struct.pack(">HHII", 0x8003, 6, 4, 9))
    await kubectl.until(-9)


async def test_streams_that_make_no_sense_are_refused(kubectl: Client) -> None:
    await kubectl.open(1, "data")  # its error stream must come first
    await kubectl.open(3, "frob")
    await kubectl.open(5, "error", port="0")
    await kubectl.open(7, "error", port="x")
    await kubectl.open(9, "error", port="9" * 5000)
    await kubectl.until(1, 3, 5, 7, 9)
    assert kubectl.refused == {1, 3, 5, 7, 9}


async def test_a_reset_ends_one_connection_and_garbage_the_tunnel(kubectl: Client) -> None:
    await kubectl.connect(1, "0")
    await kubectl.connect(5, "1")
    await kubectl.socket.send_bytes(spdy.reset(3, 5))
    await kubectl.socket.send_bytes(spdy.data(7, b"abc", last=True))
    await kubectl.until(7)
    assert kubectl.got[7] == b"3 bytes" and 3 not in kubectl.got
    await kubectl.socket.send_bytes(b"\xff" * 100)
    async with asyncio.timeout(5):
        while (await kubectl.socket.receive()).type is aiohttp.WSMsgType.BINARY:
            pass
    assert kubectl.socket.close_code == 1000
