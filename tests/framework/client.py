"""A plain HTTP client over the daemon's unix socket, independent of podrt's own client, so that tests see the wire."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any

from tests.framework.patience import scaled

Object = dict[str, Any]

PATHS = {
    "Pod": "pods",
    "Namespace": "namespaces",
    "Event": "events",
    "Node": "nodes",
    "ConfigMap": "configmaps",
    "Secret": "secrets",
    "ServiceAccount": "serviceaccounts",
    "LimitRange": "limitranges",
    "ResourceQuota": "resourcequotas",
    "PersistentVolume": "persistentvolumes",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "StorageClass": "storageclasses",
    "Deployment": "deployments",
    "ReplicaSet": "replicasets",
    "StatefulSet": "statefulsets",
    "DaemonSet": "daemonsets",
    "ControllerRevision": "controllerrevisions",
    "Job": "jobs",
    "CronJob": "cronjobs",
    "PriorityClass": "priorityclasses",
    "RuntimeClass": "runtimeclasses",
    "CSIDriver": "csidrivers",
}
CLUSTER_WIDE = ("Namespace", "Node", "PersistentVolume", "StorageClass", "PriorityClass", "RuntimeClass", "CSIDriver")
GROUPS = {
    "StorageClass": "storage.k8s.io/v1",
    "PriorityClass": "scheduling.k8s.io/v1",
    "RuntimeClass": "node.k8s.io/v1",
    "CSIDriver": "storage.k8s.io/v1",
}
GROUPS |= dict.fromkeys(("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "ControllerRevision"), "apps/v1")
GROUPS |= dict.fromkeys(("Job", "CronJob"), "batch/v1")


class ApiError(Exception):
    """The API answered with a failure: ``code`` is the HTTP status, ``status`` the decoded Status object."""

    def __init__(self, method: str, path: str, code: int, status: Any) -> None:
        message = status.get("message", status) if isinstance(status, dict) else status
        super().__init__(f"{method} {path}: {code} {message}")
        self.code = code
        self.status = status


class UnixConnection(http.client.HTTPConnection):
    """HTTP/1.1 over a unix socket."""

    def __init__(self, path: Path, timeout: float = 30.0) -> None:
        super().__init__("localhost", timeout=scaled(timeout))
        self.socket_path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self.socket_path))
        except OSError:
            self.close()
            raise


class Client:
    """Requests to one daemon. Each opens its own connection; only :meth:`watch` keeps one."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path

    def raw(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json", timeout: float = 30.0
    ) -> tuple[int, bytes]:
        """One request; returns status and body. ``body``: bytes and str go as they are, anything else as JSON."""
        data = body if body is None or isinstance(body, bytes | str) else json.dumps(body)
        connection = UnixConnection(self.socket_path, timeout)
        try:
            connection.request(method, path, body=data, headers={"Content-Type": content_type} if data else {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def request(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """One request; returns the decoded JSON (or text). Raises ApiError for a status of 400 or above."""
        code, data = self.raw(method, path, body, **options)
        try:
            value = json.loads(data)
        except ValueError:
            value = data.decode(errors="replace")
        if code >= 400:
            raise ApiError(method, path, code, value)
        return value

    def watch(self, path: str, timeout: float = 30.0) -> Generator[Object]:
        """Yield the events of a watch on ``path`` until the server ends it; TimeoutError after ``timeout`` idle."""
        connection = UnixConnection(self.socket_path, timeout)
        try:
            connection.request("GET", path + ("&" if "?" in path else "?") + "watch=true")
            response = connection.getresponse()
            if response.status >= 400:
                raise ApiError("WATCH", path, response.status, response.read().decode(errors="replace"))
            while line := response.readline():
                yield json.loads(line)
        finally:
            connection.close()


def path_of(kind: str, name: str = "", namespace: str = "default", subresource: str = "") -> str:
    """The API path of an object or, without ``name``, of its collection."""
    parts = [f"/apis/{GROUPS[kind]}" if kind in GROUPS else "/api/v1"]
    if kind not in CLUSTER_WIDE:
        parts += ["namespaces", namespace]
    parts.append(PATHS[kind])
    parts += [part for part in (name, subresource) if part]
    return "/".join(parts)
