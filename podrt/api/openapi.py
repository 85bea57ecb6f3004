"""``/openapi/v3``: the schemas of our objects, made from the model's structs.

kubectl reads the PATCH operations to see that the server validates fields itself (``fieldValidation``), and ``kubectl
explain`` the schemas. Limits: descriptions are those of the structs, not of every field; nothing here is used to
validate.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import msgspec

from podrt.model.kinds import RESOURCES, Resource

_REF = "#/components/schemas/{name}"
_QUERY = ("dryRun", "fieldManager", "fieldValidation", "force")


@functools.cache
def document(group_version: str) -> bytes:
    """The OpenAPI v3 document of one group-version of the model (``v1``), as JSON."""
    resources = [resource for resource in RESOURCES if resource.api_version == group_version]
    structs = [struct for resource in resources for struct in (resource.struct, resource.list_struct)]
    _, schemas = msgspec.json.schema_components(structs, ref_template=_REF)
    schemas = {name: _plain(schema) for name, schema in schemas.items()}
    for resource in resources:
        schemas[resource.struct.__name__]["x-kubernetes-group-version-kind"] = [_kind(resource)]
    paths: dict[str, Any] = {}
    for resource in resources:
        paths |= _paths(resource)
    return msgspec.json.encode(
        {
            "openapi": "3.0.0",
            "info": {"title": "podrt", "version": "v1"},
            "paths": paths,
            "components": {"schemas": schemas},
        }
    )


def index() -> dict[str, Any]:
    """``/openapi/v3``: where the documents are. The hash lets a client keep what it has."""
    paths: dict[str, Any] = {}
    for version in dict.fromkeys(resource.api_version for resource in RESOURCES):
        digest = hashlib.sha256(document(version)).hexdigest()[:32].upper()
        path = document_path(version)
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
    return {"paths": paths}


def document_path(group_version: str) -> str:
    return f"apis/{group_version}" if "/" in group_version else f"api/{group_version}"


def _kind(resource: Resource) -> dict[str, str]:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _paths(resource: Resource) -> dict[str, Any]:
    prefix = f"/{document_path(resource.api_version)}"
    scope = "/namespaces/{namespace}" if resource.namespaced else ""
    collection = f"{prefix}{scope}/{resource.name}"
    schema = {"$ref": _REF.format(name=resource.struct.__name__)}
    content = {"application/json": {"schema": schema}}

    def operation(action: str, **more: Any) -> dict[str, Any]:
        return {
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": _kind(resource),
            "responses": {"200": {"description": "OK", "content": content}},
            **more,
        }

    writing: dict[str, Any] = {"parameters": [_parameter(name) for name in _QUERY], "requestBody": {"content": content}}
    return {
        collection: {"get": operation("list"), "post": operation("post", **writing)},
        f"{collection}/{{name}}": {
            "get": operation("get"),
            "put": operation("put", **writing),
            "patch": operation("patch", **writing),
            "delete": operation("delete"),
        },
    }


def _parameter(name: str) -> dict[str, Any]:
    kind = "boolean" if name == "force" else "string"
    return {"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": True}}


def _plain(schema: Any) -> Any:
    """OpenAPI 3.0 from JSON Schema 2020: no ``null`` alternatives, a reference beside other keywords wrapped in
    allOf.
    """
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: _plain(value) for key, value in schema.items() if key not in ("title", "prefixItems")}
    if "anyOf" in result:
        options = [option for option in result.pop("anyOf") if option != {"type": "null"}]
        if len(options) == 1:
            result = options[0] | result
        else:
            result["x-kubernetes-int-or-string"] = True
    if result.get("default", 0) is None:
        del result["default"]
    if "$ref" in result and len(result) > 1:
        result["allOf"] = [{"$ref": result.pop("$ref")}]
    return result
