"""A small HTTP/1.1 client over a unix socket.

``http.client`` would do, but it imports the email package: 20 ms of CPU time, half of what ``podrt get pods`` takes as
a whole (43 ms with click, json and socket; 62 ms with http.client too). What is needed of HTTP is little: one request
for each connection, bodies by length, chunked or up to the end, and the upgrade to a websocket.

While a body is uploaded, what the server answers meanwhile (progress, or an early refusal) is read: a client that only
writes and a server that only writes would wait for each other.
"""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from podrt.cli.errors import CliError, from_response

if TYPE_CHECKING:
    from podrt.cli.websocket import WebSocket

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io, application/json"

Query = Mapping[str, object] | Sequence[tuple[str, object]]
Body = bytes | Iterable[bytes] | None

_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")
_MAX_HEAD = 256 * 1024
_NO_ANSWER = "the daemon closed the connection before it answered; see its log"
_CUT_ANSWER = "the daemon closed the connection in the middle of its answer; see its log"


def quote(text: str) -> str:
    """Percent-encode everything but RFC 3986's unreserved characters, ``/`` too."""
    return "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in text.encode("utf-8", "surrogateescape"))


def encode_query(query: Query | None) -> str:
    """``?a=1&b=x``, or nothing; None and "" leave a parameter out, booleans are written ``true`` and ``false``."""
    if not query:
        return ""
    pairs = query.items() if isinstance(query, Mapping) else query
    parts = []
    for key, value in pairs:
        if value is None or value == "":
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        parts.append(f"{quote(key)}={quote(text)}")
    return "?" + "&".join(parts) if parts else ""


