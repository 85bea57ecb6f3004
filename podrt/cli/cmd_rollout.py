"""``podrt rollout``: follow, look back, go back, pause, resume and restart, in kubectl's words."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import click

from podrt.cli import options
from podrt.cli.errors import CliError
from podrt.cli.resources import Resource, parse_targets
from podrt.cli.session import Session, out, warn

REVISION = "deployment.kubernetes.io/revision"
CHANGE_CAUSE = "kubernetes.io/change-cause"
_HASH = "pod-template-hash"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_STRATEGIC = "application/strategic-merge-patch+json"
_JSON = "application/json-patch+json"
_ROLLED = ("Deployment", "StatefulSet", "DaemonSet")


class Verdict(NamedTuple):
    """What a status says of a rollout: the line to print, and whether that was the last."""

    message: str
    done: bool


@click.group("rollout", subcommand_metavar="COMMAND TYPE/NAME")
def rollout() -> None:
    """Manage rollouts of deployments, statefulsets and daemonsets."""


_target = click.argument(
    "targets", nargs=-1, required=True, metavar="TYPE NAME | TYPE/NAME", shell_complete=options.complete_targets
)


def _each(session: Session, targets: tuple[str, ...], kinds: tuple[str, ...], what: str) -> list[tuple[Resource, str]]:
    found: list[tuple[Resource, str]] = []
    for target in parse_targets(session.client, targets):
        if target.resource.kind not in kinds:
            raise CliError(f"no {what} for {target.resource.plural}: only for {', '.join(kinds)}")
        if not target.names:
            raise CliError("required resource not specified: TYPE/NAME", 2)
        found += [(target.resource, name) for name in target.names]
    return found


# status


@rollout.command("status", cls=options.Verb)
@_target
@click.option("-w", "--watch/--no-watch", default=True, help="Follow the rollout until it is done.")
@click.option("--timeout", default="0s", metavar="DURATION", help="How long to wait; 0s: as long as it takes.")
@click.option("--revision", type=int, default=0, help="Wait for this revision; fail if another is begun.")
@options.namespace_option
@click.pass_obj
def rollout_status(session: Session, targets: tuple[str, ...], watch: bool, timeout: str, revision: int) -> None:
    """Show the status of a rollout, and wait for its end."""
    from podrt.cli.times import parse_duration
    from podrt.cli.waiting import wait_until

    seconds = parse_duration(timeout)
    for resource, name in _each(session, targets, _ROLLED, "rollout status"):
        deadline = time.monotonic() + seconds if seconds > 0 else None
        last = [""]

        def look(value: dict[str, Any] | None, resource: Resource = resource, last: list[str] = last) -> bool:
            if value is None:
                raise CliError(f"object has been deleted: {resource.label}")
            verdict = judge(resource.kind, value, revision)
            if verdict.message != last[0]:
                out(verdict.message)
                last[0] = verdict.message
            return verdict.done or not watch

        session.client.get(resource.item(session.namespace, name))
        if not wait_until(session.client, resource, session.namespace, name, look, deadline):
            raise CliError("timed out waiting for the condition")


def judge(kind: str, value: dict[str, Any], revision: int = 0) -> Verdict:
    """How far a rollout is. Raises CliError if it failed."""
    metadata, status = value.get("metadata") or {}, value.get("status") or {}
    if metadata.get("generation", 0) > status.get("observedGeneration", 0):
        what = {"Deployment": "deployment", "StatefulSet": "statefulset", "DaemonSet": "daemon set"}[kind]
        return Verdict(f"Waiting for {what} spec update to be observed...", False)
    if kind == "Deployment":
        return _deployment(value, revision)
    return _stateful_set(value) if kind == "StatefulSet" else _daemon_set(value)


def _deployment(value: dict[str, Any], revision: int) -> Verdict:
    metadata, spec, status = value["metadata"], value.get("spec") or {}, value.get("status") or {}
    name = metadata["name"]
    present = (metadata.get("annotations") or {}).get(REVISION, "")
    if revision and present != str(revision):
        raise CliError(f"desired revision ({revision}) is different from the running revision ({present})")
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            raise CliError(f'deployment "{name}" exceeded its progress deadline')
    wanted, updated = spec.get("replicas", 1), status.get("updatedReplicas", 0)
    total, available = status.get("replicas", 0), status.get("availableReplicas", 0)
    head = f'Waiting for deployment "{name}" rollout to finish:'
    if updated < wanted:
        return Verdict(f"{head} {updated} out of {wanted} new replicas have been updated...", False)
    if total > updated:
        return Verdict(f"{head} {total - updated} old replicas are pending termination...", False)
    if available < updated:
        return Verdict(f"{head} {available} of {updated} updated replicas are available...", False)
    return Verdict(f'deployment "{name}" successfully rolled out', True)


def _stateful_set(value: dict[str, Any]) -> Verdict:
    spec, status = value.get("spec") or {}, value.get("status") or {}
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type") != "RollingUpdate":
        raise CliError(f"rollout status is only available for RollingUpdate strategy type, not {strategy.get('type')}")
    wanted, ready = spec.get("replicas", 1), status.get("readyReplicas", 0)
    if ready < wanted:
        return Verdict(f"Waiting for {wanted - ready} pods to be ready...", False)
    partition = (strategy.get("rollingUpdate") or {}).get("partition")
    updated = status.get("updatedReplicas", 0)
    if partition is not None:
        if updated < wanted - partition:
            text = f"Waiting for partitioned roll out to finish: {updated} out of {wanted - partition} new pods "
            return Verdict(text + "have been updated...", False)
        return Verdict(f"partitioned roll out complete: {updated} new pods have been updated...", True)
    if status.get("updateRevision") != status.get("currentRevision"):
        text = f"waiting for statefulset rolling update to complete {updated} pods at revision "
        return Verdict(f"{text}{status.get('updateRevision')}...", False)
    text = f"statefulset rolling update complete {status.get('currentReplicas', 0)} pods at revision "
    return Verdict(f"{text}{status.get('currentRevision')}...", True)


def _daemon_set(value: dict[str, Any]) -> Verdict:
    name, spec, status = value["metadata"]["name"], value.get("spec") or {}, value.get("status") or {}
    if (spec.get("updateStrategy") or {}).get("type") != "RollingUpdate":
        raise CliError("rollout status is only available for RollingUpdate strategy type")
    wanted, updated = status.get("desiredNumberScheduled", 0), status.get("updatedNumberScheduled", 0)
    head = f'Waiting for daemon set "{name}" rollout to finish:'
    if updated < wanted:
        return Verdict(f"{head} {updated} out of {wanted} new pods have been updated...", False)
    available = status.get("numberAvailable", 0)
    if available < wanted:
        return Verdict(f"{head} {available} of {wanted} updated pods are available...", False)
    return Verdict(f'daemon set "{name}" successfully rolled out', True)


# history, undo


def _revisions(session: Session, resource: Resource, value: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Revision number to the object that keeps it: ReplicaSets of a deployment, else ControllerRevisions."""
    plural = "replicasets" if resource.kind == "Deployment" else "controllerrevisions"
    space = value["metadata"].get("namespace", session.namespace)
    found: dict[int, dict[str, Any]] = {}
    for item in session.client.get(f"/apis/apps/v1/namespaces/{space}/{plural}").get("items") or ():
        metadata = item.get("metadata") or {}
        if not any(owner.get("uid") == value["metadata"]["uid"] for owner in metadata.get("ownerReferences") or ()):
            continue
        if resource.kind == "Deployment":
            text = (metadata.get("annotations") or {}).get(REVISION, "")
            if text.isdigit():
                found[int(text)] = item
        else:
            found[int(item.get("revision") or 0)] = item
    return dict(sorted(found.items()))


