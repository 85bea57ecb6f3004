"""Claims of mode Block: a device in the container, whose bytes stay with the claim."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podrt.linux import loop
from tests.framework import leaks
from tests.framework.client import ApiError, Object, path_of
from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import container, pod, statuses

DEVICES = [{"name": "disk", "devicePath": "/dev/xvda"}]
VOLUMES = [{"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}]

pytestmark = pytest.mark.skipif(not loop.available(), reason="this machine has no loop devices")


def make_claim(daemon: Daemon, name: str = "disk", **spec: Any) -> None:
    resources = {"requests": {"storage": "8Mi"}}
    full = {"accessModes": ["ReadWriteOnce"], "volumeMode": "Block", "resources": resources, **spec}
    daemon.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": full})


def drop_claim(daemon: Daemon, name: str = "disk") -> None:
    daemon.api("DELETE", path_of("PersistentVolumeClaim", name))
    volumes = daemon.config.state_dir / "volumes"
    eventually(lambda: not any(volumes.iterdir()))


def disk_of(daemon: Daemon) -> Path:
    (found,) = (daemon.config.state_dir / "volumes").glob("pvc-*/disk.img")
    return found


def waiting_for(found: Object) -> str:
    state = statuses(found).get("main", {}).get("state", {})
    return str((state.get("waiting") or {}).get("message", ""))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    yield path
    loop.detach(path)


def test_a_file_as_a_device(file: Path) -> None:
    device = loop.attach(file)
    assert loop.attach(file) == device == loop.device_of(file)
    fd = os.open(device, os.O_RDWR)
    assert os.lseek(fd, 0, os.SEEK_END) == 1 << 20
    os.pwrite(fd, b"hello", 4096)
    os.fsync(fd)
    os.close(fd)
    assert file.read_bytes()[4096:4101] == b"hello"
    assert leaks.loop_devices((f"{file.parent}/",)) == {f"{device.name} on {file}"}
    loop.detach(file)
    assert loop.device_of(file) is None and not leaks.loop_devices((f"{file.parent}/",))
    loop.detach(file)


def test_a_device_that_can_only_be_read(file: Path) -> None:
    device = loop.attach(file, read_only=True)
    # Linux lets it be opened for writing, but not be written.
    fd = os.open(device, os.O_RDWR)
    try:
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
    finally:
        os.close(fd)


@pytest.mark.fields("spec.containers[].volumeDevices")
def test_a_claim_is_a_device(shared_daemon: Daemon) -> None:
    make_claim(shared_daemon)
    reads, writes = "dd if=/dev/xvda bs=5 count=1 2>/dev/null; echo", "dd of=/dev/xvda conv=notrunc 2>/dev/null"
    script = f"{reads}; printf hello | {writes}; sync"
    for name in ("one", "two"):
        main = container(script=f"{script}; sleep 1000", volumeDevices=DEVICES)
        shared_daemon.apply(pod(name, main, container("other"), volumes=VOLUMES))
        shared_daemon.wait_for(name, "Running")
        if name == "one":
            assert loop.device_of(disk_of(shared_daemon)) is not None
            assert "8388608" in shared_daemon.exec(name, "sh", "-c", "wc -c < /dev/xvda", container="main")
            assert "no" in shared_daemon.exec(name, "sh", "-c", "ls /dev/xvda || echo no", container="other")
            eventually(lambda: disk_of(shared_daemon).read_bytes()[:5] == b"hello")
        else:
            eventually(lambda: shared_daemon.logs("two", "main") == "hello\n")
        shared_daemon.delete(name)
        assert loop.device_of(disk_of(shared_daemon)) is None
    drop_claim(shared_daemon)


def test_a_device_goes_with_its_last_pod(shared_daemon: Daemon) -> None:
    make_claim(shared_daemon)
    for name in ("a", "b"):
        shared_daemon.apply(pod(name, container(volumeDevices=DEVICES), volumes=VOLUMES))
        shared_daemon.wait_for(name, "Running")
    shared_daemon.delete("a")
    assert loop.device_of(disk_of(shared_daemon)) is not None
    shared_daemon.kill()
    shared_daemon.start()
    assert shared_daemon.exec("b", "sh", "-c", "head -c 4 /dev/xvda | wc -c").strip() == "4"
    shared_daemon.delete("b")
    assert loop.device_of(disk_of(shared_daemon)) is None
    drop_claim(shared_daemon)


def test_a_daemon_that_dies_with_a_device_in_hand(shared_daemon: Daemon) -> None:
    """Before the Pod has a sandbox, and while it is about to be gone. The fixture looks for devices that stay."""
    make_claim(shared_daemon)
    shared_daemon.apply(pod("p", container(volumeDevices=DEVICES), volumes=VOLUMES))
    eventually(lambda: loop.device_of(disk_of(shared_daemon)))
    shared_daemon.kill()
    shared_daemon.start()
    shared_daemon.wait_for("p", "Running")
    shared_daemon.delete("p", wait=False)
    eventually(lambda: loop.device_of(disk_of(shared_daemon)) is None)
    shared_daemon.kill()
    shared_daemon.start()
    shared_daemon.wait_for("p", "deleted")
    assert loop.device_of(disk_of(shared_daemon)) is None
    drop_claim(shared_daemon)


def test_a_claim_that_can_only_be_read(shared_daemon: Daemon) -> None:
    make_claim(shared_daemon)
    volumes = [{"name": "disk", "persistentVolumeClaim": {"claimName": "disk", "readOnly": True}}]
    shared_daemon.apply(pod("reader", container(volumeDevices=DEVICES), volumes=volumes))
    shared_daemon.wait_for("reader", "Running")
    shared_daemon.exec("reader", "head", "-c", "4", "/dev/xvda")
    written = shared_daemon.exec("reader", "sh", "-c", "echo x > /dev/xvda && echo written", check=False)
    assert "written" not in written
    shared_daemon.delete("reader")
    drop_claim(shared_daemon)


def test_devices_and_files_are_not_mixed_up(shared_daemon: Daemon) -> None:
    make_claim(shared_daemon)
    mounts = [{"name": "disk", "mountPath": "/disk"}]
    shared_daemon.apply(pod("mounted", container(volumeMounts=mounts), volumes=VOLUMES))
    words = "volume disk has volumeMode Block, but is specified in volumeMounts"
    shared_daemon.wait_for("mounted", lambda found: words in waiting_for(found))
    shared_daemon.delete("mounted")
    drop_claim(shared_daemon)
    make_claim(shared_daemon, volumeMode="Filesystem")
    shared_daemon.apply(pod("raw", container(volumeDevices=DEVICES), volumes=VOLUMES))
    words = "volume disk has volumeMode Filesystem, but is specified in volumeDevices"
    shared_daemon.wait_for("raw", lambda found: words in waiting_for(found))
    shared_daemon.delete("raw")
    drop_claim(shared_daemon)


def test_a_volume_object_lends_no_file_of_the_host(shared_daemon: Daemon, file: Path) -> None:
    """Only block devices and what podrt made itself: else a file of the host would be anybody's disk."""
    spec = {
        "capacity": {"storage": "1Mi"},
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Block",
        "local": {"path": str(file)},
        "storageClassName": "",
        "persistentVolumeReclaimPolicy": "Retain",
    }
    shared_daemon.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": spec})
    make_claim(shared_daemon, storageClassName="", resources={"requests": {"storage": "1Mi"}})
    shared_daemon.apply(pod("thief", container(volumeDevices=DEVICES), volumes=VOLUMES))

    def told() -> bool:
        items = shared_daemon.api("GET", "/api/v1/namespaces/default/events")["items"]
        return any(f"{file} is no block device" in event["message"] for event in items)

    eventually(told)
    # A device of the machine is taken.
    shared_daemon.delete("thief")
    shared_daemon.api("DELETE", path_of("PersistentVolumeClaim", "disk"))
    shared_daemon.api("DELETE", path_of("PersistentVolume", "v"))
    eventually(lambda: _gone(shared_daemon, "PersistentVolumeClaim", "disk"))
    spec["local"] = {"path": str(loop.attach(file))}
    shared_daemon.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": spec})
    make_claim(shared_daemon, storageClassName="", resources={"requests": {"storage": "1Mi"}})
    shared_daemon.apply(pod("owner", container(volumeDevices=DEVICES), volumes=VOLUMES))
    shared_daemon.wait_for("owner", "Running")
    assert shared_daemon.exec("owner", "sh", "-c", "wc -c < /dev/xvda").strip() == str(1 << 20)
    shared_daemon.delete("owner")
    assert loop.device_of(file) is not None, "it is not podrt's to detach"
    shared_daemon.api("DELETE", path_of("PersistentVolumeClaim", "disk"))
    shared_daemon.api("DELETE", path_of("PersistentVolume", "v"))


def _gone(daemon: Daemon, kind: str, name: str) -> bool:
    try:
        daemon.api("GET", path_of(kind, name))
    except ApiError as error:
        return error.code == 404
    return False
