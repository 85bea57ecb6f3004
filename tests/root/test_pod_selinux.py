"""SELinux: the labels of processes and files, on a kernel that has it (vagrant/test --selinux boots one)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from podrt.linux import selinux
from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import container, pod, status

pytestmark = pytest.mark.skipif(not selinux.enabled(), reason="this machine lacks: a kernel with SELinux")

MINE, OTHER, THIRD = "s0:c1,c2", "s0:c3,c4", "s0:c5,c6"


@pytest.fixture(autouse=True)
def known() -> selinux.Defaults:
    """The policy's own labels of containers; the box has a policy that knows them."""
    found = selinux.defaults()
    assert found is not None and found.usable, f"the policy does not know {found}, or forbids it"
    return found


def labelled(**options: str) -> dict[str, Any]:
    return {"seLinuxOptions": options}


def main_pid(daemon: Daemon, name: str, container_name: str) -> int:
    """The container's first process as the host sees it, from the engine's record."""
    identity = status(daemon.pod(name), container_name)["containerID"].partition("://")[2]
    record = json.loads((daemon.config.run_dir / "containers" / identity / "state.json").read_bytes())
    return int(record["record"]["process"]["pid"])


def label_of(daemon: Daemon, name: str, container_name: str = "main") -> str:
    """Of the container's first process, as the kernel tells the host."""
    return Path(f"/proc/{main_pid(daemon, name, container_name)}/attr/current").read_text().rstrip("\0\n")


def root_of(daemon: Daemon, name: str, container_name: str = "main") -> str:
    return f"/proc/{main_pid(daemon, name, container_name)}/root"


def file_label(path: str) -> str:
    return os.getxattr(path, selinux.ATTRIBUTE, follow_symlinks=False).rstrip(b"\0").decode()


def with_level(label: str, level: str) -> str:
    return ":".join((*label.split(":")[:3], level))


@pytest.mark.fields(
    "spec.securityContext.seLinuxOptions",
    "spec.containers[].securityContext.seLinuxOptions",
)
def test_processes_and_execs(shared_daemon: Daemon, known: selinux.Defaults) -> None:
    probe = {"exec": {"command": ["sh", "-c", "cat /proc/self/attr/current >>/tmp/probes"]}, "periodSeconds": 1}
    both = (
        container(readinessProbe=probe),
        container("other", securityContext=labelled(level=OTHER)),
        container("typed", securityContext=labelled(type="unconfined_t")),
        container("all", securityContext={"privileged": True}),
    )
    shared_daemon.apply(pod("labels", *both, securityContext=labelled(level=MINE)))
    shared_daemon.wait_for("labels", "Running")
    typed = known.process.replace(":container_t:", ":unconfined_t:")
    assert typed != known.process
    expected = {
        "main": with_level(known.process, MINE),
        "other": with_level(known.process, OTHER),
        "typed": with_level(typed, MINE),
        # What the Pod asks for holds for its privileged containers, too.
        "all": with_level(known.process, MINE),
    }
    for name, label in expected.items():
        assert label_of(shared_daemon, "labels", name) == label
        told = shared_daemon.exec("labels", "cat", "/proc/self/attr/current", container=name)
        assert told.strip("\0\n") == label

    def probes() -> list[str]:
        return [one for one in shared_daemon.exec("labels", "cat", "/tmp/probes", container="main").split("\0") if one]

    eventually(lambda: len(probes()) >= 3, 60, "three probes have run")
    assert set(probes()) == {expected["main"]}


def test_without_options(shared_daemon: Daemon, known: selinux.Defaults) -> None:
    """The policy's type, and a level that no other Pod has; none where the host's processes are shared."""
    for name, more in (("one", {}), ("two", {}), ("host", {"hostPID": True})):
        shared_daemon.apply(pod(name, container(), container("all", securityContext={"privileged": True}), **more))
    for name in ("one", "two", "host"):
        shared_daemon.wait_for(name, "Running")
    one, two = (label_of(shared_daemon, name) for name in ("one", "two"))
    assert one.split(":")[:3] == two.split(":")[:3] == known.process.split(":")[:3]
    assert one != two and ":c" in one
    own = Path(f"/proc/{shared_daemon.supervisor_pid}/attr/current").read_text().rstrip("\0\n")
    assert label_of(shared_daemon, "one", "all") == label_of(shared_daemon, "host") == own


