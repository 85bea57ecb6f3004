"""The five operations of CNI over all plugins of a network (CNI spec 1.1, section 3).

ADD goes through the plugins in order, each told the result of the one before; DEL in reverse, past those that fail.
CHECK exists from protocol version 0.4.0 on, and only then is DEL told the result of ADD; GC and STATUS exist from 1.1.0
on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from podrt.errors import PodrtError, UnavailableError
from podrt.network import cni_config, cni_plugin, cni_result
from podrt.network.cni_config import NetworkConfig
from podrt.network.cni_plugin import Answer, Call
from podrt.network.cni_records import Record

UNKNOWN_CONTAINER = 3
"""The error code that means: there is nothing to undo."""


class Limits(NamedTuple):
    """Seconds that an operation may take: ADD, DEL and GC with all plugins, the others for each plugin.

    ADD and a DEL of what it leaves stay together below the two minutes that a kubelet waits for a sandbox.
    """

    add: float = 75.0
    delete: float = 40.0
    check: float = 20.0
    collect: float = 60.0
    status: float = 5.0


class Chain:
    """Runs plugins of ``directories``."""

    def __init__(self, directories: Sequence[str], limits: Limits) -> None:
        self.directories = tuple(directories)
        self._limits = limits

    def missing(self, network: NetworkConfig) -> str:
        """What is said of the first plugin that is not installed; empty if all are."""
        for plugin in network.plugins:
            try:
                cni_plugin.find(plugin["type"], self.directories)
            except UnavailableError as error:
                return str(error)
        return ""

    async def add(self, record: Record) -> dict[str, Any]:
        """Connect; the result of the last plugin. Raises UnavailableError, DeadlineError: then :meth:`delete`."""
        network = record.network
        end = asyncio.get_running_loop().time() + self._limits.add
        result: dict[str, Any] | None = None
        for plugin in network.plugins:
            stdin = cni_config.request(network, plugin, capabilities=record.capabilities, previous=result)
            left = max(end - asyncio.get_running_loop().time(), 0.1)
            answer = await self._run(network, plugin, _call("ADD", record), stdin, left)
            result = cni_result.parse(answer.stdout, network.version, _what(network, plugin, "ADD"))
        assert result is not None, "a network has a plugin"
        return result

    async def delete(self, record: Record, netns: str) -> None:
        """Disconnect; all plugins are run. ``netns`` is empty where the namespace is gone already.

        Raises UnavailableError that says what each plugin that failed said.
        """
        network = record.network
        previous = record.result if network.speaks("0.4.0") else None
        problems: list[str] = []
        end = asyncio.get_running_loop().time() + self._limits.delete
        for count, plugin in zip(range(len(network.plugins), 0, -1), reversed(network.plugins), strict=True):
            stdin = cni_config.request(network, plugin, capabilities=record.capabilities, previous=previous)
            call = _call("DEL", record)._replace(netns=netns)
            # One that hangs must not use up the time of those after it.
            share = (end - asyncio.get_running_loop().time()) / count
            try:
                await self._run(network, plugin, call, stdin, share, fine=UNKNOWN_CONTAINER)
            except PodrtError as error:
                problems.append(str(error))
        if problems:
            raise UnavailableError("; ".join(problems))

    async def check(self, record: Record) -> None:
        """Whether the attachment is as ADD left it. Raises UnavailableError if a plugin says that it isn't."""
        network = record.network
        if record.result is None or network.disable_check or not network.speaks("0.4.0"):
            return
        for plugin in network.plugins:
            stdin = cni_config.request(network, plugin, capabilities=record.capabilities, previous=record.result)
            await self._run(network, plugin, _call("CHECK", record), stdin, self._limits.check)

    async def collect(self, network: NetworkConfig, valid: Sequence[tuple[str, str]]) -> list[str]:
        """Have the plugins drop what belongs to no attachment, (container id, interface), of ``valid``. Returns what
        went wrong."""
        if network.disable_gc or not network.speaks("1.1.0"):
            return []
        end = asyncio.get_running_loop().time() + self._limits.collect
        problems = []
        for plugin in network.plugins:
            left = max(end - asyncio.get_running_loop().time(), 0.1)
            try:
                stdin = cni_config.request(network, plugin, valid=valid)
                await self._run(network, plugin, Call("GC"), stdin, left)
            except PodrtError as error:
                problems.append(str(error))
        return problems

    async def status(self, network: NetworkConfig) -> None:
        """Raises UnavailableError or DeadlineError if a plugin can't serve an ADD now."""
        if not network.speaks("1.1.0"):
            return
        for plugin in network.plugins:
            stdin = cni_config.request(network, plugin)
            await self._run(network, plugin, Call("STATUS"), stdin, self._limits.status)

    async def _run(
        self,
        network: NetworkConfig,
        plugin: Mapping[str, Any],
        call: Call,
        stdin: bytes,
        timeout: float,
        fine: int = 0,
    ) -> Answer:
        path = cni_plugin.find(plugin["type"], self.directories)
        answer = await cni_plugin.run(path, call, self.directories, stdin, timeout)
        if answer.code and not (fine and cni_result.error_code(answer.stdout) == fine):
            raise UnavailableError(cni_result.failure(_what(network, plugin, call.command), *answer))
        return answer


def _what(network: NetworkConfig, plugin: Mapping[str, Any], command: str) -> str:
    return f"CNI network {network.name}: {command} of plugin {plugin['type']}"


def _call(command: str, record: Record) -> Call:
    return Call(command, record.sandbox_id, record.netns, record.ifname, record.args)