class Stream:
    """A connected socket with a read buffer."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()
        self.eof = False

    def fill(self) -> bool:
        """Receive once into the buffer; False at the end of the stream."""
        if self.eof:
            return False
        data = self.sock.recv(256 * 1024)
        self.buffer += data
        self.eof = not data
        return not self.eof

    def take(self, count: int) -> bytes:
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def read_until(self, mark: bytes, limit: int = _MAX_HEAD, cut: str = _NO_ANSWER) -> bytes:
        """Up to and with ``mark``. Raises CliError if the stream ends (``cut``) or ``limit`` is passed before."""
        start = 0
        while (at := self.buffer.find(mark, start)) < 0:
            start = max(0, len(self.buffer) - len(mark))
            if len(self.buffer) > limit:
                raise CliError("the daemon's answer is not HTTP")
            if not self.fill():
                raise CliError(cut)
        return self.take(at + len(mark))

    def read_some(self, limit: int) -> bytes:
        """Between 1 and ``limit`` bytes; b"" at the end."""
        if not self.buffer and not self.fill():
            return b""
        return self.take(limit)

    def send(self, data: bytes) -> None:
        """Send all of ``data``; whatever arrives meanwhile is kept in the buffer."""
        view = memoryview(data)
        poller = select.poll()
        poller.register(self.sock, select.POLLIN | select.POLLOUT)
        while view:
            for _, event in poller.poll():
                if event & (select.POLLIN | select.POLLHUP) and not self.eof and not self.fill():
                    poller.modify(self.sock, select.POLLOUT)
                if event & (select.POLLOUT | select.POLLERR):
                    view = view[self.sock.send(view, socket.MSG_DONTWAIT) :]

    def close(self) -> None:
        self.sock.close()


class Response:
    """The head of an answer; its body is read on demand. A context manager that closes the connection."""

    def __init__(self, stream: Stream, method: str) -> None:
        self.stream = stream
        self.code, lines = _read_head(stream)
        while 100 <= self.code < 200 and self.code != 101:  # 100 Continue and the like announce the answer
            self.code, lines = _read_head(stream)
        self.headers: dict[str, str] = {}
        self.warnings: list[str] = []
        for line in lines:
            name, _, value = line.partition(":")
            if name.lower() == "warning":
                self.warnings.append(_warning_text(value))
            self.headers[name.lower()] = value.strip()
        self._chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length", "")
        self._left = int(length) if length.isdigit() and not self._chunked else -1
        if method == "HEAD" or self.code in (101, 204, 304):
            self._left = 0
            self._chunked = False

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def chunks(self, limit: int = 256 * 1024) -> Iterator[bytes]:
        """The body as it arrives. Raises CliError if the connection breaks in the middle."""
        try:
            yield from self._body(limit)
        except ConnectionError:  # a reset instead of an end: the daemon went with something of ours unread
            raise CliError(_CUT_ANSWER) from None

    def _body(self, limit: int) -> Iterator[bytes]:
        if self._chunked:
            yield from self._chunked_body(limit)
            return
        while self._left:
            data = self.stream.read_some(limit if self._left < 0 else min(limit, self._left))
            if not data:
                if self._left > 0:
                    raise CliError(_CUT_ANSWER)
                return
            if self._left > 0:
                self._left -= len(data)
            yield data

    def _chunked_body(self, limit: int) -> Iterator[bytes]:
        while True:
            size_text = self.stream.read_until(b"\r\n", cut=_CUT_ANSWER).split(b";")[0].strip()
            try:
                size = int(size_text, 16)
            except ValueError:
                size = -1
            if size < 0:
                raise CliError("the daemon's answer is not HTTP")
            if size == 0:
                return
            while size:
                data = self.stream.read_some(min(limit, size))
                if not data:
                    raise CliError(_CUT_ANSWER)
                size -= len(data)
                yield data
            self.stream.read_until(b"\r\n", cut=_CUT_ANSWER)

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def lines(self) -> Iterator[bytes]:
        """The body by lines, without their ends; the last one also if nothing ends it."""
        rest = bytearray()
        for chunk in self.chunks():
            rest += chunk
            if b"\n" not in chunk:
                continue
            *whole, tail = bytes(rest).split(b"\n")
            rest = bytearray(tail)
            yield from whole
        if rest:
            yield bytes(rest)


def _read_head(stream: Stream) -> tuple[int, list[str]]:
    """Status code and header lines. Raises CliError if it is no HTTP."""
    first, *lines = stream.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
    parts = first.split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
        raise CliError("the daemon's answer is not HTTP")
    return int(parts[1]), lines


def _warning_text(value: str) -> str:
    """The text of an RFC 7234 Warning header: ``299 - "text"``."""
    _, _, text = value.partition('"')
    return text.rpartition('"')[0].replace('\\"', '"') or value.strip()


class Client:
    """Requests to the daemon at the unix socket ``path``."""

    def __init__(self, path: str, on_warning: Any = None) -> None:
        self.path = path
        self._on_warning = on_warning

    def connect(self) -> Stream:
        """A connection. Raises CliError that says why there is none and what to do."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(self.path)
        except OSError as error:
            sock.close()
            raise CliError(explain_connect(self.path, error)) from None
        return Stream(sock)

    def open(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        doing: str = "",
    ) -> Response:
        """Send a request and read the head of the answer. Raises ApiError for codes of 400 and above.

        ``body``: bytes, or an iterable of bytes that is sent chunked (by length if ``headers`` have a Content-Length).
        """
        stream = self.connect()
        try:
            response = self._exchange(stream, method, path + encode_query(query), body, headers or {})
            if response.code >= 400:
                raise from_response(response.code, response.read(), doing)
        except OSError as error:
            stream.close()
            raise CliError(f"lost the connection to the daemon at {self.path}: {error.strerror or error}") from None
        except BaseException:
            stream.close()
            raise
        for text in response.warnings:
            if self._on_warning is not None:
                self._on_warning(text)
        return response

    def _exchange(self, stream: Stream, method: str, target: str, body: Body, headers: Mapping[str, str]) -> Response:
        head = {"Host": "podrt", "User-Agent": "podrt", "Accept": "application/json", "Connection": "close"}
        head |= headers
        streamed = body is not None and not isinstance(body, bytes)
        if isinstance(body, bytes):
            head["Content-Length"] = str(len(body))
        elif streamed and "Content-Length" not in head:
            head["Transfer-Encoding"] = "chunked"
        text = (
            f"{method} {target} HTTP/1.1\r\n" + "".join(f"{key}: {value}\r\n" for key, value in head.items()) + "\r\n"
        )
        try:
            stream.send(text.encode("latin-1", "replace") + (body if isinstance(body, bytes) else b""))
            if body is not None and not isinstance(body, bytes):
                _send_body(stream, body, chunked="Transfer-Encoding" in head)
        except (BrokenPipeError, ConnectionResetError):
            if not stream.buffer:  # else: refused before all was sent, and the buffer has the reason
                raise
        return Response(stream, method)

    def json(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: object = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        doing: str = "",
    ) -> dict[str, Any]:
        """One request with JSON both ways. Raises ApiError, or CliError if the answer is no JSON object."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Accept": accept}
        if data is not None:
            headers["Content-Type"] = content_type
        with self.open(method, path, query, data, headers, doing) as response:
            text = response.read()
        try:
            value = json.loads(text) if text else {}
        except ValueError:
            raise CliError(f"{method} {path}: the daemon's answer is not JSON") from None
        if not isinstance(value, dict):
            raise CliError(f"{method} {path}: the daemon's answer is not an object")
        return value

    def get(self, path: str, query: Query | None = None, accept: str = "application/json") -> dict[str, Any]:
        return self.json("GET", path, query, accept=accept)

    def watch(
        self, path: str, query: Query | None = None, accept: str = "application/json"
    ) -> Iterator[dict[str, Any]]:
        """Watch events ``{"type", "object"}``, bookmarks too. Raises ApiError for an ERROR event."""
        pairs = list(query.items() if isinstance(query, Mapping) else query or ())
        pairs += [("watch", True), ("allowWatchBookmarks", True)]
        with self.open("GET", path, pairs, headers={"Accept": accept}) as response:
            for line in response.lines():
                if not line.strip():
                    continue
                event = json.loads(line)
                if event.get("type") == "ERROR":
                    raise from_response(int(event["object"].get("code") or 500), json.dumps(event["object"]).encode())
                yield event

    def websocket(self, path: str, query: Query | None, protocols: Sequence[str]) -> WebSocket:
        """Upgrade to a websocket that speaks one of ``protocols``. Raises ApiError if the server refuses."""
        from podrt.cli.websocket import connect

        return connect(self, path + encode_query(query), protocols)


def _send_body(stream: Stream, body: Iterable[bytes], chunked: bool) -> None:
    for piece in body:
        if piece:
            stream.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
    if chunked:
        stream.send(b"0\r\n\r\n")


def explain_connect(path: str, error: OSError) -> str:
    """Why there is no connection to the daemon, and what the reader can do."""
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        why = "does not exist" if isinstance(error, FileNotFoundError) else "has no listener"
        return (
            f"the podrt daemon is not running ({path} {why}). Start it with 'sudo systemctl start podrtd', "
            "or 'sudo podrtd' without systemd; --socket or PODRT_SOCKET name another socket"
        )
    if isinstance(error, PermissionError):
        return (
            f"permission denied on {path}: you must be in group podrt "
            "('sudo usermod -aG podrt $USER', then log in again) or use sudo"
        )
    return f"can't connect to the podrt daemon at {path}: {error.strerror or error}"
