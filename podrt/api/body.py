"""Reading what a request carries: objects, patches, DeleteOptions."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from podrt.api import protobuf, query
from podrt.api.status import UnsupportedMediaTypeError
from podrt.errors import MalformedError
from podrt.model import codec
from podrt.model.codec import FieldValidation
from podrt.model.kinds import Object, Resource
from podrt.model.meta import DeleteOptions

JSON = "application/json"
READABLE = (JSON, "application/yaml", "application/x-yaml", "text/yaml")
_OPTION_KINDS = ("", "DeleteOptions")
_WARNING_BYTES = 4096
"""Of all warnings together: Kubernetes cuts there, too."""


def content_type(request: web.Request) -> str:
    """The media type of the body; JSON where the client doesn't say."""
    return request.headers.get("Content-Type", JSON).partition(";")[0].strip().lower() or JSON


async def read_object(request: web.Request, resource: Resource) -> codec.Decoded:
    """The object in the body. Raises MalformedError (with causes), UnsupportedMediaTypeError."""
    kind = content_type(request)
    if kind == protobuf.CONTENT_TYPE and protobuf.readable(resource):
        document = protobuf.document(await request.read())
        return codec.decode_document(document, field_validation(request), resource)
    if kind not in READABLE:
        raise UnsupportedMediaTypeError(
            f"the body of the request was in an unknown format - accepted media types include: {', '.join(READABLE)}"
        )
    data = await request.read()
    return codec.decode(data, field_validation(request), content_type=kind, expected=resource)


def field_validation(request: web.Request) -> FieldValidation:
    return FieldValidation.of(request.query.get("fieldValidation"))


def dry_run(request: web.Request) -> bool:
    """``dryRun=All``. Raises MalformedError for anything else."""
    values = request.query.getall("dryRun", [])
    if any(value != "All" for value in values):
        raise MalformedError(f'query parameter dryRun: only "All" is possible, not {values[0]!r}')
    return bool(values)


async def read_delete_options(request: web.Request) -> DeleteOptions:
    """From the body, or else from the query. Raises MalformedError."""
    data = await request.read()
    if data.strip():
        document = codec.parse(data, content_type(request))
        if isinstance(document, dict) and document.get("kind", "") not in _OPTION_KINDS:
            raise MalformedError(f"the body of a DELETE must be DeleteOptions, not {document['kind']!r}")
        options, _ = codec.convert(DeleteOptions, document, FieldValidation.IGNORE)
    else:
        options = DeleteOptions()
    asked: dict[str, Any] = {}
    if options.grace_period_seconds is None:
        asked["grace_period_seconds"] = query.integer(request, "gracePeriodSeconds")
    if options.propagation_policy is None and (policy := request.query.get("propagationPolicy")):
        asked["propagation_policy"] = policy
    if options.orphan_dependents is None and "orphanDependents" in request.query:
        asked["orphan_dependents"] = query.flag(request, "orphanDependents")
    return msgspec.structs.replace(options, **asked)


def check_address(obj: Object, resource: Resource, namespace: str, name: str = "") -> Object:
    """The object with the namespace of the URL. Raises MalformedError where the body names another namespace or
    object.
    """
    metadata = obj.metadata
    if metadata.namespace not in ("", namespace):
        raise MalformedError(
            f"the namespace of the provided object ({metadata.namespace}) does not match the namespace sent on the "
            f"request ({namespace or 'none: ' + resource.name + ' are not namespaced'})"
        )
    if name and metadata.name not in ("", name):
        raise MalformedError(f"the name of the object ({metadata.name}) does not match the name on the URL ({name})")
    if metadata.namespace == namespace and (not name or metadata.name == name):
        return obj
    metadata = msgspec.structs.replace(metadata, namespace=namespace, name=name or metadata.name)
    return msgspec.structs.replace(obj, metadata=metadata)


def warning_headers(warnings: tuple[str, ...]) -> CIMultiDict[str]:
    """``Warning: 299 - "text"``, one for each, as kubectl prints them."""
    headers: CIMultiDict[str] = CIMultiDict()
    budget = _WARNING_BYTES
    for text in dict.fromkeys(warnings):
        printable = "".join(char if " " <= char <= "~" else "?" for char in text)
        value = printable.replace("\\", "\\\\").replace('"', '\\"')
        budget -= len(value)
        if budget < 0:
            break
        headers.add("Warning", f'299 - "{value}"')
    return headers
