"""podrt's own group: images, and facts about the system.

What moves bytes runs in a thread, as the image store is synchronous. ``images:load`` and ``images:import`` take the
archive as body, spool it (the store may need to seek), then answer with one JSON document a line: ``{"progress":
{"what", "done", "total"}}`` at most ten times a second, at last ``{"images": [...]}`` or ``{"error": Status}``. The
HTTP code is 200 by then, so clients must read the last line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from podrt.api import query
from podrt.api.discovery import PODRT_GROUP, PODRT_VERSION
from podrt.api.humantime import human_duration
from podrt.api.negotiate import Shape, wanted
from podrt.api.status import status_of
from podrt.api.table import NONE, Column, envelope
from podrt.errors import MalformedError
from podrt.image.blobs import Progress
from podrt.image.removing import ImageInUseError
from podrt.image.service import ImageStore
from podrt.image.types import Image, ImageConfig
from podrt.model.base import format_time
from podrt.model.pod import Pod
from podrt.store.store import Store
from podrt.streaming.descriptors import read_some

API_VERSION = f"{PODRT_GROUP}/{PODRT_VERSION}"

_PROGRESS_PERIOD = 0.1
_COLUMNS = (
    Column("Name"),
    Column("Image ID"),
    Column("Created"),
    Column("Size"),
    Column("In Use", wide=True),
    Column("Architecture", wide=True),
    Column("Digest", wide=True),
)

Info = Callable[[], dict[str, Any]]
Loader = Callable[[Progress], Sequence[Image]]


class _ConfigQuery(msgspec.Struct, rename="pascal", forbid_unknown_fields=True):
    """The ``config`` object of an OCI image configuration, as ``images:import`` takes it."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    exposed_ports: dict[str, dict[str, Any]] = {}
    volumes: dict[str, dict[str, Any]] = {}
    labels: dict[str, str] = {}


