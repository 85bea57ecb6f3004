"""What a request is about, noted in it for errors and metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from podrt.api.status import NOTHING, Subject
from podrt.model.kinds import Resource


@dataclass(slots=True)
class Call:
    """One request to a resource."""

    verb: str
    resource: Resource
    name: str = ""
    """Of the object, where the path doesn't say it."""
    streaming: bool = False
    """Its duration is the client's choice, so it is not measured."""


CALL = web.RequestKey("podrt.call", Call)


def routed(
    verb: str, resource: Resource, handler: Callable[[web.Request, Resource], Awaitable[web.StreamResponse]]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """An aiohttp handler that notes the :class:`Call` in the request, then calls ``handler(request, resource)``."""

    async def handle(request: web.Request) -> web.StreamResponse:
        request[CALL] = Call(verb, resource)
        return await handler(request, resource)

    return handle


def subject_of(request: web.Request, *, invalid: bool = False) -> Subject:
    """What a request is about, as far as it got. Invalid objects are named by kind, others by resource, as in
    Kubernetes.
    """
    call = request.get(CALL)
    if call is None:
        return NOTHING
    resource = call.resource
    return Subject(
        resource.kind if invalid else resource.name, request.match_info.get("name") or call.name, resource.group
    )
