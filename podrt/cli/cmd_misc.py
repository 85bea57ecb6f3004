"""``podrt version``, ``api-resources`` and ``completion``."""

from __future__ import annotations

import json

import click

from podrt import __version__
from podrt.cli import options, printers
from podrt.cli.errors import CliError
from podrt.cli.resources import discover
from podrt.cli.session import Session, out


@click.command("version", cls=options.Verb)
@click.option("--client", "client_only", is_flag=True, help="Don't ask the daemon.")
@click.option("-o", "--output", default="", type=click.Choice(["", "json", "yaml"]), help="json or yaml.")
@options.socket_option
@click.pass_obj
def version(session: Session, client_only: bool, output: str) -> None:
    """Print the versions of client and daemon."""
    found: dict[str, object] = {"clientVersion": {"gitVersion": f"v{__version__}"}}
    failure: CliError | None = None
    if not client_only:
        try:
            found["serverVersion"] = session.client.get("/version")
        except CliError as error:
            failure = error
    if output == "json":
        out(json.dumps(found, indent=2))
    elif output == "yaml":
        from podrt.cli.yamlio import dump

        printers.emit(dump(found))
    else:
        for key, value in found.items():
            assert isinstance(value, dict)
            out(f"{key.removesuffix('Version').capitalize()} Version: {value.get('gitVersion', 'unknown')}")
    if failure is not None:
        raise failure


@click.command("api-resources", cls=options.Verb)
@click.option("--namespaced/--not-namespaced", default=None, help="Only (not) namespaced types.")
@click.option("--api-group", default=None, metavar="GROUP", help='Only this group ("" for the core group).')
@click.option("--no-headers", is_flag=True, help="Leave the headers out.")
@click.option("-o", "--output", default="", type=click.Choice(["", "name", "wide"]), help="name or wide.")
@options.socket_option
@click.pass_obj
def api_resources(
    session: Session, namespaced: bool | None, api_group: str | None, no_headers: bool, output: str
) -> None:
    """List the resource types that the server has."""
    found = sorted(discover(session.client), key=lambda item: (item.group, item.plural))
    found = [item for item in found if namespaced in (None, item.namespaced) and api_group in (None, item.group)]
    if output == "name":
        for item in found:
            out(f"{item.plural}.{item.group}" if item.group else item.plural)
        return
    headers = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"] + (["VERBS"] if output == "wide" else [])
    rows = [
        [item.plural, ",".join(item.short), item.group_version, str(item.namespaced).lower(), item.kind]
        + ([",".join(item.verbs)] if output == "wide" else [])
        for item in found
    ]
    printers.Table(None if no_headers else headers).write(rows)


@click.command("completion", cls=options.Verb)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script: source <(podrt completion bash)."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    from podrt.cli.main import cli

    script = kind(cli, {}, "podrt", "_PODRT_COMPLETE")
    # Not .source(): it starts a bash to see its version.
    out((script.source_template % script.source_vars()).strip())
