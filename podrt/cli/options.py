"""Options that many verbs share, and a command class that reads flags as kubectl does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from podrt.cli.session import Session

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])
_TRUE = {"true", "1", "t"}
_FALSE = {"false", "0", "f"}


class Verb(click.Command):
    """Takes ``--flag=true``, ``--flag=false``, ``-o=json`` and a bare ``--dry-run``, as kubectl does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, rewrite(self.params, args))


def rewrite(params: Sequence[click.Parameter], args: list[str]) -> list[str]:
    """``args`` of kubectl's forms as click reads them."""
    flags = {name: p for p in params if isinstance(p, click.Option) and p.is_flag for name in p.opts}
    optional = {"--dry-run": "client"} if any("--dry-run" in p.opts for p in params) else {}
    result: list[str] = []
    for index, arg in enumerate(args):
        if arg == "--":
            return result + args[index:]
        name, equals, value = arg.partition("=")
        if equals and name in flags and value.lower() in _TRUE | _FALSE:
            result += [name] if value.lower() in _TRUE else list(flags[name].secondary_opts[:1])
        elif equals and len(name) == 2 and name[0] == "-" and name[1] != "-":
            result += [name, value]
        elif arg in optional:
            result.append(f"{arg}={optional[arg]}")
        else:
            result.append(arg)
    return result


def _session(ctx: click.Context) -> Session:
    session = ctx.ensure_object(Session)
    return session


def _set_namespace(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value:
        _session(ctx).namespace = value


def _set_socket(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value:
        _session(ctx).socket = value


def _complete_namespace(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from podrt.cli.complete import names

    return names(ctx, "namespaces", incomplete)


def socket_option(function: F) -> F:
    """``--socket`` after the verb too; it is listed once, in the help of ``podrt`` itself."""
    option = click.option("--socket", hidden=True, expose_value=False, is_eager=True, callback=_set_socket)
    return option(function)


def namespace_option(function: F) -> F:
    """``-n``: sets the session's namespace."""
    option = click.option(
        "-n",
        "--namespace",
        metavar="NAME",
        expose_value=False,
        callback=_set_namespace,
        shell_complete=_complete_namespace,
        help="Namespace of the request.",
    )
    return option(socket_option(function))


def selector_options(function: F) -> F:
    function = click.option("--field-selector", metavar="EXPR", help="Select by fields: status.phase=Running.")(
        function
    )
    return click.option("-l", "--selector", metavar="EXPR", help="Select by labels: app=web,tier!=x.")(function)


def all_namespaces_option(function: F) -> F:
    return click.option("-A", "--all-namespaces", is_flag=True, help="Objects of all namespaces.")(function)


def output_option(function: F) -> F:
    text = "json, yaml, name, wide, jsonpath=TEMPLATE, jsonpath-file=FILE or custom-columns=HEADER:PATH,..."
    return click.option("-o", "--output", metavar="FORMAT", default="", help=text)(function)


def dry_run_option(function: F) -> F:
    kind = click.Choice(["none", "client", "server"])
    return click.option("--dry-run", type=kind, default="none", help="Send nothing, or have nothing stored.")(function)


def files_options(function: F) -> F:
    function = click.option("-R", "--recursive", is_flag=True, help="Directories with all below them.")(function)
    text = "File or directory of manifests (.yaml, .yml, .json), or - for stdin. May be repeated."
    return click.option("-f", "--filename", "filenames", multiple=True, metavar="FILE", help=text)(function)


def complete_targets(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Resource types first, then names of that type."""
    from podrt.cli.complete import targets

    return targets(ctx, incomplete)


def complete_pods(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from podrt.cli.complete import names

    return names(ctx, "pods", incomplete)


def complete_containers(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from podrt.cli.complete import containers

    return containers(ctx, incomplete)
