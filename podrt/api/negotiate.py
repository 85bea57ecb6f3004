"""What form of answer the client asked for: the ``Accept`` header as kubectl writes it."""

from __future__ import annotations

import enum
from typing import NamedTuple

from aiohttp import web

from podrt.api import query
from podrt.api.discovery import AGGREGATED


class Shape(enum.Enum):
    OBJECT = "object"
    TABLE = "Table"
    METADATA = "PartialObjectMetadata"


class Wanted(NamedTuple):
    shape: Shape
    include: str
    """``includeObject`` of a Table: what of the object stands beside each row."""


def wanted(request: web.Request) -> Wanted:
    """The first form in the header that we have; plain JSON where there is none, as every client reads that."""
    include = query.choice(request, "includeObject", ("Metadata", "None", "Object"))
    for parameters in _parameters(request):
        kind = parameters.get("as", "").removesuffix("List")
        if kind and parameters.get("g") == "meta.k8s.io" and parameters.get("v") == "v1":
            if kind in (Shape.TABLE.value, Shape.METADATA.value):
                return Wanted(Shape(kind), include)
        elif not kind and parameters[""] in ("application/json", "*/*", "application/*"):
            break
    return Wanted(Shape.OBJECT, include)


def aggregated_version(request: web.Request) -> str:
    """``v2`` or ``v2beta1`` where the client asks for aggregated discovery, else empty."""
    for parameters in _parameters(request):
        if parameters.get("as") == AGGREGATED and parameters.get("v") in ("v2", "v2beta1"):
            return parameters["v"]
    return ""


def _parameters(request: web.Request) -> list[dict[str, str]]:
    """Each alternative of the header as its parameters, the media type under ``""``."""
    found: list[dict[str, str]] = []
    for alternative in request.headers.get("Accept", "").split(","):
        first, *rest = (part.strip() for part in alternative.split(";"))
        pairs = (part.partition("=") for part in rest)
        found.append({"": first.lower()} | {name.strip(): value.strip() for name, _, value in pairs})
    return found