class ImageHandlers:
    """The handlers of ``/apis/podrt.dev/v1alpha1``."""

    def __init__(
        self, images: ImageStore, store: Store, spool: Path, info: Info, on_change: Callable[[], None]
    ) -> None:
        """``spool`` is a directory for archives in transit; ``on_change`` is called when images were added."""
        self._images = images
        self._store = store
        self._spool = spool
        self._info = info
        self._on_change = on_change

    def routes(self) -> list[web.RouteDef]:
        base = f"/apis/{API_VERSION}"
        reference = f"{base}/images/{{reference:.+}}"
        return [
            web.get(f"{base}/info", self.system_info),
            web.get(f"{base}/images", self.list),
            web.post(f"{base}/images:load", self.load),
            web.post(f"{base}/images:import", self.import_rootfs),
            web.get(f"{base}/images:save", self.save),
            web.post(f"{base}/images:tag", self.tag),
            web.post(f"{base}/images:prune", self.prune),
            web.get(f"{base}/images:usage", self.usage),
            web.get(f"{reference}/history", self.history),
            web.get(reference, self.inspect),
            web.delete(reference, self.remove),
        ]

    async def system_info(self, request: web.Request) -> web.Response:
        return _json(await asyncio.to_thread(self._info))

    async def list(self, request: web.Request) -> web.Response:
        used = self._used()
        images = self._images.list()
        if wanted(request).shape is Shape.TABLE:
            rows = [{"cells": cells, "object": None} for image in images for cells in _rows(image, used)]
            return _json(envelope([column.definition() for column in _COLUMNS], rows, {}))
        items = [_document(image, used) for image in images]
        return _json({"kind": "ImageList", "apiVersion": API_VERSION, "metadata": {}, "items": items})

    async def inspect(self, request: web.Request) -> web.Response:
        return _json(await asyncio.to_thread(self._images.inspect, request.match_info["reference"]))

    async def history(self, request: web.Request) -> web.Response:
        steps = await asyncio.to_thread(self._images.history, request.match_info["reference"])
        return _json({"kind": "ImageHistory", "apiVersion": API_VERSION, "items": steps})

    async def remove(self, request: web.Request) -> web.Response:
        reference, force = request.match_info["reference"], query.flag(request, "force")
        try:
            removals = await asyncio.to_thread(self._images.remove, reference, force)
        except ImageInUseError:
            # The store knows the containers that hold an image; users know Pods.
            if pods := self._pods_of(self._images.resolve(reference)):
                text = f"image {reference} is used by pod {', '.join(pods[:3])}{', ...' if len(pods) > 3 else ''}"
                raise ImageInUseError(f"{text}; delete what uses it first") from None
            raise
        return _json({"kind": "ImageRemoval", "apiVersion": API_VERSION, "items": [r._asdict() for r in removals]})

    async def tag(self, request: web.Request) -> web.Response:
        source, target = _required(request, "source"), _required(request, "target")
        image = await asyncio.to_thread(self._images.tag, source, target)
        self._on_change()
        return _json(_document(image, self._used()))

    async def prune(self, request: web.Request) -> web.Response:
        report = await asyncio.to_thread(self._images.prune, query.flag(request, "all"))
        items = [removal._asdict() for removal in report.removed]
        body = {"kind": "ImagePruneReport", "apiVersion": API_VERSION, "items": items}
        return _json(body | {"bytesReclaimed": report.bytes_reclaimed})

    async def usage(self, request: web.Request) -> web.Response:
        usage = await asyncio.to_thread(self._images.usage)
        return _json(
            {
                "kind": "ImageUsage",
                "apiVersion": API_VERSION,
                "images": usage.images,
                "layers": usage.layers,
                "blobBytes": usage.blob_bytes,
                "layerBytes": usage.layer_bytes,
                "inodes": usage.inodes,
            }
        )

    async def load(self, request: web.Request) -> web.StreamResponse:
        async with self._spooled(request) as archive:
            return await self._report(request, lambda progress: self._images.load(archive, progress))

    async def import_rootfs(self, request: web.Request) -> web.StreamResponse:
        name = request.query.get("name", "")
        config = _image_config(request.query.get("config", ""))
        async with self._spooled(request) as archive:
            return await self._report(
                request,
                lambda progress: [self._images.import_rootfs(archive, name, config=config, progress=progress)],
            )

    @contextlib.asynccontextmanager
    async def _spooled(self, request: web.Request) -> AsyncIterator[Path]:
        """The body as a file. It is removed at the end, or at the daemon's next start."""
        self._spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._spool, prefix="upload-") as file:
            async for chunk in request.content.iter_chunked(1024 * 1024):
                await asyncio.to_thread(file.write, chunk)
            file.flush()
            yield Path(file.name)

    async def _report(self, request: web.Request, work: Loader) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        lines: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(None, work, _Throttle(loop, lines))
        job.add_done_callback(lambda _: lines.put_nowait(None))
        try:
            while (line := await lines.get()) is not None:
                await response.write(msgspec.json.encode(line) + b"\n")
        finally:
            # The thread can't be stopped; its file must stay until it ends, also where the client has gone.
            await asyncio.shield(asyncio.gather(job, return_exceptions=True))
        if error := job.exception():
            last: dict[str, Any] = {"error": status_of(error)}
        else:
            used = self._used()
            last = {"images": [_document(image, used) for image in job.result()]}
            self._on_change()
        await response.write(msgspec.json.encode(last) + b"\n")
        await response.write_eof()
        return response

    async def save(self, request: web.Request) -> web.StreamResponse:
        """An archive of all ``ref``s as a stream; errors before its first byte get a Status."""
        references = request.query.getall("ref", [])
        if not references:
            raise MalformedError("query parameter ref: name at least one image")
        kind = query.choice(request, "format", ("oci", "docker"))
        for reference in references:
            self._images.resolve(reference)
        source, sink = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(source, False)
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(None, self._write_archive, references, sink, kind)
        try:
            data = await read_some(source)
            if not data:
                await job
            response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
            response.enable_chunked_encoding()
            await response.prepare(request)
            while data:
                await response.write(data)
                data = await read_some(source)
            await job
            await response.write_eof()
            return response
        finally:
            # Ends a writer whose reader has gone with EPIPE.
            os.close(source)
            await asyncio.gather(job, return_exceptions=True)

    def _write_archive(self, references: Sequence[str], sink: int, kind: str) -> None:
        with open(sink, "wb", buffering=256 * 1024) as file:
            self._images.save(references, file, kind)

    def document(self, image: Image) -> dict[str, Any]:
        """What the API shows of an image."""
        return _document(image, self._used())

    def _used(self) -> set[str]:
        """Ids and digests of images that the containers of the stored Pods name."""
        return {name for pod in self._store.list(Pod).items for name in _images_of(pod)}

    def _pods_of(self, image: Image) -> Sequence[str]:
        """``namespace/name`` of the Pods that use the image."""
        names = {image.id, image.manifest_digest}
        pods = self._store.list(Pod).items
        return [f"{pod.metadata.namespace}/{pod.metadata.name}" for pod in pods if names & _images_of(pod)]


