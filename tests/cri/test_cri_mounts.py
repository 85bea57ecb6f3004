"""Mounts, devices and images as volumes, as a ContainerConfig asks for them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cri_api.v1 import api_pb2 as api

from tests.framework.cri import CriClient, container, refused, sandbox
from tests.framework.pods import BUSYBOX, TOOLS


def mount(source: Path | str, target: str = "/data", **fields: Any) -> Any:
    return api.Mount(host_path=str(source), container_path=target, **fields)


class Box:
    """One sandbox, and containers with mounts in it."""

    def __init__(self, cri: CriClient, **fields: Any) -> None:
        self.cri = cri
        self.config = sandbox(**fields)
        self.id = cri.run_sandbox(self.config)
        self.count = 0

    def run(self, *mounts: Any, **fields: Any) -> str:
        self.count += 1
        return self.cri.run(self.id, self.config, container(f"c{self.count}", mounts=mounts, **fields))

    def sh(self, unit: str, script: str) -> str:
        code, out, err = self.cri.exec(unit, "sh", "-c", script)
        assert code == 0, (out, err)
        return out


@pytest.fixture
def box(cri: CriClient) -> Box:
    return Box(cri)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A shared mount, with another in it."""
    path = tmp_path / "shared"
    (path / "sub").mkdir(parents=True)
    for command in (
        ("mount", "-t", "tmpfs", "tmpfs", path),
        ("mount", "--make-shared", path),
        ("mkdir", path / "sub"),
        ("mount", "-t", "tmpfs", "tmpfs", path / "sub"),
    ):
        subprocess.run(command, check=True)
    yield path
    subprocess.run(("umount", "-R", "-l", path), check=True)


