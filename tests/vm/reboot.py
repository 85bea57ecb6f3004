"""The Pods that live through a reboot, and what was known of them before: shared by the tests before and after it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.framework.pods import container, pod

KNOWN = Path("/var/tmp/podrt-before-reboot.json")
HOST_DIRECTORY = "/var/lib/podrt-test-data"
SCRIPT = "echo start >>/data/starts; trap 'exit 0' TERM; sleep 100000 & wait"
"""Each start leaves a line in the volume."""

WITH_DATA = ("reboot-always", "reboot-onfailure", "reboot-hostpath", "reboot-claim")
COMES_BACK = (*WITH_DATA, "reboot-two")
STAYS_ENDED = {"reboot-done": "Succeeded", "reboot-failed": "Failed"}


CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "reboot-claim"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}},
}


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _with_data(name: str, volume: dict[str, Any], **spec: Any) -> dict[str, Any]:
    mounts = [{"name": "data", "mountPath": "/data"}]
    return pod(name, container(script=SCRIPT, volumeMounts=mounts), volumes=[{"name": "data", **volume}], **spec)


def pods() -> list[dict[str, Any]]:
    return [
        _with_data("reboot-always", {"emptyDir": {}}, restartPolicy="Always"),
        _with_data("reboot-onfailure", {"emptyDir": {}}, restartPolicy="OnFailure"),
        _with_data("reboot-hostpath", {"hostPath": {"path": HOST_DIRECTORY, "type": "DirectoryOrCreate"}}),
        _with_data("reboot-claim", {"persistentVolumeClaim": {"claimName": "reboot-claim"}}),
        _with_data("reboot-never", {"emptyDir": {}}, restartPolicy="Never"),
        pod("reboot-two", container("a"), container("b")),
        pod("reboot-done", container(script="exit 0"), restartPolicy="Never"),
        pod("reboot-failed", container(script="exit 3"), restartPolicy="Never"),
    ]


def remember(found: dict[str, Any]) -> None:
    KNOWN.write_text(json.dumps(found))


def remembered() -> dict[str, Any]:
    known: dict[str, Any] = json.loads(KNOWN.read_text())
    return known
