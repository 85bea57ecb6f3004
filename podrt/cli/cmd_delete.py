"""``podrt delete``."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import click

from podrt.cli import options
from podrt.cli.errors import ApiError, CliError
from podrt.cli.printers import object_name, objects_of
from podrt.cli.resources import Resource, for_kind, parse_targets
from podrt.cli.session import Session, err, out, warn


class _Victim(NamedTuple):
    resource: Resource
    namespace: str
    name: str

    @property
    def path(self) -> str:
        return self.resource.item(self.namespace, self.name)


@click.command("delete", cls=options.Verb)
@click.argument("targets", nargs=-1, metavar="TYPE NAME... | TYPE/NAME...", shell_complete=options.complete_targets)
@options.files_options
@options.selector_options
@options.all_namespaces_option
@click.option("--all", "everything", is_flag=True, help="All objects of the type in the namespace.")
@click.option("--grace-period", type=int, default=-1, metavar="SECONDS", help="Time to end in; -1: the object's own.")
@click.option("--force", is_flag=True, help="With --grace-period=0: remove the object without waiting for its end.")
@click.option("--now", is_flag=True, help="Same as --grace-period=1.")
@click.option("--wait/--no-wait", default=True, help="Wait until the objects are gone.")
@click.option("--timeout", default="0s", metavar="DURATION", help="How long to wait; 0s: as long as it takes.")
@click.option("--ignore-not-found", is_flag=True, help="An object that does not exist is no error.")
@click.option("--cascade", default="background", metavar="KIND", help="background, foreground or orphan.")
@click.option("-o", "--output", default="", type=click.Choice(["", "name"]), help="name: print names only.")
@options.dry_run_option
@options.namespace_option
@click.pass_obj
def delete(
    session: Session,
    targets: tuple[str, ...],
    filenames: tuple[str, ...],
    recursive: bool,
    selector: str | None,
    field_selector: str | None,
    all_namespaces: bool,
    everything: bool,
    grace_period: int,
    force: bool,
    now: bool,
    wait: bool,
    timeout: str,
    ignore_not_found: bool,
    cascade: str,
    output: str,
    dry_run: str,
) -> None:
    """Delete objects: delete pod web, delete -f pod.yaml, delete pods -l app=web, delete pods --all."""
    from podrt.cli.times import parse_duration

    limit = parse_duration(timeout)
    options_body = _delete_options(grace_period, force, now, cascade)
    if force:
        warn(
            "Immediate deletion does not wait for confirmation that the running resource has been terminated. "
            "The resource may continue to run indefinitely."
        )
    failures: list[CliError] = []
    if filenames:
        victims = _from_files(session, filenames, recursive, failures)
    else:
        victims = _from_arguments(session, targets, selector, field_selector, all_namespaces, everything)
        if not victims:
            out("No resources found")
            return
    gone: list[tuple[_Victim, str]] = []
    for victim in victims:
        try:
            uid = _delete_one(session, victim, options_body, dry_run, force)
        except ApiError as error:
            if error.reason == "NotFound" and (ignore_not_found or everything or bool(selector)):
                continue
            failures.append(error)
            continue
        _say(victim, output, dry_run, force)
        gone.append((victim, uid))
    # A forced deletion is waited for too: the server has removed the object when it answers.
    if wait and dry_run == "none":
        deadline = time.monotonic() + limit if limit > 0 else None
        for victim, uid in gone:
            wait_gone(session, victim.resource, victim.path, victim.namespace, victim.name, uid, deadline)
    for failure in failures[:-1]:
        err(failure.render())
    if failures:
        raise failures[-1]


def _delete_options(grace_period: int, force: bool, now: bool, cascade: str) -> dict[str, Any]:
    if now and grace_period >= 0:
        raise CliError("--now and --grace-period cannot be specified together", 2)
    if force and grace_period > 0:
        raise CliError("--force and --grace-period greater than 0 cannot be specified together", 2)
    policies = {"background": "Background", "foreground": "Foreground", "orphan": "Orphan"}
    if cascade not in policies:
        raise CliError(f'invalid cascade value ({cascade}); must be "background", "foreground", or "orphan"', 2)
    body: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policies[cascade]}
    if now:
        body["gracePeriodSeconds"] = 1
    elif force:
        body["gracePeriodSeconds"] = 0
    elif grace_period >= 0:
        # kubectl: only --force may give 0; without it the processes get a second.
        body["gracePeriodSeconds"] = max(grace_period, 1)
    return body


def _from_files(
    session: Session, filenames: tuple[str, ...], recursive: bool, failures: list[CliError]
) -> list[_Victim]:
    """What the files name. An object of a kind that isn't served, or without a name, goes to ``failures``: it keeps
    none of the others alive.
    """
    from podrt.cli.manifest import read_manifests

    found = []
    for item in read_manifests(filenames, recursive):
        try:
            resource = for_kind(session.client, item.api_version, item.kind, item.origin)
            found.append(_Victim(resource, item.namespace(session.namespace, False), item.name))
        except CliError as error:
            failures.append(error)
    return found


def _from_arguments(
    session: Session,
    args: tuple[str, ...],
    selector: str | None,
    fields: str | None,
    all_namespaces: bool,
    everything: bool,
) -> list[_Victim]:
    found: list[_Victim] = []
    for target in parse_targets(session.client, args):
        if target.names:
            if selector or fields or everything:
                raise CliError("name cannot be provided when a selector or --all is specified", 2)
            found += [_Victim(target.resource, session.namespace, name) for name in target.names]
            continue
        if not (selector or fields or everything):
            raise CliError("resource(s) were provided, but no name was specified; --all deletes all of them", 2)
        path = target.resource.collection(None if all_namespaces else session.namespace)
        listed = session.client.get(path, {"labelSelector": selector, "fieldSelector": fields})
        for item in objects_of(listed):
            namespace = str((item.get("metadata") or {}).get("namespace") or session.namespace)
            found.append(_Victim(target.resource, namespace, object_name(item)))
    return found


def _delete_one(session: Session, victim: _Victim, body: dict[str, Any], dry_run: str, force: bool) -> str:
    """Send the DELETE; the uid of the object, "" if the server doesn't say it."""
    if dry_run == "client":
        return str((session.client.get(victim.path).get("metadata") or {}).get("uid", ""))
    if dry_run == "server":
        body = body | {"dryRun": ["All"]}
    answer = session.client.json("DELETE", victim.path, {"dryRun": "All"} if dry_run == "server" else None, body)
    if answer.get("kind") == "Status":
        return str((answer.get("details") or {}).get("uid", ""))
    return str((answer.get("metadata") or {}).get("uid", ""))


