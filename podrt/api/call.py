"""One route's handler with what it is about, for errors and metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from podrt.api.status import Subject
from podrt.model.kinds import Resource


def routed(
    verb: str, resource: Resource, handler: Callable[[web.Request, Resource], Awaitable[web.StreamResponse]]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """An aiohttp handler that notes verb and resource in the request, then calls ``handler(request, resource)``."""

    async def handle(request: web.Request) -> web.StreamResponse:
        request["verb"] = verb
        request["resource"] = resource
        return await handler(request, resource)

    return handle


def subject_of(request: web.Request, *, invalid: bool = False) -> Subject:
    """What a request is about, as far as it got. Invalid objects are named by kind, others by resource, as in
    Kubernetes.
    """
    resource: Resource | None = request.get("resource")
    if resource is None:
        return Subject()
    name = request.match_info.get("name") or request.get("name", "")
    return Subject(resource.kind if invalid else resource.name, name, resource.group)
