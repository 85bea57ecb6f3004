"""The HTTP client against a small server on a unix socket."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from podrt.cli.client import Client, Stream, encode_query, explain_connect, quote
from podrt.cli.errors import ApiError, CliError
from podrt.cli.session import DEFAULT_SOCKET
from tests.unit.test_cli_support import FakeServer, Handler, Request, client, server

__all__ = ["client", "server"]


def test_default_socket_is_the_daemons() -> None:
    from podrt import config

    assert Path(DEFAULT_SOCKET) == config.DEFAULT_SOCKET


def test_quote_and_query() -> None:
    assert quote("a/b:c é~") == "a%2Fb%3Ac%20%C3%A9~"
    query = [("command", "sh"), ("command", "-c"), ("stdin", True), ("x", None), ("y", ""), ("n", 0)]
    assert encode_query(query) == "?command=sh&command=-c&stdin=true&n=0"
    assert encode_query({}) == ""


def test_json_both_ways(server: FakeServer, client: Client) -> None:
    server.routes["POST", "/x"] = {"ok": [1, "é"]}
    assert client.json("POST", "/x", {"fieldValidation": "Strict"}, {"a": 1}) == {"ok": [1, "é"]}
    request = server.requests[0]
    assert request.json == {"a": 1}
    assert request.headers["content-type"] == "application/json"
    assert request.param("fieldValidation") == "Strict"


def test_chunked_answer_in_odd_pieces(server: FakeServer, client: Client) -> None:
    def answer(handler: Handler, _: Request) -> None:
        handler.start_chunks()
        for data in (b'{"a', b'": 1}\n{"b":', b" 2}\n", b"tail"):
            handler.chunk(data)
            handler.wfile.flush()
        handler.wfile.write(b"0\r\n\r\n")

    server.routes["GET", "/lines"] = answer
    with client.open("GET", "/lines") as response:
        assert list(response.lines()) == [b'{"a": 1}', b'{"b": 2}', b"tail"]


def test_a_broken_chunked_answer_is_an_error_not_an_end(server: FakeServer, client: Client) -> None:
    def answer(handler: Handler, _: Request) -> None:
        handler.start_chunks()
        handler.wfile.write(b"10\r\nabc")

    server.routes["GET", "/x"] = answer
    with client.open("GET", "/x") as response, pytest.raises(CliError, match="in the middle"):
        response.read()


def test_a_watch_that_is_cut_between_two_events_is_an_error_in_the_middle(server: FakeServer, client: Client) -> None:
    """What a daemon that is killed does to its watchers: the next chunk has not begun."""

    def answer(handler: Handler, _: Request) -> None:
        handler.start_chunks()
        handler.chunk(b'{"type": "ADDED"}\n')

    server.routes["GET", "/x"] = answer
    seen = []
    with pytest.raises(CliError, match="in the middle of its answer"):
        for event in client.watch("/x"):
            seen.append(event)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabcde\r\n", "not HTTP"),
        (b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "not HTTP"),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", "in the middle"),
        (b"\r\n{", "in the middle"),
    ],
)
def test_a_daemon_that_dies_or_talks_nonsense(tmp_path: Path, answer: bytes, words: str) -> None:
    """A peer that closes with something unread resets the connection (unix(7)); that is no end of a body either."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen(1)

    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(10)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + answer)
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(CliError, match=words):
        Client(str(tmp_path / "s")).get("/x")
    thread.join()
    listener.close()


def test_informational_answers_are_passed_over(server: FakeServer, client: Client) -> None:
    def answer(handler: Handler, _: Request) -> None:
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
        handler.reply(200, {"a": 1})

    server.routes["POST", "/x"] = answer
    assert client.json("POST", "/x", None, {}) == {"a": 1}


def test_a_short_answer_is_an_error(server: FakeServer, client: Client) -> None:
    def answer(handler: Handler, _: Request) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"{}")

    server.routes["GET", "/x"] = answer
    with pytest.raises(CliError, match="in the middle"):
        client.get("/x")


