"""The network of a cluster: sandboxes are connected by CNI plugins.

The configuration directory is not watched. It matters only when a sandbox is to be connected and when a kubelet asks
for the Status, every few seconds, so it is looked at then: names, sizes and times of a handful of files, some
microseconds, and always current. What is connected goes on with the configuration that it was connected with, which
its record has.

What a killed daemon left is taken down in the background after the next start: a plugin may need a server that is not
there yet, and the daemon need not wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import weakref
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from podrt.config import Config
from podrt.errors import PodrtError, UnavailableError
from podrt.linux import namespace, netlink
from podrt.network import cni_config, cni_plugin, cni_request, cni_result
from podrt.network.cni_chain import Chain, Limits
from podrt.network.cni_config import Found, NetworkConfig
from podrt.network.cni_records import Record, Records
from podrt.network.gate import Gate
from podrt.network.types import INTERFACE, Attachment, AttachRequest

log = logging.getLogger(__name__)

_STATUS_SECONDS = 5.0
"""How long an answer to STATUS is good."""
_RETRY_SECONDS = 30.0
_AT_ONCE = 16
"""Attachments that plugins work at: a few hundred processes at once would all run into their time limits."""
_SWEPT_AT_ONCE = 4
"""The same in the background."""


class _Look(NamedTuple):
    """The directory as it was seen, to tell whether it has changed."""

    signature: tuple[tuple[object, ...], ...]
    found: Found


class _Status(NamedTuple):
    at: float
    network: NetworkConfig
    problem: str


class CniNetwork:
    """Directories come from ``config``. Nothing is read or made before the first call."""

    def __init__(self, config: Config, limits: Limits | None = None) -> None:
        self._directory = config.cni_conf_dir
        self._chain = Chain([one for one in config.cni_bin_dirs.split(":") if one], limits or Limits())
        self._records = Records(config.state_dir / "cni")
        self._loading: asyncio.Task[None] | None = None
        self._look: _Look | None = None
        self._status: _Status | None = None
        self._gate = Gate()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._orphans: set[str] = set()
        """Attachments of no sandbox that are still to be taken down."""
        self._collect_due = False
        self._sweeping: asyncio.Task[None] | None = None
        self._swept_at = 0.0

    # -- the driver's verbs

    async def has(self, sandbox_id: str) -> bool:
        """Whether plugins have connected it, in part or as a whole."""
        await self._loaded()
        return sandbox_id in self._records

    async def attach(self, request: AttachRequest) -> Attachment:
        """Run ADD. Raises InvalidError (annotations), UnavailableError (no configuration, a plugin's error),
        DeadlineError, OSError. After an error DEL has run."""
        await self._loaded()
        network = await self._network()
        record = Record(
            sandbox_id=request.sandbox_id,
            netns=request.netns,
            ifname=INTERFACE,
            args=cni_request.arguments(request),
            capabilities=cni_request.capabilities(request),
            network=network,
        )
        _warn_of_ports(record)
        async with self._locked(request.sandbox_id), self._gate.together(), self._slots:
            if request.sandbox_id in self._records:
                await self._delete(request.sandbox_id)
            await asyncio.to_thread(_raise_loopback, request.netns)
            self._records.save(record)
            try:
                result = await self._chain.add(record)
                attachment = cni_result.attachment(result, network.name)
                self._records.save(_with_result(record, result))
            except BaseException:
                await self._take_back(record.sandbox_id)
                raise
        return attachment

    async def detach(self, sandbox_id: str) -> None:
        """Run DEL with what ADD was run with. Nothing if there is no such attachment, or if its DEL after a failed ADD
        failed too: then it is tried again in the background, and the rest of the sandbox need not wait for it.

        Raises UnavailableError if a plugin fails; the attachment is kept for another try.
        """
        await self._loaded()
        if sandbox_id not in self._orphans:
            await self._disconnect(sandbox_id)

    async def check(self, sandbox_id: str) -> None:
        """Run CHECK. Nothing if it is no attachment of plugins. Raises UnavailableError, DeadlineError."""
        await self._loaded()
        async with self._locked(sandbox_id):
            record = self._records.get(sandbox_id)
            if record is not None:
                await self._chain.check(record)

    async def recover(self, live: Collection[str], *, in_use: bool = True) -> None:
        """Take down what belongs to no sandbox of ``live``, in the background. ``in_use``: plugins connect sandboxes to
        come, so their leftovers are collected, too."""
        await self._loaded()
        self._orphans = self._records.ids() - set(live)
        self._collect_due = in_use
        if in_use and not (await self._find()).network:
            log.warning("the CRI's network is not ready: %s", await self.problem())
        self._sweep(check=sorted(self._records.ids() & set(live)))

    async def problem(self) -> str:
        """Why no ADD can be served now: no configuration, a plugin that is not there, or what STATUS says."""
        found = await self._find()
        if found.network is None:
            skipped = f": {'; '.join(found.problems)}" if found.problems else ""
            return f"no valid CNI network configuration in {self._directory}{skipped}"
        problem = self._chain.missing(found.network) or await self._ask_status(found.network)
        if not problem and (self._collect_due or self._orphans):
            self._sweep()
        return f"CNI network {found.network.name} of {self._directory} is not ready: {problem}" if problem else ""

    def info(self) -> Mapping[str, object]:
        """The network and what was skipped, for people who look for a mistake."""
        found = self._look.found if self._look is not None else Found(None)
        network = found.network
        return {
            "directory": str(self._directory),
            "pluginDirectories": list(self._chain.directories),
            "file": network.source if network else "",
            "name": network.name if network else "",
            "cniVersion": network.version if network else "",
            "plugins": [plugin["type"] for plugin in network.plugins] if network else [],
            "skipped": list(found.problems),
        }

    async def close(self) -> None:
        """End what runs in the background."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)

    # -- the configuration

    async def _network(self) -> NetworkConfig:
        found = await self._find()
        if found.network is None:
            raise UnavailableError(await self.problem())
        return found.network

    async def _find(self) -> Found:
        """What the directory holds now; read anew if it has changed."""
        look = self._look
        signature = await asyncio.to_thread(_signature, self._directory)
        if look is None or look.signature != signature:
            found = await asyncio.to_thread(cni_config.load, self._directory)
            self._look = _Look(signature, found)
            if look is None or look.found != found:
                _report(self._directory, found)
            return found
        return look.found

    async def _ask_status(self, network: NetworkConfig) -> str:
        now = asyncio.get_running_loop().time()
        known = self._status
        if known is None or known.network is not network or now - known.at > _STATUS_SECONDS:
            problem = ""
            try:
                await self._chain.status(network)
            except PodrtError as error:
                problem = str(error)
            known = self._status = _Status(asyncio.get_running_loop().time(), network, problem)
        return known.problem

    # -- attachments

    async def _loaded(self) -> None:
        """Once: read the records, and end what an earlier daemon's plugins still do for them."""
        if self._loading is None:
            self._loading = asyncio.create_task(asyncio.to_thread(self._load))
        await asyncio.shield(self._loading)

    def _load(self) -> None:
        self._records.load()
        ids = self._records.ids()
        added = {one for one in ids if (record := self._records.get(one)) is not None and record.result is not None}
        if ids:
            strays = cni_plugin.end_strays(ids - added, added)
            if strays:
                log.warning("ended CNI plugins that an earlier daemon had started: %s", ", ".join(map(str, strays)))

    @contextlib.asynccontextmanager
    async def _locked(self, sandbox_id: str) -> AsyncIterator[None]:
        """The protocol allows one operation at a time for a container."""
        lock = self._locks.get(sandbox_id)
        if lock is None:
            lock = self._locks[sandbox_id] = asyncio.Lock()
        async with lock:
            yield

    async def _disconnect(self, sandbox_id: str) -> None:
        async with self._locked(sandbox_id), self._gate.together(), self._slots:
            if sandbox_id in self._records:
                await self._delete(sandbox_id)

    async def _delete(self, sandbox_id: str) -> None:
        record = self._records.get(sandbox_id) or await self._guessed(sandbox_id)
        await self._chain.delete(record, record.netns if await asyncio.to_thread(_is_pinned, record.netns) else "")
        self._records.remove(sandbox_id)
        self._orphans.discard(sandbox_id)

    async def _guessed(self, sandbox_id: str) -> Record:
        """For an attachment whose record is broken: the network of today most likely made it."""
        network = await self._network()
        request = AttachRequest(sandbox_id, "")
        args = cni_request.arguments(request)
        return Record(sandbox_id=sandbox_id, netns="", ifname=INTERFACE, args=args, capabilities={}, network=network)

    async def _take_back(self, sandbox_id: str) -> None:
        """After a failed ADD."""
        self._orphans.add(sandbox_id)
        try:
            await self._delete(sandbox_id)
        except (PodrtError, OSError) as error:
            log.warning("sandbox %s: left to be disconnected later: %s", sandbox_id[:12], error)
            self._collect_due = True

    # -- in the background

    def _sweep(self, check: Collection[str] = ()) -> None:
        """Start taking orphans down and collecting, unless that is under way or was done just now."""
        now = asyncio.get_running_loop().time()
        running = self._sweeping is not None and not self._sweeping.done()
        if running or (self._swept_at and now - self._swept_at < _RETRY_SECONDS and not self._collect_due):
            return
        if not (self._orphans or self._collect_due or check):
            return
        self._sweeping = asyncio.create_task(self._clean(check), name="CNI clean-up")

    async def _clean(self, check: Collection[str]) -> None:
        slots = asyncio.Semaphore(_SWEPT_AT_ONCE)

        async def remove(sandbox_id: str) -> None:
            async with slots:
                try:
                    await self._disconnect(sandbox_id)
                except (PodrtError, OSError) as error:
                    log.warning("CNI attachment %s of no sandbox can't be taken down: %s", sandbox_id[:12], error)

        try:
            await asyncio.gather(*(remove(sandbox_id) for sandbox_id in sorted(self._orphans)))
            await self._collect()
            for sandbox_id in check:
                try:
                    await self.check(sandbox_id)
                except (PodrtError, OSError) as error:
                    log.warning(
                        "sandbox %s: its network is not as it was made, or its configuration needs disableCheck: %s",
                        sandbox_id[:12],
                        error,
                    )
        except Exception:
            log.exception("cleaning up after CNI plugins")
        self._swept_at = asyncio.get_running_loop().time()

    async def _collect(self) -> None:
        network = (await self._find()).network
        if not self._collect_due or network is None:
            return
        async with self._gate.alone():
            self._collect_due = False
            problems = await self._chain.collect(network, self._valid(network))
        for problem in problems:
            log.warning("%s", problem)

    def _valid(self, network: NetworkConfig) -> list[tuple[str, str]]:
        """What must not be collected: all attachments of the network that have a sandbox."""
        valid = []
        for sandbox_id in sorted(self._records.ids() - self._orphans):
            record = self._records.get(sandbox_id)
            if record is None or record.network.name == network.name:
                valid.append((sandbox_id, INTERFACE))
        return valid


def _with_result(record: Record, result: dict[str, object]) -> Record:
    fields = {name: getattr(record, name) for name in record.__struct_fields__}
    return Record(**(fields | {"result": result}))


def _raise_loopback(netns: str) -> None:
    """By us and not by the plugin of that name: every Pod needs it, and it is one process less."""
    fd = namespace.open_pinned(netns)
    try:
        namespace.in_netns(fd, lambda: netlink.send([netlink.set_up(1)]))
    finally:
        os.close(fd)


def _is_pinned(netns: str) -> bool:
    """Whether the namespace is still there; after a reboot it is not, and DEL is run without one."""
    if not netns:
        return False
    try:
        os.close(namespace.open_pinned(netns))
    except OSError:
        return False
    return True


def _signature(directory: Path) -> tuple[tuple[object, ...], ...]:
    """Changes whenever a file of the directory or of one in it does."""
    rows: list[tuple[object, ...]] = []

    def look(path: Path, deeper: bool) -> None:
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    found = entry.stat()
                    rows.append((entry.path, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
                    if deeper and entry.is_dir():
                        look(Path(entry.path), deeper=False)

    look(directory, deeper=True)
    return tuple(sorted(rows, key=lambda row: str(row[0])))


def _report(directory: Path, found: Found) -> None:
    for problem in found.problems:
        log.warning("CNI configuration skipped: %s", problem)
    if found.network is not None:
        network = found.network
        plugins = ", ".join(plugin["type"] for plugin in network.plugins)
        log.info("CNI network %s, version %s, of %s: %s", network.name, network.version, network.source, plugins)
    elif found.problems:
        log.warning("%s has no valid CNI network configuration", directory)


def _warn_of_ports(record: Record) -> None:
    """Some networks see to host ports by themselves, so it is no error."""
    if "portMappings" in record.capabilities and not any(
        cni_config.requested(plugin, record.capabilities).get("portMappings") for plugin in record.network.plugins
    ):
        log.warning(
            "sandbox %s wants host ports, but no plugin of CNI network %s has the capability portMappings",
            record.sandbox_id[:12],
            record.network.name,
        )
