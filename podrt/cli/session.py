"""What every verb gets: the client, the namespace, and where to print."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podrt.cli.client import Client

DEFAULT_SOCKET = "/run/podrt/podrt.sock"


class Session:
    """One invocation of ``podrt``. ``namespace`` is the default of the command line until ``-n`` sets it."""

    def __init__(self, socket: str = DEFAULT_SOCKET, namespace: str = "default") -> None:
        self.socket = socket
        self.namespace = namespace
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        if self._client is None or self._client.path != self.socket:
            from podrt.cli.client import Client

            self._client = Client(self.socket, warn)
        return self._client


def out(text: str = "") -> None:
    """A line on stdout."""
    sys.stdout.write(text + "\n")


def err(text: str) -> None:
    """A line on stderr, after what stdout has."""
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def warn(text: str) -> None:
    err(f"Warning: {text}")


def colored() -> bool:
    """Whether stdout is a terminal that wants colours (https://no-color.org, TERM=dumb)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
