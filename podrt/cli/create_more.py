"""``podrt create`` of what Pods are named by: serviceaccount, token, priorityclass."""

from __future__ import annotations

import json
from typing import Any

import click

from podrt.cli import options
from podrt.cli.cmd_apply import Writer, validation
from podrt.cli.errors import CliError
from podrt.cli.manifest import Manifest
from podrt.cli.session import Session, out

_name = click.argument("name")


def _send(session: Session, value: dict[str, Any], output: str, dry_run: str, validate: str) -> None:
    writer = Writer(session, False, dry_run, validation(validate), output)
    writer.each([Manifest(value, value["metadata"]["name"])], writer.create)


def _shared(function: options.F) -> options.F:
    from podrt.cli.cmd_apply import validate_option

    return options.namespace_option(validate_option(options.dry_run_option(options.output_option(function))))


@click.command("serviceaccount", cls=options.Verb)
@_name
@_shared
@click.pass_obj
def create_service_account(session: Session, name: str, output: str, dry_run: str, validate: str) -> None:
    """A service account: create serviceaccount robot."""
    metadata = {"name": name, "namespace": session.namespace}
    _send(session, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}, output, dry_run, validate)


@click.command("priorityclass", cls=options.Verb)
@_name
@click.option("--value", type=int, default=0, help="The priority of its pods.")
@click.option("--global-default", is_flag=True, help="Also of pods that name no class.")
@click.option("--description", default="", help="When it is to be used.")
@click.option(
    "--preemption-policy",
    type=click.Choice(["PreemptLowerPriority", "Never"]),
    default="PreemptLowerPriority",
    help="Whether its pods drive out less important ones.",
)
@_shared
@click.pass_obj
def create_priority_class(
    session: Session,
    name: str,
    value: int,
    global_default: bool,
    description: str,
    preemption_policy: str,
    output: str,
    dry_run: str,
    validate: str,
) -> None:
    """A priority class: create priorityclass high --value=1000."""
    document = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "globalDefault": global_default,
        "description": description,
        "preemptionPolicy": preemption_policy,
    }
    _send(session, document, output, dry_run, validate)


@click.command("token", cls=options.Verb)
@_name
@click.option("--audience", "audiences", multiple=True, help="Whom it is for; may be given again.")
@click.option("--duration", default="0s", metavar="DURATION", help="How long it is good; 0s: as the server has it.")
@click.option("--bound-object-kind", "kind", default="", help="It ends with this object: Pod or Secret.")
@click.option("--bound-object-name", "bound", default="", help="The name of that object.")
@click.option("--bound-object-uid", "uid", default="", help="Its uid, if it has to be that very one.")
@options.output_option
@options.namespace_option
@click.pass_obj
def create_token(
    session: Session,
    name: str,
    audiences: tuple[str, ...],
    duration: str,
    kind: str,
    bound: str,
    uid: str,
    output: str,
) -> None:
    """Ask for a token of a service account and print it: create token robot --duration=1h."""
    from podrt.cli.client import quote
    from podrt.cli.times import parse_duration

    if bool(kind) != bool(bound):
        raise CliError("--bound-object-kind and --bound-object-name belong together", 2)
    spec: dict[str, Any] = {"audiences": list(audiences)}
    if seconds := int(parse_duration(duration)):
        spec["expirationSeconds"] = seconds
    if kind:
        spec["boundObjectRef"] = {"kind": kind, "apiVersion": "v1", "name": bound} | ({"uid": uid} if uid else {})
    path = f"/api/v1/namespaces/{quote(session.namespace)}/serviceaccounts/{quote(name)}/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = session.client.json("POST", path, None, request)
    if output == "json":
        out(json.dumps(answer, indent=2))
    elif output == "yaml":
        from podrt.cli.yamlio import dump

        out(dump(answer).rstrip())
    elif output:
        raise CliError("-o must be json or yaml", 2)
    else:
        out(answer["status"]["token"])
