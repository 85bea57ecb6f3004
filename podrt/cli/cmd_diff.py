"""``podrt diff``: what ``apply`` would change, as the server would store it."""

from __future__ import annotations

from typing import Any

import click

from podrt.cli import options
from podrt.cli.cmd_apply import patch_for, with_last_applied
from podrt.cli.errors import ApiError, CliError
from podrt.cli.manifest import Manifest, read_manifests
from podrt.cli.resources import for_kind
from podrt.cli.session import Session

_STRATEGIC = "application/strategic-merge-patch+json"
_NOISE = ("managedFields",)
DIFFERENT = 1


@click.command("diff", cls=options.Verb)
@options.files_options
@options.namespace_option
@click.pass_obj
def diff(session: Session, filenames: tuple[str, ...], recursive: bool) -> int:
    """Compare files with what is stored: diff -f web.yaml. Exit code 1 if anything would change."""
    if not filenames:
        raise CliError("must specify -f (a file, a directory or -)", 2)
    code = 0
    for manifest in read_manifests(filenames, recursive):
        code |= _one(session, manifest)
    return code


def _one(session: Session, manifest: Manifest) -> int:
    import difflib

    from podrt.cli.printers import emit
    from podrt.cli.yamlio import dump

    resource = for_kind(session.client, manifest.api_version, manifest.kind, manifest.origin)
    namespace = manifest.namespace(session.namespace, False)
    path = resource.item(namespace, manifest.name)
    query: dict[str, object] = {"dryRun": "All", "fieldValidation": "Strict"}
    value = with_last_applied(manifest.value)
    try:
        live: dict[str, Any] | None = session.client.get(path)
    except ApiError as error:
        if error.reason != "NotFound":
            raise
        live = None
    if live is None:
        merged = session.client.json("POST", resource.collection(namespace), query, value)
    elif patch := patch_for(value, live):
        merged = session.client.json("PATCH", path, query, patch, _STRATEGIC)
    else:
        merged = live
    before = [] if live is None else dump(_plain(live)).splitlines(keepends=True)
    after = dump(_plain(merged)).splitlines(keepends=True)
    name = ".".join([*resource.group_version.split("/"), resource.kind, namespace, manifest.name])
    lines = list(difflib.unified_diff(before, after, f"LIVE/{name}", f"MERGED/{name}"))
    emit("".join(lines))
    return DIFFERENT if lines else 0


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Without what changes by itself."""
    metadata = {key: text for key, text in (value.get("metadata") or {}).items() if key not in _NOISE}
    notes = dict(metadata.get("annotations") or {})
    notes.pop("kubectl.kubernetes.io/last-applied-configuration", None)
    if "annotations" in metadata:
        metadata["annotations"] = notes
        if not notes:
            del metadata["annotations"]
    return value | {"metadata": metadata}
