"""``images:pull``, ``images:push`` and ``images:df``: what concerns registries and the disk.

Pull and push answer with one JSON document a line, as ``images:load`` does: ``{"progress": {"what", "done", "total"}}``
at most ten times a second for each layer, at last ``{"images": [...]}``, ``{"pushed": {"name", "digest"}}`` or
``{"error": Status}``. A client that goes ends the pull, unless somebody else wants the same image.

The body, if any, is ``{"auth": {"username", "password"}}`` or ``{"dockerConfig": {"auths": ...}}``: credentials that
come before those of the daemon's own auth files.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from podrt.api.images import API_VERSION, ImageHandlers
from podrt.api.status import status_of
from podrt.errors import MalformedError, UnsupportedError
from podrt.image.blobs import Progress
from podrt.image.collect import ImageCollector
from podrt.image.reference import parse
from podrt.image.registry_pull import Puller
from podrt.image.registry_push import Pusher
from podrt.image.service import ImageStore
from podrt.model.base import format_time

_PERIOD = 0.1


class Transfer(NamedTuple):
    """The parts that deal with registries and the disk."""

    puller: Puller
    pusher: Pusher
    collector: ImageCollector


class _Auth(msgspec.Struct, forbid_unknown_fields=True):
    username: str = ""
    password: str = ""


class _Body(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    auth: _Auth | None = None
    docker_config: msgspec.Raw = msgspec.Raw(b"")


class TransferHandlers:
    """The handlers; ``images`` gives the documents of images."""

    def __init__(
        self, store: ImageStore, transfer: Transfer | None, images: ImageHandlers, on_change: Callable[[], None]
    ) -> None:
        self._store = store
        self._transfer = transfer
        self._images = images
        self._on_change = on_change

    def routes(self) -> list[web.RouteDef]:
        base = f"/apis/{API_VERSION}"
        return [
            web.post(f"{base}/images:pull", self.pull),
            web.post(f"{base}/images:push", self.push),
            web.get(f"{base}/images:df", self.disk_usage),
        ]

    def _parts(self) -> Transfer:
        if self._transfer is None:
            raise UnsupportedError("this server has no registry client")
        return self._transfer

    async def pull(self, request: web.Request) -> web.StreamResponse:
        """``?reference=NAME``."""
        reference = _required(request, "reference")
        parts, secrets = self._parts(), await _secrets(request, reference)

        async def work(progress: Progress) -> dict[str, Any]:
            image = await parts.puller.pull(reference, secrets=secrets, progress=progress)
            self._on_change()
            return {"images": [self._images.document(image)]}

        return await _report(request, work)

    async def push(self, request: web.Request) -> web.StreamResponse:
        """``?source=IMAGE&target=NAME``; without target to where the name says."""
        source, target = _required(request, "source"), request.query.get("target", "")
        parts, secrets = self._parts(), await _secrets(request, target or source)

        async def work(progress: Progress) -> dict[str, Any]:
            pushed = await parts.pusher.push(source, target, secrets=secrets, progress=progress)
            return {"pushed": pushed._asdict()}

        return await _report(request, work)

    async def disk_usage(self, request: web.Request) -> web.Response:
        """What each image takes, what it shares, and how full the disk is."""
        collector = self._parts().collector
        rows, total = await asyncio.to_thread(self._store.disk_usage)
        disk = collector.disk()
        items = [
            self._images.document(row.image)
            | {
                "layerBytes": row.layers,
                "sharedBytes": row.shared,
                "uniqueBytes": row.layers - row.shared,
                "blobBytes": row.blobs,
                "pinned": collector.pinned(row.image),
                "inUse": bool(self._store.holders(row.image)),
                "lastUsed": format_time(self._store.last_used(row.image)),
            }
            for row in rows
        ]
        document: dict[str, Any] = {"kind": "ImageDiskUsage", "apiVersion": API_VERSION, "items": items}
        document["total"] = {"layerBytes": total.layer_bytes, "blobBytes": total.blob_bytes, "inodes": total.inodes}
        document["disk"] = {"totalBytes": disk.total, "availableBytes": disk.available, "percent": round(disk.percent)}
        return web.Response(body=msgspec.json.encode(document), content_type="application/json")


class _Throttle:
    """Progress as lines: for each ``what`` one in a tenth of a second, and its last."""

    def __init__(self, lines: asyncio.Queue[dict[str, Any] | None]) -> None:
        self._lines = lines
        self._next: dict[str, float] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._next.get(what, 0.0) and done != total:
            return
        self._next[what] = now + _PERIOD
        self._lines.put_nowait({"progress": {"what": what, "done": done, "total": total}})


async def _report(request: web.Request, work: Callable[[Progress], Awaitable[dict[str, Any]]]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    lines: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    job = asyncio.ensure_future(work(_Throttle(lines)))
    job.add_done_callback(lambda _: lines.put_nowait(None))
    try:
        while (line := await lines.get()) is not None:
            await response.write(msgspec.json.encode(line) + b"\n")
    finally:
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)
    error = job.exception()
    last = {"error": status_of(error)} if error is not None else job.result()
    await response.write(msgspec.json.encode(last) + b"\n")
    await response.write_eof()
    return response


async def _secrets(request: web.Request, reference: str) -> list[bytes]:
    data = await request.read()
    if not data:
        return []
    try:
        body = msgspec.json.decode(data, type=_Body)
    except msgspec.MsgspecError as error:
        raise MalformedError(f"body: {error}") from error
    found = [bytes(body.docker_config)] if body.docker_config else []
    if body.auth is not None:
        auths = {parse(reference).domain: msgspec.to_builtins(body.auth)}
        found.insert(0, msgspec.json.encode({"auths": auths}))
    return found


def _required(request: web.Request, name: str) -> str:
    value = request.query.get(name, "")
    if not value:
        raise MalformedError(f"query parameter {name}: required")
    return value
