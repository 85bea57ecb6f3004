"""RFC 6455 frames, and exec sessions against a websocket server on a unix socket."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pty
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from podrt.cli.client import Client, Stream
from podrt.cli.errors import ApiError, CliError
from podrt.cli.streams import PROTOCOL, Detached, Session, exit_code
from podrt.cli.terminal import DetachKeys, RawTerminal
from podrt.cli.websocket import ProtocolError, WebSocket, frame, mask, parse_frame
from tests.unit.test_cli_support import FakeServer, Handler, Request, client, server

__all__ = ["client", "server"]


def test_frames_of_the_rfc() -> None:
    """The examples of RFC 6455, section 5.7."""
    key = bytes.fromhex("37fa213d")
    assert frame(1, b"Hello", None) == bytes.fromhex("810548656c6c6f")
    assert frame(1, b"Hello", key) == bytes.fromhex("818537fa213d7f9f4d5158")
    assert parse_frame(bytearray.fromhex("818537fa213d7f9f4d5158")) == (True, 1, b"Hello")
    assert frame(2, bytes(256), None)[:4] == bytes.fromhex("827e0100")
    assert frame(2, bytes(65536), None)[:10] == bytes.fromhex("827f0000000000010000")


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 125, 126, 65535, 65536, 100_001])
def test_frame_round_trip_in_pieces(size: int) -> None:
    data = os.urandom(size)
    wire = frame(2, data, os.urandom(4))
    buffer = bytearray(wire[:-1]) if size else bytearray(wire[:3])
    assert parse_frame(buffer) is None
    buffer = bytearray(wire + b"more")
    assert parse_frame(buffer) == (True, 2, data)
    assert buffer == b"more"
    assert mask(mask(data, b"abcd"), b"abcd") == data


def pair() -> tuple[WebSocket, socket.socket]:
    ours, theirs = socket.socketpair()
    return WebSocket(Stream(ours), PROTOCOL), theirs


def test_fragments_pings_and_close() -> None:
    ws, peer = pair()
    with peer:
        peer.sendall(frame(2, b"ab", None, fin=False) + frame(9, b"hi", None) + frame(0, b"", None, fin=False))
        assert ws.receive() == []
        peer.sendall(frame(0, b"cd", None) + frame(8, b"\x03\xe8", None))
        assert ws.receive() == [b"abcd"]
        assert ws.closed
        ws.flush()
        answer = bytearray(peer.recv(1000))
        assert parse_frame(answer) == (True, 10, b"hi")
        assert parse_frame(answer) == (True, 8, b"\x03\xe8")
        ws.close()


@pytest.mark.parametrize(
    "wire",
    [
        frame(0, b"x", None),
        frame(2, b"x", None, fin=False) + frame(2, b"y", None),
        frame(9, b"x" * 126, None),
        frame(9, b"x", None, fin=False),
        frame(11, b"", None),
        frame(3, b"", None),
        b"\xc2\x00",
        b"\x82\x7f" + (1 << 40).to_bytes(8, "big"),
    ],
)
def test_a_peer_that_breaks_the_protocol_is_refused(wire: bytes) -> None:
    ws, peer = pair()
    with peer:
        peer.sendall(wire)
        with pytest.raises(ProtocolError):
            ws.receive()
        ws.close()


class Peer:
    """The server's side of one accepted websocket."""

    def __init__(self, handler: Handler) -> None:
        self._file = handler.rfile
        self._write = handler.wfile

    def send(self, payload: bytes, opcode: int = 2) -> None:
        self._write.write(frame(opcode, payload, None))
        self._write.flush()

    def receive(self) -> bytes | None:
        """A message, unmasked by hand; None for close."""
        head = self._file.read(2)
        if len(head) < 2 or head[0] & 15 == 8:
            return None
        assert head[1] & 0x80, "a client must mask"
        size = head[1] & 0x7F
        if size > 125:
            size = int.from_bytes(self._file.read(2 if size == 126 else 8), "big")
        key = self._file.read(4)
        data = self._file.read(size)
        return bytes(byte ^ key[index % 4] for index, byte in enumerate(data))

    def finish(self, status: dict[str, Any]) -> None:
        self.send(b"\x03" + json.dumps(status).encode())
        self.send(b"\x03\xe8", opcode=8)


def upgrade(serve: Callable[[Peer, Request], None], protocol: str = PROTOCOL, accept: str = "") -> Any:
    def answer(handler: Handler, request: Request) -> None:
        guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        digest = hashlib.sha1((request.headers["sec-websocket-key"] + guid).encode()).digest()
        handler.send_response(101)
        handler.send_header("Upgrade", "websocket")
        handler.send_header("Connection", "Upgrade")
        handler.send_header("Sec-WebSocket-Accept", accept or base64.b64encode(digest).decode())
        handler.send_header("Sec-WebSocket-Protocol", protocol)
        handler.end_headers()
        serve(Peer(handler), request)

    return answer


SUCCESS = {"kind": "Status", "status": "Success"}


