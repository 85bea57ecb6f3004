"""``/scale``: the number of replicas of a Deployment, ReplicaSet or StatefulSet as an autoscaling/v1 Scale."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web
from msgspec.structs import replace

from podrt.api import body, patch
from podrt.api.status import UnsupportedMediaTypeError
from podrt.api.strategic import strategic_merge
from podrt.errors import Cause, InvalidError, MalformedError, NotFoundError
from podrt.model import codec
from podrt.model.base import Int32, Struct, always, made
from podrt.model.kinds import Resource
from podrt.model.meta import LabelSelector, ObjectMeta
from podrt.model.workloads import SCALABLE
from podrt.store.objects import Registry


class ScaleSpec(Struct, frozen=True, kw_only=True):
    replicas: Int32 = 0


class ScaleStatus(Struct, frozen=True, kw_only=True):
    replicas: Int32 = always(0)
    selector: str = ""


class Scale(Struct, frozen=True, kw_only=True):
    api_version: str = always("autoscaling/v1")
    kind: str = always("Scale")
    metadata: ObjectMeta = made(ObjectMeta)
    spec: ScaleSpec = made(ScaleSpec)
    status: ScaleStatus = made(ScaleStatus)


class ScaleHandlers:
    """GET, PUT and PATCH of the subresource; only ``spec.replicas`` is ever written."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def get(self, request: web.Request, resource: Resource) -> web.StreamResponse:
        return _json(_scale(self._find(request, resource)))

    async def update(self, request: web.Request, resource: Resource) -> web.StreamResponse:
        document = codec.parse(await request.read(), body.content_type(request))
        return self._store(request, resource, document)

    async def patch(self, request: web.Request, resource: Resource) -> web.StreamResponse:
        change = codec.parse(await request.read(), "application/json")
        current = codec.to_document(_scale(self._find(request, resource)))
        kind = body.content_type(request)
        if kind == patch.JSON:
            document: Any = patch.json_patch(current, change)
        elif kind == patch.STRATEGIC:
            document = strategic_merge(current, change, Scale)
        elif kind == patch.MERGE:
            document = patch.merge_patch(current, change)
        else:
            raise UnsupportedMediaTypeError("a scale can be patched by JSON patch, merge or strategic merge patch")
        return self._store(request, resource, document)

    def _find(self, request: web.Request, resource: Resource) -> Any:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        obj = self._registry.store.get(resource.struct, namespace, name)
        if not isinstance(obj, SCALABLE):
            raise NotFoundError(f"{resource.qualified} have no scale subresource")
        return obj

    def _store(self, request: web.Request, resource: Resource, document: Any) -> web.StreamResponse:
        wanted, _ = codec.convert(Scale, document, body.field_validation(request))
        old = self._find(request, resource)
        name = old.metadata.name
        if wanted.metadata.name not in ("", name):
            raise MalformedError(f"the name of the object ({wanted.metadata.name}) does not match the URL ({name})")
        if wanted.spec.replicas < 0:
            message = f"Invalid value: {wanted.spec.replicas}: must be greater than or equal to 0"
            raise InvalidError(
                f'Scale.autoscaling "{name}" is invalid: spec.replicas: {message}', [Cause("spec.replicas", message)]
            )
        version = wanted.metadata.resource_version
        metadata = replace(old.metadata, resource_version=version or old.metadata.resource_version)
        new = replace(old, metadata=metadata, spec=replace(old.spec, replicas=wanted.spec.replicas))
        return _json(_scale(self._registry.update(new, dry_run=body.dry_run(request))))


def _scale(obj: Any) -> Scale:
    kept = obj.metadata
    return Scale(
        metadata=ObjectMeta(
            name=kept.name,
            namespace=kept.namespace,
            uid=kept.uid,
            resource_version=kept.resource_version,
            creation_timestamp=kept.creation_timestamp,
        ),
        spec=ScaleSpec(replicas=obj.spec.replicas or 0),
        status=ScaleStatus(replicas=obj.status.replicas, selector=selector_text(obj.spec.selector)),
    )


def selector_text(selector: LabelSelector | None) -> str:
    """A LabelSelector in the form of query parameters."""
    if selector is None:
        return ""
    parts = [f"{key}={value}" for key, value in sorted(selector.match_labels.items())]
    for expression in selector.match_expressions:
        values = ",".join(sorted(expression.values))
        parts.append(
            {
                "In": f"{expression.key} in ({values})",
                "NotIn": f"{expression.key} notin ({values})",
                "Exists": expression.key,
                "DoesNotExist": f"!{expression.key}",
            }[expression.operator]
        )
    return ",".join(parts)


def _json(document: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), content_type="application/json")