def _template(resource: Resource, item: dict[str, Any], plain: bool = True) -> dict[str, Any]:
    """The template that a revision keeps, without what its keeper added."""
    import copy

    if resource.kind == "Deployment":
        template: dict[str, Any] = copy.deepcopy(item["spec"]["template"])
        if plain:
            (template.get("metadata", {}).get("labels") or {}).pop(_HASH, None)
        return template
    template = copy.deepcopy(item["data"]["spec"]["template"])
    template.pop("$patch", None)
    return template


@rollout.command("history", cls=options.Verb)
@_target
@click.option("--revision", type=int, default=0, help="Show this revision in detail.")
@options.namespace_option
@click.pass_obj
def rollout_history(session: Session, targets: tuple[str, ...], revision: int) -> None:
    """Show earlier revisions."""
    from podrt.cli.describe_workload import template_lines
    from podrt.cli.tabs import align

    for resource, name in _each(session, targets, _ROLLED, "history viewer"):
        value = session.client.get(resource.item(session.namespace, name))
        found = _revisions(session, resource, value)
        head = f"{resource.label}/{name}"
        if revision:
            if revision not in found:
                raise CliError("unable to find the specified revision")
            out(f"{head} with revision #{revision}")
            # As kubectl prints it: with tabs, and with the label of the hash.
            out("\n".join(template_lines(_template(resource, found[revision], plain=False))) + "\n")
            continue
        rows = ["REVISION\tCHANGE-CAUSE"]
        for number, item in found.items():
            cause = ((item.get("metadata") or {}).get("annotations") or {}).get(CHANGE_CAUSE)
            rows.append(f"{number}\t{cause or '<none>'}")
        out(f"{head} ")
        out(align(rows))


