"""The smallest HTTP/1.1 client that probes and hooks need: one GET over a socket of its own, without a session.

A probe is a few system calls, so the client must be too: it tries each call first and waits only where the kernel says
so (a connection over the Pod's veth is mostly there when connect(2) returns). No pool of connections, no proxy, no
cookies, no TLS verification; the body is read up to :data:`BODY_BYTES`.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import ipaddress
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

HEAD_BYTES = 64 * 1024
BODY_BYTES = 10 * 1024
MAX_REDIRECTS = 10
_CHUNK = 16 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Answer(NamedTuple):
    """``elsewhere``: the answer is a redirect to another host, which is not followed."""

    code: int
    body: bytes
    elsewhere: bool = False


class HttpError(Exception):
    """There was no usable answer; the text is in the words of a kubelet's probe."""


async def get(
    scheme: str, host: str, port: int, path: str, headers: Sequence[tuple[str, str]], timeout: float
) -> Answer:
    """GET ``scheme://host:port/path``, redirects on the same host followed. Raises HttpError."""
    url = f"{scheme.lower()}://{authority(host, port)}{path if path.startswith('/') else '/' + path}"
    try:
        async with asyncio.timeout(timeout):
            return await _follow(url, headers)
    except TimeoutError:
        text = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        raise HttpError(f'Get "{url}": {text}') from None


async def _follow(url: str, headers: Sequence[tuple[str, str]]) -> Answer:
    first = urlsplit(url).hostname
    for _ in range(MAX_REDIRECTS):
        code, fields, body = await _one(url, headers)
        target = fields.get("location", "")
        if code not in _REDIRECTS or not target:
            return Answer(code, body)
        url = urljoin(url, target)
        parts = urlsplit(url)
        if parts.hostname != first or parts.scheme not in ("http", "https"):
            return Answer(code, body, elsewhere=True)
    raise HttpError(f'Get "{url}": stopped after {MAX_REDIRECTS} redirects')


def authority(host: str, port: int) -> str:
    """``host:port`` with the brackets of IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _one(url: str, headers: Sequence[tuple[str, str]]) -> tuple[int, Mapping[str, str], bytes]:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host = parts.hostname or ""
    try:
        port = parts.port or (443 if secure else 80)
    except ValueError as error:
        raise HttpError(f'Get "{url}": {error}') from None
    request = _request(parts.netloc, parts.path or "/", parts.query, headers)
    try:
        sock = await connect(host, port)
        try:
            data = await (_exchange_tls if secure else _exchange)(sock, request)
        finally:
            sock.close()
    except ssl.SSLError as error:
        raise HttpError(f'Get "{url}": tls: {error.reason or error}') from error
    except OSError as error:
        raise HttpError(f'Get "{url}": {dial_text(host, port, error)}') from error
    return _parse(url, data)


def dial_text(host: str, port: int, error: OSError) -> str:
    """An error of a connection as Go words it."""
    text = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
    return f"dial tcp {authority(host, port)}: connect: {text}"


def _request(netloc: str, path: str, query: str, headers: Sequence[tuple[str, str]]) -> bytes:
    target = f"{path}?{query}" if query else path
    given = {name.lower() for name, _ in headers}
    lines = [f"GET {target} HTTP/1.1"]
    for name, value in (("Host", netloc), ("User-Agent", "kube-probe/1.36"), ("Accept", "*/*")):
        if name.lower() not in given:
            lines.append(f"{name}: {value}")
    # An empty Accept or User-Agent means that the header is not sent.
    lines += [f"{name}: {value}" for name, value in headers if value or name.lower() not in ("accept", "user-agent")]
    lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


async def connect(host: str, port: int) -> socket.socket:
    """A connected non-blocking TCP socket. Raises OSError."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, host = found[0][0], str(found[0][4][0])
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        code = sock.connect_ex((host, port))
        if code == errno.EINPROGRESS:
            await _connected(sock)
        elif code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


async def _connected(sock: socket.socket) -> None:
    """Wait for the end of a handshake. On this machine it is mostly over already."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if not code:
        try:
            sock.getpeername()
            return
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
        await _ready(sock, writing=True)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


async def _ready(sock: socket.socket, *, writing: bool) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    add(sock.fileno(), _wake, future)
    try:
        await future
    finally:
        remove(sock.fileno())


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _exchange(sock: socket.socket, request: bytes) -> bytes:
    rest = memoryview(request)
    while rest:
        try:
            rest = rest[sock.send(rest) :]
        except BlockingIOError:
            await _ready(sock, writing=True)
    data = bytearray()
    while not _is_complete(data):
        try:
            chunk = sock.recv(_CHUNK)
        except BlockingIOError:
            await _ready(sock, writing=False)
            continue
        except ConnectionResetError:
            if b"\r\n\r\n" not in data:
                raise
            break
        if not chunk:
            break
        data += chunk
    return bytes(data)


async def _exchange_tls(sock: socket.socket, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(sock=sock.dup(), ssl=_unverified(), server_hostname="")
    try:
        writer.write(request)
        data = bytearray()
        while not _is_complete(data) and (chunk := await reader.read(_CHUNK)):
            data += chunk
        return bytes(data)
    finally:
        writer.transport.abort()


@functools.cache
def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _is_complete(data: bytearray) -> bool:
    """Is the answer there, or as much of it as is read of any answer?"""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return len(data) >= HEAD_BYTES
    length = BODY_BYTES
    for line in bytes(data[:end]).split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and value.strip().isdigit():
            length = min(int(value), BODY_BYTES)
    return len(data) >= end + 4 + length


def _parse(url: str, data: bytes) -> tuple[int, Mapping[str, str], bytes]:
    head, separator, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if not separator or not words[0].startswith("HTTP/1.") or len(words) < 2 or not words[1].isdigit():
        if not data:
            raise HttpError(f'Get "{url}": EOF')
        start = lines[0][:64]
        raise HttpError(
            f'Get "{url}": net/http: HTTP/1.x transport connection broken: malformed HTTP response "{start}"'
        )
    fields: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    return int(words[1]), fields, body[:BODY_BYTES]
