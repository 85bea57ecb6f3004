"""What the engine asks of a network, and who gets which: the built-in bridge or CNI plugins.

Pods of the API are always on the bridge, so one daemon serves them and a kubelet's sandboxes alike. Those made through
the CRI are where ``config.cri_network`` says. A sandbox is disconnected by the driver that connected it, whatever the
configuration says since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

from podrt.config import Config
from podrt.network.bridge import BridgeNetwork
from podrt.network.cni import CniNetwork
from podrt.network.types import Attachment, AttachRequest

CRI = "cri"
"""The owner of sandboxes that were made through the CRI."""


class NetworkDriver(Protocol):
    """Connects sandboxes. Called from the event loop, which it never blocks."""

    async def attach(self, request: AttachRequest) -> Attachment:
        """Connect a network namespace; what the sandbox had before is taken down first.

        Raises PodrtError, OSError; then nothing of it is left, or a later :meth:`recover` takes it down.
        """

    async def detach(self, sandbox_id: str) -> None:
        """Disconnect a sandbox and give up its addresses and host ports. Nothing if it has none."""

    async def recover(self, live: Collection[str]) -> None:
        """After a start of the daemon: take down what belongs to no sandbox of ``live``."""

    async def problem(self) -> str:
        """Why no sandbox can be connected right now; empty if one can."""

    async def close(self) -> None:
        """End what runs in the background; sandboxes stay connected."""


class BridgeDriver:
    """The built-in network; its calls block for milliseconds, so they run in threads.

    To disconnect is mostly waiting, and the kernel does it for many as fast as for one. So one thread does it for all
    that have come meanwhile: with one for each they would hold up all else that needs a thread.
    """

    def __init__(self, bridge: BridgeNetwork) -> None:
        self._bridge = bridge
        self._leaving: dict[str, asyncio.Future[Exception | None]] = {}
        self._detaching: asyncio.Task[None] | None = None

    async def attach(self, request: AttachRequest) -> Attachment:
        return await asyncio.to_thread(self._bridge.attach, request.sandbox_id, request.netns, request.ports)

    async def detach(self, sandbox_id: str) -> None:
        left = self._leaving.get(sandbox_id)
        if left is None:
            left = self._leaving[sandbox_id] = asyncio.get_running_loop().create_future()
        if self._detaching is None:
            self._detaching = asyncio.create_task(self._detach_all(), name="detach")
        # Others may wait for it too.
        error = await asyncio.shield(left)
        if error is not None:
            raise error

    async def _detach_all(self) -> None:
        try:
            while self._leaving:
                batch, self._leaving = self._leaving, {}
                errors = await asyncio.to_thread(self._detach_batch, list(batch))
                for sandbox_id, left in batch.items():
                    left.set_result(errors.get(sandbox_id))
        finally:
            self._detaching = None

    def _detach_batch(self, sandbox_ids: list[str]) -> dict[str, Exception]:
        """What went wrong, by sandbox: an error must reach the one whom it concerns."""
        try:
            self._bridge.detach(*sandbox_ids)
        except Exception as error:
            if len(sandbox_ids) == 1:
                return {sandbox_ids[0]: error}
            return {key: why for one in sandbox_ids for key, why in self._detach_batch([one]).items()}
        return {}

    async def recover(self, live: Collection[str]) -> None:
        await asyncio.to_thread(self._bridge.recover, live)

    async def problem(self) -> str:
        return ""  # The daemon does not start without it.

    async def close(self) -> None:
        if self._detaching is not None:
            await asyncio.wait([self._detaching])


class Readiness(NamedTuple):
    """The condition NetworkReady of the CRI's Status."""

    ready: bool
    reason: str = ""
    message: str = ""


class Networks:
    """Both drivers."""

    def __init__(self, config: Config, bridge: BridgeNetwork) -> None:
        self._bridge = BridgeDriver(bridge)
        # There in any case: sandboxes may be left that an earlier daemon connected through plugins.
        self._cni = CniNetwork(config)
        self._cri: NetworkDriver = self._cni if config.cri_network == "cni" else self._bridge

    async def attach(self, owner: str, request: AttachRequest) -> Attachment:
        """Connect a sandbox of ``owner``; see :meth:`NetworkDriver.attach`."""
        driver = self._cri if owner == CRI else self._bridge
        return await driver.attach(request)

    async def detach(self, sandbox_id: str) -> None:
        """Disconnect a sandbox, whoever connected it."""
        driver: NetworkDriver = self._cni if await self._cni.has(sandbox_id) else self._bridge
        await driver.detach(sandbox_id)

    async def recover(self, live: Collection[str]) -> None:
        """Have both drivers drop what belongs to no sandbox of ``live``."""
        await self._bridge.recover(live)
        await self._cni.recover(live, in_use=self._cri is self._cni)

    async def cri_readiness(self) -> Readiness:
        """Whether a sandbox that is made through the CRI can be connected."""
        problem = await self._cri.problem()
        return Readiness(False, "NetworkPluginNotReady", problem) if problem else Readiness(True)

    def cni_info(self) -> Mapping[str, object]:
        """For the verbose Status of the CRI: what is known of the network configuration; empty on the bridge."""
        return self._cni.info() if self._cri is self._cni else {}

    async def close(self) -> None:
        await self._cni.close()
        await self._bridge.close()
