"""Port forwarding over SPDY, raw and inside a websocket, to a real server behind a fake agent."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from podrt.streaming import forward, spdy
from tests.framework.spdy import Refused, SpdyClient, Tunnel
from tests.unit.test_api_server import PODS, Harness, serving

URL = f"http://podrt{PODS}/p/portforward"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers when it has read to the end."""
    writer.write(b"%d bytes" % len(await reader.read()))
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def pod_server(api: Harness, handle: Serve) -> AsyncIterator[None]:
    server = await asyncio.start_server(handle, "127.0.0.1", 0)  # type: ignore[arg-type]
    api.agent.port = server.sockets[0].getsockname()[1]
    async with server:
        yield


@pytest.fixture
async def api(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Harness]:
    async with serving(tmp_path) as harness, pod_server(harness, count):
        await harness.pod()
        yield harness
    assert not [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


@pytest.fixture(params=["raw", "tunnel"])
async def kubectl(api: Harness, request: pytest.FixtureRequest) -> AsyncIterator[SpdyClient]:
    if request.param == "raw":
        async with await SpdyClient.dial(URL, "portforward.k8s.io", socket=api.config.socket) as client:
            assert client.protocol == "portforward.k8s.io"
            yield client
    else:
        async with api.http.ws_connect(URL, protocols=(forward.TUNNEL_PROTOCOL,)) as socket:
            assert socket.protocol == forward.TUNNEL_PROTOCOL
            yield SpdyClient(Tunnel(socket))


async def test_connections_side_by_side_and_half_closed(api: Harness, kubectl: SpdyClient) -> None:
    first, one = await kubectl.connect(80, "0")
    second, two = await kubectl.connect(443, "1")
    for _ in range(50):
        await kubectl.send(one, b"x" * 30_000)
    await kubectl.send(two, b"abc", last=True)
    await kubectl.finished(second, two)
    assert (kubectl.got[two], kubectl.got.get(second), kubectl.ended) == (b"3 bytes", b"", {second, two})
    await kubectl.send(one, last=True)
    await kubectl.finished(first, one)
    assert kubectl.got[one] == b"1500000 bytes" and api.agent.asked == [80, 443]


async def test_a_closed_port_is_told_and_leaves_the_others(api: Harness, kubectl: SpdyClient) -> None:
    _, good = await kubectl.connect(80, "0")
    port, api.agent.port = api.agent.port, 1
    error, bad = await kubectl.connect(81, "1")
    await kubectl.finished(error, bad)
    assert kubectl.got[error].startswith(b"error forwarding port 81: Connect") and kubectl.got[bad] == b""
    api.agent.port = port
    await kubectl.send(good, b"abc", last=True)
    await kubectl.finished(good)
    assert kubectl.got[good] == b"3 bytes"
    await kubectl.wire.write(spdy.ping(9))
    await kubectl.until(lambda: 9 in kubectl.pongs)


async def test_streams_that_make_no_sense_are_refused(kubectl: SpdyClient) -> None:
    for kind, port in (("frob", "80"), ("error", "0"), ("error", "x"), ("data", "65536"), ("error", "9" * 5000)):
        stream = await kubectl.open(kind, port=port, requestID="0")
        assert kubectl.reset[stream] == spdy.REFUSED_STREAM
    error, _ = await kubectl.connect(80)
    again = await kubectl.open("data", port="80", requestID="0")
    assert kubectl.reset[again] == spdy.REFUSED_STREAM and error not in kubectl.reset


async def test_data_may_come_first_and_old_clients_name_no_request(kubectl: SpdyClient) -> None:
    data = await kubectl.open("data", port="80", requestID="7")
    await kubectl.open("error", port="80", requestID="7")
    await kubectl.send(data, b"ab", last=True)
    await kubectl.finished(data)
    await kubectl.open("error", port="80")
    old = await kubectl.open("data", port="80")
    await kubectl.send(old, b"abcd", last=True)
    await kubectl.finished(old)
    assert (kubectl.got[data], kubectl.got[old]) == (b"2 bytes", b"4 bytes")


async def test_half_a_pair_is_given_up(kubectl: SpdyClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "_PAIRING", 0.1)
    error = await kubectl.open("error", port="80", requestID="0")
    await kubectl.finished(error)
    again, data = await kubectl.connect(80)
    await kubectl.send(data, last=True)
    await kubectl.finished(again, data)
    assert kubectl.got[data] == b"0 bytes"


async def test_there_is_a_bound_of_connections(kubectl: SpdyClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "MAX_CONNECTIONS", 3)
    pairs = [await kubectl.connect(80, str(number)) for number in range(3)]
    more = await kubectl.open("error", port="80", requestID="3")
    assert kubectl.reset[more] == spdy.REFUSED_STREAM
    await kubectl.send(pairs[0][1], last=True)
    await kubectl.finished(*pairs[0])
    for request in itertools.count(4):
        stream = await kubectl.open("error", port="80", requestID=str(request))
        if stream in kubectl.replied:
            break


async def test_a_reset_ends_one_connection_with_its_error_stream(kubectl: SpdyClient) -> None:
    """kubectl resets the data stream once its own side has gone, then waits for the end of the error stream."""
    first, one = await kubectl.connect(80, "0")
    _, two = await kubectl.connect(80, "1")
    await kubectl.wire.write(spdy.reset(one, spdy.CANCEL))
    await kubectl.finished(first)
    await kubectl.send(two, b"abc", last=True)
    await kubectl.finished(two)
    assert kubectl.got[two] == b"3 bytes" and one not in kubectl.got


async def test_a_reset_that_comes_with_the_stream_leaves_its_place(
    kubectl: SpdyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "MAX_CONNECTIONS", 1)
    for number in (1001, 1003, 1005):
        opening = kubectl._encoder.open(number, {"streamType": "data", "port": "80", "requestID": str(number)})
        await kubectl.wire.write(opening + spdy.reset(number, spdy.CANCEL) + spdy.ping(number))
        await kubectl.until(lambda number=number: number in kubectl.pongs)
        assert number not in kubectl.reset, "refused"


async def test_garbage_ends_the_connection(kubectl: SpdyClient) -> None:
    _, one = await kubectl.connect(80)
    await kubectl.wire.write(b"\xff" * 100)
    await kubectl.until(lambda: kubectl.away)
    await kubectl.until(lambda: kubectl.closed)
    assert kubectl.got.get(one, b"") in (b"", b"0 bytes")


async def test_the_client_that_goes_takes_its_connections_with_it(api: Harness, kubectl: SpdyClient) -> None:
    gone: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        gone.set_result(await reader.read())
        writer.close()

    async with pod_server(api, handle):
        _, one = await kubectl.connect(80)
        await kubectl.until(lambda: kubectl.got.get(one) == b"hello")
        await kubectl.send(one, b"bye")
        await kubectl.wire.close()
        assert await asyncio.wait_for(gone, 5) in (b"bye", b"")


async def test_a_pod_that_does_not_read_holds_the_client_back(api: Harness, kubectl: SpdyClient) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stop.wait()
        writer.transport.abort()

    stop = asyncio.Event()
    async with pod_server(api, handle):
        error, one = await kubectl.connect(80)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(0.5):
                    await kubectl.send(one, b"x" * 65536)
                sent += 65536
                assert sent < 64 << 20, "nobody holds the client back"
        stop.set()
        await kubectl.finished(error, one)


async def test_megabytes_in_both_directions_at_once(api: Harness, kubectl: SpdyClient) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    block = bytes(range(256)) * 390
    async with pod_server(api, echo):
        pairs = [await kubectl.connect(80, str(number)) for number in range(3)]

        async def send(stream: int) -> None:
            for _ in range(30):
                await kubectl.send(stream, block)
            await kubectl.send(stream, last=True)

        every = [stream for pair in pairs for stream in pair]
        await asyncio.gather(kubectl.finished(*every), *(send(data) for _, data in pairs))
    assert all(kubectl.got[data] == block * 30 for _, data in pairs)


async def test_spdy_wants_its_own_protocol(api: Harness) -> None:
    with pytest.raises(Refused) as caught:
        await SpdyClient.dial(URL, "v4.channel.k8s.io", socket=api.config.socket)
    assert caught.value.status == 403 and b"use portforward.k8s.io" in caught.value.body
