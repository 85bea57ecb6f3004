"""Verbs that concern registries and the disk: pull, push, df."""

from __future__ import annotations

import json
from typing import Any

import click

from podrt.cli import options, printers
from podrt.cli.errors import ApiError, CliError
from podrt.cli.image_manage import BASE, complete
from podrt.cli.progress import Progress
from podrt.cli.session import Session, err, out

_creds_option = click.option(
    "--creds", default="", metavar="USER[:PASSWORD]", help="Who to be; without a password it is asked for."
)


@click.command("pull", cls=options.Verb)
@click.argument("references", nargs=-1, required=True, metavar="IMAGE...")
@_creds_option
@click.option("-q", "--quiet", is_flag=True, help="No progress, ids only.")
@options.socket_option
@click.pass_obj
def pull(session: Session, references: tuple[str, ...], creds: str, quiet: bool) -> None:
    """Pull images from their registries; what is here is not fetched again.

    Credentials are those of podman login and docker login on the machine of the daemon. Names below localhost/ (without
    a port) are local and never pulled.
    """
    body = _credentials(creds)
    for reference in references:
        for image in _stream(session, "images:pull", [("reference", reference)], body, quiet).get("images") or ():
            out(str(image["id"]) if quiet else f"Pulled image: {reference} ({image['digest']})")


@click.command("push", cls=options.Verb)
@click.argument("source", metavar="IMAGE", shell_complete=complete)
@click.argument("target", required=False, default="", metavar="[NAME]")
@_creds_option
@click.option("-q", "--quiet", is_flag=True, help="No progress, the digest only.")
@options.socket_option
@click.pass_obj
def push(session: Session, source: str, target: str, creds: str, quiet: bool) -> None:
    """Push an image to a registry: push localhost/app:1 registry.example/team/app:1."""
    query: list[tuple[str, object]] = [("source", source), ("target", target or None)]
    found = _stream(session, "images:push", query, _credentials(creds), quiet)["pushed"]
    out(str(found["digest"]) if quiet else f"Pushed image: {found['name']} ({found['digest']})")


@click.command("df", cls=options.Verb)
@click.option("-o", "--output", default="", type=click.Choice(["", "json"]), help="json.")
@options.socket_option
@click.pass_obj
def df(session: Session, output: str) -> None:
    """Show what each image takes of the disk, and how full the disk is."""
    from podrt.cli.times import human_size

    found = session.client.get(f"{BASE}/images:df")
    if output:
        out(json.dumps(found, indent=4))
        return
    rows = []
    for item in found.get("items") or ():
        flags = [name for name, shown in (("in use", item["inUse"]), ("pinned", item["pinned"])) if shown]
        rows.append(
            [
                ", ".join(item.get("names") or ()) or "<none>",
                human_size(item["uniqueBytes"]),
                human_size(item["sharedBytes"]),
                human_size(item["blobBytes"]),
                ", ".join(flags) or "-",
                str(item["lastUsed"]),
            ]
        )
    printers.Table(["NAME", "UNIQUE", "SHARED", "BLOBS", "KEPT", "LAST USED"]).write(rows)
    total, disk = found["total"], found["disk"]
    err(
        f"{human_size(total['layerBytes'])} of layers, {human_size(total['blobBytes'])} of blobs,"
        f" {total['inodes']} inodes; the disk is {disk['percent']}% full,"
        f" {human_size(disk['availableBytes'])} of {human_size(disk['totalBytes'])} are free"
    )


def _credentials(text: str) -> dict[str, Any]:
    if not text:
        return {}
    username, colon, password = text.partition(":")
    if not colon:
        password = click.prompt("Password", hide_input=True, err=True)
    return {"auth": {"username": username, "password": password}}


def _stream(
    session: Session, verb: str, query: list[tuple[str, object]], body: dict[str, Any], quiet: bool
) -> dict[str, Any]:
    """Show progress and return the last line. Raises ApiError from it."""
    data = json.dumps(body).encode() if body else b""
    headers = {"Content-Type": "application/json", "Accept": "application/json", "Content-Length": str(len(data))}
    with (
        Progress(quiet) as progress,
        session.client.open("POST", f"{BASE}/{verb}", query, data, headers) as response,
    ):
        for line in response.lines():
            if not line.strip():
                continue
            message: dict[str, Any] = json.loads(line)
            if "progress" in message:
                step = message["progress"]
                progress.update(str(step.get("what", "")), int(step.get("done") or 0), step.get("total"))
            elif "error" in message:
                raise ApiError(message["error"])
            else:
                return message
    raise CliError("the daemon ended its answer without a result; see its log")
