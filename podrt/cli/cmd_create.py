"""``podrt create``: from files, or with a subcommand for each kind that kubectl can make of options."""

from __future__ import annotations

from typing import Any

import click

from podrt.cli import create_more, generators, options
from podrt.cli.cmd_apply import Writer, explicit_namespace, validate_option, validation
from podrt.cli.errors import CliError
from podrt.cli.manifest import Manifest, read_manifests
from podrt.cli.session import Session


class _Group(click.Group):
    """Reads its own flags as verbs do."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, options.rewrite(self.params, args))


@click.group("create", cls=_Group, invoke_without_command=True, subcommand_metavar="[KIND NAME ...]")
@options.files_options
@options.output_option
@options.dry_run_option
@validate_option
@options.namespace_option
@click.pass_context
def create(
    ctx: click.Context,
    filenames: tuple[str, ...],
    recursive: bool,
    output: str,
    dry_run: str,
    validate: str,
) -> None:
    """Create objects that must not exist yet: create -f pod.yaml, create deployment web --image=nginx."""
    if ctx.invoked_subcommand is not None:
        if filenames:
            raise CliError("either 'create -f FILE' or 'create KIND NAME'", 2)
        return
    if not filenames:
        raise CliError("must specify -f (a file, a directory or -)", 2)
    writer = Writer(ctx.obj, explicit_namespace(ctx), dry_run, validation(validate), output)
    writer.each(read_manifests(filenames, recursive), writer.create)


def _shared(function: options.F) -> options.F:
    function = validate_option(options.dry_run_option(options.output_option(function)))
    return options.namespace_option(function)


def _send(ctx: click.Context, value: dict[str, Any], output: str, dry_run: str, validate: str) -> None:
    writer = Writer(ctx.obj, False, dry_run, validation(validate), output)
    if value["kind"] != "Namespace":
        value["metadata"]["namespace"] = ctx.obj.namespace
    writer.each([Manifest(value, value["metadata"]["name"])], writer.create)


_name = click.argument("name")
_command = click.argument("command", nargs=-1, metavar="[-- COMMAND ARG...]")


@create.command("namespace", cls=options.Verb)
@_name
@_shared
@click.pass_context
def create_namespace(ctx: click.Context, name: str, output: str, dry_run: str, validate: str) -> None:
    """A namespace."""
    value = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    _send(ctx, value, output, dry_run, validate)


create.add_command(create_namespace, "ns")


@create.command("deployment", cls=options.Verb)
@_name
@click.option("--image", "images", multiple=True, required=True, metavar="IMAGE", help="One for each container.")
@click.option("-r", "--replicas", type=click.IntRange(min=0), default=1, help="How many pods.")
@click.option("--port", type=int, default=0, help="The port that the first container serves.")
@_command
@_shared
@click.pass_context
def create_deployment(
    ctx: click.Context,
    name: str,
    images: tuple[str, ...],
    replicas: int,
    port: int,
    command: tuple[str, ...],
    output: str,
    dry_run: str,
    validate: str,
) -> None:
    """A deployment: create deployment web --image=nginx --replicas=3."""
    _send(ctx, generators.deployment(name, images, replicas, port, command), output, dry_run, validate)


create.add_command(create_deployment, "deploy")


@create.command("job", cls=options.Verb)
@_name
@click.option("--image", default="", metavar="IMAGE", help="Image of the container.")
@click.option("--from", "source", default="", metavar="cronjob/NAME", help="As this cronjob would start it.")
@_command
@_shared
@click.pass_context
def create_job(
    ctx: click.Context,
    name: str,
    image: str,
    source: str,
    command: tuple[str, ...],
    output: str,
    dry_run: str,
    validate: str,
) -> None:
    """A job: create job work --image=busybox -- date, create job now --from=cronjob/nightly."""
    if bool(image) == bool(source):
        raise CliError("either --image or --from must be specified", 2)
    if source:
        session: Session = ctx.obj
        word, slash, cron = source.partition("/")
        if not slash or word not in ("cronjob", "cronjobs", "cj", "cronjob.batch"):
            raise CliError("--from must be cronjob/NAME", 2)
        found = session.client.get(f"/apis/batch/v1/namespaces/{session.namespace}/cronjobs/{cron}")
        value = generators.job_from(name, found)
    else:
        value = generators.job(name, image, command)
    _send(ctx, value, output, dry_run, validate)


@create.command("cronjob", cls=options.Verb)
@_name
@click.option("--image", required=True, metavar="IMAGE", help="Image of the container.")
@click.option("--schedule", required=True, metavar="CRON", help="When it runs: '*/5 * * * *'.")
@click.option("--restart", default="OnFailure", type=click.Choice(["OnFailure", "Never"]), help="restartPolicy.")
@_command
@_shared
@click.pass_context
def create_cronjob(
    ctx: click.Context,
    name: str,
    image: str,
    schedule: str,
    restart: str,
    command: tuple[str, ...],
    output: str,
    dry_run: str,
    validate: str,
) -> None:
    """A cronjob: create cronjob tick --image=busybox --schedule='* * * * *' -- date."""
    _send(ctx, generators.cron_job(name, image, schedule, restart, command), output, dry_run, validate)


create.add_command(create_cronjob, "cj")


def _data_options(function: options.F) -> options.F:
    text = "KEY=VALUE. May be repeated."
    function = click.option("--from-literal", "literals", multiple=True, metavar="KEY=VALUE", help=text)(function)
    text = "A file, KEY=FILE, or a directory of files. May be repeated."
    function = click.option("--from-file", "files", multiple=True, metavar="FILE", help=text)(function)
    text = "A file of lines KEY=VALUE."
    return click.option("--from-env-file", "env_files", multiple=True, metavar="FILE", help=text)(function)


@create.command("configmap", cls=options.Verb)
@_name
@_data_options
@_shared
@click.pass_context
def create_configmap(
    ctx: click.Context,
    name: str,
    literals: tuple[str, ...],
    files: tuple[str, ...],
    env_files: tuple[str, ...],
    output: str,
    dry_run: str,
    validate: str,
) -> None:
    """A configmap: create configmap app --from-literal=a=1 --from-file=config.ini."""
    values = generators.data(literals, files, env_files)
    _send(ctx, generators.config_map(name, values), output, dry_run, validate)


create.add_command(create_configmap, "cm")


@create.group("secret", subcommand_metavar="KIND NAME ...")
def create_secret() -> None:
    """A secret: generic, tls or docker-registry."""


@create_secret.command("generic", cls=options.Verb)
@_name
@_data_options
@click.option("--type", "kind", default="", metavar="TYPE", help="The secret's type; Opaque unless given.")
@_shared
@click.pass_context
def create_generic(
    ctx: click.Context,
    name: str,
    literals: tuple[str, ...],
    files: tuple[str, ...],
    env_files: tuple[str, ...],
    kind: str,
    output: str,
    dry_run: str,
    validate: str,
) -> None:
    """Of literals, files or lines."""
    values = generators.data(literals, files, env_files)
    _send(ctx, generators.secret(name, kind, values), output, dry_run, validate)


@create_secret.command("tls", cls=options.Verb)
@_name
@click.option("--cert", required=True, type=click.Path(exists=True), help="PEM file of the certificate.")
@click.option("--key", required=True, type=click.Path(exists=True), help="PEM file of its key.")
@_shared
@click.pass_context
def create_tls(ctx: click.Context, name: str, cert: str, key: str, output: str, dry_run: str, validate: str) -> None:
    """Of a certificate and its key."""
    values = generators.data((), (f"tls.crt={cert}", f"tls.key={key}"), ())
    _send(ctx, generators.secret(name, "kubernetes.io/tls", values), output, dry_run, validate)


@create_secret.command("docker-registry", cls=options.Verb)
@_name
@click.option("--docker-server", "server", default="https://index.docker.io/v1/", help="The registry.")
@click.option("--docker-username", "user", required=True, help="User there.")
@click.option("--docker-password", "password", required=True, help="The user's password.")
@click.option("--docker-email", "email", default="", help="The user's address.")
@_shared
@click.pass_context
def create_registry(
    ctx: click.Context,
    name: str,
    server: str,
    user: str,
    password: str,
    email: str,
    output: str,
    dry_run: str,
    validate: str,
) -> None:
    """Credentials for pulling images."""
    value = generators.registry_secret(name, server, user, password, email)
    _send(ctx, value, output, dry_run, validate)


create.add_command(create_more.create_service_account)
create.add_command(create_more.create_service_account, "sa")
create.add_command(create_more.create_priority_class)
create.add_command(create_more.create_priority_class, "pc")
create.add_command(create_more.create_token)