def failure(code: int) -> dict[str, Any]:
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return {"kind": "Status", "status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}


def run(client: Client, stdin: int | None, keys: DetachKeys | None = None) -> tuple[int, bytes, bytes]:
    """A session whose stdout and stderr are read by threads; exit code and both outputs."""
    outputs: list[bytes] = [b"", b""]
    pipes = [os.pipe(), os.pipe()]

    def read(index: int) -> None:
        with open(pipes[index][0], "rb") as file:
            outputs[index] = file.read()

    threads = [threading.Thread(target=read, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    try:
        ws = client.websocket("/exec", None, [PROTOCOL])
        code = Session(ws, stdin, pipes[0][1], pipes[1][1], keys=keys).run()
    finally:
        for _, write in pipes:
            os.close(write)
        for thread in threads:
            thread.join()
    return code, outputs[0], outputs[1]


def test_exec_outputs_and_exit_code(server: FakeServer, client: Client) -> None:
    def serve(peer: Peer, _: Request) -> None:
        peer.send(b"\x01out")
        peer.send(b"\x02err")
        peer.send(b"\x01 more")
        peer.send(b"\x01")
        peer.finish(failure(7))

    server.routes["GET", "/exec"] = upgrade(serve)
    assert run(client, None) == (7, b"out more", b"err")


def test_exec_stdin_with_end(server: FakeServer, client: Client) -> None:
    def serve(peer: Peer, _: Request) -> None:
        data = b""
        while (message := peer.receive()) is not None:
            if message == b"\xff\x00":
                break
            assert message[0] == 0
            data += message[1:]
        peer.send(b"\x01" + data[::-1])
        peer.finish(SUCCESS)

    server.routes["GET", "/exec"] = upgrade(serve)
    read_end, write_end = os.pipe()
    os.write(write_end, b"hello")
    os.close(write_end)
    try:
        assert run(client, read_end) == (0, b"olleh", b"")
    finally:
        os.close(read_end)


def test_exec_echo_of_much_does_not_hang(server: FakeServer, client: Client) -> None:
    """Both directions are full at once, as with ``exec -i -- cat < large``."""
    total = 6 * 1024 * 1024

    def serve(peer: Peer, _: Request) -> None:
        while (message := peer.receive()) is not None and message != b"\xff\x00":
            peer.send(b"\x01" + bytes(len(message) - 1))
        peer.finish(SUCCESS)

    server.routes["GET", "/exec"] = upgrade(serve)
    read_end, write_end = os.pipe()

    def feed() -> None:
        with open(write_end, "wb") as file:
            file.write(b"x" * total)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        code, out, _ = run(client, read_end)
    finally:
        os.close(read_end)
        feeder.join()
    assert (code, len(out)) == (0, total)


def test_a_session_without_a_status_is_an_error(server: FakeServer, client: Client) -> None:
    server.routes["GET", "/exec"] = upgrade(lambda peer, _: peer.send(b"\x01x"))
    with pytest.raises(CliError, match="without a result"):
        run(client, None)


def test_a_refused_upgrade_is_the_servers_error(server: FakeServer, client: Client) -> None:
    status = {"kind": "Status", "reason": "BadRequest", "message": "container x is not valid", "code": 400}
    server.routes["GET", "/exec"] = lambda handler, _: handler.reply(400, status)
    with pytest.raises(ApiError, match="container x is not valid"):
        run(client, None)


@pytest.mark.parametrize(("protocol", "accept"), [("v1.other", ""), (PROTOCOL, "wrong")])
def test_a_wrong_handshake_is_refused(server: FakeServer, client: Client, protocol: str, accept: str) -> None:
    server.routes["GET", "/exec"] = upgrade(lambda *_: None, protocol, accept)
    with pytest.raises(ProtocolError):
        client.websocket("/exec", None, [PROTOCOL])


def test_exit_codes() -> None:
    assert exit_code(SUCCESS) == 0
    assert exit_code(failure(137)) == 137
    with pytest.raises(ApiError, match="no such file"):
        exit_code({"status": "Failure", "reason": "InternalError", "message": "exec: no such file"})


def test_detach_keys_also_in_pieces() -> None:
    keys = DetachKeys()
    assert keys.feed(b"ab\x10") == (b"ab", False)
    assert keys.feed(b"c") == (b"\x10c", False)
    assert keys.feed(b"\x10") == (b"", False)
    assert keys.feed(b"\x11x") == (b"", True)
    assert DetachKeys().feed(b"x\x10\x11y") == (b"x", True)


def test_detach_ends_the_session(server: FakeServer, client: Client) -> None:
    seen: list[bytes | None] = []
    done = threading.Event()

    def serve(peer: Peer, _: Request) -> None:
        while (message := peer.receive()) is not None:
            seen.append(message)
        done.set()

    server.routes["GET", "/exec"] = upgrade(serve)
    read_end, write_end = os.pipe()
    os.write(write_end, b"ls\x10\x11")
    try:
        with pytest.raises(Detached):
            run(client, read_end, DetachKeys())
    finally:
        os.close(read_end)
        os.close(write_end)
    assert done.wait(5)
    assert seen == [b"\x00ls"]


def test_the_terminal_is_put_back_after_an_error() -> None:
    import termios

    master, slave = pty.openpty()
    try:
        before = termios.tcgetattr(slave)
        with pytest.raises(RuntimeError), RawTerminal(slave):
            assert not termios.tcgetattr(slave)[3] & termios.ECHO
            raise RuntimeError
        assert termios.tcgetattr(slave) == before
    finally:
        os.close(master)
        os.close(slave)


def test_the_size_is_sent_first(server: FakeServer, client: Client) -> None:
    import fcntl
    import struct
    import termios

    seen: list[bytes | None] = []

    def serve(peer: Peer, _: Request) -> None:
        seen.append(peer.receive())
        peer.finish(SUCCESS)

    server.routes["GET", "/exec"] = upgrade(serve)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 81, 0, 0))
    try:
        ws = client.websocket("/exec", None, [PROTOCOL])
        assert Session(ws, slave, slave, slave, tty=True).run() == 0
    finally:
        os.close(master)
        os.close(slave)
    assert seen[0] is not None and seen[0][0] == 4
    assert json.loads(seen[0][1:]) == {"Width": 81, "Height": 24}
