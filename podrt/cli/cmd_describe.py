"""``podrt describe``."""

from __future__ import annotations

from typing import Any

import click

from podrt.cli import options, printers
from podrt.cli.describe_common import event_lines, events_of
from podrt.cli.errors import ApiError, CliError
from podrt.cli.resources import PODS, Resource, for_kind, parse_targets
from podrt.cli.session import Session, err
from podrt.cli.tabs import align


@click.command("describe", cls=options.Verb)
@click.argument("targets", nargs=-1, metavar="TYPE [NAME...] | TYPE/NAME...", shell_complete=options.complete_targets)
@options.files_options
@options.selector_options
@options.all_namespaces_option
@click.option("--show-events/--no-show-events", default=True, help="Show the events about the object.")
@options.namespace_option
@click.pass_obj
def describe(
    session: Session,
    targets: tuple[str, ...],
    filenames: tuple[str, ...],
    recursive: bool,
    selector: str | None,
    field_selector: str | None,
    all_namespaces: bool,
    show_events: bool,
) -> None:
    """Show objects in detail, with their events: describe pod web, describe nodes, describe pods -l app=web."""
    query: dict[str, object] = {"labelSelector": selector, "fieldSelector": field_selector}
    found: list[tuple[Resource, dict[str, Any]]] = []
    if filenames:
        from podrt.cli.manifest import read_manifests

        for item in read_manifests(filenames, recursive):
            resource = for_kind(session.client, item.api_version, item.kind, item.origin)
            path = resource.item(item.namespace(session.namespace, False), item.name)
            found.append((resource, session.client.get(path)))
    else:
        for target in parse_targets(session.client, targets):
            if target.names and (selector or field_selector):
                raise CliError("name cannot be provided when a selector is specified", 2)
            if target.names:
                found += [
                    (target.resource, session.client.get(target.resource.item(session.namespace, name)))
                    for name in target.names
                ]
            else:
                path = target.resource.collection(None if all_namespaces else session.namespace)
                listed = printers.objects_of(session.client.get(path, query))
                found += [(target.resource, item) for item in listed]
    for index, (resource, value) in enumerate(found):
        if index:
            printers.emit("\n\n")
        # As kubectl: the events of many objects would bury the objects.
        printers.emit(text_of(session, resource, value, show_events and len(found) == 1))
    if not found:
        err("No resources found" if all_namespaces else f"No resources found in {session.namespace} namespace.")


def text_of(session: Session, resource: Resource, value: dict[str, Any], show_events: bool) -> str:
    """The description of one object."""
    if resource.kind == "Pod" and not resource.group:
        from podrt.cli.describe_pod import describe_pod

        lines = describe_pod(value)
    else:
        from podrt.cli import describe_other

        if resource.kind == "Node":
            lines = describe_other.describe_node(value, _pods_on(session, printers.object_name(value)))
        elif resource.kind == "Namespace":
            quotas, ranges = (_in_namespace(session, name, printers.object_name(value)) for name in _POLICIES)
            return align(describe_other.describe_namespace(value, quotas, ranges))
        elif resource.group in ("apps", "batch") and (owned := _owned(session, resource, value)) is not None:
            from podrt.cli.describe_workload import describe_workload

            lines = describe_workload(value, resource.kind, owned)
        elif (known := _configuration(session, resource, value)) is not None:
            lines = known
        else:
            lines = describe_other.describe_any({"apiVersion": resource.group_version, "kind": resource.kind} | value)
    if show_events and resource.kind != "Event":
        lines += event_lines(events_of(session.client, value, resource.kind))
    return align(lines)


_POLICIES = ("resourcequotas", "limitranges")


def _in_namespace(session: Session, plural: str, namespace: str) -> list[dict[str, Any]]:
    """The objects of a core kind; none if they can't be read."""
    try:
        return printers.objects_of(session.client.get(f"/api/v1/namespaces/{namespace}/{plural}"))
    except ApiError:
        return []


_OWNED = {"Deployment": "/apis/apps/v1/namespaces/{space}/replicasets", "CronJob": ""}


def _owned(session: Session, resource: Resource, value: dict[str, Any]) -> list[dict[str, Any]] | None:
    """What a workload owns: Pods, of a deployment its ReplicaSets. None for a kind that is no workload."""
    from podrt.cli.describe_workload import KINDS

    if resource.kind not in KINDS:
        return None
    path = _OWNED.get(resource.kind, "/api/v1/namespaces/{space}/pods")
    metadata = value.get("metadata") or {}
    if not path:
        return []
    found = printers.objects_of(session.client.get(path.format(space=metadata.get("namespace", session.namespace))))
    return [
        item
        for item in found
        if any(owner.get("uid") == metadata.get("uid") for owner in item["metadata"].get("ownerReferences") or ())
    ]


def _configuration(session: Session, resource: Resource, value: dict[str, Any]) -> list[str] | None:
    """ConfigMaps, Secrets, claims and the like; None for another kind."""
    from podrt.cli import describe_config

    if resource.kind == "PersistentVolumeClaim":
        namespace = (value.get("metadata") or {}).get("namespace", "")
        return describe_config.describe_claim(
            value, printers.objects_of(session.client.get(PODS.collection(namespace)))
        )
    describe = {
        "ConfigMap": describe_config.describe_config_map,
        "Secret": describe_config.describe_secret,
        "PersistentVolume": describe_config.describe_volume,
        "ResourceQuota": describe_config.describe_quota,
        "LimitRange": describe_config.describe_limit_range,
    }.get(resource.kind)
    return None if describe is None else describe(value)


def _pods_on(session: Session, node: str) -> list[dict[str, Any]]:
    fields = f"spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed"
    return printers.objects_of(session.client.get(PODS.collection(None), {"fieldSelector": fields}))
