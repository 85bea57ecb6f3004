"""Probes: the meaning of rows of results in virtual time, and the handlers against real servers on loopback."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from podrt.errors import ConflictError, DeadlineError
from podrt.model.container import (
    Container,
    ContainerPort,
    ExecAction,
    GRPCAction,
    HTTPGetAction,
    HTTPHeader,
    LifecycleHandler,
    Probe,
    SleepAction,
    TCPSocketAction,
)
from podrt.node import http_client
from podrt.node.facts import Live
from podrt.node.handlers import HandlerError, Outcome, Result, Target, run_probe
from podrt.node.hooks import HookError, run_hook
from podrt.node.probes import TOGETHER, Kind, Prober, after, asked_at, begin, runs

EXEC = ExecAction(command=("check",))


def probe(**fields: Any) -> Probe:
    given = {"period_seconds": 10, "timeout_seconds": 1, "success_threshold": 1, "failure_threshold": 3}
    return Probe(**given | fields)


@pytest.mark.fields(
    "spec.containers[].livenessProbe.successThreshold", "spec.containers[].livenessProbe.failureThreshold"
)
@pytest.mark.parametrize(
    ("kind", "results", "success", "passed", "held"),
    [
        (Kind.READINESS, "", 1, False, False),
        (Kind.READINESS, "+", 1, True, False),
        (Kind.READINESS, "++", 3, False, False),
        (Kind.READINESS, "+++", 3, True, False),
        (Kind.READINESS, "++-++", 3, False, False),
        (Kind.READINESS, "+--", 1, True, False),
        (Kind.READINESS, "+---", 1, False, False),
        (Kind.READINESS, "+-?--", 1, False, False),
        (Kind.READINESS, "+--+--", 1, True, False),
        (Kind.LIVENESS, "", 1, True, False),
        (Kind.LIVENESS, "--", 1, True, False),
        (Kind.LIVENESS, "---", 1, False, True),
        (Kind.LIVENESS, "--+--", 1, True, False),
        (Kind.LIVENESS, "???", 1, True, False),
        (Kind.STARTUP, "", 1, None, False),
        (Kind.STARTUP, "--", 1, None, False),
        (Kind.STARTUP, "--+", 1, True, True),
        (Kind.STARTUP, "---", 1, False, True),
    ],
)
def test_rows_of_results(kind: Kind, results: str, success: int, passed: bool | None, held: bool) -> None:
    """+ success, - failure, ? the handler could not be run. Failure threshold 3."""
    state = begin(kind, probe(), 0.0, 0.0)
    for sign in results:
        now = state.due
        state = after(state, probe(success_threshold=success), {"+": True, "-": False, "?": None}[sign], now)
        assert state.due == now + 10
    assert (state.passed, state.held) == (passed, held)


@pytest.mark.fields("spec.containers[].livenessProbe.initialDelaySeconds")
@pytest.mark.parametrize(("delay", "age", "due"), [(0, 0, 100), (5, 0, 105), (5, 3, 102), (5, 60, 100)])
def test_the_initial_delay_counts_from_the_start_of_the_container(delay: int, age: float, due: float) -> None:
    assert begin(Kind.LIVENESS, probe(initial_delay_seconds=delay), 100.0, age).due == due


def test_a_slow_probe_does_not_pile_up() -> None:
    state = begin(Kind.READINESS, probe(), 0.0, 0.0)
    assert after(state, probe(), True, 25.0).due == 25.0
    assert after(state, probe(), True, 1.0).due == 10.0


@pytest.mark.parametrize(
    ("kind", "started", "deleting", "expected"),
    [
        (Kind.STARTUP, False, False, True),
        (Kind.STARTUP, False, True, False),
        (Kind.LIVENESS, False, False, False),
        (Kind.LIVENESS, True, False, True),
        (Kind.LIVENESS, True, True, False),
        (Kind.READINESS, False, False, False),
        (Kind.READINESS, True, False, True),
        (Kind.READINESS, True, True, True),
    ],
)
def test_which_probes_run(kind: Kind, started: bool, deleting: bool, expected: bool) -> None:
    assert runs(begin(kind, probe(), 0.0, 0.0), started=started, deleting=deleting) is expected


def test_what_was_known_before_a_restart_of_the_daemon_stands() -> None:
    assert begin(Kind.STARTUP, probe(), 0.0, 9.0, True).held
    assert begin(Kind.READINESS, probe(), 0.0, 9.0, True).passed is True


def test_probes_due_at_about_the_same_time_are_asked_together() -> None:
    dues = [1000 + number / 1000 for number in range(1000)]
    asked = [asked_at(due) for due in dues]
    assert all(-1e-9 <= at - due < TOGETHER for at, due in zip(asked, dues, strict=True))
    assert len(set(asked)) <= 1 / TOGETHER + 1
    # A period of whole seconds stays one.
    assert asked_at(1001.237) - asked_at(1000.237) == pytest.approx(1)


# Handlers


class Engine:
    """exec_sync answers in turn; a number is an exit code, an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def exec_sync(self, container_id: str, argv: Any, timeout: float = 0, max_bytes: int = 0) -> Any:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer

        class Found:
            stdout, stderr, code = b"out", b"err", answer

        return Found()


