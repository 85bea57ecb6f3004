"""The REST verbs of every stored kind: get, list, create, update, patch, delete, deletecollection, and watch through
``watching``.

Each handler parses, calls the registry once and formats. Rules of the objects are the registry's.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from podrt.api import body, patch, query, watching
from podrt.api.call import CALL, routed
from podrt.api.discovery import UNDELETABLE_COLLECTIONS
from podrt.api.negotiate import Shape, wanted
from podrt.api.scale import ScaleHandlers
from podrt.api.status import Subject, UnsupportedMediaTypeError, success
from podrt.api.strategic import strategic_merge
from podrt.api.table import table
from podrt.api.warnings import below_warned_level, hooks_that_fail
from podrt.errors import Cause, MalformedError
from podrt.model import codec
from podrt.model.kinds import RESOURCES, Object, Resource
from podrt.model.pod import Pod
from podrt.model.scheduling import Binding
from podrt.store.objects import Registry

Handler = Callable[[web.Request, Resource], Awaitable[web.StreamResponse]]


class RestHandlers:
    """Handlers of all resources of the model."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._store = registry.store
        self._scale = ScaleHandlers(registry)

    def routes(self) -> list[web.RouteDef]:
        found: list[web.RouteDef] = []
        for resource in RESOURCES:
            prefix = f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.api_version}"
            scope = "/namespaces/{namespace}" if resource.namespaced else ""
            everywhere, collection = f"{prefix}/{resource.name}", f"{prefix}{scope}/{resource.name}"
            item = f"{collection}/{{name}}"

            def add(method: str, path: str, verb: str, handler: Handler, resource: Resource = resource) -> None:
                found.append(web.route(method, path, routed(verb, resource, handler)))

            if resource.namespaced:
                add("GET", everywhere, "list", self.list)
            add("GET", collection, "list", self.list)
            add("POST", collection, "create", self.create)
            if resource.name not in UNDELETABLE_COLLECTIONS:
                add("DELETE", collection, "deletecollection", self.delete_collection)
            own = [
                f"{item}/{name}"
                for name in ("status", "ephemeralcontainers", "resize")
                if name in resource.subresources
            ]
            for path in (item, *own):
                add("GET", path, "get", self.get)
                add("PUT", path, "update", self.update)
                add("PATCH", path, "patch", self.patch)
            if "binding" in resource.subresources:
                add("POST", f"{item}/binding", "create", self.bind)
            if "scale" in resource.subresources:
                add("GET", f"{item}/scale", "get", self._scale.get)
                add("PUT", f"{item}/scale", "update", self._scale.update)
                add("PATCH", f"{item}/scale", "patch", self._scale.patch)
            add("DELETE", item, "delete", self.delete)
        return found

    # Reading

    async def get(self, request: web.Request, resource: Resource) -> web.StreamResponse:
        namespace, name = _address(request)
        if query.flag(request, "watch"):
            return await self._watch(request, resource, namespace, f"metadata.name={name}")
        obj = self._store.get(resource.struct, namespace, name)
        return self._answer(request, resource, obj)

    async def list(self, request: web.Request, resource: Resource) -> web.StreamResponse:
        namespace = request.match_info.get("namespace")
        fields = request.query.get("fieldSelector", "")
        if query.flag(request, "watch"):
            return await self._watch(request, resource, namespace, fields)
        listing = self._store.list(resource.name, namespace, request.query.get("labelSelector", ""), fields)
        items, token, remaining = _page(request, listing.items)
        form, revision = wanted(request), str(listing.revision)
        metadata: dict[str, Any] = {"resourceVersion": revision}
        if token:
            metadata |= {"continue": token, "remainingItemCount": remaining}
        if form.shape is Shape.TABLE:
            shown = table(resource.name, items, include=form.include, revision=revision) | {"metadata": metadata}
            return _json(shown)
        if form.shape is Shape.METADATA:
            return _json(
                {
                    "kind": "PartialObjectMetadataList",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": metadata,
                    "items": [_partial(obj) for obj in items],
                }
            )
        head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata}
        return _json(head | {"items": items})

    async def _watch(
        self, request: web.Request, resource: Resource, namespace: str | None, fields: str
    ) -> web.StreamResponse:
        request[CALL].streaming = True
        space = namespace if resource.namespaced else None
        labels = request.query.get("labelSelector", "")
        return await watching.serve(request, self._store, resource, space, labels, fields, wanted(request))

    # Writing

    async def create(self, request: web.Request, resource: Resource) -> web.StreamResponse:
        namespace = request.match_info.get("namespace", "")
        decoded = await body.read_object(request, resource)
        obj = body.check_address(decoded.object, resource, namespace)
        request[CALL].name = obj.metadata.name or obj.metadata.generate_name
        created = self._registry.create(obj, dry_run=body.dry_run(request))
        warnings = decoded.warnings + hooks_that_fail(obj) + below_warned_level(created, self._store)
        return self._answer(request, resource, created, warnings, code=201)

    async def update(self, request: web.Request, resource: Resource) -> web.StreamResponse:
        namespace, name = _address(request)
        decoded = await body.read_object(request, resource)
        obj = body.check_address(decoded.object, resource, namespace, name)
        updated = self._store_update(request, obj)
        return self._answer(request, resource, updated, decoded.warnings)

    async def patch(self, request: web.Request, resource: Resource) -> web.StreamResponse:
        namespace, name = _address(request)
        kind = body.content_type(request)
        if kind not in _PATCHES:
            raise UnsupportedMediaTypeError(_refusal(kind))
        change = codec.parse(await request.read(), "application/json")
        old = self._store.get(resource.struct, namespace, name)
        try:
            document = _PATCHES[kind](codec.to_document(old), change, resource)
        except RecursionError:
            raise MalformedError("the patch is nested too deeply") from None
        _check_unmoved(document, old)
        decoded = codec.decode_document(document, body.field_validation(request), resource)
        updated = self._store_update(request, decoded.object)
        return self._answer(request, resource, updated, decoded.warnings)

    async def bind(self, request: web.Request, resource: Resource) -> web.StreamResponse:
        """What a scheduler asks for once it has chosen a node."""
        namespace, name = _address(request)
        document = codec.parse(await request.read(), body.content_type(request))
        binding, _ = codec.convert(Binding, document, body.field_validation(request))
        self._registry.bind_as_asked(namespace, name, binding, dry_run=body.dry_run(request))
        return _json({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201)

    def _store_update(self, request: web.Request, obj: Object) -> Object:
        dry_run = body.dry_run(request)
        if isinstance(obj, Pod) and _is_subresource(request, "ephemeralcontainers"):
            return self._registry.update_ephemeral_containers(obj, dry_run=dry_run)
        if isinstance(obj, Pod) and _is_subresource(request, "resize"):
            return self._registry.resize(obj, dry_run=dry_run)
        save = self._registry.update_status if _is_subresource(request, "status") else self._registry.update
        return save(obj, dry_run=dry_run)

    async def delete(self, request: web.Request, resource: Resource) -> web.StreamResponse:
        namespace, name = _address(request)
        options = await body.read_delete_options(request)
        dry_run = body.dry_run(request) or "All" in options.dry_run
        deletion = self._registry.delete(resource.name, namespace, name, options, dry_run=dry_run)
        if deletion.gone and not isinstance(deletion.object, Pod):
            subject = Subject(resource.name, name, resource.group)
            return _json(success(subject, deletion.object.metadata.uid))
        return self._answer(request, resource, deletion.object)

    async def delete_collection(self, request: web.Request, resource: Resource) -> web.StreamResponse:
        namespace = request.match_info.get("namespace", "")
        options = await body.read_delete_options(request)
        dry_run = body.dry_run(request) or "All" in options.dry_run
        chosen = self._store.list(
            resource.name, namespace, request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")
        )
        deleted = [
            self._registry.delete(resource.name, obj.metadata.namespace, obj.metadata.name, options, dry_run=dry_run)
            for obj in chosen.items
        ]
        metadata = {"resourceVersion": str(self._store.revision)}
        head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata}
        return _json(head | {"items": [deletion.object for deletion in deleted]})

    def _answer(
        self,
        request: web.Request,
        resource: Resource,
        obj: Object,
        warnings: tuple[str, ...] = (),
        code: int = 200,
    ) -> web.Response:
        form = wanted(request)
        shown: Any = obj
        if form.shape is Shape.TABLE:
            revision = obj.metadata.resource_version
            shown = table(resource.name, [obj], include=form.include, revision=revision)
        elif form.shape is Shape.METADATA:
            shown = _partial(obj)
        return _json(shown, code, body.warning_headers(warnings) if warnings else None)


