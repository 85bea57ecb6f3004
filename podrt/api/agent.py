"""What the API needs of the node agent, as an interface: the agent implements it, tests give their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from podrt.engine.api import Session
from podrt.engine.logs import LogOptions
from podrt.engine.specs import Stats
from podrt.model.pod import Pod
from podrt.node.tokens import Tokens


class AgentApi(Protocol):
    """Errors are those of :mod:`podrt.errors`: NotFoundError for a container that never ran, ConflictError for one that
    does not run now."""

    @property
    def tokens(self) -> Tokens: ...
    def logs(self, pod: Pod, container: str, options: LogOptions) -> AsyncIterator[bytes]: ...
    async def exec(
        self, pod: Pod, container: str, argv: Sequence[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool
    ) -> Session: ...
    async def attach(self, pod: Pod, container: str, *, stdin: bool, stdout: bool, stderr: bool) -> Session: ...
    async def port_forward(self, pod: Pod, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to ``port`` in the Pod's network namespace. Raises OSError (ECONNREFUSED)."""

    async def pod_stats(self, pod: Pod) -> Mapping[str, Stats]:
        """By container name; running containers only."""

    def node_stats(self) -> Stats: ...
    def images_changed(self) -> None:
        """An image was loaded or tagged: Pods that wait for one try again."""