def _say(victim: _Victim, output: str, dry_run: str, force: bool) -> None:
    if output == "name":
        out(f"{victim.resource.label}/{victim.name}")
        return
    suffix = {"none": "", "client": " (dry run)", "server": " (server dry run)"}[dry_run]
    where = f" from {victim.namespace} namespace" if victim.resource.namespaced else ""
    out(f'{victim.resource.label} "{victim.name}" {"force " if force else ""}deleted{where}{suffix}')


def delete_and_wait(session: Session, resource: Resource, path: str) -> None:
    """Delete the object at ``path`` with its own grace, and wait until it is gone (``apply --force``)."""
    answer = session.client.json("DELETE", path, None, {"kind": "DeleteOptions", "apiVersion": "v1"})
    metadata = answer.get("metadata") or {}
    name = str(metadata.get("name") or path.rpartition("/")[2])
    wait_gone(session, resource, path, str(metadata.get("namespace", "")), name, str(metadata.get("uid", "")), None)


def wait_gone(
    session: Session, resource: Resource, path: str, namespace: str, name: str, uid: str, deadline: float | None
) -> None:
    """Wait until the object is gone, or another has its name. Raises CliError at ``deadline`` (monotonic seconds)."""
    from podrt.cli.waiting import wait_until

    def is_gone(value: dict[str, Any] | None) -> bool:
        return value is None or (bool(uid) and (value.get("metadata") or {}).get("uid") != uid)

    if not wait_until(session.client, resource, namespace, name, is_gone, deadline):
        raise CliError(f"timed out waiting for the condition on {resource.plural}/{name}")