def target(engine: Any = None, spec: Container | None = None) -> Target:
    return Target(engine, spec or Container(name="a"), "c" * 64, "127.0.0.1")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (0, Outcome(Result.SUCCESS, "outerr")),
        (3, Outcome(Result.FAILURE, "outerr")),
        (DeadlineError("late"), Outcome(Result.FAILURE, 'command timed out: "check" timed out after 1s')),
    ],
)
async def test_exec(answer: Any, expected: Outcome) -> None:
    assert await run_probe(probe(exec=EXEC), target(Engine(answer))) == expected


async def test_an_exec_that_cannot_be_asked_is_no_verdict() -> None:
    with pytest.raises(HandlerError):
        await run_probe(probe(exec=EXEC), target(Engine(ConflictError("not running"))))


@asynccontextmanager
async def serving(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], **options: Any
) -> AsyncIterator[int]:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(closing, "127.0.0.1", 0, **options)
    async with server:
        yield server.sockets[0].getsockname()[1]


def answering(answers: dict[str, str], seen: list[str]) -> Any:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        seen.append(head)
        path = head.split(" ")[1]
        if path == "/hang":
            await asyncio.sleep(30)
        writer.write(answers[path].replace("\n", "\r\n").encode())

    return handle


ANSWERS = {
    "/ok": "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
    "/endless": "HTTP/1.1 204 No Content\nContent-Length: 99999999\n\n" + "x" * 20000,
    "/399": "HTTP/1.1 399 X\n\n",
    "/400": "HTTP/1.1 400 X\n\n",
    "/500": "HTTP/1.0 500 X\n\n",
    "/away": "HTTP/1.1 302 X\nLocation: http://example.com/\nContent-Length: 4\n\nbye!",
    "/near": "HTTP/1.1 302 X\nLocation: /ok\n\n",
    "/near-bad": "HTTP/1.1 307 X\nLocation: /500\n\n",
    "/round": "HTTP/1.1 301 X\nLocation: /round\n\n",
    "/junk": "SSH-2.0-x\n",
    "/empty": "",
}


@pytest.mark.parametrize(
    ("path", "result", "text"),
    [
        ("/ok", Result.SUCCESS, ""),
        ("/endless", Result.SUCCESS, ""),
        ("/399", Result.SUCCESS, ""),
        ("/400", Result.FAILURE, "HTTP probe failed with statuscode: 400"),
        ("/500", Result.FAILURE, "HTTP probe failed with statuscode: 500"),
        ("/away", Result.WARNING, "Probe terminated redirects, Response body: bye!"),
        ("/near", Result.SUCCESS, ""),
        ("/near-bad", Result.FAILURE, "HTTP probe failed with statuscode: 500"),
        ("/round", Result.FAILURE, "stopped after 10 redirects"),
        ("/junk", Result.FAILURE, 'malformed HTTP response "SSH-2.0-x'),
        ("/empty", Result.FAILURE, "EOF"),
        ("/hang", Result.FAILURE, "context deadline exceeded"),
    ],
)
async def test_http(path: str, result: Result, text: str) -> None:
    async with serving(answering(ANSWERS, [])) as port:
        found = await run_probe(probe(http_get=HTTPGetAction(path=path, port=port)), target())
    assert found.result is result
    assert text in found.text


