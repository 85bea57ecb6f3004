"""``podrt patch``, ``label`` and ``annotate``."""

from __future__ import annotations

import json
from typing import Any

import click

from podrt.cli import options, printers
from podrt.cli.errors import CliError
from podrt.cli.manifest import read_manifests
from podrt.cli.resources import Resource, for_kind, parse_targets
from podrt.cli.session import Session, out

_TYPES = {
    "strategic": "application/strategic-merge-patch+json",
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
}


@click.command("patch", cls=options.Verb)
@click.argument(
    "targets", nargs=-1, required=True, metavar="TYPE NAME | TYPE/NAME", shell_complete=options.complete_targets
)
@click.option("-p", "--patch", "text", default="", help="The patch, as JSON or YAML.")
@click.option("--patch-file", type=click.Path(exists=True, dir_okay=False), help="A file that holds the patch.")
@click.option("--type", "kind", default="strategic", type=click.Choice(list(_TYPES)), help="Kind of the patch.")
@click.option("--subresource", default="", type=click.Choice(["", "status", "scale", "resize"]), help="Subresource.")
@options.output_option
@options.dry_run_option
@options.namespace_option
@click.pass_obj
def patch(
    session: Session,
    targets: tuple[str, ...],
    text: str,
    patch_file: str | None,
    kind: str,
    subresource: str,
    output: str,
    dry_run: str,
) -> None:
    """Change fields: patch pod web -p '{"metadata":{"labels":{"tier":"front"}}}'."""
    if bool(text) == bool(patch_file):
        raise CliError("must specify -p or --patch-file to provide the contents of the patch", 2)
    if patch_file:
        with open(patch_file, encoding="utf-8") as file:
            text = file.read()
    body = _parse_patch(text)
    if dry_run == "client":
        raise CliError("--dry-run=client: a patch needs the server; use --dry-run=server", 2)
    render = printers.object_printer(output)
    for target in parse_targets(session.client, targets):
        if not target.names:
            raise CliError("resource(s) were provided, but no name was specified", 2)
        for name in target.names:
            path = target.resource.item(session.namespace, name) + (f"/{subresource}" if subresource else "")
            before = session.client.get(path)
            after = _send(session, path, body, _TYPES[kind], dry_run)
            _say(target.resource, before, after, "patched", dry_run, render)


