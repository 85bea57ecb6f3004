"""Pushes an image of the store to a registry: layers and configuration the registry lacks, then the manifest.

The image goes out as it came in, in the same blobs, so its digest stays. Each blob is sent in one piece (POST for an
upload, PUT of the whole; distribution-spec "Pushing a blob monolithically"); a broken sending starts that blob again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple
from urllib.parse import urljoin

from podrt.errors import InvalidError
from podrt.image import manifest as manifests
from podrt.image.blobs import CHUNK, Progress
from podrt.image.manifest import Descriptor
from podrt.image.reference import parse
from podrt.image.registry_config import is_local
from podrt.image.registry_repository import Repository, first_that_works, repositories_of
from podrt.image.registry_transport import Transport
from podrt.image.service import ImageStore
from podrt.image.types import Image


class Pushed(NamedTuple):
    """Where an image went: its full name, and the digest of its manifest."""

    name: str
    digest: str


class Pusher:
    """Pushes out of ``store``."""

    def __init__(self, store: ImageStore, transport: Transport) -> None:
        self._store = store
        self._transport = transport

    async def push(
        self, source: str, target: str = "", *, secrets: Sequence[bytes] = (), progress: Progress | None = None
    ) -> Pushed:
        """Push the image that ``source`` names to ``target``, or to the name that ``source`` is.

        Raises NotFoundError, InvalidError (no name to push to), ForbiddenError, UnavailableError, ImageError.
        """
        image = self._store.resolve(source)
        reference = parse(target or source)
        if is_local(reference):
            raise InvalidError(
                f"{reference}: names below localhost/ are local; name a registry, for example with image push"
                f" {source} registry.example/{reference.path}"
            )
        repositories = await repositories_of(self._transport, reference.name, "push", secrets)
        which = reference.tag or reference.digest
        with self._store.holding(image):
            await first_that_works(repositories, lambda one: self._push(image, which, one, progress))
        return Pushed(str(reference), image.manifest_digest)

    async def _push(self, image: Image, which: str, repository: Repository, progress: Progress | None) -> None:
        data = await asyncio.to_thread(self._store.blobs.read, image.manifest_digest)
        document = manifests.decode(data, f"image {image.id}")
        parsed = manifests.parse_manifest(document, f"image {image.id}")
        limit = asyncio.Semaphore(self._transport.settings.parallel)

        async def one(blob: Descriptor, what: str) -> None:
            async with limit:
                await self._transport.retry(lambda: self._blob(blob, what, repository, progress))

        try:
            async with asyncio.TaskGroup() as group:
                for layer in {one.digest: one for one in parsed.layers}.values():
                    group.create_task(one(layer, f"layer {layer.digest[7:19]}"))
                group.create_task(one(parsed.config, "configuration"))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        kind = str(document.get("mediaType") or manifests.OCI_MANIFEST)

        async def put() -> None:
            url = repository.url(f"manifests/{which}")
            headers = {"Content-Type": kind, "Content-Length": str(len(data))}
            async with repository.request("PUT", url, headers=headers, body=lambda: data) as response:
                await repository.server.check(response, f"manifest of {which}", (201, 202))

        await self._transport.retry(put)

    async def _blob(self, blob: Descriptor, what: str, repository: Repository, progress: Progress | None) -> None:
        def told(done: int) -> None:
            if progress is not None:
                progress(what, done, blob.size)

        async with repository.request("HEAD", repository.url(f"blobs/{blob.digest}")) as response:
            if response.status == 200:
                told(blob.size)
                return
            if response.status != 404:
                await repository.server.check(response, what)
        url = repository.url("blobs/uploads/")
        async with repository.request("POST", url, headers={"Content-Length": "0"}, follow=False) as response:
            await repository.server.check(response, what, (202,))
            place = urljoin(url, response.headers.get("Location", ""))
        place += ("&" if "?" in place else "?") + f"digest={blob.digest}"

        async def body() -> AsyncIterator[bytes]:
            with self._store.blobs.open(blob.digest) as file:
                done = 0
                while piece := await asyncio.to_thread(file.read, CHUNK):
                    yield piece
                    done += len(piece)
                    told(done)

        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        async with repository.request("PUT", place, headers=headers, body=body) as response:
            await repository.server.check(response, what, (201,))