async def test_http_headers() -> None:
    seen: list[str] = []
    async with serving(answering(ANSWERS, seen)) as port:
        headers = (HTTPHeader(name="Host", value="me"), HTTPHeader(name="X-A", value="1"))
        await run_probe(probe(http_get=HTTPGetAction(path="/ok", port=port, http_headers=headers)), target())
        await run_probe(probe(http_get=HTTPGetAction(path="/ok", port=port)), target())
    assert "\r\nHost: me\r\n" in seen[0] and "\r\nX-A: 1\r\n" in seen[0] and seen[0].count("Host:") == 1
    assert f"\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: kube-probe/" in seen[1]


async def test_https_is_not_verified_and_plain_http_is_told(tmp_path: Any) -> None:
    certificate = tmp_path / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "1", "-subj", "/CN=x"]
    run = await asyncio.create_subprocess_exec(
        *command, "-keyout", str(certificate), "-out", str(tmp_path / "cert.pem"), stderr=asyncio.subprocess.DEVNULL
    )
    assert await run.wait() == 0
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", certificate)
    action = {"path": "/ok", "scheme": "HTTPS"}
    async with serving(answering(ANSWERS, []), ssl=context) as port:
        found = await run_probe(probe(http_get=HTTPGetAction(port=port, **action)), target())
        assert found.result is Result.SUCCESS, found
    async with serving(answering(ANSWERS, [])) as port:
        found = await run_probe(probe(http_get=HTTPGetAction(port=port, **action)), target())
        assert found.result is Result.FAILURE


async def test_tcp_and_port_names() -> None:
    async with serving(answering({}, [])) as port:
        spec = Container(name="a", ports=(ContainerPort(name="web", container_port=port),))
        found = await run_probe(probe(tcp_socket=TCPSocketAction(port="web")), target(spec=spec))
        assert found.result is Result.SUCCESS
    refused = await run_probe(probe(tcp_socket=TCPSocketAction(port=port)), target())
    assert refused == Outcome(Result.FAILURE, f"dial tcp 127.0.0.1:{port}: connect: connection refused")
    with pytest.raises(HandlerError, match="couldn't find port 'none'"):
        await run_probe(probe(tcp_socket=TCPSocketAction(port="none")), target())


def health_server(status: int | None, code: str = "0") -> Any:
    """A server made with h2, which answers Check and remembers nothing."""
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import DataReceived, RequestReceived, StreamEnded

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        sent = b""
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if isinstance(event, RequestReceived):
                    assert dict(event.headers)[":path"] == "/grpc.health.v1.Health/Check"
                elif isinstance(event, DataReceived):
                    sent += event.data
                elif isinstance(event, StreamEnded):
                    assert sent in (b"\0\0\0\0\0", b"\0\0\0\0\6\x0a\4name")
                    connection.send_headers(event.stream_id, [(":status", "200"), ("content-type", "application/grpc")])
                    if status is not None:
                        body = bytes([8, status]) if status else b""
                        connection.send_data(event.stream_id, b"\0" + len(body).to_bytes(4) + body)
                    trailers = [("grpc-status", code), ("grpc-message", "why")]
                    connection.send_headers(event.stream_id, trailers, end_stream=True)
            writer.write(connection.data_to_send())

    return handle