@rollout.command("undo", cls=options.Verb)
@_target
@click.option("--to-revision", type=int, default=0, help="The revision to go back to; 0: the last one before.")
@options.dry_run_option
@options.namespace_option
@click.pass_obj
def rollout_undo(session: Session, targets: tuple[str, ...], to_revision: int, dry_run: str) -> None:
    """Bring back the template of an earlier revision."""
    for resource, name in _each(session, targets, _ROLLED, "rollbacker"):
        path = resource.item(session.namespace, name)
        value = session.client.get(path)
        if value.get("spec", {}).get("paused"):
            raise CliError(
                f"you cannot rollback a paused {resource.singular}; resume it first with "
                f"'podrt rollout resume {resource.singular}/{name}' and try again"
            )
        found = _revisions(session, resource, value)
        numbers = list(found)
        if to_revision and to_revision not in found:
            raise CliError(f"unable to find specified revision {to_revision} in history")
        if not to_revision and len(numbers) < 2:
            if resource.kind != "Deployment":
                raise CliError("no last revision to roll back to")
            raise CliError(f'no rollout history found for {resource.singular} "{name}"')
        chosen = to_revision or numbers[-2]
        label = f"{resource.label}/{name}"
        if chosen == numbers[-1]:
            out(f"{label} skipped rollback (current template already matches revision {chosen})")
            continue
        change = [{"op": "replace", "path": "/spec/template", "value": _template(resource, found[chosen])}]
        if dry_run != "client":
            query = {"dryRun": "All" if dry_run == "server" else None}
            session.client.json("PATCH", path, query, change, _JSON)
        if _LAST_APPLIED in (value["metadata"].get("annotations") or {}):
            warn(
                f"resource {resource.plural}/{name} was previously managed with 'apply': its file still says what was "
                "there before, and the next apply brings that back"
            )
        dry = {"none": "", "client": " (dry run)", "server": " (server dry run)"}[dry_run]
        out(f"{label} rolled back{dry}")


# pause, resume, restart


def _set_paused(session: Session, targets: tuple[str, ...], paused: bool) -> None:
    word = "paused" if paused else "resumed"
    for resource, name in _each(session, targets, ("Deployment",), "pauser" if paused else "resumer"):
        path = resource.item(session.namespace, name)
        present = bool((session.client.get(path).get("spec") or {}).get("paused"))
        if present == paused:
            raise CliError(f'{resource.plural}.{resource.group} "{name}" is {"already" if paused else "not"} paused')
        session.client.json("PATCH", path, None, {"spec": {"paused": paused or None}}, _STRATEGIC)
        out(f"{resource.label}/{name} {word}")


@rollout.command("pause", cls=options.Verb)
@_target
@options.namespace_option
@click.pass_obj
def rollout_pause(session: Session, targets: tuple[str, ...]) -> None:
    """Hold a deployment: it scales, but does not roll."""
    _set_paused(session, targets, True)


@rollout.command("resume", cls=options.Verb)
@_target
@options.namespace_option
@click.pass_obj
def rollout_resume(session: Session, targets: tuple[str, ...]) -> None:
    """Let a paused deployment roll again."""
    _set_paused(session, targets, False)


@rollout.command("restart", cls=options.Verb)
@_target
@options.namespace_option
@click.pass_obj
def rollout_restart(session: Session, targets: tuple[str, ...]) -> None:
    """Replace all pods, within the bounds of the strategy."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    notes = {"kubectl.kubernetes.io/restartedAt": stamp}
    body = {"spec": {"template": {"metadata": {"annotations": notes}}}}
    for resource, name in _each(session, targets, _ROLLED, "restarter"):
        path = resource.item(session.namespace, name)
        if (session.client.get(path).get("spec") or {}).get("paused"):
            raise CliError(f"can't restart paused deployment (run rollout resume first): {resource.label}/{name}")
        session.client.json("PATCH", path, None, body, _STRATEGIC)
        out(f"{resource.label}/{name} restarted")