@pytest.mark.fields("spec.securityContext.seLinuxOptions")
def test_files(shared_daemon: Daemon, known: selinux.Defaults, tmp_path: Path) -> None:
    """What an init container of another level has left is the main container's; hostPath is nobody's."""
    (tmp_path / "kept").touch()
    before = [file_label(str(path)) for path in (tmp_path, tmp_path / "kept")]
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "labels"}, "data": {"key": "value"}}
    shared_daemon.apply(config)
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("disk", "config", "down", "secretive", "host")]
    script = "mkdir -p /disk/a/b && touch /disk/a/b/file && ln -s /host/kept /disk/a/link"
    items = [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]
    shared_daemon.apply(
        pod(
            "files",
            container(volumeMounts=mounts),
            initContainers=[container("init", script, volumeMounts=mounts, securityContext=labelled(level=THIRD))],
            securityContext=labelled(level=MINE),
            volumes=[
                {"name": "disk", "emptyDir": {}},
                {"name": "config", "configMap": {"name": "labels"}},
                {"name": "down", "downwardAPI": {"items": items}},
                {"name": "secretive", "projected": {"sources": [{"configMap": {"name": "labels"}}]}},
                {"name": "host", "hostPath": {"path": str(tmp_path)}},
            ],
        )
    )
    shared_daemon.wait_for("files", "Running")
    root, expected = root_of(shared_daemon, "files"), with_level(known.file, MINE)
    own = ("/disk", "/disk/a", "/disk/a/b/file", "/disk/a/link", "/config", "/config/key", "/config/..data/key")
    more = ("/down/..data/name", "/secretive/..data/key", "/etc/hosts", "/etc/resolv.conf", "/dev/termination-log")
    made = ("/", "/etc", "/dev", "/dev/null", "/dev/shm", "/dev/mqueue")
    assert {path: file_label(root + path) for path in (*own, *more, *made)} == dict.fromkeys(
        (*own, *more, *made), expected
    )
    assert [file_label(str(path)) for path in (tmp_path, tmp_path / "kept")] == before
    shared_daemon.exec("files", "touch", "/new", "/disk/new")
    assert file_label(f"{root}/new") == expected and file_label(f"{root}/disk/new") == expected


@pytest.mark.fields("spec.securityContext.seLinuxChangePolicy")
@pytest.mark.parametrize("policy", ["MountOption", "Recursive"])
def test_a_volume_that_is_a_mount(shared_daemon: Daemon, known: selinux.Defaults, policy: str) -> None:
    name = policy.lower()
    volumes = [{"name": "memory", "emptyDir": {"medium": "Memory"}}]
    one = container(volumeMounts=[{"name": "memory", "mountPath": "/memory"}])
    context = {"seLinuxChangePolicy": policy, **labelled(level=MINE)}
    shared_daemon.apply(pod(name, one, securityContext=context, volumes=volumes))
    shared_daemon.wait_for(name, "Running")
    root, expected = root_of(shared_daemon, name), with_level(known.file, MINE)
    assert file_label(f"{root}/memory") == expected
    lines = shared_daemon.exec(name, "cat", "/proc/self/mountinfo").splitlines()
    [mounted] = [line for line in lines if line.split()[4] == "/memory"]
    # The kernel says seclabel of a mount whose files have labels of their own.
    assert ("context=" in mounted, "seclabel" in mounted) == (policy == "MountOption", policy == "Recursive")


@pytest.mark.fields("spec.containers[].securityContext.seLinuxOptions")
def test_a_label_that_the_policy_does_not_know(shared_daemon: Daemon) -> None:
    shared_daemon.apply(pod("unknown", container(securityContext=labelled(type="podrt_test_no_such_t"))))

    def message() -> str:
        return str(status(shared_daemon.pod("unknown")).get("state", {}).get("waiting", {}).get("message", ""))

    found = eventually(message, 60, "the container waits for a reason")
    assert "securityContext.seLinuxOptions" in found and "podrt_test_no_such_t" in found
    shared_daemon.apply(pod("unknown-pod", securityContext=labelled(level="s77")))

    def event() -> str:
        events = shared_daemon.api("GET", "/api/v1/namespaces/default/events")["items"]
        return " ".join(one["message"] for one in events if one["involvedObject"]["name"] == "unknown-pod")

    assert eventually(lambda: "securityContext.seLinuxOptions" in event() and "s77" in event(), 60, "an event names it")