@pytest.mark.parametrize(
    ("status", "code", "service", "result", "text"),
    [
        (1, "0", "", Result.SUCCESS, ""),
        (1, "0", "name", Result.SUCCESS, ""),
        (2, "0", "", Result.FAILURE, 'service unhealthy (responded with "NOT_SERVING")'),
        (0, "0", "", Result.FAILURE, 'service unhealthy (responded with "UNKNOWN")'),
        (None, "5", "name", Result.FAILURE, 'unknown service "name"'),
        (None, "12", "", Result.FAILURE, "does not implement the grpc health protocol"),
        (None, "14", "", Result.FAILURE, "code = 14 desc = why"),
    ],
)
async def test_grpc(status: int | None, code: str, service: str, result: Result, text: str) -> None:
    async with serving(health_server(status, code)) as port:
        found = await run_probe(probe(grpc=GRPCAction(port=port, service=service)), target())
    assert found.result is result
    assert text in found.text


async def test_grpc_at_a_server_of_another_sort() -> None:
    async with serving(answering(ANSWERS, [])) as port:
        found = await run_probe(probe(grpc=GRPCAction(port=port)), target())
    assert found.result is Result.FAILURE


# The runner


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not check():
            await asyncio.sleep(0.005)


async def test_the_prober_tells_changes_only_and_gates_by_startup() -> None:
    changes: list[Live] = []
    events: list[str] = []
    engine = Engine(1, 0)
    one = probe(exec=EXEC, failure_threshold=3)
    spec = Container(name="a", startup_probe=one, readiness_probe=one, liveness_probe=one)
    prober = Prober(
        target(engine, spec),
        1.0,
        lambda kind, reason, text: events.append(f"{reason}: {text}"),
        lambda: changes.append(prober.report(Live())),
    )
    assert prober.report(Live()) == Live(started=False, ready=False, unhealthy="")
    await until(lambda: bool(events))
    assert events == ["Unhealthy: Startup probe failed: outerr"]
    assert engine.asked == 1
    prober.close()


async def test_the_prober_asks_liveness_and_readiness_once_started() -> None:
    changes: list[Live] = []
    one = probe(exec=EXEC)
    spec = Container(name="a", startup_probe=one, readiness_probe=one, liveness_probe=one)
    prober = Prober(target(Engine(0), spec), 1.0, lambda *_: None, lambda: changes.append(prober.report(Live())))
    await until(lambda: len(changes) == 2)
    assert changes == [Live(started=True, ready=False), Live(started=True, ready=True)]
    prober.close()


async def test_a_handler_error_is_tried_three_times_and_then_ignored() -> None:
    events: list[str] = []
    engine = Engine(ConflictError("not running"))
    spec = Container(name="a", liveness_probe=probe(exec=EXEC, failure_threshold=1))
    prober = Prober(target(engine, spec), 1.0, lambda *told: events.append(told[2]), lambda: None)
    await until(lambda: bool(events))
    assert (engine.asked, events) == (3, ["Liveness probe errored and resulted in unknown state: not running"])
    assert prober.report(Live()).unhealthy == ""
    prober.close()


@pytest.mark.fields("spec.containers[].lifecycle.preStop.sleep")
async def test_hooks() -> None:
    await run_hook(LifecycleHandler(sleep=SleepAction(seconds=0)), target())
    await run_hook(LifecycleHandler(exec=EXEC), target(Engine(0)))
    with pytest.raises(HookError, match="exited with 2"):
        await run_hook(LifecycleHandler(exec=EXEC), target(Engine(2)))
    async with serving(answering(ANSWERS, [])) as port:
        # The status code of a hook does not matter, and plain HTTP answers for HTTPS.
        await run_hook(LifecycleHandler(http_get=HTTPGetAction(path="/500", port=port)), target())
    with pytest.raises(HookError, match="connection refused"):
        await run_hook(LifecycleHandler(http_get=HTTPGetAction(path="/x", port=port)), target())


@pytest.mark.fields("spec.containers[].lifecycle.preStop.tcpSocket")
async def test_a_tcp_hook_is_taken_and_fails_as_under_a_kubelet() -> None:
    with pytest.raises(HookError, match="invalid handler"):
        await run_hook(LifecycleHandler(tcp_socket=TCPSocketAction(port=80)), target())


def test_urls_of_ipv6() -> None:
    assert http_client.authority("fd86::2", 80) == "[fd86::2]:80"
