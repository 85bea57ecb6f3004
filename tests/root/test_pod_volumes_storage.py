"""Volumes that hold data: emptyDir, claims on the class ``local``, ephemeral, image, nfs; fsGroup; mount options."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podrt.node.volumes.nfs import helper
from tests.framework.client import ApiError, Object, path_of
from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import BUSYBOX, TOOLS, container, pod, status, statuses

CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}}


def make(daemon: Daemon, kind: str, name: str, api_version: str = "v1", **fields: Any) -> None:
    daemon.apply({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}} | fields)


def get(daemon: Daemon, kind: str, name: str) -> Object | None:
    try:
        found: Object = daemon.api("GET", path_of(kind, name))
    except ApiError as error:
        if error.code != 404:
            raise
        return None
    return found


def mount(name: str, path: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "mountPath": path, **fields}


def waiting_reason(found: Object, name: str = "main") -> str:
    state = statuses(found).get(name, {}).get("state", {})
    return str((state.get("waiting") or {}).get("reason", ""))


def events(daemon: Daemon, name: str) -> str:
    items = daemon.api("GET", "/api/v1/namespaces/default/events")["items"]
    return "\n".join(f"{one['reason']}: {one['message']}" for one in items if one["involvedObject"]["name"] == name)


@pytest.mark.fields(
    "spec.volumes[].emptyDir",
    "spec.volumes[].emptyDir.medium",
    "spec.containers[].volumeMounts[].name",
    "spec.containers[].volumeMounts[].mountPath",
    "spec.containers[].volumeMounts[].readOnly",
)
def test_empty_dirs(shared_daemon: Daemon) -> None:
    volumes = [
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]
    mounts = [mount("disk", "/disk"), mount("memory", "/memory"), mount("disk", "/ro", readOnly=True)]
    containers = [container("main", volumeMounts=mounts), container("two", volumeMounts=mounts)]
    shared_daemon.apply(pod("empty", *containers, volumes=volumes, securityContext={"runAsUser": 1234}))
    shared_daemon.wait_for("empty", "Running")
    run = lambda *words, where="main", check=True: shared_daemon.exec(  # noqa: E731
        "empty", "sh", "-c", *words, container=where, check=check
    )
    run("echo hello > /disk/file; echo x > /memory/file")
    assert run("cat /ro/file /memory/file; stat -c %a /disk /memory", where="two").split() == [
        "hello",
        "x",
        "777",
        "777",
    ]
    assert run("echo x > /ro/other && echo written", check=False) == ""
    assert "written" not in run("head -c 3000000 /dev/zero > /memory/big && echo written", check=False)


def test_too_much_in_an_empty_dir_evicts_the_pod(shared_daemon: Daemon) -> None:
    volumes = [{"name": "e", "emptyDir": {"sizeLimit": "1Mi"}}]
    script = "head -c 3000000 /dev/zero > /e/big; trap '' TERM; while :; do sleep 1; done"
    greedy = container(script=script, volumeMounts=[mount("e", "/e")])
    shared_daemon.apply(pod("greedy", greedy, volumes=volumes, terminationGracePeriodSeconds=60))
    found = shared_daemon.wait_for("greedy", "Failed", 30)
    assert (found["status"]["reason"], found["status"]["message"]) == (
        "Evicted",
        'Usage of EmptyDir volume "e" exceeds the limit "1Mi". ',
    )
    eventually(lambda: "Evicted: Usage of EmptyDir" in events(shared_daemon, "greedy"))
    shared_daemon.wait_for("greedy", lambda one: "terminated" in status(one)["state"], 10)


@pytest.mark.fields("spec.volumes[].persistentVolumeClaim")
def test_a_claim_is_provisioned_kept_and_deleted(shared_daemon: Daemon) -> None:
    make(shared_daemon, "PersistentVolumeClaim", "data", spec=CLAIM)
    claim = eventually(
        lambda: (
            (one := get(shared_daemon, "PersistentVolumeClaim", "data"))
            and one["status"].get("phase") == "Bound"
            and one
        )
    )
    assert claim["spec"]["storageClassName"] == "local" and claim["status"]["capacity"] == {"storage": "10Mi"}
    volume = get(shared_daemon, "PersistentVolume", claim["spec"]["volumeName"])
    assert volume is not None and volume["status"]["phase"] == "Bound"
    path = Path(volume["spec"]["local"]["path"])
    volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]
    writer = container(script="echo kept > /d/file; sleep 1000", volumeMounts=[mount("d", "/d")])
    shared_daemon.apply(pod("writer", writer, volumes=volumes, securityContext={"runAsUser": 1000}))
    eventually(lambda: (path / "file").exists())
    shared_daemon.api("DELETE", path_of("PersistentVolumeClaim", "data"))
    kept = get(shared_daemon, "PersistentVolumeClaim", "data")
    assert kept is not None and kept["metadata"]["deletionTimestamp"], "a claim in use is protected"
    assert "Terminating" in shared_daemon.cli("get", "pvc").stdout
    shared_daemon.delete("writer")
    eventually(lambda: get(shared_daemon, "PersistentVolumeClaim", "data") is None)
    eventually(lambda: get(shared_daemon, "PersistentVolume", volume["metadata"]["name"]) is None and not path.exists())


def test_data_outlives_pods_and_retain_outlives_claims(shared_daemon: Daemon) -> None:
    make(
        shared_daemon,
        "StorageClass",
        "keep",
        "storage.k8s.io/v1",
        provisioner="podrt.dev/local",
        reclaimPolicy="Retain",
        volumeBindingMode="WaitForFirstConsumer",
    )
    make(shared_daemon, "PersistentVolumeClaim", "kept", spec=CLAIM | {"storageClassName": "keep"})
    eventually(lambda: "WaitForFirstConsumer: waiting for first consumer" in events(shared_daemon, "kept"))
    volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "kept"}}]
    for number, seen in ((1, ""), (2, "1\n")):
        script = f"cat /d/file; echo {number} > /d/file"
        one = container(script=script, volumeMounts=[mount("d", "/d")])
        shared_daemon.apply(pod("user", one, volumes=volumes, restartPolicy="Never"))
        shared_daemon.wait_for("user", "Succeeded")
        assert [line for line in shared_daemon.logs("user").splitlines(True) if "cat:" not in line] == (
            [seen] if seen else []
        )
        shared_daemon.delete("user")
    claim = get(shared_daemon, "PersistentVolumeClaim", "kept")
    assert claim is not None
    name = claim["spec"]["volumeName"]
    shared_daemon.api("DELETE", path_of("PersistentVolumeClaim", "kept"))
    volume = eventually(
        lambda: (one := get(shared_daemon, "PersistentVolume", name)) and one["status"]["phase"] == "Released" and one
    )
    path = Path(volume["spec"]["local"]["path"])
    assert (path / "file").read_text() == "2\n"
    shared_daemon.api("DELETE", path_of("PersistentVolume", name))
    assert path.exists(), "Retain leaves the files to the administrator"
    shutil.rmtree(path)


def test_a_hand_made_volume_is_bound_by_size_and_class(shared_daemon: Daemon, tmp_path: Path) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "persistentVolumeReclaimPolicy": "Delete"}
    for name, size in (("big", "1Gi"), ("small", "20Mi"), ("tiny", "1Mi")):
        where = tmp_path / name
        where.mkdir()
        make(
            shared_daemon,
            "PersistentVolume",
            name,
            spec=spec | {"capacity": {"storage": size}, "local": {"path": str(where)}},
        )
    make(shared_daemon, "PersistentVolumeClaim", "fits", spec=CLAIM | {"storageClassName": ""})
    claim = eventually(
        lambda: (
            (one := get(shared_daemon, "PersistentVolumeClaim", "fits")) and one["status"]["phase"] == "Bound" and one
        )
    )
    assert claim["spec"]["volumeName"] == "small"
    shared_daemon.api("DELETE", path_of("PersistentVolumeClaim", "fits"))
    eventually(
        lambda: (get(shared_daemon, "PersistentVolume", "small") or {"status": {}})["status"].get("phase") == "Failed"
    )
    assert (tmp_path / "small").exists(), "podrt deletes no directory that it did not make"
    for name in ("big", "small", "tiny"):
        shared_daemon.api("DELETE", path_of("PersistentVolume", name))


def test_a_pod_waits_for_its_claim(shared_daemon: Daemon) -> None:
    volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "later"}}]
    shared_daemon.apply(pod("early", container(volumeMounts=[mount("d", "/d")]), volumes=volumes))
    eventually(lambda: 'persistentvolumeclaim "later" not found' in events(shared_daemon, "early"))
    make(shared_daemon, "PersistentVolumeClaim", "later", spec=CLAIM)
    shared_daemon.wait_for("early", "Running", 4)
    shared_daemon.delete("early")
    shared_daemon.api("DELETE", path_of("PersistentVolumeClaim", "later"))
    eventually(lambda: not shared_daemon.api("GET", "/api/v1/persistentvolumes")["items"])


@pytest.mark.fields("spec.volumes[].ephemeral")
def test_an_ephemeral_volume_goes_with_its_pod(shared_daemon: Daemon) -> None:
    volumes = [{"name": "d", "ephemeral": {"volumeClaimTemplate": {"spec": CLAIM}}}]
    shared_daemon.apply(pod("brief", container(volumeMounts=[mount("d", "/d")]), volumes=volumes))
    shared_daemon.wait_for("brief", "Running")
    claim = get(shared_daemon, "PersistentVolumeClaim", "brief-d")
    assert claim is not None and claim["metadata"]["ownerReferences"][0]["name"] == "brief"
    assert "brief" in shared_daemon.cli("describe", "pvc", "brief-d").stdout
    shared_daemon.delete("brief")
    eventually(lambda: get(shared_daemon, "PersistentVolumeClaim", "brief-d") is None)
    eventually(lambda: not shared_daemon.api("GET", "/api/v1/persistentvolumes")["items"])


@pytest.mark.fields("spec.volumes[].image")
def test_an_image_as_a_volume(shared_daemon: Daemon) -> None:
    volumes = [{"name": "i", "image": {"reference": TOOLS, "pullPolicy": "Never"}}]
    mounts = [mount("i", "/image"), mount("i", "/bin2", subPath="bin")]
    shared_daemon.apply(pod("image", container(volumeMounts=mounts), volumes=volumes))
    shared_daemon.wait_for("image", "Running")
    assert {"bin", "etc"} <= set(shared_daemon.exec("image", "ls", "/image").split())
    assert shared_daemon.exec("image", "ls", "/bin2")
    assert shared_daemon.exec("image", "sh", "-c", "echo x > /image/x && echo written", check=False) == ""
    refused = shared_daemon.cli("image", "rm", TOOLS, check=False)
    assert (refused.returncode and "in use" in refused.stderr + refused.stdout) or "used" in refused.stderr


def test_an_image_volume_that_is_missing(shared_daemon: Daemon) -> None:
    volumes = [{"name": "i", "image": {"reference": "localhost/no/such:1", "pullPolicy": "Never"}}]
    shared_daemon.apply(pod("noimage", container(volumeMounts=[mount("i", "/i")]), volumes=volumes))
    found = shared_daemon.wait_for("noimage", lambda found: waiting_reason(found) == "ErrImageNeverPull")
    assert "no/such:1" in status(found)["state"]["waiting"]["message"]


def test_an_image_volume_that_can_not_be_pulled_backs_off(shared_daemon: Daemon) -> None:
    volumes = [{"name": "i", "image": {"reference": "127.0.0.1:1/no/such:1"}}]
    with_it, without = container("a", volumeMounts=[mount("i", "/i")]), container("b")
    shared_daemon.apply(pod("backoff", with_it, without, volumes=volumes))
    found = shared_daemon.wait_for("backoff", lambda found: waiting_reason(found, "a") == "ImagePullBackOff")
    assert 'Back-off pulling image "127.0.0.1:1/no/such:1"' in status(found, "a")["state"]["waiting"]["message"]
    shared_daemon.wait_for("backoff", lambda found: "running" in status(found, "b")["state"])


@pytest.mark.fields("spec.volumes[].nfs")
@pytest.mark.skipif(helper() is not None, reason="this machine has mount.nfs")
def test_nfs_without_its_helper_is_refused_clearly(shared_daemon: Daemon) -> None:
    volumes = [{"name": "n", "nfs": {"server": "127.0.0.1", "path": "/x"}}]
    shared_daemon.apply(pod("nfs", container(volumeMounts=[mount("n", "/n")]), volumes=volumes))
    eventually(lambda: "this machine has no mount.nfs: install the package nfs-common" in events(shared_daemon, "nfs"))


@pytest.mark.fields("spec.securityContext.fsGroup", "spec.securityContext.fsGroupChangePolicy")
def test_fs_group_owns_what_a_claim_holds(shared_daemon: Daemon) -> None:
    make(shared_daemon, "PersistentVolumeClaim", "grouped", spec=CLAIM)
    claim = eventually(
        lambda: (
            (one := get(shared_daemon, "PersistentVolumeClaim", "grouped")) and one["spec"].get("volumeName") and one
        )
    )
    path = Path(get(shared_daemon, "PersistentVolume", claim["spec"]["volumeName"])["spec"]["local"]["path"])  # type: ignore[index]
    (path / "deep").mkdir()
    (path / "deep" / "old").write_text("x\n")
    (path / "deep" / "old").chmod(0o600)
    os.symlink("/etc/shadow", path / "deep" / "link")
    before = os.stat("/etc/shadow")
    volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "grouped"}}, {"name": "e", "emptyDir": {}}]
    context = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 4321}
    mounts = [mount("d", "/d"), mount("e", "/e")]
    shared_daemon.apply(pod("grouped", container(volumeMounts=mounts), volumes=volumes, securityContext=context))
    shared_daemon.wait_for("grouped", "Running")
    run = lambda script: shared_daemon.exec("grouped", "sh", "-c", script)  # noqa: E731
    assert run("cat /d/deep/old; echo y >> /d/deep/old; touch /e/new /d/new; stat -c %g /e/new /d/new").split() == [
        "x",
        "4321",
        "4321",
    ]
    assert run("stat -c '%a %g' /d/deep /d/deep/old /e").split("\n")[:3] == ["2775 4321", "660 4321", "2777 4321"]
    assert "4321" in run("id -G").split()
    after = os.stat("/etc/shadow")
    assert (after.st_gid, after.st_mode) == (before.st_gid, before.st_mode)
    shared_daemon.delete("grouped")
    # OnRootMismatch: the root fits, so what is below is left alone.
    (path / "deep" / "old").chmod(0o600)
    policy = context | {"fsGroupChangePolicy": "OnRootMismatch"}
    shared_daemon.apply(pod("grouped", container(volumeMounts=mounts), volumes=volumes, securityContext=policy))
    shared_daemon.wait_for("grouped", "Running")
    assert (path / "deep" / "old").stat().st_mode & 0o777 == 0o600
    shared_daemon.delete("grouped")
    shared_daemon.api("DELETE", path_of("PersistentVolumeClaim", "grouped"))
    eventually(lambda: not path.exists())


@pytest.fixture
def shared_mount(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs whose mounts travel."""
    subprocess.run(["mount", "-t", "tmpfs", "podrt-test", str(tmp_path)], check=True)
    subprocess.run(["mount", "--make-shared", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", "-R", "-l", str(tmp_path)], check=True)


@pytest.mark.fields("spec.volumes[].hostPath", "spec.containers[].volumeMounts[].mountPropagation")
def test_mount_propagation(shared_daemon: Daemon, shared_mount: Path) -> None:
    (shared_mount / "in").mkdir()
    (shared_mount / "out").mkdir()
    volumes = [{"name": "h", "hostPath": {"path": str(shared_mount)}}]
    containers = [
        container("none", volumeMounts=[mount("h", "/h")]),
        container("slave", volumeMounts=[mount("h", "/h", mountPropagation="HostToContainer")]),
        container(
            "both",
            volumeMounts=[mount("h", "/h", mountPropagation="Bidirectional")],
            securityContext={"privileged": True},
        ),
    ]
    shared_daemon.apply(pod("travel", *containers, volumes=volumes))
    shared_daemon.wait_for("travel", "Running")
    subprocess.run(["mount", "-t", "tmpfs", "podrt-test", str(shared_mount / "in")], check=True)
    (shared_mount / "in" / "file").write_text("x")
    seen = {
        name: shared_daemon.exec("travel", "ls", "/h/in", container=name).split() for name in ("none", "slave", "both")
    }
    assert seen == {"none": [], "slave": ["file"], "both": ["file"]}
    shared_daemon.exec("travel", "mount", "-t", "tmpfs", "podrt-test", "/h/out", container="both")
    shared_daemon.exec("travel", "touch", "/h/out/made", container="both")
    assert (shared_mount / "out" / "made").exists(), "Bidirectional mounts reach the host"
    assert shared_daemon.exec("travel", "ls", "/h/out", container="slave").split() == ["made"]


def test_propagation_of_a_private_mount_is_refused(shared_daemon: Daemon, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "podrt-test", str(tmp_path)], check=True)
    try:
        subprocess.run(["mount", "--make-private", str(tmp_path)], check=True)
        one = container(
            volumeMounts=[mount("h", "/h", mountPropagation="Bidirectional")], securityContext={"privileged": True}
        )
        shared_daemon.apply(pod("private", one, volumes=[{"name": "h", "hostPath": {"path": str(tmp_path)}}]))
        found = shared_daemon.wait_for("private", lambda p: "message" in status(p)["state"].get("waiting", {}))
        waiting = status(found)["state"]["waiting"]
        assert waiting["reason"] == "CreateContainerConfigError" and "not a shared mount" in waiting["message"]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.fields("spec.containers[].volumeMounts[].recursiveReadOnly")
def test_recursive_read_only(shared_daemon: Daemon, shared_mount: Path) -> None:
    (shared_mount / "in").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "podrt-test", str(shared_mount / "in")], check=True)
    volumes = [{"name": "h", "hostPath": {"path": str(shared_mount)}}]
    mounts = [
        mount("h", "/plain", readOnly=True),
        mount("h", "/deep", readOnly=True, recursiveReadOnly="Enabled"),
        mount("h", "/maybe", readOnly=True, recursiveReadOnly="IfPossible"),
    ]
    shared_daemon.apply(pod("rro", container(volumeMounts=mounts), volumes=volumes))
    shared_daemon.wait_for("rro", "Running")
    script = "for i in /plain /plain/in /deep /deep/in /maybe/in; do touch $i/x 2>/dev/null && echo $i; done; true"
    assert shared_daemon.exec("rro", "sh", "-c", script).split() == ["/plain/in"]


