"""``podrt edit``: the object in an editor, and what was changed as a patch."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from typing import Any

import click

from podrt.cli import options
from podrt.cli.errors import ApiError, CliError
from podrt.cli.resources import Resource, parse_targets
from podrt.cli.session import Session, out
from podrt.cli.strategic import create_patch
from podrt.cli.yamlio import dump, load_all

_HEAD = (
    "# Please edit the object below. Lines beginning with a '#' will be ignored,\n"
    "# and an empty file will abort the edit.\n#\n"
)


@click.command("edit", cls=options.Verb)
@click.argument(
    "targets", nargs=-1, required=True, metavar="TYPE NAME | TYPE/NAME", shell_complete=options.complete_targets
)
@options.namespace_option
@click.pass_obj
def edit(session: Session, targets: tuple[str, ...]) -> None:
    """Edit an object in $KUBE_EDITOR or $EDITOR (else vi)."""
    for target in parse_targets(session.client, targets):
        if len(target.names) != 1:
            raise CliError("name the object to edit: edit pod web", 2)
        _edit(session, target.resource, target.names[0])


def _edit(session: Session, resource: Resource, name: str) -> None:
    path = resource.item(session.namespace, name)
    current = session.client.get(path)
    metadata = {key: value for key, value in current["metadata"].items() if key != "managedFields"}
    shown = {"apiVersion": resource.group_version, "kind": resource.kind} | current | {"metadata": metadata}
    with tempfile.NamedTemporaryFile("w+", prefix=f"podrt-edit-{name}-", suffix=".yaml", delete=False) as file:
        file.write(_HEAD + dump(shown))
        where = file.name
    try:
        _run_editor(where)
        with open(where, encoding="utf-8") as edited:
            text = edited.read()
    except BaseException:
        os.unlink(where)
        raise
    try:
        _apply(session, resource, path, shown, text, where)
    except ApiError as error:
        raise CliError(f"{error.render()}\nyour changes are kept in {where}", error.code) from None
    os.unlink(where)


def _apply(session: Session, resource: Resource, path: str, before: dict[str, Any], text: str, origin: str) -> None:
    documents = list(load_all(text, origin))
    if not documents:
        raise CliError("Edit cancelled, saved file was empty.")
    after = documents[0]
    if not isinstance(after, dict):
        raise CliError(f"{origin}: an object is expected")
    # What was shown is what was there: everything removed from it is to be removed.
    patch = create_patch(before, after, before)
    name = f"{resource.label}/{before['metadata']['name']}"
    if not patch:
        out("Edit cancelled, no changes made.")
        return
    kind = "application/strategic-merge-patch+json"
    session.client.json("PATCH", path, {"fieldValidation": "Strict"}, patch, kind)
    out(f"{name} edited")


def _run_editor(path: str) -> None:
    command = os.environ.get("KUBE_EDITOR") or os.environ.get("EDITOR") or "vi"
    try:
        code = subprocess.run([*shlex.split(command), path], check=False).returncode
    except OSError as error:
        raise CliError(f"can't run the editor {command!r}: {error.strerror}; set EDITOR") from None
    if code != 0:
        raise CliError(f"the editor {command!r} ended with exit code {code}; nothing was changed")
