"""Names for shell completion, asked from the daemon; whatever goes wrong, there is just nothing to complete."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from podrt.cli.client import Client
from podrt.cli.errors import CliError
from podrt.cli.printers import object_name, objects_of
from podrt.cli.resources import KNOWN, PODS, Resource, find, pod_name
from podrt.cli.session import DEFAULT_SOCKET, Session

_TIMEOUT = 2.0


def _client(ctx: click.Context) -> Client:
    # No verb runs, so the session is there only if an option of the verb has made it; options of podrt are parameters.
    session = ctx.find_object(Session)
    own = session.socket if session is not None and session.socket != DEFAULT_SOCKET else ""
    return _QuickClient(own or _parameter(ctx, "socket") or DEFAULT_SOCKET)


def _namespace(ctx: click.Context) -> str:
    session = ctx.find_object(Session)
    own = session.namespace if session is not None and session.namespace != "default" else ""
    return own or _parameter(ctx, "namespace") or "default"


def _parameter(ctx: click.Context, name: str) -> str:
    here: click.Context | None = ctx
    while here is not None:
        if here.params.get(name):
            return str(here.params[name])
        here = here.parent
    return ""


class _QuickClient(Client):
    """A shell waits for the answer: give up soon."""

    def connect(self) -> Any:
        stream = super().connect()
        stream.sock.settimeout(_TIMEOUT)
        return stream


def _listed(client: Client, resource: Resource, namespace: str) -> list[dict[str, Any]]:
    try:
        return objects_of(client.get(resource.collection(namespace)))
    except (CliError, OSError):
        return []


def names(ctx: click.Context, plural: str, incomplete: str) -> list[CompletionItem]:
    """Names of the objects of a known type."""
    resource = next(item for item in KNOWN if item.plural == plural)
    found = _listed(_client(ctx), resource, _namespace(ctx))
    return [CompletionItem(object_name(item)) for item in found if object_name(item).startswith(incomplete)]


def targets(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """``TYPE`` first; after a type, or after ``TYPE/``, the names of that type."""
    given = list(ctx.params.get("targets") or ())
    client = _client(ctx)
    word, slash, start = incomplete.partition("/")
    if not given and not slash:
        return [CompletionItem(item.plural) for item in KNOWN if item.plural.startswith(incomplete)]
    if not slash and "/" in given[0]:
        return []
    try:
        resource = find(client, word if slash else given[0])
    except (CliError, OSError):
        return []
    head = f"{word}/" if slash else ""
    start = start if slash else incomplete
    found = [object_name(item) for item in _listed(client, resource, _namespace(ctx))]
    return [CompletionItem(head + name) for name in found if name.startswith(start) and name not in given]


def containers(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Containers of the pod that the command line names."""
    # With the option's value still missing click has parsed no arguments: they are left in ctx.args.
    pod = ctx.params.get("pod") or next(iter(ctx.args), "")
    if not pod:
        return []
    try:
        value = _client(ctx).get(PODS.item(_namespace(ctx), pod_name(str(pod))))
    except (CliError, OSError):
        return []
    spec = value.get("spec") or {}
    found = [str(item["name"]) for kind in ("containers", "initContainers") for item in spec.get(kind) or ()]
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]


def images(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """Names of the images in the store."""
    try:
        found = objects_of(_client(ctx).get("/apis/podrt.dev/v1alpha1/images"))
    except (CliError, OSError):
        return []
    return [CompletionItem(name) for item in found for name in item.get("names") or () if name.startswith(incomplete)]
