"""Waiting for an object to be as wanted: get it, then watch it from there, again if the watch ends."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from podrt.cli.client import Client
from podrt.cli.errors import ApiError, CliError
from podrt.cli.resources import Resource

Check = Callable[[dict[str, Any] | None], bool]
_LONGEST_WATCH = 300


def wait_until(
    client: Client, resource: Resource, namespace: str, name: str, check: Check, deadline: float | None
) -> bool:
    """True when ``check`` is: it gets the object, or None when there is none. False at ``deadline`` (monotonic).

    Raises ApiError for any refusal other than "not found" and "expired".
    """
    while True:
        value, version = _current(client, resource, namespace, name)
        if check(value):
            return True
        if deadline is not None and time.monotonic() >= deadline:
            return False
        if _watch(client, resource, namespace, name, version, check, deadline):
            return True


def _current(client: Client, resource: Resource, namespace: str, name: str) -> tuple[dict[str, Any] | None, str]:
    """The object by a list, whose resourceVersion is what a watch can start from even where nothing is."""
    found = client.get(resource.collection(namespace), {"fieldSelector": f"metadata.name={name}"})
    items = found.get("items") or []
    return (items[0] if items else None), str((found.get("metadata") or {}).get("resourceVersion", ""))


def _watch(
    client: Client,
    resource: Resource,
    namespace: str,
    name: str,
    version: str,
    check: Check,
    deadline: float | None,
) -> bool:
    left = _LONGEST_WATCH if deadline is None else min(_LONGEST_WATCH, max(0.0, deadline - time.monotonic()))
    query: list[tuple[str, object]] = [
        ("fieldSelector", f"metadata.name={name}"),
        ("resourceVersion", version),
        ("watch", True),
        ("allowWatchBookmarks", True),
        ("timeoutSeconds", max(1, int(left) + 1)),
    ]
    import json

    try:
        with client.open("GET", resource.collection(namespace), query) as response:
            end = time.monotonic() + left
            response.stream.sock.settimeout(max(0.01, left))
            for line in response.lines():
                if not line.strip():
                    continue
                event = json.loads(line)
                if event.get("type") == "ERROR":
                    return False  # Expired: list again
                if event.get("type") != "BOOKMARK":
                    value = None if event["type"] == "DELETED" else event["object"]
                    if check(value):
                        return True
                if time.monotonic() >= end:
                    return False
                response.stream.sock.settimeout(max(0.01, end - time.monotonic()))
    except (TimeoutError, socket.timeout):  # noqa: UP041
        return False
    except ApiError as error:
        if error.http_code != 410:
            raise
    except CliError:
        time.sleep(0.2)  # the daemon was stopped in the middle; the next list says whether it is back
    return False
