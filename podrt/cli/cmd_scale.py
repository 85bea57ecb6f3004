"""``podrt scale`` and ``podrt set image``."""

from __future__ import annotations

import time
from typing import Any

import click

from podrt.cli import options, printers
from podrt.cli.errors import CliError
from podrt.cli.resources import Resource, for_kind, parse_targets
from podrt.cli.session import Session, out

_MERGE = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"


@click.command("scale", cls=options.Verb)
@click.argument("targets", nargs=-1, metavar="TYPE NAME | TYPE/NAME", shell_complete=options.complete_targets)
@click.option("--replicas", type=click.IntRange(min=0), required=True, help="How many there are to be.")
@click.option("--current-replicas", type=int, default=-1, help="Only if there are this many now.")
@click.option("--timeout", default="0s", metavar="DURATION", help="How long to wait for it; 0s: not at all.")
@options.files_options
@options.dry_run_option
@options.namespace_option
@click.pass_obj
def scale(
    session: Session,
    targets: tuple[str, ...],
    replicas: int,
    current_replicas: int,
    timeout: str,
    filenames: tuple[str, ...],
    recursive: bool,
    dry_run: str,
) -> None:
    """Set the number of replicas: scale deployment/web --replicas=3."""
    from podrt.cli.times import parse_duration

    seconds = parse_duration(timeout)
    dry = {"none": "", "client": " (dry run)", "server": " (server dry run)"}[dry_run]
    for resource, namespace, name in _chosen(session, targets, filenames, recursive):
        path = resource.item(namespace, name)
        before = session.client.get(f"{path}/scale")
        present = (before.get("spec") or {}).get("replicas", 0)
        if current_replicas >= 0 and present != current_replicas:
            raise CliError(f"Expected replicas to be {current_replicas}, was {present}")
        if dry_run != "client":
            query = {"dryRun": "All" if dry_run == "server" else None}
            session.client.json("PATCH", f"{path}/scale", query, {"spec": {"replicas": replicas}}, _MERGE)
        if seconds > 0 and dry_run == "none":
            _wait(session, resource, namespace, name, replicas, seconds)
        out(f"{resource.label}/{name} scaled{dry}")


def _chosen(
    session: Session, targets: tuple[str, ...], filenames: tuple[str, ...], recursive: bool
) -> list[tuple[Resource, str, str]]:
    if filenames:
        from podrt.cli.manifest import read_manifests

        return [
            (
                for_kind(session.client, item.api_version, item.kind, item.origin),
                item.namespace(session.namespace, False),
                item.name,
            )
            for item in read_manifests(filenames, recursive)
        ]
    found: list[tuple[Resource, str, str]] = []
    for target in parse_targets(session.client, targets):
        if not target.names:
            raise CliError("resource(s) were provided, but no name was specified", 2)
        found += [(target.resource, session.namespace, name) for name in target.names]
    return found


def _wait(session: Session, resource: Resource, namespace: str, name: str, replicas: int, seconds: float) -> None:
    from podrt.cli.waiting import wait_until

    def there(value: dict[str, Any] | None) -> bool:
        status = (value or {}).get("status") or {}
        return bool(status.get("replicas", 0) == replicas)

    if not wait_until(session.client, resource, namespace, name, there, time.monotonic() + seconds):
        raise CliError("timed out waiting for the condition")


@click.group("set", subcommand_metavar="COMMAND ...")
def set_() -> None:
    """Change a field of objects."""


@set_.command("image", cls=options.Verb)
@click.argument("args", nargs=-1, required=True, metavar="TYPE/NAME CONTAINER=IMAGE...")
@options.output_option
@options.dry_run_option
@options.namespace_option
@click.pass_obj
def set_image(session: Session, args: tuple[str, ...], output: str, dry_run: str) -> None:
    """Change images of containers: set image deployment/web main=nginx:1.29; * means all containers."""
    first = next((index for index, word in enumerate(args) if "=" in word), len(args))
    images = dict(word.split("=", 1) for word in args[first:] if "=" in word)
    if not images or len(images) != len(args) - first:
        raise CliError("at least one image update is required: CONTAINER=IMAGE", 2)
    render = printers.object_printer(output)
    for target in parse_targets(session.client, args[:first]):
        if not target.names:
            raise CliError("one or more resources must be specified as <resource> <name> or <resource>/<name>", 2)
        for name in target.names:
            _set_image(session, target.resource, name, images, dry_run, render)


def _set_image(
    session: Session, resource: Resource, name: str, images: dict[str, str], dry_run: str, render: Any
) -> None:
    path = resource.item(session.namespace, name)
    before = session.client.get(path)
    route = pod_spec_path(resource.kind)
    spec: dict[str, Any] = before
    for key in route:
        spec = spec.get(key) or {}
    change: dict[str, list[dict[str, str]]] = {}
    known: set[str] = set()
    for field in ("containers", "initContainers"):
        for container in spec.get(field) or ():
            known.add(container["name"])
            image = images.get(container["name"], images.get("*"))
            if image is not None and image != container.get("image"):
                change.setdefault(field, []).append({"name": container["name"], "image": image})
    for missing in set(images) - known - {"*"}:
        raise CliError(f'unable to find container named "{missing}"')
    if not change:
        return
    body: dict[str, Any] = change
    for key in reversed(route):
        body = {key: body}
    after = before
    if dry_run != "client":
        query = {"dryRun": "All" if dry_run == "server" else None}
        after = session.client.json("PATCH", path, query, body, _STRATEGIC)
    if render is not None:
        printers.emit(render({"apiVersion": resource.group_version, "kind": resource.kind} | after))
        return
    dry = {"none": "", "client": " (dry run)", "server": " (server dry run)"}[dry_run]
    out(f"{resource.label}/{name} image updated{dry}")


def pod_spec_path(kind: str) -> tuple[str, ...]:
    """Where the Pod's spec is in an object. Raises CliError for kinds that have none."""
    if kind == "Pod":
        return ("spec",)
    if kind == "CronJob":
        return ("spec", "jobTemplate", "spec", "template", "spec")
    if kind in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job"):
        return ("spec", "template", "spec")
    raise CliError(f"{kind} has no pods of its own: it has no images")
