"""``podrt explain``: the fields of a kind, from the server's OpenAPI documents."""

from __future__ import annotations

from typing import Any

import click

from podrt.cli import options
from podrt.cli.errors import CliError
from podrt.cli.resources import find
from podrt.cli.session import Session, out

_PREFIX = "#/components/schemas/"
Schema = dict[str, Any]


@click.command("explain", cls=options.Verb)
@click.argument("path", metavar="TYPE[.FIELD...]", shell_complete=options.complete_targets)
@click.option("--recursive", is_flag=True, help="All fields below, without descriptions.")
@options.namespace_option
@click.pass_obj
def explain(session: Session, path: str, recursive: bool) -> None:
    """Explain a kind or one of its fields: explain deployment.spec.strategy."""
    word, *fields = path.split(".")
    resource = find(session.client, word)
    root = f"apis/{resource.group_version}" if resource.group else f"api/{resource.group_version}"
    schemas = session.client.get(f"/openapi/v3/{root}")["components"]["schemas"]
    schema = next(
        one
        for one in schemas.values()
        if any(kind.get("kind") == resource.kind for kind in one.get("x-kubernetes-group-version-kind") or ())
    )
    shown = schema
    for field in fields:
        schema = _resolve(schema, schemas)
        shown = (schema.get("properties") or {}).get(field)
        if shown is None:
            raise CliError(f'field "{field}" does not exist')
        schema = shown
    if resource.group:
        out(f"GROUP:      {resource.group}")
    out(f"KIND:       {resource.kind}\nVERSION:    {resource.group_version.rpartition('/')[2]}\n")
    if fields:
        out(f"FIELD: {fields[-1]} <{_type(shown, schemas)}>\n")
    inner = _resolve(schema, schemas)
    out(
        f"\nDESCRIPTION:\n    {_description(shown, inner)}"
        if fields
        else f"DESCRIPTION:\n    {_description(shown, inner)}"
    )
    if inner.get("properties"):
        out("FIELDS:")
        _fields(inner, schemas, recursive, "  ", ())
        out()


def _resolve(schema: Schema, schemas: dict[str, Schema]) -> Schema:
    """The object that a schema is of: references, lists and maps are followed."""
    for _ in range(10):
        if "$ref" in schema:
            schema = schemas[schema["$ref"].removeprefix(_PREFIX)]
        elif "allOf" in schema:
            schema = schema["allOf"][0]
        elif schema.get("type") == "array":
            schema = schema.get("items") or {}
        elif isinstance(schema.get("additionalProperties"), dict):
            schema = schema["additionalProperties"]
        else:
            break
    return schema


def _type(schema: Schema, schemas: dict[str, Schema]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].removeprefix(_PREFIX))
    if "allOf" in schema:
        return _type(schema["allOf"][0], schemas)
    if schema.get("x-kubernetes-int-or-string"):
        return "IntOrString"
    if schema.get("type") == "array":
        return f"[]{_type(schema.get('items') or {}, schemas)}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"map[string]{_type(schema['additionalProperties'], schemas)}"
    return str(schema.get("type", "Object"))


def _description(shown: Schema, inner: Schema) -> str:
    text = shown.get("description") or inner.get("description") or "<empty>"
    return "\n    ".join(" ".join(str(text).split("\n\n")[0].split()).split("\n"))


def _fields(schema: Schema, schemas: dict[str, Schema], recursive: bool, indent: str, seen: tuple[str, ...]) -> None:
    for name, field in sorted((schema.get("properties") or {}).items()):
        kind = _type(field, schemas)
        out(f"{indent}{name}\t<{kind}>")
        inner = _resolve(field, schemas)
        if recursive and inner.get("properties") and kind not in seen:
            _fields(inner, schemas, recursive, indent + "  ", (*seen, kind))
        elif not recursive:
            text = field.get("description") or inner.get("description") or "<no description>"
            out(f"{indent}  {' '.join(str(text).split(chr(10) * 2)[0].split())}\n")
