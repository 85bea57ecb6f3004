"""csi: volumes of a driver that runs on this node, in the Pod itself and by PersistentVolumes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podrt.node.volumes.csi_driver import TIMEOUT
from tests.framework.client import path_of
from tests.framework.csi import NAME, Driver, entries
from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import container, pod

MOUNTS = [{"name": "v", "mountPath": "/v"}]
INLINE = {"driver": NAME, "volumeAttributes": {"size": "1"}, "nodePublishSecretRef": {"name": "key"}}
CLAIMED = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]


@pytest.fixture
def driver(shared_daemon: Daemon, tmp_path: Path) -> Iterator[Driver]:
    made = Driver(shared_daemon.config.state_dir, tmp_path)
    spec = {"attachRequired": False, "podInfoOnMount": True, "volumeLifecycleModes": ["Ephemeral", "Persistent"]}
    body = {"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": NAME}, "spec": spec}
    shared_daemon.apply(body)
    try:
        yield made
        shared_daemon.delete_everything()
    finally:
        shared_daemon.api("DELETE", path_of("CSIDriver", NAME))
        made.close()


def told(daemon: Daemon, words: str) -> None:
    def seen() -> bool:
        items = daemon.api("GET", "/api/v1/namespaces/default/events")["items"]
        return any(words in event["message"] for event in items)

    eventually(seen)


def secret(daemon: Daemon) -> None:
    daemon.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"k": "hidden"}})


@pytest.mark.fields("spec.volumes[].csi")
def test_a_volume_of_the_pod(shared_daemon: Daemon, driver: Driver) -> None:
    secret(shared_daemon)
    volumes = [{"name": "v", "csi": INLINE}]
    shared_daemon.apply(pod("inline", container(volumeMounts=MOUNTS), volumes=volumes, securityContext={"fsGroup": 77}))
    found = shared_daemon.wait_for("inline", "Running")
    (asked,) = driver.named("NodePublishVolume")
    ident = asked[1][0].decode()
    assert ident.startswith("csi-") and shared_daemon.exec("inline", "cat", "/v/id") == ident
    assert entries(asked[7]) == {"k": "hidden"}
    context = entries(asked[8])
    assert context["size"] == "1" and context["csi.storage.k8s.io/ephemeral"] == "true"
    assert context["csi.storage.k8s.io/pod.uid"] == found["metadata"]["uid"]
    assert shared_daemon.exec("inline", "stat", "-c", "%g", "/v").strip() == "77"
    assert driver.named("NotifyRegistrationStatus") and not driver.named("NodeStageVolume")
    shared_daemon.delete("inline")
    (gone,) = driver.named("NodeUnpublishVolume")
    assert gone[1] == asked[1] and gone[2] == asked[4] and not driver.mounted


def persistent(daemon: Daemon, name: str = "pv") -> None:
    common: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    source = {"driver": NAME, "volumeHandle": "handle-1", "fsType": "ext4"}
    spec = {**common, "capacity": {"storage": "1Gi"}, "csi": source, "persistentVolumeReclaimPolicy": "Retain"}
    daemon.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec})
    claim = {**common, "resources": {"requests": {"storage": "1Gi"}}}
    daemon.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": claim})


def unpersistent(daemon: Daemon) -> None:
    daemon.api("DELETE", path_of("PersistentVolumeClaim", "c"))
    daemon.api("DELETE", path_of("PersistentVolume", "pv"))
    eventually(lambda: not daemon.api("GET", "/api/v1/persistentvolumeclaims")["items"])


@pytest.mark.fields("spec.volumes[].csi", "spec.volumes[].persistentVolumeClaim")
def test_a_persistent_volume_is_staged_once(shared_daemon: Daemon, driver: Driver) -> None:
    persistent(shared_daemon)
    for name in ("a", "b"):
        shared_daemon.apply(pod(name, container(volumeMounts=MOUNTS), volumes=CLAIMED))
        shared_daemon.wait_for(name, "Running")
        assert shared_daemon.exec(name, "cat", "/v/id") == "handle-1"
    staged = {fields[3][0] for fields in driver.named("NodeStageVolume")}
    assert len(staged) == 1 and staged == {fields[3][0] for fields in driver.named("NodePublishVolume")}
    shared_daemon.kill()
    shared_daemon.start()
    shared_daemon.delete("a")
    assert len(driver.named("NodeUnpublishVolume")) == 1 and not driver.named("NodeUnstageVolume")
    shared_daemon.delete("b")
    (unstaged,) = driver.named("NodeUnstageVolume")
    assert {unstaged[2][0]} == staged and not Path(unstaged[2][0].decode()).exists()
    unpersistent(shared_daemon)


def test_what_the_driver_says_is_told(shared_daemon: Daemon, driver: Driver) -> None:
    persistent(shared_daemon)
    driver.refuse = "NodePublishVolume"
    shared_daemon.apply(pod("waits", container(volumeMounts=MOUNTS), volumes=CLAIMED))
    told(shared_daemon, "NodePublishVolume: rpc error: code = 13 desc = the driver is out of order")
    driver.refuse = ""
    shared_daemon.wait_for("waits", "Running")
    driver.refuse = "NodeUnpublishVolume"
    shared_daemon.delete("waits", wait=False)
    told(shared_daemon, "UnmountVolume.TearDown failed: CSI driver csi.example.com: NodeUnpublishVolume")
    assert shared_daemon.exists("waits"), "its volume may still be in use"
    driver.refuse = ""
    shared_daemon.wait_for("waits", "deleted")
    unpersistent(shared_daemon)


def test_a_driver_that_hangs_holds_up_neither_its_pod_s_deletion_nor_others(
    shared_daemon: Daemon, driver: Driver
) -> None:
    driver.hang = "NodePublishVolume"
    volumes = [{"name": "v", "csi": {"driver": NAME}}]
    shared_daemon.apply(pod("stuck", container(volumeMounts=MOUNTS), volumes=volumes))
    eventually(lambda: driver.named("NodePublishVolume"))
    shared_daemon.apply(pod("lively"))
    shared_daemon.wait_for("lively", "Running")
    began = time.monotonic()
    shared_daemon.delete("stuck")
    assert time.monotonic() - began < TIMEOUT / 2
    assert driver.named("NodeUnpublishVolume")


def test_drivers_that_can_not_be_had(shared_daemon: Daemon) -> None:
    other = [{"name": "v", "csi": {"driver": "none.example.com"}}]
    shared_daemon.apply(pod("unknown", container(volumeMounts=MOUNTS), volumes=other))
    told(shared_daemon, "volume mode 'Ephemeral' not supported by driver none.example.com")
    persistent(shared_daemon)
    shared_daemon.apply(pod("attached", container(volumeMounts=MOUNTS), volumes=CLAIMED))
    told(shared_daemon, "wants its volumes attached by a controller")
    body = {"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": NAME}}
    shared_daemon.apply({**body, "spec": {"attachRequired": False}})
    told(shared_daemon, f"driver name {NAME} not found in the list of registered CSI drivers")
    for name in ("unknown", "attached"):
        shared_daemon.delete(name)
    shared_daemon.api("DELETE", path_of("CSIDriver", NAME))
    unpersistent(shared_daemon)