def test_an_answer_that_is_not_http(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(b"SSH-2.0-x\r\n\r\n")
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(CliError, match="not HTTP"):
        Client(str(tmp_path / "s")).get("/")
    thread.join()
    listener.close()


def test_status_becomes_an_error(server: FakeServer, client: Client) -> None:
    status = {"kind": "Status", "reason": "NotFound", "message": 'pods "x" not found', "code": 404}
    server.routes["GET", "/x"] = lambda handler, _: handler.reply(404, status)
    with pytest.raises(ApiError) as caught:
        client.get("/x")
    assert caught.value.render() == 'Error from server (NotFound): pods "x" not found'
    assert caught.value.http_code == 404


@pytest.mark.parametrize(
    ("causes", "text"),
    [
        (
            [{"field": "spec.containers[0].image", "message": "Required value"}],
            'The Pod "w" is invalid: spec.containers[0].image: Required value',
        ),
        (
            [{"field": "a", "message": "x"}, {"field": "b", "message": "y"}],
            'The Pod "w" is invalid: \n* a: x\n* b: y',
        ),
        ([], 'The Pod "w" is invalid: m'),
    ],
)
def test_invalid_names_the_fields(causes: list[dict[str, str]], text: str) -> None:
    details = {"kind": "Pod", "name": "w", "causes": causes}
    assert ApiError({"reason": "Invalid", "message": "m", "details": details}).render() == text


def test_an_error_that_is_no_status_is_quoted(server: FakeServer, client: Client) -> None:
    server.routes["GET", "/x"] = lambda handler, _: handler.reply(502, b"bad gateway\n")
    with pytest.raises(ApiError, match="bad gateway"):
        client.get("/x")


def test_warnings_are_passed_on(server: FakeServer) -> None:
    seen: list[str] = []
    warning = '299 - "unknown field \\"spec.x\\""'
    server.routes["GET", "/x"] = lambda handler, _: handler.reply(200, {}, Warning=warning)
    Client(server.path, seen.append).get("/x")
    assert seen == ['unknown field "spec.x"']


def test_upload_is_chunked_or_by_length(server: FakeServer, client: Client) -> None:
    server.routes["POST", "/x"] = {}
    with client.open("POST", "/x", body=iter([b"abc", b"", b"d" * 100_000])) as response:
        response.read()
    with client.open("POST", "/x", body=iter([b"abc"]), headers={"Content-Length": "3"}) as response:
        response.read()
    assert [len(request.body) for request in server.requests] == [100_003, 3]
    assert "transfer-encoding" not in server.requests[1].headers


def test_an_upload_that_is_refused_in_the_middle_says_why(server: FakeServer, client: Client) -> None:
    def refuse(handler: Handler, _: Request) -> None:
        status = {"kind": "Status", "reason": "Forbidden", "message": "no room", "code": 507}
        handler.reply(507, status)
        handler.wfile.flush()

    refuse.reads_body = True  # type: ignore[attr-defined]
    server.routes["POST", "/x"] = refuse
    with pytest.raises(CliError, match=r"no room|lost the connection"):
        client.open("POST", "/x", body=(b"x" * 65536 for _ in range(2000)))


def test_an_upload_reads_what_is_answered_meanwhile(server: FakeServer, client: Client) -> None:
    """Both sides write more than a socket buffer holds before either has all: a client that only wrote would hang."""
    size = 8 * 1024 * 1024

    def answer(handler: Handler, _: Request) -> None:
        handler.start_chunks()
        handler.chunk(b"p" * size)
        body = handler._body()
        handler.chunk(str(len(body)).encode())
        handler.wfile.write(b"0\r\n\r\n")

    answer.reads_body = True  # type: ignore[attr-defined]
    server.routes["POST", "/x"] = answer
    with client.open("POST", "/x", body=(b"x" * 65536 for _ in range(size // 65536))) as response:
        assert response.read() == b"p" * size + str(size).encode()


def test_watch_events_and_error(server: FakeServer, client: Client) -> None:
    events: list[dict[str, Any]] = [
        {"type": "ADDED", "object": {"metadata": {"name": "a"}}},
        {"type": "ERROR", "object": {"kind": "Status", "reason": "Expired", "message": "too old", "code": 410}},
    ]
    body = b"".join(json.dumps(event).encode() + b"\n" for event in events)
    server.routes["GET", "/w"] = lambda handler, _: handler.reply(200, body)
    found = client.watch("/w", {"resourceVersion": "7"})
    assert next(found)["object"]["metadata"]["name"] == "a"
    with pytest.raises(ApiError, match="too old"):
        next(found)
    assert server.requests[0].param("watch") == "true"
    assert server.requests[0].param("allowWatchBookmarks") == "true"


def test_no_socket_says_that_the_daemon_is_not_running(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"is not running .* does not exist"):
        Client(str(tmp_path / "none")).get("/")


def test_a_dead_socket_says_that_nobody_listens(tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "s"))
    stale.close()
    with pytest.raises(CliError, match="has no listener"):
        Client(str(tmp_path / "s")).get("/")


def test_a_forbidden_socket_says_the_group() -> None:
    text = explain_connect("/run/podrt/podrt.sock", PermissionError(13, "Permission denied"))
    assert "group podrt" in text
    assert "sudo" in text


def test_a_path_that_is_too_long_is_an_error_of_the_user() -> None:
    with pytest.raises(CliError, match="too long"):
        Client("/tmp/" + "x" * 200).get("/")


def test_read_until_keeps_what_comes_after() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = Stream(ours)
        theirs.sendall(b"head\r")
        theirs.sendall(b"\n\r\nrest")
        assert stream.read_until(b"\r\n\r\n") == b"head\r\n\r\n"
        assert stream.read_some(100) == b"rest"
