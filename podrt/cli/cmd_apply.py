"""``podrt apply``, and what it shares with ``create``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from podrt.cli import options, printers
from podrt.cli.errors import ApiError, CliError
from podrt.cli.manifest import Manifest, read_manifests
from podrt.cli.resources import Resource, for_kind
from podrt.cli.session import Session, err, out

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_PATCH_TYPE = "application/strategic-merge-patch+json"
_MERGE_TYPE = "application/merge-patch+json"


def validate_option(function: options.F) -> options.F:
    kind = click.Choice(["strict", "warn", "ignore", "true", "false"])
    return click.option("--validate", type=kind, default="strict", help="What is done about unknown fields.")(function)


def validation(word: str) -> str:
    return {"true": "Strict", "false": "Ignore"}.get(word, word.capitalize())


def explicit_namespace(ctx: click.Context) -> bool:
    """Whether -n was given (before or after the verb), so that another namespace in the file is an error."""
    from click.core import ParameterSource

    here: click.Context | None = ctx
    while here is not None:
        if here.get_parameter_source("namespace") is ParameterSource.COMMANDLINE:
            return True
        here = here.parent
    return False


class Writer:
    """Sends manifests one after the other, goes on after one fails, and says what became of each."""

    def __init__(self, session: Session, explicit: bool, dry_run: str, validate: str, output: str) -> None:
        self.session = session
        self.explicit = explicit
        self.dry_run = dry_run
        self.suffix = {"none": "", "client": " (dry run)", "server": " (server dry run)"}[dry_run]
        self.query: dict[str, object] = {"fieldValidation": validate}
        if dry_run == "server":
            self.query["dryRun"] = "All"
        self.render = printers.object_printer(output) if output and output != "name" else None
        self.only_name = output == "name"
        self.shown: list[dict[str, Any]] = []

    def each(self, manifests: list[Manifest], action: Callable[[Manifest], None]) -> None:
        """Raises the last failure, after all the others were printed."""
        failure: CliError | None = None
        for manifest in manifests:
            try:
                action(manifest)
            except CliError as error:
                if failure is not None:
                    err(failure.render())
                failure = error
        if self.render is not None and self.shown:
            if len(self.shown) == 1:
                printers.emit(self.render(self.shown[0]))
            else:
                printers.emit(self.render({"apiVersion": "v1", "kind": "List", "items": self.shown}))
        if failure is not None:
            raise failure

    def resource(self, manifest: Manifest) -> Resource:
        return for_kind(self.session.client, manifest.api_version, manifest.kind, manifest.origin)

    def say(self, resource: Resource, value: dict[str, Any], done: str) -> None:
        name = f"{resource.label}/{printers.object_name(value)}"
        if self.render is not None:
            self.shown.append({"apiVersion": resource.group_version, "kind": resource.kind} | value)
        else:
            out(name if self.only_name else f"{name} {done}{self.suffix}")

    def post(self, resource: Resource, manifest: Manifest, value: dict[str, Any]) -> dict[str, Any]:
        path = resource.collection(manifest.namespace(self.session.namespace, self.explicit))
        return self.session.client.json(
            "POST", path, self.query, value, doing=f'error when creating "{manifest.origin}"'
        )

    def create(self, manifest: Manifest) -> None:
        resource = self.resource(manifest)
        value = manifest.value
        if self.dry_run != "client":
            value = self.post(resource, manifest, value)
        self.say(resource, value, "created")

    def apply(self, manifest: Manifest, force: bool) -> None:
        resource = self.resource(manifest)
        namespace = manifest.namespace(self.session.namespace, self.explicit)
        path = resource.item(namespace, manifest.name)
        value = with_last_applied(manifest.value)
        try:
            current = self.session.client.get(path)
        except ApiError as error:
            if error.reason != "NotFound" or error.http_code != 404:
                raise
            created = value if self.dry_run == "client" else self.post(resource, manifest, value)
            self.say(resource, created, "created")
            return
        patch = patch_for(value, current)
        if not patch or self.dry_run == "client":
            self.say(resource, current if not patch else value, "configured" if patch else "unchanged")
            return
        self._patch(resource, manifest, path, patch, current, force)

    def _patch(
        self,
        resource: Resource,
        manifest: Manifest,
        path: str,
        patch: dict[str, Any],
        current: dict[str, Any],
        force: bool,
    ) -> None:
        kind = _PATCH_TYPE if not resource.group or resource.group in ("apps", "batch", "policy") else _MERGE_TYPE
        doing = f'error when applying patch to "{manifest.origin}"'
        try:
            value = self.session.client.json("PATCH", path, self.query, patch, kind, doing=doing)
        except ApiError as error:
            if not (force and error.reason in ("Invalid", "Conflict")):
                raise
            from podrt.cli.cmd_delete import delete_and_wait

            delete_and_wait(self.session, resource, path)
            value = self.post(resource, manifest, with_last_applied(manifest.value))
        versions = [(item.get("metadata") or {}).get("resourceVersion") for item in (value, current)]
        # The server may find that nothing is different after all ("0.5" is stored as "500m").
        same = versions[0] == versions[1] and self.dry_run == "none"
        self.say(resource, value, "unchanged" if same else "configured")


def with_last_applied(value: dict[str, Any]) -> dict[str, Any]:
    """``value`` with itself in kubectl's annotation, from which the next ``apply`` knows what was removed."""
    metadata = dict(value.get("metadata") or {})
    annotations = {key: text for key, text in (metadata.get("annotations") or {}).items() if key != LAST_APPLIED}
    plain = value | {"metadata": metadata | {"annotations": annotations}}
    text = json.dumps(plain, separators=(",", ":"), sort_keys=True, ensure_ascii=False) + "\n"
    return value | {"metadata": metadata | {"annotations": annotations | {LAST_APPLIED: text}}}


def patch_for(modified: dict[str, Any], current: dict[str, Any]) -> dict[str, Any]:
    """The three-way patch that brings ``current`` to ``modified`` (which has its annotation)."""
    from podrt.cli.strategic import create_patch

    annotations = (current.get("metadata") or {}).get("annotations") or {}
    try:
        original = json.loads(annotations.get(LAST_APPLIED) or "{}")
    except ValueError:
        original = {}
    if not isinstance(original, dict):
        original = {}
    # A live object never lacks what identifies it, and status belongs to the server.
    ignored = {"status", "apiVersion", "kind"}
    changed = {key: value for key, value in modified.items() if key not in ignored}
    before = {key: value for key, value in original.items() if key not in ignored}
    return create_patch(before, changed, current)


@click.command("apply", cls=options.Verb)
@options.files_options
@options.output_option
@options.dry_run_option
@validate_option
@click.option("--force", is_flag=True, help="Delete and create anew what can't be changed in place.")
@options.namespace_option
@click.pass_context
def apply(
    ctx: click.Context,
    filenames: tuple[str, ...],
    recursive: bool,
    output: str,
    dry_run: str,
    validate: str,
    force: bool,
) -> None:
    """Create objects, or change them to what the files say: apply -f pod.yaml, apply -R -f dir, apply -f -."""
    if not filenames:
        raise CliError("must specify -f (a file, a directory or -)", 2)
    writer = Writer(ctx.obj, explicit_namespace(ctx), dry_run, validation(validate), output)
    writer.each(read_manifests(filenames, recursive), lambda manifest: writer.apply(manifest, force))
