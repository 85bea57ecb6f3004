"""The Pod that everything is measured with: two containers that sleep, the least a Pod can do."""

from __future__ import annotations

from typing import Any

IMAGE = "localhost/podrt/busybox:latest"
CONTAINERS = 2


def pod(name: str) -> dict[str, Any]:
    container = {"image": IMAGE, "command": ["sleep", "1000000"], "imagePullPolicy": "Never"}
    # Limits, so that they are written to the cgroup; small requests, so that hundreds have room on a small machine.
    amounts = {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "1m", "memory": "1Mi"}}
    containers = [{"name": f"c{number}", **container, "resources": amounts} for number in range(CONTAINERS)]
    spec = {"containers": containers, "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