def _images_of(pod: Pod) -> set[str]:
    """Ids and digests of the images of its containers."""
    status = pod.status
    containers = (*status.init_container_statuses, *status.container_statuses, *status.ephemeral_container_statuses)
    return {container.image_id.rpartition("@")[2] for container in containers}


class _Throttle:
    """A progress callback for another thread: passes on one in a tenth of a second, and each that is the last of its
    kind.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[dict[str, Any] | None]) -> None:
        self._loop = loop
        self._lines = lines
        self._next = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._next and done != total:
            return
        self._next = now + _PROGRESS_PERIOD
        line = {"progress": {"what": what, "done": done, "total": total}}
        self._loop.call_soon_threadsafe(self._lines.put_nowait, line)


def _document(image: Image, used: set[str]) -> dict[str, Any]:
    return {
        "id": image.id,
        "digest": image.manifest_digest,
        "names": image.names,
        "repoDigests": image.digests,
        "size": image.size,
        "created": format_time(image.created) if image.created else None,
        "architecture": image.architecture,
        "os": image.os,
        "inUse": image.id in used or image.manifest_digest in used,
    }


def _rows(image: Image, used: set[str]) -> Sequence[list[Any]]:
    created = human_duration(time.time() - image.created.timestamp()) if image.created else "<unknown>"
    in_use = "yes" if image.id in used or image.manifest_digest in used else "no"
    rest = [image.id[7:19], created, _size(image.size), in_use, image.architecture, image.manifest_digest]
    return [[name, *rest] for name in image.names or (NONE,)]


def _size(size: float) -> str:
    """Decimal units, as image tools print them: ``12.3MB``."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g}{unit}"
        size /= 1000
    return f"{size:.3g}GB"


def _image_config(text: str) -> ImageConfig | None:
    if not text:
        return None
    try:
        given = msgspec.json.decode(text, type=_ConfigQuery)
    except msgspec.MsgspecError as error:
        raise MalformedError(f"query parameter config: {error}") from error
    return ImageConfig(
        env=given.env,
        entrypoint=given.entrypoint,
        cmd=given.cmd,
        user=given.user,
        working_dir=given.working_dir,
        stop_signal=given.stop_signal,
        exposed_ports=tuple(sorted(given.exposed_ports)),
        volumes=tuple(sorted(given.volumes)),
        labels=given.labels,
    )


def _required(request: web.Request, name: str) -> str:
    value = request.query.get(name, "")
    if not value:
        raise MalformedError(f"query parameter {name}: required")
    return value


def _json(document: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), content_type="application/json")