@pytest.mark.fields("spec.containers[].volumeMounts[].subPath", "spec.containers[].volumeMounts[].subPathExpr")
def test_sub_paths(shared_daemon: Daemon) -> None:
    env = [{"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    mounts = [
        mount("e", "/all"),
        mount("e", "/one", subPath="a/b"),
        mount("e", "/mine", subPathExpr="logs/$(WHO)"),
        mount("e", "/ro", subPath="a/b", readOnly=True),
    ]
    shared_daemon.apply(pod("parts", container(env=env, volumeMounts=mounts), volumes=[{"name": "e", "emptyDir": {}}]))
    shared_daemon.wait_for("parts", "Running")
    script = "echo 1 > /one/f; echo 2 > /mine/f; cat /all/a/b/f /all/logs/parts/f /ro/f; touch /ro/x; stat -c %a /one"
    assert shared_daemon.exec("parts", "sh", "-c", script).split() == ["1", "2", "1", "777"]
    bad = container(volumeMounts=[mount("e", "/x", subPathExpr="$(NOT_SET)")])
    shared_daemon.apply(pod("unset", bad, volumes=[{"name": "e", "emptyDir": {}}]))
    found = shared_daemon.wait_for("unset", lambda p: "message" in status(p)["state"].get("waiting", {}))
    assert "variable NOT_SET is not set" in status(found)["state"]["waiting"]["message"]


@pytest.mark.fields("spec.hostUsers")
def test_volumes_in_a_user_namespace(shared_daemon: Daemon) -> None:
    make(shared_daemon, "Secret", "userns", stringData={"k": "v"})
    volumes = [
        {"name": "e", "emptyDir": {}},
        {"name": "m", "emptyDir": {"medium": "Memory"}},
        {"name": "s", "secret": {"secretName": "userns", "defaultMode": 0o400}},
        {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        {"name": "i", "image": {"reference": BUSYBOX}},
        {"name": "c", "ephemeral": {"volumeClaimTemplate": {"spec": CLAIM}}},
    ]
    mounts = [mount(one["name"], f"/v/{one['name']}") for one in volumes] + [mount("e", "/sub", subPath="x/y")]
    shared_daemon.apply(
        pod("userns", container(volumeMounts=mounts), volumes=volumes, hostUsers=False, securityContext={"fsGroup": 77})
    )
    found = shared_daemon.wait_for("userns", "Running")
    script = "cd /v; echo x > e/f; echo x > m/f; echo x > c/f; echo x > /sub/f"
    script += "; cat s/k; stat -c %u:%g e/f m/f c/f /sub/f; ls i | head -1"
    lines = shared_daemon.exec("userns", "sh", "-c", script).split("\n")
    assert lines[0].startswith("v0:77") and lines[1:3] == ["0:77", "0:77"] and lines[4]
    disk = (
        shared_daemon.config.state_dir / "pods" / found["metadata"]["uid"] / "volumes" / "kubernetes.io~empty-dir" / "e"
    )
    assert (disk / "f").stat().st_uid == 0, "files carry the ids that the Pod sees: volumes are idmapped"
    shared_daemon.delete("userns")
    eventually(lambda: not shared_daemon.api("GET", "/api/v1/persistentvolumes")["items"])