def test_read_only_and_writable(box: Box, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("host")
    (tmp_path / "link").symlink_to(tmp_path)
    unit = box.run(
        mount(tmp_path, "/rw/"),
        mount(tmp_path, "/ro", readonly=True),
        mount(tmp_path / "file", "/one/file"),
        mount(tmp_path / "link", "relative"),
    )
    assert box.sh(unit, "cat /rw/file /ro/file /one/file /relative/file") == "host" * 4
    box.sh(unit, "echo inside > /rw/new; ! touch /ro/x; ! rm /one/file")
    assert (tmp_path / "new").read_text() == "inside\n"
    told = {one.container_path: one for one in box.cri.status(unit).mounts}
    assert told["/rw"].host_path == str(tmp_path) and not told["/rw"].readonly
    assert told["/ro"].readonly and not told["/ro"].recursive_read_only


def test_a_missing_source_becomes_a_directory(box: Box, tmp_path: Path) -> None:
    unit = box.run(mount(tmp_path / "not" / "there"))
    assert box.sh(unit, "ls -la /data | wc -l") == "3\n"
    assert (tmp_path / "not" / "there").stat().st_mode & 0o777 == 0o755


def test_recursive_read_only(box: Box, shared: Path) -> None:
    script = "for i in /data/x /data/sub/x; do touch $i 2>/dev/null && echo yes || echo no; done"
    unit = box.run(mount(shared, readonly=True))
    assert box.sh(unit, script) == "no\nyes\n"
    unit = box.run(mount(shared, readonly=True, recursive_read_only=True))
    assert box.sh(unit, script) == "no\nno\n"
    assert box.cri.status(unit).mounts[0].recursive_read_only
    for fields in (
        {"recursive_read_only": True},
        {"recursive_read_only": True, "readonly": True, "propagation": api.PROPAGATION_HOST_TO_CONTAINER},
        {"recursive_read_only": True, "readonly": True, "propagation": api.PROPAGATION_BIDIRECTIONAL},
    ):
        with refused("INVALID_ARGUMENT", "recursive_read_only"):
            box.run(mount(shared, **fields))


@pytest.mark.parametrize(
    ("propagation", "inward", "outward"),
    [
        (api.PROPAGATION_PRIVATE, False, False),
        (api.PROPAGATION_HOST_TO_CONTAINER, True, False),
        (api.PROPAGATION_BIDIRECTIONAL, True, True),
    ],
)
def test_propagation(cri: CriClient, shared: Path, propagation: int, inward: bool, outward: bool) -> None:
    linux = api.LinuxPodSandboxConfig(security_context=api.LinuxSandboxSecurityContext(privileged=True))
    box = Box(cri, linux=linux)
    privileged = api.LinuxContainerConfig(security_context=api.LinuxContainerSecurityContext(privileged=True))
    unit = box.run(mount(shared, propagation=propagation), linux=privileged)
    (shared / "host").mkdir()
    subprocess.run(("mount", "-t", "tmpfs", "tmpfs", shared / "host"), check=True)
    (shared / "host" / "seen").touch()
    assert box.sh(unit, "ls /data/host") == ("seen\n" if inward else "")
    box.sh(unit, "mkdir /data/inside && mount -t tmpfs tmpfs /data/inside && touch /data/inside/seen")
    assert os.listdir(shared / "inside") == (["seen"] if outward else [])
    assert box.cri.status(unit).mounts[0].propagation == propagation


def test_propagation_needs_a_mount_that_spreads(box: Box, shared: Path) -> None:
    subprocess.run(("mount", "--make-private", shared / "sub"), check=True)
    with refused("INVALID_ARGUMENT", "not a shared mount"):
        box.run(mount(shared / "sub", propagation=api.PROPAGATION_BIDIRECTIONAL))
    with refused("INVALID_ARGUMENT", "not a shared or slave mount"):
        box.run(mount(shared / "sub", propagation=api.PROPAGATION_HOST_TO_CONTAINER))


def test_what_is_no_mount(box: Box, tmp_path: Path) -> None:
    for wrong, text in (
        (mount("relative"), "host_path"),
        (mount(tmp_path, ""), "container_path"),
        (mount(tmp_path, "/"), "must be an absolute path below /"),
        (mount(tmp_path, propagation=7), "propagation"),
        (mount(tmp_path, image=api.ImageSpec(image=BUSYBOX)), "both set"),
    ):
        with refused("INVALID_ARGUMENT", text):
            box.run(wrong)
    with refused("INVALID_ARGUMENT", "two mounts"):
        box.run(mount(tmp_path), mount(tmp_path))


@pytest.mark.parametrize("handler", ["", "podrt-userns"])
def test_an_image_as_a_volume(cri: CriClient, handler: str) -> None:
    config = sandbox()
    box = cri.run_sandbox(config, handler=handler)
    image = api.ImageSpec(image=TOOLS)
    mounts = [
        api.Mount(container_path="/all", image=image, readonly=True),
        api.Mount(container_path="/part", image=image, image_sub_path="bin"),
    ]
    unit = cri.run(box, config, container(mounts=mounts))
    code, out, err = cri.exec(unit, "sh", "-c", "ls /all; ls /part; stat -c %u /all/bin; touch /all/x /part/x")
    assert code != 0 and "Read-only file system" in err
    assert "bin" in out and "testtool" in out and "\n0\n" in out
    assert cri.status(unit).mounts[1].image.image == TOOLS
    assert cri.status(unit).mounts[1].image_sub_path == "bin"
    with refused("INVALID_ARGUMENT", "path 'no'"):
        cri.create(
            box, config, container("other", mounts=[api.Mount(container_path="/x", image=image, image_sub_path="no")])
        )
    assert len(cri.containers()) == 1
    with refused("NOT_FOUND", "localhost/none"):
        cri.create(
            box,
            config,
            container("third", mounts=[api.Mount(container_path="/x", image=api.ImageSpec(image="localhost/none:1"))]),
        )


def test_devices(box: Box, tmp_path: Path) -> None:
    found = [
        api.Device(host_path="/dev/full", container_path="/dev/mine", permissions="rwm"),
        api.Device(host_path="/dev/net", container_path="/dev/nets", permissions="r"),
    ]
    with refused("INVALID_ARGUMENT", "permissions"):
        box.run(devices=[api.Device(host_path="/dev/full", permissions="q")])
    with refused("INVALID_ARGUMENT", "/dev/not-there"):
        box.run(devices=[api.Device(host_path="/dev/not-there")])
    with refused("UNIMPLEMENTED", "vendor.com/gpu=1"):
        box.run(CDI_devices=[api.CDIDevice(name="vendor.com/gpu=1")])
    if not Path("/dev/net").is_dir():
        found = found[:1]
    unit = box.run(devices=found)
    assert box.sh(unit, "! echo x 2>/dev/null > /dev/mine && stat -c %t:%T /dev/mine") == "1:7\n"


@pytest.mark.parametrize("tty", [False, True])
def test_the_host_s_dev_comes_as_a_whole(cri: CriClient, tty: bool) -> None:
    """Storage drivers mount it; what is below it must be the host's, too."""
    linux = api.LinuxPodSandboxConfig(security_context=api.LinuxSandboxSecurityContext(privileged=True))
    box = Box(cri, linux=linux)
    privileged = api.LinuxContainerConfig(security_context=api.LinuxContainerSecurityContext(privileged=True))
    unit = box.run(mount("/dev", "/dev"), mount("/sys/fs/cgroup", "/sys/fs/cgroup"), linux=privileged, tty=tty)
    for path in ("/dev", "/dev/pts", "/sys/fs/cgroup"):
        found = os.stat(path)
        assert box.sh(unit, f"stat -c %d:%i {path}") == f"{found.st_dev}:{found.st_ino}\n", path
    assert sorted(box.sh(unit, "ls /sys/fs/cgroup").split()) == sorted(os.listdir("/sys/fs/cgroup"))
