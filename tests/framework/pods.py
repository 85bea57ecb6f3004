"""Pods for tests, as the dictionaries that are sent to the API."""

from __future__ import annotations

from typing import Any

from tests.framework.patience import FACTOR

BUSYBOX = "localhost/podrt/busybox:latest"
TOOLS = "localhost/podrt/tools:latest"

COUNTER = f"i=0; while :; do echo line $i; i=$((i+1)); usleep {2000 if FACTOR == 1 else 200_000}; done"
"""A shell loop that numbers its lines, to find any that is lost or doubled. Each turn starts a process, of which an
emulated machine manages some dozens a second."""


HELLO_JOB = """
apiVersion: batch/v1
kind: Job
metadata:
  name: hello
spec:
  template:
    # This is the pod template
    spec:
      containers:
      - name: hello
        image: busybox:1.28
        command: ['sh', '-c', 'echo "Hello, Kubernetes!" && sleep 3600']
      restartPolicy: OnFailure
    # The pod template ends here
"""
"""The Job of the documentation, as users paste it."""


def container(name: str = "main", script: str = "", *, image: str = BUSYBOX, **fields: Any) -> dict[str, Any]:
    """A container that runs a shell script, or sleeps until it is told to end."""
    script = script or "trap 'exit 0' TERM; sleep 100000 & wait"
    if "command" not in fields:
        fields["command"] = ["sh", "-c", script]
    return {"name": name, "image": image, **fields}


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A Pod; without containers one that sleeps. Its grace period is 1 second unless given."""
    spec.setdefault("terminationGracePeriodSeconds", 1)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": list(containers) or [container()], **spec},
    }


def priority_class(name: str, value: int) -> dict[str, Any]:
    """A PriorityClass."""
    head = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}}
    return {**head, "value": value}


def statuses(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """containerStatuses of a Pod by name."""
    return {one["name"]: one for one in found["status"].get("containerStatuses", ())}


def status(found: dict[str, Any], name: str = "main") -> dict[str, Any]:
    """The status of one container."""
    return statuses(found)[name]


def terminated(found: dict[str, Any], name: str = "main") -> dict[str, Any]:
    """The terminated state of a container, else {}."""
    state: dict[str, Any] = statuses(found).get(name, {}).get("state", {}).get("terminated") or {}
    return state


def restarts(found: dict[str, Any], name: str = "main") -> int:
    return int(statuses(found).get(name, {}).get("restartCount", 0))
