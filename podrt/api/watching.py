"""``?watch=true``: changes as a chunked stream of JSON events, one a line.

A revision that is too old is refused with 410 before the stream begins; a client that falls too far behind gets an
ERROR event with the same Status and must list again. ``sendInitialEvents`` is refused by name (422), so that clients
fall back to list and watch.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
from aiohttp import web

from podrt.api import query
from podrt.api.negotiate import Shape, Wanted
from podrt.api.status import status_of
from podrt.api.table import table
from podrt.errors import Cause, ExpiredError, InvalidError, MalformedError
from podrt.model.kinds import Resource
from podrt.store.store import Store
from podrt.store.watch import BOOKMARK, Watcher, WatchEvent

BOOKMARK_INTERVAL = 60.0
_LONGEST = 1800
"""Seconds after which a watch without timeoutSeconds ends (to twice that, at random, as in Kubernetes)."""
_BATCH = 64
"""Events put into one write at most."""


async def serve(
    request: web.Request,
    store: Store,
    resource: Resource,
    namespace: str | None,
    labels: str,
    fields: str,
    form: Wanted,
) -> web.StreamResponse:
    """Answer a watch. Raises ExpiredError, InvalidError, MalformedError before the stream begins."""
    if "sendInitialEvents" in request.query or request.query.get("resourceVersionMatch"):
        name = "sendInitialEvents" if "sendInitialEvents" in request.query else "resourceVersionMatch"
        message = f"{name} is forbidden for watch: this server has no watch lists; list, then watch from there"
        raise InvalidError(f"{name}: Forbidden: {message}", [Cause(name, message, "FieldValueForbidden")])
    since = request.query.get("resourceVersion", "")
    if since and not (since.isascii() and since.isdigit()):
        raise MalformedError(f"query parameter resourceVersion: must be a whole number, not {since!r}")
    seconds = query.integer(request, "timeoutSeconds") or random.randint(_LONGEST, 2 * _LONGEST)
    bookmarks = BOOKMARK_INTERVAL if query.flag(request, "allowWatchBookmarks") else None
    with store.watch(resource.struct, namespace, since or None, labels, fields, bookmarks) as watcher:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            async with asyncio.timeout(seconds):
                await _copy(response, watcher, resource, form)
        except TimeoutError:
            pass
        except ExpiredError as error:
            await response.write(_line("ERROR", status_of(error)))
        await response.write_eof()
    return response


async def _copy(response: web.StreamResponse, watcher: Watcher, resource: Resource, form: Wanted) -> None:
    while (event := await watcher.get()) is not None:
        lines = [_encode(event, resource, form)]
        while len(lines) < _BATCH and (more := watcher.get_nowait()) is not None:
            lines.append(_encode(more, resource, form))
        await response.write(b"".join(lines))


def _encode(event: WatchEvent, resource: Resource, form: Wanted) -> bytes:
    obj = event.object
    shown: Any = obj
    if form.shape is Shape.TABLE:
        objects = [] if event.type == BOOKMARK else [obj]
        shown = table(resource.name, objects, include=form.include, revision=obj.metadata.resource_version)
    elif form.shape is Shape.METADATA:
        shown = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj.metadata}
    elif event.type == BOOKMARK:
        shown = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": obj.metadata}
    return _line(event.type, shown)


def _line(kind: str, obj: Any) -> bytes:
    return msgspec.json.encode({"type": kind, "object": obj}) + b"\n"