def _parse_patch(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        from podrt.cli.yamlio import load_all

        found = list(load_all(text, "the patch"))
        if len(found) != 1 or not isinstance(found[0], dict | list):
            raise CliError("unable to parse the patch: it must be one JSON or YAML object") from None
        return found[0]


def _send(session: Session, path: str, body: Any, kind: str, dry_run: str) -> dict[str, Any]:
    query: dict[str, object] = {"fieldValidation": "Strict", "dryRun": "All" if dry_run == "server" else None}
    return session.client.json("PATCH", path, query, body, kind)


def _say(
    resource: Resource, before: dict[str, Any], after: dict[str, Any], done: str, dry_run: str, render: Any
) -> None:
    if render is not None:
        printers.emit(render({"apiVersion": resource.group_version, "kind": resource.kind} | after))
        return

    def version(value: dict[str, Any]) -> Any:
        return (value.get("metadata") or {}).get("resourceVersion")

    same = dry_run == "none" and version(before) == version(after)
    suffix = " (no change)" if same and done == "patched" else ""
    verb = f"not {done}" if same and done != "patched" else done
    dry = {"none": "", "client": " (dry run)", "server": " (server dry run)"}[dry_run]
    out(f"{resource.label}/{printers.object_name(after)} {verb}{suffix}{dry}")


def _changes(items: tuple[str, ...], what: str) -> dict[str, str | None]:
    """``key=value`` sets, ``key-`` removes."""
    result: dict[str, str | None] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if equals:
            result[key] = value
        elif item.endswith("-") and len(item) > 1:
            result[item[:-1]] = None
        else:
            raise CliError(f"at least one {what} update is required; {item!r} is neither KEY=VALUE nor KEY-", 2)
    return result


def _is_change(word: str) -> bool:
    return "=" in word or word.endswith("-")


def _update(
    session: Session,
    args: tuple[str, ...],
    field: str,
    what: str,
    overwrite: bool,
    selector: str | None,
    everything: bool,
    filenames: tuple[str, ...],
    listed: bool,
    dry_run: str,
    render: Any,
) -> None:
    first = next((index for index, word in enumerate(args) if _is_change(word)), len(args))
    changes = _changes(args[first:], what)
    if not changes and not listed:
        raise CliError(f"at least one {what} update is required: KEY=VALUE sets, KEY- removes", 2)
    done = {"labels": "labeled", "annotations": "annotated"}[field]
    if field == "labels" and changes and all(value is None for value in changes.values()):
        done = "unlabeled"
    for resource, path in _paths(session, args[:first], selector, everything, filenames):
        before = session.client.get(path)
        current = (before.get("metadata") or {}).get(field) or {}
        if listed:
            for key, value in sorted(current.items()):
                out(f"{key}={value}")
            continue
        for key, value in changes.items():
            if value is not None and not overwrite and current.get(key, value) != value:
                raise CliError(f"'{key}' already has a value ({current[key]}), and --overwrite is false")
        body = {"metadata": {field: changes}}
        after = before if dry_run == "client" else _send(session, path, body, _TYPES["merge"], dry_run)
        _say(resource, before, after, done, dry_run, render)


def _paths(
    session: Session, args: tuple[str, ...], selector: str | None, everything: bool, filenames: tuple[str, ...]
) -> list[tuple[Resource, str]]:
    if filenames:
        found = []
        for item in read_manifests(filenames):
            resource = for_kind(session.client, item.api_version, item.kind, item.origin)
            found.append((resource, resource.item(item.namespace(session.namespace, False), item.name)))
        return found
    paths: list[tuple[Resource, str]] = []
    for target in parse_targets(session.client, args):
        names = list(target.names)
        if not names:
            if not (selector or everything):
                raise CliError("resource(s) were provided, but no name was specified", 2)
            answer = session.client.get(target.resource.collection(session.namespace), {"labelSelector": selector})
            names = [printers.object_name(item) for item in printers.objects_of(answer)]
        paths += [(target.resource, target.resource.item(session.namespace, name)) for name in names]
    return paths


def _command(verb: str, field: str, noun: str, text: str) -> click.Command:
    """``label`` or ``annotate``: they differ in the map that they change."""

    @click.command(verb, cls=options.Verb, help=text)
    @click.argument(
        "targets", nargs=-1, metavar="TYPE NAME... KEY=VALUE... KEY-...", shell_complete=options.complete_targets
    )
    @click.option("--list", "listed", is_flag=True, help="Print what is there.")
    @click.option("-f", "--filename", "filenames", multiple=True, metavar="FILE", help="Objects of a file.")
    @click.option("--all", "everything", is_flag=True, help="All objects of the type.")
    @click.option("-l", "--selector", metavar="EXPR", help="The objects with these labels.")
    @click.option("--overwrite", is_flag=True, help="Values that exist may be changed.")
    @options.output_option
    @options.dry_run_option
    @options.namespace_option
    @click.pass_obj
    def run(
        session: Session,
        targets: tuple[str, ...],
        overwrite: bool,
        selector: str | None,
        everything: bool,
        filenames: tuple[str, ...],
        listed: bool,
        output: str,
        dry_run: str,
    ) -> None:
        render = printers.object_printer(output)
        _update(session, targets, field, noun, overwrite, selector, everything, filenames, listed, dry_run, render)

    return run


label = _command("label", "labels", "label", "Set or remove labels: label pod web tier=front old-.")
annotate = _command(
    "annotate", "annotations", "annotation", "Set or remove annotations: annotate pod web note='first one'."
)