def _address(request: web.Request) -> tuple[str, str]:
    return request.match_info.get("namespace", ""), request.match_info["name"]


def _is_subresource(request: web.Request, name: str) -> bool:
    """Whether the path ends in ``/<name>`` as a subresource, and not as the name of an object."""
    resource = request.match_info.route.resource
    return resource is not None and resource.canonical.endswith(f"/{name}")


def _partial(obj: Object) -> dict[str, Any]:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj.metadata}


def _json(document: Any, code: int = 200, headers: CIMultiDict[str] | None = None) -> web.Response:
    return web.Response(
        status=code, body=msgspec.json.encode(document), content_type="application/json", headers=headers
    )


# Pages. A token is the key of the last object sent; a page shows the objects as they are at its own time.


def _page(request: web.Request, items: Sequence[Object]) -> tuple[Sequence[Object], str, int]:
    """The items of this page, the token of the next one ("" at the end) and how many items remain."""
    if token := request.query.get("continue"):
        after = _decode_token(token)
        items = [obj for obj in items if (obj.metadata.namespace, obj.metadata.name) > after]
    limit = query.integer(request, "limit")
    if not limit or len(items) <= limit:
        return items, "", 0
    last = items[limit - 1].metadata
    data = msgspec.json.encode([last.namespace, last.name])
    return items[:limit], base64.urlsafe_b64encode(data).decode(), len(items) - limit


