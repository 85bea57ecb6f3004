"""``podrt system``: info (what the daemon says of itself) and check (what the machine offers)."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from podrt.cli import options, printers
from podrt.cli.errors import CliError
from podrt.cli.image_manage import BASE
from podrt.cli.session import Session, colored, out

_COLORS = {"ok": "32", "warning": "33", "missing": "31"}


@click.group("system", subcommand_metavar="COMMAND ...")
def system() -> None:
    """Show the daemon, check the machine."""


@system.command("info", cls=options.Verb)
@click.option("-o", "--output", default="", metavar="FORMAT", help="json, yaml or jsonpath=.")
@options.socket_option
@click.pass_obj
def info(session: Session, output: str) -> None:
    """Show the daemon's versions, paths, features and counts."""
    found = session.client.get(f"{BASE}/info")
    render = printers.object_printer(output)
    if render is not None:
        printers.emit(render(found))
        return
    printers.emit("\n".join(_lines(found, "")) + "\n")


def _lines(value: dict[str, Any], indent: str) -> list[str]:
    lines = []
    for key, item in value.items():
        if key in ("kind", "apiVersion"):
            continue
        title = words(key)
        if isinstance(item, dict):
            lines.append(f"{indent}{title}:")
            lines += _lines(item, indent + "  ")
        elif isinstance(item, list):
            lines.append(f"{indent}{title}: {', '.join(str(part) for part in item) or 'none'}")
        elif isinstance(item, bool):
            lines.append(f"{indent}{title}: {'yes' if item else 'no'}")
        else:
            lines.append(f"{indent}{title}: {item}")
    return lines


def words(key: str) -> str:
    """``cgroupMode`` as ``Cgroup mode``; a key that is no camel case (``podrt.sock``) stays."""
    text = "".join(f" {char.lower()}" if char.isupper() and index and not key[index - 1].isupper() else char
                   for index, char in enumerate(key))  # fmt: skip
    return text[:1].upper() + text[1:]


@system.command("check", cls=options.Verb)
@click.option("-o", "--output", default="", type=click.Choice(["", "json"]), help="json.")
@click.option("--problems", is_flag=True, help="Only what is missing or limited.")
@options.socket_option
@click.pass_obj
def check(session: Session, output: str, problems: bool) -> int:
    """Show what this machine offers and what the lack of anything costs. Exit code 1 if something needed is missing."""
    from podrt.cli.check import MISSING, OK, Machine, report

    findings = [*report(Machine()), _daemon(session)]
    failed = any(finding.state == MISSING for finding in findings)
    shown = [finding for finding in findings if not problems or finding.state != OK]
    if output == "json":
        out(json.dumps([finding._asdict() for finding in shown], indent=2))
        return int(failed)
    width = max((len(finding.name) for finding in shown), default=0)
    for finding in shown:
        state = f"{finding.state:<7}"
        if colored():
            state = f"\x1b[{_COLORS[finding.state]}m{state}\x1b[0m"
        out(f"{state}  {finding.name:<{width}}  {finding.found}")
        if finding.cost:
            out(f"{'':7}  {'':{width}}  -> {finding.cost}")
    counts = {state: sum(finding.state == state for finding in findings) for state in _COLORS}
    out(f"\n{counts['ok']} ok, {counts['warning']} limited, {counts['missing']} missing")
    return int(failed)


def _daemon(session: Session) -> Any:
    from podrt.cli.check import MISSING, OK, Finding

    try:
        with session.client.open("GET", "/healthz") as response:
            response.read()
    except CliError as error:
        return Finding("daemon", MISSING, "can't be reached", f"{error} (user {os.geteuid()})")
    return Finding("daemon", OK, session.socket)
