"""exec, attach and port-forward of the CRI, over SPDY as kubelets and crictl ask for it, and over websockets."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import aiohttp
import pytest
from cri_api.v1 import api_pb2 as api

from tests.framework.cri import CriClient, refused, sandbox
from tests.framework.daemon import eventually
from tests.framework.patience import FACTOR
from tests.framework.remote import SPDY, WEBSOCKET, open_remote
from tests.framework.spdy import Refused, SpdyClient, Tunnel

pytestmark = pytest.mark.timeout(120 * FACTOR)
SERVER = (
    "mkdir -p /tmp/www; head -c 3000000 /dev/zero | tr '\\0' z > /tmp/www/z; exec busybox httpd -f -p 8080 -h /tmp/www"
)
HTTP = b"GET /z HTTP/1.0\r\n\r\n"


class Unit(NamedTuple):
    """A running container and its sandbox."""

    cri: CriClient
    box: str
    config: Any
    id: str

    def exec(self, *cmd: str, **flags: bool) -> str:
        flags = {"stdout": True, "stderr": not flags.get("tty")} | flags
        url: str = self.cri.call("Exec", container_id=self.id, cmd=cmd, **flags).url
        return url

    def run(self, *command: str, **fields: Any) -> Unit:
        """Another container of the sandbox."""
        made = self.cri.run(self.box, self.config, name=f"more-{random.random()}", command=command, **fields)
        return self._replace(id=made)


@pytest.fixture
def unit(cri: CriClient) -> Unit:
    config = sandbox("streams")
    box = cri.run_sandbox(config)
    return Unit(cri, box, config, cri.run(box, config))


@pytest.fixture(params=[SPDY, WEBSOCKET])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_exec(unit: Unit, protocol: str) -> None:
    url = unit.exec("sh", "-c", "echo out; echo err >&2; exit 7")
    async with open_remote(protocol, url, stderr=True) as remote:
        status = await remote.finish()
    assert (remote.stdout, remote.stderr) == (b"out\n", b"err\n")
    assert status["reason"] == "NonZeroExitCode" and status["details"]["causes"][0]["message"] == "7"


async def test_exec_reads_to_the_end_of_stdin(unit: Unit, protocol: str) -> None:
    async with open_remote(protocol, unit.exec("wc", "-c", stdin=True), stdin=True, stderr=True) as remote:
        for _ in range(100):
            await remote.send(b"x" * 10_000)
        await remote.close_stdin()
        assert (await remote.finish())["status"] == "Success"
    assert remote.stdout == b"1000000\n"


async def test_exec_with_a_terminal(unit: Unit, protocol: str) -> None:
    url = unit.exec("sh", "-c", "read x; stty size; echo got $x", stdin=True, tty=True)
    async with open_remote(protocol, url, stdin=True, tty=True) as remote:
        await remote.resize(77, 33)
        # The size and what is typed are two streams: neither waits for the other.
        await eventually_size(unit, b"33 77")
        await remote.send(b"word\n")
        assert (await remote.finish())["status"] == "Success"
    assert b"33 77\r\ngot word\r\n" in remote.stdout


async def eventually_size(unit: Unit, size: bytes) -> None:
    def seen() -> bool:
        found = unit.cri.exec(unit.id, "sh", "-c", "stty size < /dev/pts/0")
        return size.decode() in found[1]

    await asyncio.to_thread(lambda: eventually(seen) or pytest.fail("the terminal was not resized"))


async def test_a_command_that_is_not_there(unit: Unit, protocol: str) -> None:
    async with open_remote(protocol, unit.exec("nosuch"), stderr=True) as remote:
        status = await remote.finish()
    assert status["details"]["causes"][0]["message"] == "127" and "nosuch" in status["message"]


async def test_what_is_copied_is_the_same(unit: Unit, protocol: str) -> None:
    """As ``kubectl cp`` does it: an archive through stdin, and back through stdout."""
    data = random.Random(1).randbytes(20 << 20 if FACTOR == 1 else 2 << 20)
    async with open_remote(
        protocol, unit.exec("sh", "-c", "cat > /copy", stdin=True), stdin=True, stderr=True
    ) as there:
        for start in range(0, len(data), 32768):
            await there.send(data[start : start + 32768])
        await there.close_stdin()
        assert (await there.finish(100))["status"] == "Success"
    async with open_remote(protocol, unit.exec("cat", "/copy"), stderr=True) as back:
        assert (await back.finish(100))["status"] == "Success"
    assert hashlib.sha256(back.stdout).digest() == hashlib.sha256(data).digest()


async def test_a_client_that_goes_takes_its_command_with_it(unit: Unit, protocol: str) -> None:
    async with open_remote(protocol, unit.exec("sleep", "54321"), stderr=True):
        await asyncio.to_thread(_until, unit, True)
    await asyncio.to_thread(_until, unit, False)


def _until(unit: Unit, there: bool) -> None:
    assert eventually(lambda: ("sleep 54321" in unit.cri.exec(unit.id, "ps", "-o", "args")[1]) is there)


async def test_attach(unit: Unit, protocol: str) -> None:
    script = "while read x; do echo got $x; done; echo closed; exit 3"
    shell = unit.run("sh", "-c", script, stdin=True, stdin_once=True)
    flags = {"stdin": True, "stdout": True, "stderr": True}
    url = unit.cri.call("Attach", container_id=shell.id, **flags).url
    async with open_remote(protocol, url, **flags) as remote:
        await remote.send(b"one\n")
        await remote.until(lambda: remote.stdout == b"got one\n")
        await remote.close_stdin()
        # The exit code is the container's to tell, not the attachment's.
        assert (await remote.finish())["status"] == "Success"
    assert remote.stdout == b"got one\nclosed\n"
    assert eventually(lambda: unit.cri.status(shell.id).exit_code == 3)


async def test_stdin_once_ends_with_its_client(unit: Unit, protocol: str) -> None:
    shell = unit.run("sh", "-c", "read x; cat; exit 5", stdin=True, stdin_once=True)
    url = unit.cri.call("Attach", container_id=shell.id, stdin=True, stdout=True).url
    async with open_remote(protocol, url, stdin=True) as remote:
        await remote.send(b"one\ntwo\n")
        await remote.until(lambda: remote.stdout == b"two\n")
    assert await asyncio.to_thread(eventually, lambda: unit.cri.status(shell.id).exit_code == 5)


# Port forwarding


@pytest.fixture(params=["raw", "tunnel"])
async def forwarder(request: pytest.FixtureRequest, unit: Unit) -> AsyncIterator[SpdyClient]:
    async for client in forward(str(request.param), unit.cri, unit.box):
        yield client


async def forward(kind: str, cri: CriClient, box: str) -> AsyncIterator[SpdyClient]:
    url = cri.call("PortForward", pod_sandbox_id=box).url
    if kind == "raw":
        async with await SpdyClient.dial(url, "portforward.k8s.io") as client:
            yield client
        return
    tunnel = "SPDY/3.1+portforward.k8s.io"
    async with aiohttp.ClientSession() as http, http.ws_connect(url, protocols=(tunnel,)) as socket:
        assert socket.protocol == tunnel
        yield SpdyClient(Tunnel(socket))


async def test_port_forward(unit: Unit, forwarder: SpdyClient) -> None:
    unit.run("sh", "-c", SERVER)
    while True:  # until it listens
        first = await forwarder.connect(8080, f"try {forwarder._next}")
        await forwarder.send(first[1], HTTP)
        await forwarder.finished(*first)
        if not forwarder.got.get(first[0]):
            break
        assert b"error forwarding port 8080" in forwarder.got[first[0]]
    pairs = [await forwarder.connect(8080, str(number)) for number in range(3)]
    bad = await forwarder.connect(9, "bad")
    await forwarder.finished(*bad)
    assert b"error forwarding port 9: localhost:9 in the Pod: Connection refused" in forwarder.got[bad[0]]
    for _, data in pairs:
        await forwarder.send(data, HTTP)
    await forwarder.finished(*(stream for pair in pairs for stream in pair))
    for _, data in pairs:
        assert forwarder.got[data].partition(b"\r\n\r\n")[2] == b"z" * 3_000_000


@pytest.mark.parametrize("kind", ["raw", "tunnel"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_port_forward_into_the_hosts_network(cri: CriClient, kind: str, host: str) -> None:
    options = api.NamespaceOption(network=api.NODE)
    linux = api.LinuxPodSandboxConfig(security_context=api.LinuxSandboxSecurityContext(namespace_options=options))
    box = cri.run_sandbox(sandbox(linux=linux))

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    server = await asyncio.start_server(echo, host, 0)
    async with server:
        async for client in forward(kind, cri, box):
            error, data = await client.connect(server.sockets[0].getsockname()[1])
            await client.send(data, b"hello", last=True)
            await client.finished(error, data)
            assert (client.got[data], client.got[error]) == (b"hello", b"")


async def test_port_forward_by_channels(unit: Unit) -> None:
    """As the kubelet's own endpoint offers it: the ports are named in the URL, or in the request."""
    unit.run("sh", "-c", SERVER)
    assert eventually(lambda: ":1F90" in unit.cri.exec(unit.id, "cat", "/proc/net/tcp6", "/proc/net/tcp")[1])
    for fields, query in (({"port": [8080]}, ""), ({}, "?port=8080")):
        url = unit.cri.call("PortForward", pod_sandbox_id=unit.box, **fields).url + query
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(url, protocols=("v4.channel.k8s.io",)) as socket,
        ):
            assert [await socket.receive_bytes() for _ in range(2)] == [b"\x00\x90\x1f", b"\x01\x90\x1f"]
            await socket.send_bytes(b"\x00" + HTTP)
            got = b""
            async for message in socket:
                got += message.data[1:]
        assert got.partition(b"\r\n\r\n")[2] == b"z" * 3_000_000


