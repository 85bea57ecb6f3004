"""``podrt wait``."""

from __future__ import annotations

import time
from typing import Any

import click

from podrt.cli import options
from podrt.cli.errors import ApiError, CliError
from podrt.cli.printers import object_name, objects_of
from podrt.cli.resources import Resource, for_kind, parse_targets
from podrt.cli.session import Session, err, out
from podrt.cli.waiting import Check, wait_until

_WEEK = 7 * 24 * 3600.0


@click.command("wait", cls=options.Verb)
@click.argument("targets", nargs=-1, metavar="TYPE/NAME... | TYPE [NAME...]", shell_complete=options.complete_targets)
@click.option(
    "--for",
    "condition",
    required=True,
    metavar="WHAT",
    help="condition=Ready[=True], delete, create, jsonpath={..}=VALUE",
)
@options.files_options
@options.selector_options
@options.all_namespaces_option
@click.option("--all", "everything", is_flag=True, help="All objects of the type in the namespace.")
@click.option("--timeout", default="30s", metavar="DURATION", help="0: look once; negative: a week.")
@options.namespace_option
@click.pass_obj
def wait(
    session: Session,
    targets: tuple[str, ...],
    condition: str,
    filenames: tuple[str, ...],
    recursive: bool,
    selector: str | None,
    field_selector: str | None,
    all_namespaces: bool,
    everything: bool,
    timeout: str,
) -> int:
    """Wait for objects: wait pod/web --for=condition=Ready --timeout=60s. Exit code 1 when time is up."""
    from podrt.cli.times import parse_duration

    limit = parse_duration(timeout)
    deadline = time.monotonic() + (limit if limit >= 0 else _WEEK)
    check = parse_condition(condition)
    missing_ok = condition.lower() in ("delete", "create")
    found = _objects(
        session, targets, filenames, recursive, selector, field_selector, all_namespaces, everything, condition
    )
    if not found and not missing_ok:
        raise CliError("no matching resources found")
    failed = False
    for resource, namespace, name in found:
        if not missing_ok:
            session.client.get(resource.item(namespace, name))  # one that does not exist is an error at once
        if not wait_until(session.client, resource, namespace, name, check, deadline):
            err(f"error: timed out waiting for the condition on {resource.plural}/{name}")
            failed = True
            continue
        met = {"delete": "deleted", "create": "created"}.get(condition.lower(), "condition met")
        out(f"{resource.label}/{name} {met}")
    return 1 if failed else 0


def _objects(
    session: Session,
    args: tuple[str, ...],
    filenames: tuple[str, ...],
    recursive: bool,
    selector: str | None,
    fields: str | None,
    all_namespaces: bool,
    everything: bool,
    condition: str,
) -> list[tuple[Resource, str, str]]:
    if filenames:
        from podrt.cli.manifest import read_manifests

        return [
            (for_kind(session.client, item.api_version, item.kind, item.origin),
             item.namespace(session.namespace, False), item.name)
            for item in read_manifests(filenames, recursive)
        ]  # fmt: skip
    found: list[tuple[Resource, str, str]] = []
    for target in parse_targets(session.client, args):
        if target.names:
            found += [(target.resource, session.namespace, name) for name in target.names]
            continue
        if not (selector or fields or everything):
            raise CliError("resource name, --all or a selector (-l, --field-selector) is required", 2)
        path = target.resource.collection(None if all_namespaces else session.namespace)
        try:
            listed = session.client.get(path, {"labelSelector": selector, "fieldSelector": fields})
        except ApiError as error:
            if condition == "delete" and error.reason == "NotFound":
                continue
            raise
        for item in objects_of(listed):
            namespace = str((item.get("metadata") or {}).get("namespace") or session.namespace)
            found.append((target.resource, namespace, object_name(item)))
    return found


def parse_condition(text: str) -> Check:
    """The check that ``--for`` names. Raises CliError for one that is not understood."""
    word, _, rest = text.partition("=")
    if text.lower() == "delete":
        return lambda value: value is None
    if text.lower() == "create":
        return lambda value: value is not None
    if word == "condition" and rest:
        kind, _, wanted = rest.partition("=")
        return lambda value: value is not None and _has_condition(value, kind, wanted or "True")
    if word == "jsonpath" and rest:
        return _jsonpath(rest)
    raise CliError(f'unrecognized condition: "{text}"; write condition=NAME, delete, create or jsonpath=PATH=VALUE', 2)


def _has_condition(value: dict[str, Any], kind: str, wanted: str) -> bool:
    for condition in (value.get("status") or {}).get("conditions") or ():
        if str(condition.get("type", "")).lower() == kind.lower():
            return str(condition.get("status", "")).lower() == wanted.lower()
    return False


def _jsonpath(text: str) -> Check:
    from podrt.cli.jsonpath import Template, relaxed, to_text

    # ``{.a[?(@.b=="c")].d}=value``: the sign that counts is the one after the path.
    path, wanted = text, None
    if text.startswith("{"):
        end = text.rfind("}") + 1
        path, rest = text[:end], text[end:]
        if rest:
            if not rest.startswith("=") or rest == "=":
                raise CliError("jsonpath wait format must be --for=jsonpath='{.status.phase}'=Running", 2)
            wanted = rest[1:]
    elif "=" in text:
        path, _, wanted = text.partition("=")
    template = Template(relaxed(path))

    def check(value: dict[str, Any] | None) -> bool:
        found = template.values(value) if value is not None else []
        if wanted is None:
            return bool(found)
        return any(to_text(item) == wanted for item in found)

    return check
