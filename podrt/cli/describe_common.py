"""Pieces of ``podrt describe`` that every kind has: maps, events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from podrt.cli.client import Client
from podrt.cli.errors import ApiError
from podrt.cli.times import age, parse_time

Object = dict[str, Any]
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def map_lines(title: str, values: Mapping[str, Any] | None, indent: str = "", separator: str = "=") -> list[str]:
    """``title`` and one line for each pair; ``<none>`` for an empty map."""
    pairs = sorted((values or {}).items())
    if not pairs:
        return [f"{indent}{title}:\t<none>"]
    texts = [f"{key}{separator}{value}" for key, value in pairs]
    return [f"{indent}{title}:\t{texts[0]}"] + [f"{indent}\t{text}" for text in texts[1:]]


def metadata_lines(value: Object) -> list[str]:
    metadata = value.get("metadata") or {}
    annotations = {key: text for key, text in (metadata.get("annotations") or {}).items() if key != _LAST_APPLIED}
    lines = map_lines("Labels", metadata.get("labels"))
    return lines + map_lines("Annotations", annotations, separator=": ")


def events_of(client: Client, value: Object, kind: str) -> list[Object]:
    """Events about the object, oldest first. Events that can't be read are none: the object itself is still told."""
    metadata = value.get("metadata") or {}
    fields = [f"involvedObject.name={metadata.get('name', '')}", f"involvedObject.kind={kind}"]
    if metadata.get("namespace"):
        fields.append(f"involvedObject.namespace={metadata['namespace']}")
    if metadata.get("uid") and kind != "Node":  # a kubelet names the node as its uid
        fields.append(f"involvedObject.uid={metadata['uid']}")
    space = metadata.get("namespace")
    path = f"/api/v1/namespaces/{space}/events" if space else "/api/v1/events"
    try:
        found = client.get(path, {"fieldSelector": ",".join(fields)}).get("items") or []
    except ApiError:
        return []
    return sorted(found, key=last_seen)


def last_seen(event: Object) -> str:
    """When the event was last seen, RFC 3339; sortable."""
    series = event.get("series") or {}
    stamp = (
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or (event.get("metadata") or {}).get("creationTimestamp")
    )
    then = parse_time(stamp)
    return then.isoformat() if then else ""


def event_age(event: Object) -> str:
    """``5s``, or ``5s (x3 over 2m)`` for one that came several times."""
    count = int((event.get("series") or {}).get("count") or event.get("count") or 1)
    last = age(last_seen(event))
    if count <= 1:
        return last
    first = event.get("firstTimestamp") or event.get("eventTime")
    return f"{last} (x{count} over {age(first)})"


def event_lines(events: list[Object]) -> list[str]:
    if not events:
        return ["Events:\t<none>"]
    lines = ["Events:", "  Type\tReason\tAge\tFrom\tMessage", "  ----\t------\t----\t----\t-------"]
    for event in events:
        source = (event.get("source") or {}).get("component") or event.get("reportingComponent") or ""
        message = str(event.get("message", "")).strip().replace("\n", " ")
        if field := (event.get("involvedObject") or {}).get("fieldPath"):
            message = f"{field}: {message}"
        lines.append(f"  {event.get('type', '')}\t{event.get('reason', '')}\t{event_age(event)}\t{source}\t{message}")
    return lines
