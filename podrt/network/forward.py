"""Connections to a port of localhost inside a Pod's network namespace, for port forwarding and probes.

The socket is made inside the namespace by a thread of its own and belongs to it from then on, wherever it is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

from podrt.linux import namespace

_TARGETS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


def open_socket(netns: Path | str | None, family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A non-blocking socket inside the network namespace pinned at ``netns``; None: the host's own."""
    if netns is None:
        return socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    fd = namespace.open_pinned(netns)
    try:
        made = namespace.in_netns(fd, lambda: socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK))
    finally:
        os.close(fd)
    return made


async def connect(netns: Path | str | None, port: int) -> socket.socket:
    """A connected TCP socket to localhost:``port`` in the namespace (None: the host's own): IPv4, then IPv6.

    Raises OSError of the IPv4 attempt (ECONNREFUSED: nobody listens), FileNotFoundError if the namespace is gone.
    """
    loop = asyncio.get_running_loop()
    first: OSError | None = None
    for family, address in _TARGETS:
        try:
            connection = open_socket(netns, family)
        except FileNotFoundError:
            raise
        except OSError as error:
            first = first or error
            continue
        try:
            await loop.sock_connect(connection, (address, port))
        except OSError as error:
            connection.close()
            first = first or error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    assert first is not None
    raise OSError(first.errno, f"localhost:{port} in the Pod: {os.strerror(first.errno or 0)}")


async def connect_port(netns: Path | str | None, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """:func:`connect` as a pair of streams."""
    connection = await connect(netns, port)
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        return await asyncio.open_connection(sock=connection)
    except BaseException:
        connection.close()
        raise
