"""Pulls images: name -> manifest -> configuration and layers -> the store.

Who wants an image that is being pulled already (same name, same secrets) waits for that pull; it ends when nobody
waits any more. The layers of an image are fetched a few at a time and unpacked from the lowest on while they arrive.
What an interrupted pull has stored whole stays for the next (see :mod:`podrt.image.journal`); what belongs to an image
that turned out to be wrong goes.

``localhost/...`` without a port is a name of this machine, as podman has it: it is never pulled.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from podrt.errors import ExhaustedError, ImageError, NotFoundError, UnavailableError
from podrt.image import manifest as manifests
from podrt.image.archive import Candidate, LayerSource
from podrt.image.blobs import Progress, hash_bytes
from podrt.image.layers import chain_ids
from podrt.image.manifest import Descriptor, Manifest
from podrt.image.reference import Reference, parse
from podrt.image.registry_auth import Login
from podrt.image.registry_config import is_local
from podrt.image.registry_fetch import Download, outlive
from podrt.image.registry_repository import Repository, first_that_works, repositories_of
from podrt.image.registry_transport import Transport
from podrt.image.service import ImageStore
from podrt.image.types import Image, parse_config

ACCEPT = ", ".join((manifests.OCI_INDEX, manifests.OCI_MANIFEST, manifests.DOCKER_LIST, manifests.DOCKER_MANIFEST))
_MAX_NESTING = 3
_INSTALLS = 4
"""Images that are put into the store at once; each keeps a thread while its layers arrive."""
_WRITERS = 4


class Resolved(NamedTuple):
    """What a name stands for at a registry."""

    manifest: bytes
    digest: str
    parsed: Manifest
    digests: tuple[str, ...]
    """``repository@digest`` of the manifest, and of the index that led to it."""


class _Flight(NamedTuple):
    task: asyncio.Task[Image]
    watchers: list[Progress]


class Puller:
    """Pulls into ``store``. ``await close()`` ends what is under way."""

    def __init__(self, store: ImageStore, transport: Transport) -> None:
        self._store = store
        self._transport = transport
        self._flights: dict[tuple[str, str], _Flight] = {}
        self._installs = ThreadPoolExecutor(_INSTALLS, "podrt-install")
        self._writers = ThreadPoolExecutor(_WRITERS, "podrt-fetch")
        self._places = asyncio.Semaphore(_INSTALLS)

    async def close(self) -> None:
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._installs.shutdown(wait=False, cancel_futures=True)
        self._writers.shutdown(wait=False, cancel_futures=True)

    async def pull(
        self,
        text: str,
        *,
        secrets: Sequence[bytes] = (),
        login: Login | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """The image of a name, asked of its registry even if it is in the store; only what is missing is fetched.

        ``secrets`` are ``.dockerconfigjson`` documents; a ``login`` comes before all of them, and at its registry in
        their place. ``progress`` is called from this event loop. Raises NotFoundError, ForbiddenError (access denied;
        UnauthenticatedError for who we are), UnavailableError (can't be reached), ImageError (wrong content),
        ExhaustedError (disk), InvalidError (name, hosts.toml).
        """
        reference = parse(text)
        if is_local(reference):
            raise NotFoundError(
                f"{text}: names below localhost/ are local and never pulled; load the image with image load or import"
            )
        key = (str(reference), hashlib.sha256(b"\0".join((*secrets, _text(login)))).hexdigest())
        flight = self._flights.get(key)
        if flight is None:
            watchers: list[Progress] = []
            task = asyncio.create_task(self._pull(reference, secrets, login, watchers), name=f"pull {reference}")
            flight = self._flights[key] = _Flight(task, watchers)
            task.add_done_callback(partial(self._landed, key))
        watcher = progress or _no_progress
        flight.watchers.append(watcher)
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.watchers.remove(watcher)
            if not flight.watchers and not flight.task.done():
                self._landed(key, flight.task)
                flight.task.cancel()

    def _landed(self, key: tuple[str, str], task: asyncio.Task[Image]) -> None:
        if key in self._flights and self._flights[key].task is task:
            del self._flights[key]
        if task.done() and not task.cancelled():
            task.exception()  # it was told to who waits

    async def _pull(
        self, reference: Reference, secrets: Sequence[bytes], login: Login | None, watchers: list[Progress]
    ) -> Image:
        def progress(what: str, done: int, total: int) -> None:
            for watcher in list(watchers):
                watcher(what, done, total)

        async with self._places:
            ask = partial(repositories_of, self._transport, reference.name, "pull", secrets, login=login)
            resolvers = await ask(resolving=True)
            if not resolvers:
                raise ImageError(f"{reference}: no configured host may resolve names; see its hosts.toml")
            resolved = await self.resolve(reference, resolvers)
            # Beside a digest a tag says nothing: what it stands for now was not asked.
            names = () if reference.digest else (Reference(reference.name, reference.tag),)
            known = self._store.by_manifest(resolved.digest)
            if known is not None:
                with contextlib.suppress(NotFoundError):  # it was removed just now
                    return await asyncio.to_thread(self._store.add_names, known, names, resolved.digests)
            repositories = await ask()
            return await self._install(reference, names, resolved, _share(resolvers, repositories), progress)

    # Manifests

    async def resolve(self, reference: Reference, repositories: Sequence[Repository]) -> Resolved:
        """The manifest for this machine that ``reference`` stands for."""
        wanted = reference.digest
        found: list[str] = []
        for _ in range(_MAX_NESTING):
            (data, digest), _ = await first_that_works(
                repositories, partial(_manifest, reference, wanted or reference.tag, wanted)
            )
            found.append(f"{reference.name}@{digest}")
            what = f"{reference}: manifest {digest[:19]}"
            document = manifests.decode(data, what)
            if not manifests.is_index(document):
                parsed = manifests.parse_manifest(document, what)
                _refuse_foreign(parsed, what)
                return Resolved(data, digest, parsed, tuple(found))
            chosen = manifests.choose(manifests.parse_index(document, what), what)
            wanted = chosen.digest
        raise ImageError(f"{reference}: indexes are nested more than {_MAX_NESTING - 1} deep")

    # Content

    async def _install(
        self,
        reference: Reference,
        names: tuple[Reference, ...],
        resolved: Resolved,
        repositories: Sequence[Repository],
        progress: Progress,
    ) -> Image:
        config = await self._config(reference, resolved.parsed.config, repositories)
        what = f"{reference}: configuration"
        diff_ids = parse_config(manifests.decode(config, what), what)["diff_ids"]
        if len(diff_ids) != len(resolved.parsed.layers):
            raise ImageError(
                f"{what}: lists {len(diff_ids)} rootfs.diff_ids where the manifest has {len(resolved.parsed.layers)}"
            )
        chain = chain_ids(diff_ids)
        blobs = [resolved.digest, resolved.parsed.config.digest, *(one.digest for one in resolved.parsed.layers)]
        store = self._store
        with contextlib.ExitStack() as stack:
            keep = stack.enter_context(store.keep())
            await asyncio.to_thread(keep, blobs, chain)
            store.journal.begin(resolved.digest, blobs, chain)
            missing = [one for one in _unique(resolved.parsed.layers) if not store.has_blob(one.digest, one.size)]
            _see_room(store, sum(one.size for one in missing))
            try:
                image = await self._fetch_and_unpack(
                    Candidate(config, resolved.manifest, (), names, resolved.digests),
                    resolved.parsed.layers,
                    missing,
                    repositories,
                    progress,
                )
            except ImageError:
                store.journal.end(resolved.digest)
                raise
            store.journal.end(resolved.digest)
            return image

    async def _fetch_and_unpack(
        self,
        candidate: Candidate,
        layers: Sequence[Descriptor],
        missing: Sequence[Descriptor],
        repositories: Sequence[Repository],
        progress: Progress,
    ) -> Image:
        store = self._store
        for layer in _unique(layers):
            if layer not in missing:
                progress(f"layer {layer.digest[7:19]}", layer.size, layer.size)
        downloads: dict[str, Download] = {}
        limit = asyncio.Semaphore(self._transport.settings.parallel)

        async def fetch(download: Download) -> None:
            async with limit:
                await download.run(repositories, progress)

        tasks: list[asyncio.Task[None]] = []
        try:
            for layer in missing:
                downloads[layer.digest] = Download(layer, store.blobs, store.staging, self._writers)
            sources = tuple(_source(store, layer, downloads.get(layer.digest)) for layer in layers)
            install = asyncio.get_running_loop().run_in_executor(
                self._installs, store.install, candidate._replace(layers=sources)
            )
            tasks = [asyncio.create_task(fetch(one)) for one in downloads.values()]
            try:
                return await _all_or_first_error(install, tasks)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise ExhaustedError(f"no space left for images in {store.root}; see image prune") from error
                raise
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                for download in downloads.values():
                    download.fail(UnavailableError("the pull was ended"))
                # Its thread can't be cancelled but ends soon, as its readers have been told.
                await outlive(install)
        finally:
            for download in downloads.values():
                download.close()

    async def _config(self, reference: Reference, config: Descriptor, repositories: Sequence[Repository]) -> bytes:
        what = f"{reference}: configuration {config.digest[:19]}"
        if config.size > manifests.MAX_MANIFEST:
            raise ImageError(f"{what}: has {config.size} bytes; at most {manifests.MAX_MANIFEST} are believed")
        if self._store.has_blob(config.digest, config.size):
            return await asyncio.to_thread(self._store.blobs.read, config.digest)

        async def get(repository: Repository) -> bytes:
            data, _ = await repository.fetch(repository.url(f"blobs/{config.digest}"), config.size, what)
            return data

        data, _ = await first_that_works(repositories, get)
        actual = hash_bytes(data, config.digest.partition(":")[0])
        if actual != config.digest or len(data) != config.size:
            raise ImageError(f"{what}: content is {actual} with {len(data)} bytes; the registry's copy is corrupt")
        return data


async def _manifest(reference: Reference, which: str, digest: str, repository: Repository) -> tuple[bytes, str]:
    """A manifest or index and its digest, which is ``digest`` where that is given."""
    what = f"{reference}: manifest"
    data, response = await repository.fetch(repository.url(f"manifests/{which}"), manifests.MAX_MANIFEST, what, ACCEPT)
    told = response.headers.get("Docker-Content-Digest", "")
    wanted = digest or told
    if not wanted:
        return data, hash_bytes(data)
    algorithm = wanted.partition(":")[0]
    if algorithm not in ("sha256", "sha512"):
        raise ImageError(f"{what}: {repository.server.where} gives a digest of an unknown kind: {wanted[:80]!r}")
    actual = hash_bytes(data, algorithm)
    if actual != wanted:
        raise ImageError(f"{what}: content is {actual}, not {wanted}; {repository.server.where} has a corrupt copy")
    return data, actual


def _text(login: Login | None) -> bytes:
    return b"" if login is None else repr((login.server, tuple(login.credential))).encode()


def _refuse_foreign(parsed: Manifest, what: str) -> None:
    for index, layer in enumerate(parsed.layers):
        # URLs alone are no more than a hint: the registry has such a layer as well.
        if manifests.is_foreign(layer._replace(urls=())):
            raise ImageError(
                f"{what}: layers[{index}]: is a foreign layer ({layer.media_type}), to be fetched from elsewhere;"
                " that is not done: images for Linux have none"
            )


def _share(resolvers: Sequence[Repository], repositories: Sequence[Repository]) -> list[Repository]:
    """All endpoints, those that are known already with what they learned about authentication."""
    known = {one.server.endpoint: one for one in resolvers}
    return [known.get(one.server.endpoint, one) for one in repositories]


def _source(store: ImageStore, layer: Descriptor, download: Download | None) -> LayerSource:
    opener: Callable[[], Any] = partial(store.blobs.open, layer.digest) if download is None else download.open
    return LayerSource(opener, layer.digest, layer.size, layer.media_type, arriving=download is not None)


def _see_room(store: ImageStore, needed: int) -> None:
    found = os.statvfs(store.root)
    if found.f_bavail * found.f_frsize < needed:
        raise ExhaustedError(
            f"image needs {needed} bytes in {store.root} where {found.f_bavail * found.f_frsize} are free;"
            " free some, for example with image prune"
        )


async def _all_or_first_error(install: asyncio.Future[Image], tasks: Sequence[asyncio.Task[None]]) -> Image:
    """The result of ``install``; the error of a download comes first, as the one of ``install`` only follows it."""
    pending: set[asyncio.Future[Any]] = {install, *tasks}
    while not install.done():
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            if one is not install:
                await one
    for task in tasks:
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            raise error
    image = install.result()
    await asyncio.gather(*tasks)
    return image


def _unique(layers: Sequence[Descriptor]) -> list[Descriptor]:
    """Each blob once, as one layer may occur several times in an image."""
    return list({layer.digest: layer for layer in layers}.values())


def _no_progress(what: str, done: int, total: int) -> None:
    """For who doesn't want to see any."""
