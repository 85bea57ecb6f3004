"""Claims and volumes stay as long as somebody needs them: pvc-protection and pv-protection."""

from __future__ import annotations

from typing import Any

from tests.framework.client import ApiError, Object, path_of
from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import container, pod

CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}}


def make(daemon: Daemon, kind: str, name: str, **fields: Any) -> None:
    daemon.apply({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}} | fields)


def get(daemon: Daemon, kind: str, name: str) -> Object | None:
    try:
        found: Object = daemon.api("GET", path_of(kind, name))
    except ApiError as error:
        if error.code != 404:
            raise
        return None
    return found


def test_a_claim_stays_with_a_pod_that_has_ended_and_a_volume_with_its_claim(shared_daemon: Daemon) -> None:
    """What is undone with the Pod must be known until then: a device, or a volume at a driver."""
    make(shared_daemon, "PersistentVolumeClaim", "used", spec=CLAIM)
    volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "used"}}]
    one = container(script="true", volumeMounts=[{"name": "d", "mountPath": "/d"}])
    shared_daemon.apply(pod("ended", one, volumes=volumes, restartPolicy="Never"))
    shared_daemon.wait_for("ended", "Succeeded")
    claim = get(shared_daemon, "PersistentVolumeClaim", "used")
    assert claim is not None
    name = claim["spec"]["volumeName"]
    shared_daemon.api("DELETE", path_of("PersistentVolume", name))
    shared_daemon.api("DELETE", path_of("PersistentVolumeClaim", "used"))
    # Whoever does it wrong does it at once, and before the answer to this.
    make(shared_daemon, "ConfigMap", "later", data={})
    kept = get(shared_daemon, "PersistentVolume", name)
    assert kept is not None and kept["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]
    assert get(shared_daemon, "PersistentVolumeClaim", "used") is not None
    shared_daemon.delete("ended")
    eventually(lambda: get(shared_daemon, "PersistentVolume", name) is None)
    assert get(shared_daemon, "PersistentVolumeClaim", "used") is None
    assert not (shared_daemon.config.state_dir / "volumes" / name).exists()
    shared_daemon.api("DELETE", path_of("ConfigMap", "later"))
