"""The objects that ``podrt create KIND`` makes of its options: what kubectl's generators make."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from typing import Any

from podrt.cli.errors import CliError

Object = dict[str, Any]


def _containers(images: Sequence[str], command: Sequence[str]) -> list[Object]:
    found: list[Object] = []
    for image in images:
        name = image.rpartition("/")[2].partition("@")[0].partition(":")[0].replace("_", "-").replace(".", "-")
        found.append({"name": name, "image": image} | ({"command": list(command)} if command else {}))
    if len({one["name"] for one in found}) != len(found):
        for number, one in enumerate(found):
            one["name"] = f"{one['name']}-{number}"
    return found


def deployment(name: str, images: Sequence[str], replicas: int, port: int, command: Sequence[str]) -> Object:
    if command and len(images) > 1:
        raise CliError("cannot specify multiple --image options and command", 2)
    labels = {"app": name}
    containers = _containers(images, command)
    if port:
        containers[0]["ports"] = [{"containerPort": port}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def _job_spec(name: str, image: str, command: Sequence[str], restart: str = "Never") -> Object:
    container: Object = {"name": name, "image": image} | ({"command": list(command)} if command else {})
    return {"template": {"spec": {"containers": [container], "restartPolicy": restart}}}


def job(name: str, image: str, command: Sequence[str]) -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": _job_spec(name, image, command),
    }


def job_from(name: str, cron: Object) -> Object:
    """A Job as the CronJob would start it now."""
    template = cron["spec"]["jobTemplate"]
    metadata = template.get("metadata") or {}
    owner = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": cron["metadata"]["name"],
        "uid": cron["metadata"]["uid"],
        "controller": True,
    }
    annotations = {"cronjob.kubernetes.io/instantiate": "manual"} | (metadata.get("annotations") or {})
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "labels": metadata.get("labels") or {},
            "annotations": annotations,
            "ownerReferences": [owner],
        },
        "spec": template["spec"],
    }


def cron_job(name: str, image: str, schedule: str, restart: str, command: Sequence[str]) -> Object:
    template = {"metadata": {"name": name}, "spec": _job_spec(name, image, command, restart)}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {"schedule": schedule, "jobTemplate": template},
    }


def data(literals: Sequence[str], files: Sequence[str], env_files: Sequence[str]) -> dict[str, bytes]:
    """Keys and values of --from-literal, --from-file (a file, KEY=FILE, or a directory) and --from-env-file."""
    found: dict[str, bytes] = {}

    def put(key: str, value: bytes) -> None:
        if key in found:
            raise CliError(f'cannot add key "{key}": another key by that name already exists')
        found[key] = value

    for text in literals:
        key, equals, value = text.partition("=")
        if not equals or not key:
            # Without the text: it may be a password that was meant to have a key.
            raise CliError("invalid --from-literal: expected KEY=VALUE", 2)
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        put(key, value.encode())
    for text in files:
        key, equals, path = text.rpartition("=")
        if not equals and os.path.isdir(path):
            for name in sorted(os.listdir(path)):
                inner = os.path.join(path, name)
                if os.path.isfile(inner):
                    put(name, _read(inner))
        else:
            put(key or os.path.basename(path), _read(path))
    for path in env_files:
        for line in _read(path).decode().splitlines():
            line = line.lstrip()
            if line and not line.startswith("#"):
                key, equals, value = line.partition("=")
                put(key, (value if equals else os.environ.get(key, "")).encode())
    return found


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def config_map(name: str, values: dict[str, bytes]) -> Object:
    text: dict[str, str] = {}
    binary: dict[str, str] = {}
    for key, value in values.items():
        try:
            text[key] = value.decode()
        except UnicodeDecodeError:
            binary[key] = base64.b64encode(value).decode()
    made: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    return made | ({"data": text} if text else {}) | ({"binaryData": binary} if binary else {})


def secret(name: str, kind: str, values: dict[str, bytes]) -> Object:
    encoded = {key: base64.b64encode(value).decode() for key, value in values.items()}
    made: Object = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind or "Opaque"}
    return made | ({"data": encoded} if encoded else {})


def registry_secret(name: str, server: str, user: str, password: str, email: str) -> Object:
    import json

    login = {"username": user, "password": password}
    if email:
        login["email"] = email
    login["auth"] = base64.b64encode(f"{user}:{password}".encode()).decode()
    text = json.dumps({"auths": {server: login}}, separators=(",", ":")).encode()
    return secret(name, "kubernetes.io/dockerconfigjson", {".dockerconfigjson": text})
