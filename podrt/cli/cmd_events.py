"""``podrt events``."""

from __future__ import annotations

from typing import Any

import click

from podrt.cli import options, printers
from podrt.cli.describe_common import event_age, last_seen
from podrt.cli.errors import CliError
from podrt.cli.resources import EVENTS, find
from podrt.cli.session import Session, err


@click.command("events", cls=options.Verb)
@click.option("--for", "about", default="", metavar="TYPE/NAME", help="Only events about this object.")
@click.option("--types", default="", metavar="Normal,Warning", help="Only events of these types.")
@click.option("-w", "--watch", is_flag=True, help="List, then print events as they come.")
@click.option("--no-headers", is_flag=True, help="Leave the headers out.")
@options.output_option
@options.all_namespaces_option
@options.namespace_option
@click.pass_obj
def events(
    session: Session, about: str, types: str, watch: bool, no_headers: bool, output: str, all_namespaces: bool
) -> None:
    """List events, oldest first: events --for pod/web, events --types Warning -A, events -w."""
    wanted = {word.strip().lower() for word in types.split(",") if word.strip()}
    if wanted - {"normal", "warning"}:
        raise CliError("valid --types are Normal or Warning", 2)
    render = printers.object_printer(output)
    namespace = None if all_namespaces else session.namespace
    query: dict[str, object] = {"fieldSelector": _selector(session, about)}

    def chosen(event: dict[str, Any]) -> bool:
        return not wanted or str(event.get("type", "")).lower() in wanted

    listed = session.client.get(EVENTS.collection(namespace), query)
    found = sorted((event for event in listed.get("items") or () if chosen(event)), key=last_seen)
    headers = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    table = printers.Table(None if no_headers else ["NAMESPACE", *headers] if all_namespaces else headers)
    if render is not None:
        typed = [{"apiVersion": "v1", "kind": "Event"} | event for event in found]
        printers.emit(render({"apiVersion": "v1", "kind": "List", "items": typed}))
    elif found:
        table.write(_row(event, all_namespaces) for event in found)
    elif not watch:
        err("No events found." if all_namespaces else f"No events found in {session.namespace} namespace.")
    if not watch:
        return
    printers.emit("")
    version = str((listed.get("metadata") or {}).get("resourceVersion", ""))
    for change in session.client.watch(EVENTS.collection(namespace), query | {"resourceVersion": version}):
        event = change["object"]
        if change.get("type") not in ("ADDED", "MODIFIED") or not chosen(event):
            continue
        if render is not None:
            printers.emit(render({"apiVersion": "v1", "kind": "Event"} | event))
        else:
            table.write([_row(event, all_namespaces)])
            printers.emit("")


def _selector(session: Session, about: str) -> str:
    if not about:
        return ""
    word, slash, name = about.partition("/")
    if not slash or not word or not name:
        raise CliError("--for must be in resource/name form", 2)
    resource = find(session.client, word)
    return f"involvedObject.kind={resource.kind},involvedObject.name={name}"


def _row(event: dict[str, Any], with_namespace: bool) -> list[str]:
    target = event.get("involvedObject") or event.get("regarding") or {}
    name = f"{target.get('kind', '')}/{target.get('name', '')}"
    message = " ".join(str(event.get("message", "")).split())
    row = [event_age(event), str(event.get("type", "")), str(event.get("reason", "")), name, message]
    return [str((event.get("metadata") or {}).get("namespace", "")), *row] if with_namespace else row