# URLs


async def test_a_url_is_good_for_one_use_of_one_kind(unit: Unit) -> None:
    url = unit.exec("true")
    head, _, token = url.rpartition("/")
    assert head.startswith("http://127.0.0.1:") and head.endswith("/exec") and len(token) >= 22
    with pytest.raises(Refused) as other:
        await SpdyClient.dial(url.replace("/exec/", "/attach/"), "v4.channel.k8s.io")
    async with open_remote(SPDY, url, stderr=True) as remote:
        assert (await remote.finish())["status"] == "Success"
    with pytest.raises(Refused) as again:
        await SpdyClient.dial(url, "v4.channel.k8s.io")
    assert (other.value.status, again.value.status) == (404, 404)


async def test_plain_requests_are_refused(unit: Unit) -> None:
    async with aiohttp.ClientSession() as http:
        for url, code in ((unit.exec("true"), 400), (f"{unit.exec('true')}x", 400), (unit.exec("true")[:22], 404)):
            async with http.post(url) as answer:
                assert answer.status == code


def test_what_is_refused_before_there_is_a_url(unit: Unit) -> None:
    nobody = "0" * 64
    with refused("NOT_FOUND"):
        unit.cri.call("Exec", container_id=nobody, cmd=["true"], stdout=True)
    with refused("NOT_FOUND"):
        unit.cri.call("Attach", container_id=nobody, stdout=True)
    with refused("NOT_FOUND"):
        unit.cri.call("PortForward", pod_sandbox_id=nobody)
    with refused("INVALID_ARGUMENT", "cmd: required"):
        unit.cri.call("Exec", container_id=unit.id, stdout=True)
    with refused("INVALID_ARGUMENT", "at least one of them"):
        unit.exec("true", stdout=False, stderr=False)
    with refused("INVALID_ARGUMENT", "tty and stderr"):
        unit.exec("true", tty=True, stderr=True)
    with refused("INVALID_ARGUMENT", "tty and stderr"):
        unit.cri.call("Attach", container_id=unit.id, stdout=True, stderr=True, tty=True)
    unit.cri.stop(unit.id)
    with refused("FAILED_PRECONDITION", "not running"):
        unit.exec("true")
    unit.cri.stop_sandbox(unit.box)
    with refused("FAILED_PRECONDITION", "not ready"):
        unit.cri.call("PortForward", pod_sandbox_id=unit.box)
