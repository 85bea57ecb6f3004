"""Probes, lifecycle hooks and their handlers."""

from __future__ import annotations

from podrt.model.base import IntOrString
from podrt.model.container import (
    Container,
    ExecAction,
    GRPCAction,
    HTTPGetAction,
    Lifecycle,
    LifecycleHandler,
    Probe,
    SleepAction,
    TCPSocketAction,
)
from podrt.model.names import header_name_errors, port_name_errors, port_number_errors
from podrt.model.validation.causes import Causes

_PLAIN_SIGNALS = (
    "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP "
    "TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX"
)
SIGNALS = frozenset(
    [f"SIG{name}" for name in _PLAIN_SIGNALS.split(" ")]
    + [f"SIGRTMIN+{number}" for number in range(1, 16)]
    + [f"SIGRTMAX-{number}" for number in range(1, 15)]
)


def container_probes(causes: Causes, field: str, container: Container, grace: int | None) -> None:
    """All three probes and the hooks of a main container or sidecar."""
    probe(causes, f"{field}.livenessProbe", container.liveness_probe, single_success=True)
    probe(causes, f"{field}.readinessProbe", container.readiness_probe, single_success=False)
    probe(causes, f"{field}.startupProbe", container.startup_probe, single_success=True)
    if container.readiness_probe is not None and container.readiness_probe.termination_grace_period_seconds is not None:
        causes.invalid(
            f"{field}.readinessProbe.terminationGracePeriodSeconds",
            container.readiness_probe.termination_grace_period_seconds,
            "must not be set for readinessProbes",
        )
    lifecycle(causes, f"{field}.lifecycle", container.lifecycle, grace)


def probe(causes: Causes, field: str, value: Probe | None, *, single_success: bool) -> None:
    if value is None:
        return
    handlers = _handler(causes, field, value.exec, value.http_get, value.tcp_socket)
    if value.grpc is not None:
        handlers.append("grpc")
        _grpc(causes, f"{field}.grpc", value.grpc)
    _exactly_one(causes, field, handlers)
    for name, number in (
        ("initialDelaySeconds", value.initial_delay_seconds),
        ("timeoutSeconds", value.timeout_seconds),
        ("periodSeconds", value.period_seconds),
        ("successThreshold", value.success_threshold),
        ("failureThreshold", value.failure_threshold),
    ):
        causes.at_least(f"{field}.{name}", number, 0)
    if single_success and value.success_threshold not in (0, 1):
        causes.invalid(f"{field}.successThreshold", value.success_threshold, "must be 1")
    causes.at_least(f"{field}.terminationGracePeriodSeconds", value.termination_grace_period_seconds, 1)


def lifecycle(causes: Causes, field: str, value: Lifecycle | None, grace: int | None) -> None:
    if value is None:
        return
    for name, handler in (("postStart", value.post_start), ("preStop", value.pre_stop)):
        if handler is not None:
            _hook(causes, f"{field}.{name}", handler, grace)
    causes.one_of(f"{field}.stopSignal", value.stop_signal, SIGNALS)


def _hook(causes: Causes, field: str, value: LifecycleHandler, grace: int | None) -> None:
    handlers = _handler(causes, field, value.exec, value.http_get, value.tcp_socket)
    if value.sleep is not None:
        handlers.append("sleep")
        _sleep(causes, f"{field}.sleep", value.sleep, grace)
    _exactly_one(causes, field, handlers)


def _exactly_one(causes: Causes, field: str, handlers: list[str]) -> None:
    if not handlers:
        causes.required(field, "must specify a handler type")
    for name in handlers[1:]:
        causes.forbidden(f"{field}.{name}", "may not specify more than 1 handler type")


def _handler(
    causes: Causes,
    field: str,
    exec_: ExecAction | None,
    http: HTTPGetAction | None,
    tcp: TCPSocketAction | None,
) -> list[str]:
    found = []
    if exec_ is not None:
        found.append("exec")
        if not exec_.command:
            causes.required(f"{field}.exec.command")
    if http is not None:
        found.append("httpGet")
        _http(causes, f"{field}.httpGet", http)
    if tcp is not None:
        found.append("tcpSocket")
        port(causes, f"{field}.tcpSocket.port", tcp.port)
    return found


def _http(causes: Causes, field: str, value: HTTPGetAction) -> None:
    if not value.path:
        causes.required(f"{field}.path")
    port(causes, f"{field}.port", value.port)
    causes.one_of(f"{field}.scheme", value.scheme, ("HTTP", "HTTPS"))
    for index, header in enumerate(value.http_headers):
        causes.check(f"{field}.httpHeaders[{index}].name", header.name, header_name_errors(header.name))
        if "\r" in header.value or "\n" in header.value:
            causes.invalid(f"{field}.httpHeaders[{index}].value", header.value, "must not contain line breaks")


def _grpc(causes: Causes, field: str, value: GRPCAction) -> None:
    causes.check(f"{field}.port", value.port, port_number_errors(value.port))


def _sleep(causes: Causes, field: str, value: SleepAction, grace: int | None) -> None:
    limit = 30 if grace is None else grace
    if not 0 <= value.seconds <= limit:
        causes.invalid(
            f"{field}.seconds",
            value.seconds,
            f"must be non-negative and less than terminationGracePeriodSeconds ({limit})",
        )


def port(causes: Causes, field: str, value: IntOrString) -> None:
    """A port by number or name."""
    if isinstance(value, int):
        causes.check(field, value, port_number_errors(value))
    else:
        causes.check(field, value, port_name_errors(value))
