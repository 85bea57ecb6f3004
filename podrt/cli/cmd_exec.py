"""``podrt exec`` and ``podrt attach``."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from podrt.cli import options
from podrt.cli.cmd_logs import default_container
from podrt.cli.errors import CliError
from podrt.cli.resources import PODS, pod_of
from podrt.cli.session import Session, err
from podrt.cli.streams import PROTOCOL, Detached
from podrt.cli.streams import Session as StreamSession
from podrt.cli.terminal import DetachKeys, RawTerminal


class _Exec(options.Verb):
    """Says where the ``--`` belongs when an option of the command was taken for one of exec's own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if "--" in args:
                raise
            text = f"No such option {error.option_name!r}; a command's own options come after --"
            raise click.UsageError(text, ctx) from None


@click.command("exec", cls=_Exec)
@click.argument("pod", shell_complete=options.complete_pods)
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND [ARG...]")
@click.option("-c", "--container", default="", shell_complete=options.complete_containers, help="Container.")
@click.option("-i", "--stdin", "use_stdin", is_flag=True, help="Pass stdin on.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but the command's own output.")
@options.namespace_option
@click.pass_obj
def exec_(
    session: Session, pod: str, command: tuple[str, ...], container: str, use_stdin: bool, tty: bool, quiet: bool
) -> int:
    """Run a command in a container; its exit code is this one's: exec web -- ls /, exec -it web -- sh."""
    name = pod_of(session.client, session.namespace, pod)
    container = container or _container(session, name, quiet)
    return stream(session, name, "exec", container, use_stdin, tty, command=command)


@click.command("attach", cls=options.Verb)
@click.argument("pod", shell_complete=options.complete_pods)
@click.option("-c", "--container", default="", shell_complete=options.complete_containers, help="Container.")
@click.option("-i", "--stdin", "use_stdin", is_flag=True, help="Pass stdin on.")
@click.option("-t", "--tty", is_flag=True, help="The container's stdin is a terminal.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but the container's own output.")
@options.namespace_option
@click.pass_obj
def attach(session: Session, pod: str, container: str, use_stdin: bool, tty: bool, quiet: bool) -> int:
    """Attach to the first process of a container. Ctrl-P Ctrl-Q detaches (with -it)."""
    name = pod_of(session.client, session.namespace, pod)
    value = session.client.get(PODS.item(session.namespace, name))
    container = container or default_container(value, quiet)
    return attach_to(session, value, container, use_stdin, tty, quiet)


def attach_to(session: Session, pod: dict[str, Any], container: str, use_stdin: bool, tty: bool, quiet: bool) -> int:
    """Attach to ``container`` of the running ``pod``; says how to leave, and how to come back."""
    name = str(pod["metadata"]["name"])
    spec = container_spec(pod, container)
    if tty and not spec.get("tty"):
        tty = False
        if not quiet:
            err(f"Unable to use a TTY - container {container} did not allocate one")
    if use_stdin and not spec.get("stdin"):
        raise CliError(f"container {container} in pod {name} has no stdin (spec.containers[].stdin is not true)")
    if not quiet and use_stdin:
        err("If you don't see a command prompt, try pressing enter.")
    try:
        return stream(session, name, "attach", container, use_stdin, tty, keys=DetachKeys())
    except Detached:
        flags = " -t" if tty else ""
        err(f"\ndetached; resume with 'podrt -n {session.namespace} attach {name} -c {container} -i{flags}'")
        return 0


def container_spec(pod: dict[str, Any], container: str) -> dict[str, Any]:
    """The container's entry in the spec. Raises CliError if there is none."""
    spec = pod.get("spec") or {}
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for item in spec.get(kind) or ():
            if item["name"] == container:
                return dict(item)
    raise CliError(f"container {container} not found in pod {pod['metadata']['name']}")


def _container(session: Session, pod: str, quiet: bool) -> str:
    return default_container(session.client.get(PODS.item(session.namespace, pod)), quiet)


def stream(
    session: Session,
    pod: str,
    verb: str,
    container: str,
    use_stdin: bool,
    tty: bool,
    command: tuple[str, ...] = (),
    keys: DetachKeys | None = None,
) -> int:
    """Open exec or attach and join it to this process's stdin, stdout and stderr. The remote exit code."""
    stdin = _stdin_fd() if use_stdin else None
    if tty and (stdin is None or not os.isatty(stdin)):
        err("Unable to use a TTY - input is not a terminal or the right kind of file")
        tty = False
    query: list[tuple[str, object]] = [("command", part) for part in command]
    query += [("container", container), ("stdin", use_stdin or None), ("stdout", True)]
    query += [("stderr", None if tty else True), ("tty", tty or None)]
    sys.stdout.flush()
    path = f"{PODS.item(session.namespace, pod)}/{verb}"
    ws = session.client.websocket(path, query_with_empty(query), [PROTOCOL])
    pump = StreamSession(ws, stdin, 1, 2, tty, keys if tty else None)
    if not tty or stdin is None:
        return pump.run()
    with RawTerminal(stdin):
        return pump.run()


def query_with_empty(query: list[tuple[str, object]]) -> list[tuple[str, object]]:
    """An empty argument of a command is an argument too; the encoder would leave an empty text out."""
    return [(key, _Empty() if key == "command" and value == "" else value) for key, value in query]


class _Empty:
    def __str__(self) -> str:
        return ""


def _stdin_fd() -> int | None:
    try:
        os.fstat(0)
    except OSError:
        return None
    return 0
