"""``podrt get``: the server makes the table, the client prints it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import click

from podrt.cli import options, printers
from podrt.cli.client import TABLE
from podrt.cli.errors import ApiError, CliError
from podrt.cli.resources import Resource, Target, for_kind, parse_targets
from podrt.cli.session import Session, err


class _Query(NamedTuple):
    selector: str | None
    fields: str | None
    everywhere: bool
    labels: tuple[str, ...]
    show_labels: bool
    headers: bool
    sort_by: str
    ignore_missing: bool


@click.command("get", cls=options.Verb)
@click.argument(
    "targets", nargs=-1, metavar="TYPE[,TYPE] [NAME...] | TYPE/NAME...", shell_complete=options.complete_targets
)
@options.files_options
@options.output_option
@options.selector_options
@options.all_namespaces_option
@click.option("-w", "--watch", is_flag=True, help="List, then print changes as they come.")
@click.option("--watch-only", is_flag=True, help="Print changes only.")
@click.option("-L", "--label-columns", multiple=True, metavar="KEY", help="Show these labels as columns.")
@click.option("--show-labels", is_flag=True, help="Show all labels in the last column.")
@click.option("--no-headers", is_flag=True, help="Leave the headers out.")
@click.option("--sort-by", default="", metavar="PATH", help="Sort by this field, for example .metadata.name.")
@click.option("--ignore-not-found", is_flag=True, help="An object that does not exist is no error.")
@options.namespace_option
@click.pass_obj
def get(
    session: Session,
    targets: tuple[str, ...],
    filenames: tuple[str, ...],
    recursive: bool,
    output: str,
    selector: str | None,
    field_selector: str | None,
    all_namespaces: bool,
    watch: bool,
    watch_only: bool,
    label_columns: tuple[str, ...],
    show_labels: bool,
    no_headers: bool,
    sort_by: str,
    ignore_not_found: bool,
) -> None:
    """List objects: get pods, get pods -o wide, get pod/web -o yaml, get pods,nodes, get pods -w."""
    render = printers.object_printer(output, wide_ok=True)
    labels = tuple(name for part in label_columns for name in part.split(","))
    query = _Query(
        selector, field_selector, all_namespaces, labels, show_labels, not no_headers, sort_by, ignore_not_found
    )
    wanted = _targets(session, targets, filenames, recursive)
    _check(wanted, query)
    if watch or watch_only:
        if len(wanted) != 1 or len(wanted[0].names) > 1:
            raise CliError("you may only watch one resource type, or one object, at a time")
        _watch(session, wanted[0], query, output == "wide", render, watch_only)
    elif render is None:
        _print_tables(session, wanted, query, output == "wide", prefixed=targets[:1] == ("all",))
    else:
        _print_objects(session, wanted, query, render, output)


def _targets(session: Session, args: tuple[str, ...], filenames: tuple[str, ...], recursive: bool) -> list[Target]:
    if not filenames:
        return parse_targets(session.client, args)
    from podrt.cli.manifest import read_manifests

    found = []
    for item in read_manifests(filenames, recursive):
        found.append(Target(for_kind(session.client, item.api_version, item.kind, item.origin), (item.name,)))
    return found


def _check(wanted: list[Target], query: _Query) -> None:
    if any(target.names for target in wanted):
        if query.selector or query.fields:
            raise CliError("name cannot be provided when a selector is specified")
        if query.everywhere and any(target.resource.namespaced for target in wanted):
            raise CliError("a resource cannot be retrieved by name across all namespaces")


def _namespace(session: Session, query: _Query) -> str | None:
    return None if query.everywhere else session.namespace


def _fetch(session: Session, target: Target, query: _Query, accept: str) -> Iterator[dict[str, Any]]:
    """One answer per name, or one List. A missing object is skipped under --ignore-not-found."""
    resource = target.resource
    extra: dict[str, object] = {"includeObject": "Object"} if query.sort_by and accept == TABLE else {}
    if not target.names:
        selectors = {"labelSelector": query.selector, "fieldSelector": query.fields}
        yield session.client.get(resource.collection(_namespace(session, query)), selectors | extra, accept)
        return
    for name in target.names:
        try:
            yield session.client.get(resource.item(session.namespace, name), extra, accept)
        except ApiError as error:
            if not (query.ignore_missing and error.reason == "NotFound"):
                raise


def _print_tables(session: Session, wanted: list[Target], query: _Query, wide: bool, prefixed: bool) -> None:
    several = prefixed or len({target.resource for target in wanted}) > 1
    printed = False
    failure: ApiError | None = None
    printer: printers.Table | None = None
    last: Resource | None = None
    for target in wanted:
        try:
            for table in _fetch(session, target, query, TABLE):
                if printer is None or last != target.resource:
                    printer = _printer(table, target.resource, query, wide)
                    if printed:
                        printers.emit("\n")
                    last = target.resource
                rows = _rows(table, target.resource, query, wide, several)
                if rows:
                    printer.write(rows)
                    printed = True
        except ApiError as error:
            if failure is not None:
                err(failure.render())
            failure = error
    if failure is not None:
        raise failure
    if not printed and not query.ignore_missing:
        cluster = query.everywhere or not any(target.resource.namespaced for target in wanted)
        err("No resources found" if cluster else f"No resources found in {session.namespace} namespace.")


def _printer(table: dict[str, Any], resource: Resource, query: _Query, wide: bool) -> printers.Table:
    headers = _table(table, resource, query, wide, False)[0]
    status = next((index for index, name in enumerate(headers) if name == "STATUS"), -1)
    return printers.Table(headers if query.headers else None, status)


def _rows(table: dict[str, Any], resource: Resource, query: _Query, wide: bool, several: bool) -> list[list[str]]:
    if query.sort_by and table.get("rows"):
        keyed = [(row.get("object") or {}, row) for row in table["rows"]]
        table = table | {"rows": [row for _, row in _sorted(keyed, query.sort_by)]}
    return _table(table, resource, query, wide, several)[1]


def _table(
    table: dict[str, Any], resource: Resource, query: _Query, wide: bool, several: bool
) -> tuple[list[str], list[list[str]]]:
    with_namespace = query.everywhere and resource.namespaced
    prefix = resource.label if several else ""
    if table.get("kind") != "Table":
        table = _make_table(table)
    return printers.table_rows(table, wide, with_namespace, query.labels, query.show_labels, prefix)


def _make_table(value: dict[str, Any]) -> dict[str, Any]:
    """Name and age, for a server that has no table of this type."""
    from podrt.cli.times import age

    rows = []
    for item in printers.objects_of(value):
        created = (item.get("metadata") or {}).get("creationTimestamp")
        rows.append({"cells": [printers.object_name(item), age(created)], "object": item})
    return {"columnDefinitions": [{"name": "Name"}, {"name": "Age"}], "rows": rows}


def _sorted(keyed: list[tuple[Any, Any]], path: str) -> list[tuple[Any, Any]]:
    """Sort (object, anything) by a field: numbers and quantities by value, then texts, then what lacks the field."""
    from podrt.cli.jsonpath import Template, relaxed, to_text
    from podrt.cli.times import quantity

    template = Template(relaxed(path))

    def key(pair: tuple[Any, Any]) -> tuple[int, float, str]:
        found = template.values(pair[0])
        if not found or found[0] is None:
            return (2, 0.0, "")
        try:
            return (0, quantity(found[0]), "")
        except CliError:
            return (1, 0.0, to_text(found[0]))

    if keyed and not any(template.values(value) for value, _ in keyed):
        raise CliError(f'couldn\'t find any field with path "{relaxed(path)}" in the list of objects')
    return sorted(keyed, key=key)


def _print_objects(session: Session, wanted: list[Target], query: _Query, render: Any, output: str) -> None:
    answers = [(target, answer) for target in wanted for answer in _fetch(session, target, query, "application/json")]
    if not answers:
        return
    if len(answers) == 1:
        value = answers[0][1]
    else:
        items = [item for target, answer in answers for item in _typed_items(answer, target.resource)]
        value = {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}
    if isinstance(value.get("items"), list) and str(value.get("kind", "")).endswith("List"):
        value = value | {"items": _typed_items(value, answers[0][0].resource)}
        if query.sort_by:
            value["items"] = [item for item, _ in _sorted([(item, None) for item in value["items"]], query.sort_by)]
        if value["kind"] != "ImageList":
            value = value | {"apiVersion": "v1", "kind": "List"}
    text = render(value)
    if not query.headers and output.startswith("custom-columns"):
        text = text.partition("\n")[2]
    printers.emit(text + ("" if not text or text.endswith("\n") or output.startswith("jsonpath") else "\n"))


def _typed_items(value: dict[str, Any], resource: Resource) -> list[dict[str, Any]]:
    """Items of a list carry no kind on the wire; printed objects do."""
    head = {"apiVersion": resource.group_version, "kind": resource.kind}
    return [head | item for item in printers.objects_of(value)]


def _watch(session: Session, target: Target, query: _Query, wide: bool, render: Any, watch_only: bool) -> None:
    resource = target.resource
    fields = query.fields
    if target.names:
        fields = f"metadata.name={target.names[0]}"
    path = resource.collection(_namespace(session, query))
    selectors: dict[str, object] = {"labelSelector": query.selector, "fieldSelector": fields}
    accept = TABLE if render is None else "application/json"
    if target.names and not watch_only:
        session.client.get(resource.item(session.namespace, target.names[0]))
    first = session.client.get(path, selectors, accept)
    version = str((first.get("metadata") or {}).get("resourceVersion", ""))
    printer: printers.Table | None = None
    columns = first.get("columnDefinitions")
    if render is None:
        printer = _printer(first, resource, query, wide)
        rows = [] if watch_only else _rows(first, resource, query, wide, False)
        if rows:
            printer.write(rows)
    elif not watch_only:
        for item in _typed_items(first, resource):
            printers.emit(render(item))
    printers.emit("")
    for event in session.client.watch(path, selectors | {"resourceVersion": version}, accept):
        if event.get("type") == "BOOKMARK":
            continue
        value = event["object"]
        if printer is not None:
            table = (
                value
                if value.get("columnDefinitions") or value.get("kind") != "Table"
                else value | {"columnDefinitions": columns}
            )
            printer.write(_table(table, resource, query, wide, False)[1])
            printers.emit("")
        else:
            printers.emit(render({"apiVersion": resource.group_version, "kind": resource.kind} | value))
