"""Attacks through volumes: each tries to reach a file of the host, or of another Pod, and must not."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.framework.client import ApiError
from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import container, pod, restarts, status

MARK = "this file is the host's"


def mount(name: str, path: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "mountPath": path, **fields}


@pytest.fixture
def prize(tmp_path: Path) -> Path:
    """A directory of the host that no container was given."""
    directory = tmp_path / "prize"
    directory.mkdir()
    (directory / "file").write_text(MARK)
    return directory


@pytest.mark.fields("spec.containers[].volumeMounts[].subPath")
@pytest.mark.parametrize("target", ["absolute", "climbing", "magic"])
def test_sub_path_through_a_link_of_the_container(
    shared_daemon: Daemon, prize: Path, tmp_path: Path, target: str
) -> None:
    """CVE-2017-1002101: the container makes its subPath a link to the host, and restarts."""
    share = tmp_path / "share"
    share.mkdir()
    link = {"absolute": str(prize), "climbing": "../" * 20 + str(prize)[1:], "magic": "/proc/1/root" + str(prize)}[
        target
    ]
    volumes = [{"name": "v", "hostPath": {"path": str(share)}}]
    evil = container("evil", f"ln -s {link} /v/part; sleep 1000", volumeMounts=[mount("v", "/v")])
    shared_daemon.apply(pod("linker", evil, volumes=volumes))
    eventually(lambda: (share / "part").is_symlink())
    victim = container(
        "victim", "cat /part/file; echo done; sleep 1000", volumeMounts=[mount("v", "/part", subPath="part")]
    )
    shared_daemon.apply(pod("follows", victim, volumes=volumes))
    found = shared_daemon.wait_for(
        "follows",
        lambda one: (
            "running" in status(one, "victim")["state"]
            or "message" in status(one, "victim")["state"].get("waiting", {})
        ),
    )
    if "running" in status(found, "victim")["state"]:
        eventually(lambda: "done" in shared_daemon.logs("follows"))
        assert MARK not in shared_daemon.logs("follows")
    assert (prize / "file").read_text() == MARK and os.listdir(prize) == ["file"]


def test_sub_path_swapped_while_it_is_resolved(shared_daemon: Daemon, prize: Path, tmp_path: Path) -> None:
    """CVE-2021-25741, CVE-2021-30465: a container exchanges a directory and a link as fast as it can, while others are
    started again and again with a subPath through it."""
    share = tmp_path / "share"
    (share / "real" / "deep").mkdir(parents=True)
    (share / "real" / "deep" / "file").write_text("mine")
    os.symlink(prize.parent, share / "link")
    swapper = (
        "import ctypes,os; c=ctypes.CDLL(None); o=lambda a,b: c.renameat2(-100,a,-100,b,2)\n"
        "while True: o(b'/v/real', b'/v/link')"
    )
    volumes = [{"name": "v", "hostPath": {"path": str(share)}}]
    image = "localhost/podrt/python:latest"
    evil = container("evil", image=image, command=["python3", "-c", swapper], volumeMounts=[mount("v", "/v")])
    shared_daemon.apply(pod("swapper", evil, volumes=volumes))
    shared_daemon.wait_for("swapper", "Running")
    (prize.parent / "deep").mkdir()
    (prize.parent / "deep" / "file").write_text(MARK)
    victims = [
        container(f"v{n}", "cat /part/file; echo .", volumeMounts=[mount("v", "/part", subPath="real/deep")])
        for n in range(6)
    ]
    for round_ in range(3):
        shared_daemon.apply(pod(f"racer{round_}", *victims, volumes=volumes, restartPolicy="Always"))
    for round_ in range(3):
        shared_daemon.wait_for(f"racer{round_}", lambda one: sum(restarts(one, f"v{n}") for n in range(6)) >= 4, 60)
    for log in shared_daemon.config.log_dir.rglob("*racer*/**/*.log"):
        assert MARK not in log.read_text()


@pytest.mark.parametrize("key", ["..", "../x", "..data", "a/../../x", "/abs"])
def test_keys_and_paths_with_dots(shared_daemon: Daemon, key: str) -> None:
    for kind, field in (("ConfigMap", "data"), ("Secret", "stringData")):
        with pytest.raises(ApiError) as caught:
            shared_daemon.apply({"apiVersion": "v1", "kind": kind, "metadata": {"name": "dots"}, field: {key: "x"}})
        assert caught.value.code == 422 and field.replace("stringData", "data") in str(caught.value)
    for source in (
        {"configMap": {"name": "any", "items": [{"key": "k", "path": key}]}},
        {"secret": {"secretName": "any", "items": [{"key": "k", "path": key}]}},
        {"downwardAPI": {"items": [{"path": key, "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"projected": {"sources": [{"serviceAccountToken": {"path": key}}]}},
    ):
        with pytest.raises(ApiError) as caught:
            shared_daemon.apply(pod("dots", container(), volumes=[{"name": "v", **source}]))
        assert caught.value.code == 422


def test_sub_path_with_dots_is_refused(shared_daemon: Daemon) -> None:
    for field, value in (("subPath", "../x"), ("subPath", "/x"), ("subPathExpr", "a/../../x")):
        one = container(volumeMounts=[mount("e", "/x", **{field: value})])
        with pytest.raises(ApiError, match="must"):
            shared_daemon.apply(pod("climber", one, volumes=[{"name": "e", "emptyDir": {}}]))
    env = [{"name": "UP", "value": "../../../.."}]
    one = container(env=env, volumeMounts=[mount("e", "/x", subPathExpr="$(UP)/etc")])
    shared_daemon.apply(pod("climber", one, volumes=[{"name": "e", "emptyDir": {}}]))
    found = shared_daemon.wait_for("climber", lambda p: "message" in status(p)["state"].get("waiting", {}))
    assert "relative path without '..'" in status(found)["state"]["waiting"]["message"]


def test_host_path_type_is_not_fooled_by_what_the_container_does(
    shared_daemon: Daemon, prize: Path, tmp_path: Path
) -> None:
    """A hostPath follows the links that the host's administrator made, and what was bound stays bound: a container that
    replaces files inside its volume reaches nothing else of the host."""
    share = tmp_path / "share"
    share.mkdir()
    os.symlink(share, tmp_path / "alias")
    volumes = [{"name": "v", "hostPath": {"path": str(tmp_path / "alias"), "type": "Directory"}}]
    script = f"ln -s {prize} /v/out; cat /v/out/file; mv /v/../v /v/x; ls /v/.. | sort; echo done; sleep 1000"
    shared_daemon.apply(pod("aliased", container(script=script, volumeMounts=[mount("v", "/v")]), volumes=volumes))
    shared_daemon.wait_for("aliased", "Running")
    eventually(lambda: "done" in shared_daemon.logs("aliased"), what="the script ends")
    log = shared_daemon.logs("aliased")
    assert MARK not in log and "prize" not in log.split("done")[0].replace(str(prize), "")
    assert (share / "out").is_symlink()


@pytest.mark.fields("spec.hostUsers")
def test_a_user_namespaced_pod_reaches_no_file_of_another(shared_daemon: Daemon) -> None:
    """Root of one Pod with hostUsers: false, at the files of the other through a volume that both see."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "theirs"}, "stringData": {"k": MARK}}
    shared_daemon.apply(secret)
    volumes = [{"name": "s", "secret": {"secretName": "theirs", "defaultMode": 0o400}}, {"name": "e", "emptyDir": {}}]
    mounts = [mount("s", "/s"), mount("e", "/e")]
    shared_daemon.apply(pod("owner", container(volumeMounts=mounts), volumes=volumes, hostUsers=False))
    owner = shared_daemon.wait_for("owner", "Running")
    shared_daemon.exec("owner", "sh", "-c", "echo private > /e/file; chmod 600 /e/file")
    shared_daemon.apply(pod("thief", hostUsers=False, hostPID=False))
    shared_daemon.wait_for("thief", "Running")
    pids = {name: _pid(shared_daemon, name) for name in ("owner", "thief")}
    maps = {name: Path(f"/proc/{pid}/uid_map").read_text().split()[1] for name, pid in pids.items()}
    assert maps["owner"] != maps["thief"], "each Pod has a range of its own"
    # As the thief's root in the host's mount namespace: worse than any escape from its mounts alone.
    files = shared_daemon.config.state_dir / "pods" / owner["metadata"]["uid"] / "volumes"
    for path in (files / "kubernetes.io~secret" / "s" / "k", files / "kubernetes.io~empty-dir" / "e" / "file"):
        uid = int(maps["thief"])
        command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "cat", str(path)]
        tried = subprocess.run(command, capture_output=True, text=True)
        assert tried.returncode != 0 and "Permission denied" in tried.stderr, tried
    for path in (f"/proc/{pids['owner']}/root/e/file", f"/proc/{pids['owner']}/root/s/k"):
        command = ["nsenter", "-t", str(pids["thief"]), "-U", "--preserve-credentials", "cat", path]
        tried = subprocess.run(
            [*command[:5], "setpriv", "--reuid=0", "--regid=0", "--clear-groups", *command[5:]],
            capture_output=True,
            text=True,
        )
        assert tried.returncode != 0 and MARK not in tried.stdout + tried.stderr


def _pid(daemon: Daemon, name: str) -> int:
    ident = status(daemon.pod(name))["containerID"].removeprefix("podrt://")
    record = json.loads((daemon.config.run_dir / "containers" / ident / "state.json").read_bytes())
    return int(record["record"]["process"]["pid"])
