"""``podrt port-forward``: a local listener; each connection to it becomes one websocket to the pod.

The websocket speaks ``v4.channel.k8s.io``: for one port channel 0 carries the data and channel 1 an error text, and the
first message of each channel is the port as a little-endian uint16. The end of what the local side sends is passed on
as the bytes 255 and 0, so that a server that reads to the end gets there and can still answer.
"""

from __future__ import annotations

import select
import socket
import threading
from typing import NamedTuple

import click

from podrt.cli import options
from podrt.cli.errors import CliError
from podrt.cli.resources import PODS, pod_of
from podrt.cli.session import Session, err, out
from podrt.cli.websocket import WebSocket

_PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR, _CLOSE = 0, 1, 255
_CHUNK = 32 * 1024
_HIGH_WATER = 1024 * 1024


class PortPair(NamedTuple):
    """``local`` 0: any free port."""

    local: int
    remote: int


def parse_ports(args: tuple[str, ...]) -> list[PortPair]:
    """``8080``, ``8080:80``, ``:80``. Raises CliError."""
    pairs = []
    for arg in args:
        local, colon, remote = arg.rpartition(":")
        if not colon:
            local = remote
        if colon and not local:
            local = "0"
        if not (local.isdecimal() and remote.isdecimal() and int(local) < 65536 and 0 < int(remote) < 65536):
            raise CliError(
                f'invalid port format "{arg}"; write LOCAL:REMOTE, PORT or :REMOTE with ports up to 65535', 2
            )
        pairs.append(PortPair(int(local), int(remote)))
    return pairs


@click.command("port-forward", cls=options.Verb)
@click.argument("pod", shell_complete=options.complete_pods)
@click.argument("ports", nargs=-1, required=True, metavar="[LOCAL:]REMOTE...")
@click.option("--address", default="localhost", metavar="ADDRESS", help="Addresses to listen on, by commas.")
@options.namespace_option
@click.pass_obj
def port_forward(session: Session, pod: str, ports: tuple[str, ...], address: str) -> None:
    """Forward local ports to a pod: port-forward web 8080:80, port-forward web :80. Ctrl-C ends it."""
    name = pod_of(session.client, session.namespace, pod)
    pairs = parse_ports(ports)
    value = session.client.get(PODS.item(session.namespace, name))
    phase = (value.get("status") or {}).get("phase")
    if phase != "Running":
        raise CliError(f"unable to forward port because pod is not running. Current status={phase}")
    listeners = [(listener, pair) for pair in pairs for listener in _listen(pair, address)]
    try:
        _serve(session, name, listeners)
    finally:
        for listener, _ in listeners:
            listener.close()


def _listen(pair: PortPair, addresses: str) -> list[socket.socket]:
    """Listening sockets, with the line that says so. ``localhost`` is 127.0.0.1 and, where it can be had, ::1."""
    listeners: list[socket.socket] = []
    port = pair.local
    for address in addresses.split(","):
        hosts = ["127.0.0.1", "::1"] if address == "localhost" else [address]
        for host in hosts:
            listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                if ":" in host:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind((host, port))
                listener.listen(128)
            except OSError as error:
                listener.close()
                if address == "localhost" and host == "::1" and listeners:
                    continue  # no IPv6 here, or the port is taken there: IPv4 does
                for other in listeners:
                    other.close()
                raise CliError(f"unable to listen on {host}:{port}: {error.strerror}") from None
            port = port or int(listener.getsockname()[1])
            listeners.append(listener)
            shown = f"[{host}]" if ":" in host else host
            out(f"Forwarding from {shown}:{port} -> {pair.remote}")
    return listeners


def _serve(session: Session, pod: str, listeners: list[tuple[socket.socket, PortPair]]) -> None:
    import sys

    sys.stdout.flush()
    poller = select.poll()
    by_fd = {listener.fileno(): (listener, pair) for listener, pair in listeners}
    for fd in by_fd:
        poller.register(fd, select.POLLIN)
    while True:
        for fd, _ in poller.poll():
            listener, pair = by_fd[fd]
            try:
                connection, _ = listener.accept()
            except OSError:
                continue  # the peer is gone already
            out(f"Handling connection for {listener.getsockname()[1]}")
            sys.stdout.flush()
            threading.Thread(target=_handle, args=(session, pod, pair.remote, connection), daemon=True).start()


def _handle(session: Session, pod: str, port: int, connection: socket.socket) -> None:
    try:
        path = PODS.item(session.namespace, pod) + "/portforward"
        ws = session.client.websocket(path, {"ports": port}, [_PROTOCOL])
        try:
            Forward(ws, connection).run()
        finally:
            ws.close()
    except CliError as error:
        err(f"an error occurred forwarding to port {port}: {error.render()}")
    except OSError:
        pass  # the local peer reset the connection
    finally:
        connection.close()


class Forward:
    """Copies both ways between a local connection and a websocket until one side ends."""

    def __init__(self, ws: WebSocket, connection: socket.socket) -> None:
        self.ws = ws
        self.connection = connection
        connection.setblocking(False)
        self._pending = bytearray()
        self._seen: set[int] = set()
        self._reading = True

    def run(self) -> None:
        """Raises CliError with the text of the error channel, if there was any."""
        while True:
            finished = self.ws.closed
            if finished and not self._pending:
                return
            self._turn(finished)

    def _turn(self, finished: bool) -> None:
        poller = select.poll()
        if not finished and len(self._pending) < _HIGH_WATER:
            poller.register(self.ws.fileno(), select.POLLIN | (select.POLLOUT if self.ws.out else 0))
        elif not finished and self.ws.out:
            poller.register(self.ws.fileno(), select.POLLOUT)
        events = select.POLLOUT if self._pending else 0
        if self._reading and not finished and len(self.ws.out) < _HIGH_WATER:
            events |= select.POLLIN
        poller.register(self.connection, events)  # without events, too: a reset is always reported
        if self.ws.stream.buffer and not finished:
            self._receive()
        else:
            for fd, event in poller.poll():
                if fd == self.connection.fileno():
                    self._local(event)
                elif event & ~select.POLLOUT:
                    self._receive()
        self.ws.flush()

    def _local(self, event: int) -> None:
        if event & select.POLLOUT and self._pending:
            sent = self.connection.send(self._pending)
            del self._pending[:sent]
        if event & (select.POLLIN | select.POLLHUP | select.POLLERR) and self._reading:
            data = self.connection.recv(_CHUNK)
            if data:
                self.ws.queue(bytes([_DATA]) + data)
            else:
                self._reading = False
                self.ws.queue(bytes([_CLOSE, _DATA]))
        elif event & (select.POLLHUP | select.POLLERR):
            raise ConnectionResetError("the local peer is gone in both directions")

    def _receive(self) -> None:
        for message in self.ws.receive():
            if not message:
                continue
            channel, data = message[0], message[1:]
            if channel not in self._seen and channel in (_DATA, _ERROR):
                self._seen.add(channel)
                data = data[2:]  # the port, little-endian
            if channel == _DATA:
                self._pending += data
            elif channel == _ERROR and data:
                raise CliError(data.decode("utf-8", "replace"))