def _decode_token(token: str) -> tuple[str, str]:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token), type=tuple[str, str])
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise MalformedError("query parameter continue: not a token of this server; list from the start") from None


# Patches

_PATCHES: dict[str, Callable[[dict[str, Any], Any, Resource], Any]] = {
    patch.JSON: lambda target, change, resource: patch.json_patch(target, change),
    patch.MERGE: lambda target, change, resource: patch.merge_patch(target, change),
    patch.STRATEGIC: lambda target, change, resource: strategic_merge(target, change, resource.struct),
}


def _refusal(kind: str) -> str:
    if kind == patch.APPLY:
        return (
            "server-side apply is not supported: this server does not keep the owners of fields; "
            "use apply without --server-side"
        )
    return f"the body of the request was in an unknown format - accepted media types include: {', '.join(_PATCHES)}"


def _check_unmoved(document: Any, old: Object) -> None:
    """A patch can't give an object another name, namespace or kind."""
    if not isinstance(document, dict) or not isinstance(document.get("metadata"), dict):
        message = "the patched document is no object with metadata"
        raise MalformedError(message, [Cause("metadata", message)])
    metadata = document["metadata"]
    for key, value in (("name", old.metadata.name), ("namespace", old.metadata.namespace)):
        if metadata.get(key, "") != value:
            raise MalformedError(
                f"the {key} of the object ({metadata.get(key, '')}) does not match the {key} on the URL ({value})",
                [Cause(f"metadata.{key}", "a patch can't change it")],
            )
