"""Verbs on images that are in the store: ls, inspect, history, tag, rm, prune, usage."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click

from podrt.cli import options, printers
from podrt.cli.client import TABLE, quote
from podrt.cli.errors import ApiError, CliError
from podrt.cli.session import Session, err, out

BASE = "/apis/podrt.dev/v1alpha1"


def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> Any:
    from podrt.cli.complete import images

    return images(ctx, incomplete)


def _path(reference: str) -> str:
    return f"{BASE}/images/{quote(reference)}"


@click.command("ls", cls=options.Verb)
@click.option(
    "-o", "--output", default="", metavar="FORMAT", help="wide, json, yaml, name, jsonpath=, custom-columns=."
)
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@click.option("--no-headers", is_flag=True, help="Leave the headers out.")
@options.socket_option
@click.pass_obj
def ls(session: Session, output: str, quiet: bool, no_headers: bool) -> None:
    """List images."""
    if quiet or output == "name":
        for item in session.client.get(f"{BASE}/images").get("items") or ():
            for name in [item["id"]] if quiet else item.get("names") or [item["id"]]:
                out(str(name))
        return
    render = printers.object_printer(output, wide_ok=True)
    if render is not None:
        printers.emit(render(session.client.get(f"{BASE}/images")))
        return
    table = session.client.get(f"{BASE}/images", accept=TABLE)
    headers, rows = printers.table_rows(table, output == "wide")
    if not rows:
        err("No images; 'podrt image load -i ARCHIVE' and 'podrt image import' bring some")
        return
    printers.Table(None if no_headers else headers).write(rows)


@click.command("inspect", cls=options.Verb)
@click.argument("references", nargs=-1, required=True, metavar="IMAGE...", shell_complete=complete)
@click.option("-o", "--output", default="json", metavar="FORMAT", help="json, yaml or jsonpath=.")
@options.socket_option
@click.pass_obj
def inspect(session: Session, references: tuple[str, ...], output: str) -> None:
    """Show images in detail, as JSON (a list, as docker image inspect)."""
    found = [session.client.get(_path(reference)) for reference in references]
    if output == "json":
        out(json.dumps(found, indent=4, ensure_ascii=False))
        return
    render = printers.object_printer(output)
    assert render is not None
    for value in found:
        printers.emit(render(value))


@click.command("history", cls=options.Verb)
@click.argument("reference", metavar="IMAGE", shell_complete=complete)
@click.option("--no-trunc", is_flag=True, help="Whole commands.")
@click.option("-o", "--output", default="", type=click.Choice(["", "json"]), help="json.")
@options.socket_option
@click.pass_obj
def history(session: Session, reference: str, no_trunc: bool, output: str) -> None:
    """Show how an image was made, newest step first."""
    from podrt.cli.times import age, human_size

    steps = session.client.get(_path(reference) + "/history").get("items") or []
    if output:
        out(json.dumps(steps, indent=4, ensure_ascii=False))
        return
    rows = []
    for step in steps:
        made_by = " ".join(str(step.get("CreatedBy", "")).split())
        if not no_trunc and len(made_by) > 60:
            made_by = made_by[:57] + "..."
        created = step.get("Created")
        if isinstance(created, int):
            created = datetime.fromtimestamp(created, UTC).isoformat() if created else None
        size = human_size(step.get("Size") or 0)
        rows.append([age(created), size, made_by or "<none>", str(step.get("Comment") or "")])
    printers.Table(["CREATED", "SIZE", "CREATED BY", "COMMENT"]).write(rows)


@click.command("tag", cls=options.Verb)
@click.argument("source", metavar="IMAGE", shell_complete=complete)
@click.argument("target", metavar="NAME")
@options.socket_option
@click.pass_obj
def tag(session: Session, source: str, target: str) -> None:
    """Give an image another name."""
    session.client.json("POST", f"{BASE}/images:tag", {"source": source, "target": target})
    out(f"image/{target} tagged")


@click.command("rm", cls=options.Verb)
@click.argument("references", nargs=-1, required=True, metavar="IMAGE...", shell_complete=complete)
@click.option("-f", "--force", is_flag=True, help="Remove the image with all its names.")
@click.option("--ignore-not-found", is_flag=True, help="An image that does not exist is no error.")
@options.socket_option
@click.pass_obj
def rm(session: Session, references: tuple[str, ...], force: bool, ignore_not_found: bool) -> None:
    """Remove names, and images that have none left."""
    failure: CliError | None = None
    for reference in references:
        try:
            answer = session.client.json("DELETE", _path(reference), {"force": force or None})
        except ApiError as error:
            if error.http_code == 404 and ignore_not_found:
                continue
            if failure is not None:
                err(failure.render())
            failure = error
            continue
        _print_removals(answer)
    if failure is not None:
        raise failure


def _print_removals(answer: dict[str, Any]) -> None:
    for item in answer.get("items") or ():
        if item.get("untagged"):
            out(f"Untagged: {item['untagged']}")
        if item.get("deleted"):
            out(f"Deleted: {item['deleted']}")


@click.command("prune", cls=options.Verb)
@click.option("-a", "--all", "everything", is_flag=True, help="Images with a name too, if no container uses them.")
@click.option("-f", "--force", is_flag=True, help="Don't ask.")
@options.socket_option
@click.pass_obj
def prune(session: Session, everything: bool, force: bool) -> None:
    """Remove images that nothing uses; asks first on a terminal."""
    import sys

    from podrt.cli.times import human_size

    what = "images that no container uses" if everything else "images without a name"
    if not force and sys.stdin.isatty():
        click.confirm(f"Remove all {what}?", abort=True)
    answer = session.client.json("POST", f"{BASE}/images:prune", {"all": everything or None})
    _print_removals(answer)
    out(f"Reclaimed {human_size(answer.get('bytesReclaimed') or 0)}")


@click.command("usage", cls=options.Verb)
@click.option("-o", "--output", default="", type=click.Choice(["", "json"]), help="json.")
@options.socket_option
@click.pass_obj
def usage(session: Session, output: str) -> None:
    """Show what the store takes of the disk."""
    from podrt.cli.times import human_size

    found = session.client.get(f"{BASE}/images:usage")
    if output:
        out(json.dumps(found, indent=4))
        return
    rows = [
        ["images", str(found.get("images", 0)), human_size(found.get("blobBytes") or 0)],
        ["unpacked layers", str(found.get("layers", 0)), human_size(found.get("layerBytes") or 0)],
    ]
    printers.Table(["WHAT", "COUNT", "SIZE"]).write(rows)
