"""Volumes of files (configMap, secret, downwardAPI, projected) and variables from objects, with real processes."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from tests.framework.client import ApiError, path_of
from tests.framework.daemon import Daemon, eventually
from tests.framework.patience import scaled
from tests.framework.pods import container, pod, status, terminated

MARK = "s3cr3t-that-nobody-may-see"


def make(daemon: Daemon, kind: str, name: str, **fields: Any) -> None:
    daemon.apply({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}} | fields)


def merge(daemon: Daemon, kind: str, name: str, change: Any) -> Any:
    return daemon.api("PATCH", path_of(kind, name), change, content_type="application/merge-patch+json")


def mount(name: str, path: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "mountPath": path, **fields}


def events(daemon: Daemon, name: str) -> list[tuple[str, str]]:
    items = daemon.api("GET", "/api/v1/namespaces/default/events")["items"]
    return [(one["reason"], one["message"]) for one in items if one["involvedObject"]["name"] == name]


@pytest.mark.fields(
    "spec.volumes[].name",
    "spec.volumes[].configMap",
    "spec.volumes[].secret",
    "spec.volumes",
    "spec.containers[].volumeMounts",
)
def test_config_map_and_secret_as_files(shared_daemon: Daemon) -> None:
    make(shared_daemon, "ConfigMap", "files", data={"a.txt": "one", "b": "two"}, binaryData={"c": "/wA="})
    make(shared_daemon, "Secret", "files", stringData={"key": MARK, "other": "x"})
    volumes = [
        {"name": "all", "configMap": {"name": "files", "defaultMode": 0o440}},
        {
            "name": "some",
            "configMap": {"name": "files", "items": [{"key": "b", "path": "deep/er/file", "mode": 0o600}]},
        },
        {"name": "hush", "secret": {"secretName": "files", "items": [{"key": "key", "path": "key"}]}},
    ]
    mounts = [
        mount("all", "/all"),
        mount("some", "/some"),
        mount("hush", "/hush"),
        mount("all", "/one", subPath="a.txt"),
    ]
    shared_daemon.apply(pod("files", container(volumeMounts=mounts), volumes=volumes))
    shared_daemon.wait_for("files", "Running")
    run = lambda script, check=True: shared_daemon.exec("files", "sh", "-c", script, check=check)  # noqa: E731
    assert run("cat /all/a.txt /all/b /one").strip() == "onetwoone"
    assert run("od -An -tx1 /all/c").split() == ["ff", "00"]
    assert run("ls /some; cat /some/deep/er/file").split() == ["deep", "two"]
    assert run("stat -Lc %a /all/b /some/deep/er/file /hush/key").split() == ["440", "600", "644"]
    assert run("cat /hush/key") == MARK and run("ls /hush").split() == ["key"]
    assert run("readlink /all/b").strip() == "..data/b"
    assert run("echo x > /all/new", check=False) == "" and "new" not in run("ls /all")
    assert "tmpfs" in run("grep ' /hush ' /proc/mounts") and "ro," in run("grep ' /hush ' /proc/mounts")


def test_a_change_reaches_the_files_at_once_and_whole(shared_daemon: Daemon) -> None:
    make(shared_daemon, "ConfigMap", "live", data={"a": "0", "b": "0", "gone": "x"})
    make(shared_daemon, "Secret", "live", stringData={"s": "0"})
    volumes = [
        {"name": "cm", "configMap": {"name": "live"}},
        {"name": "p", "projected": {"sources": [{"secret": {"name": "live"}}, {"configMap": {"name": "live"}}]}},
    ]
    # Reads both files of one version. What is replaced while it reads is gone in the middle, so nothing is no sign.
    script = "while cd -P /cm/..data; do x=$(cat a); y=$(cat b); echo $x,$y; cd /; done 2>/dev/null"
    mounts = [mount("cm", "/cm"), mount("p", "/p"), mount("cm", "/sub", subPath="a")]
    shared_daemon.apply(pod("live", container(script=script, volumeMounts=mounts), volumes=volumes))
    shared_daemon.wait_for("live", "Running")
    merge(shared_daemon, "Secret", "live", {"stringData": {"s": "1"}})
    start = time.monotonic()
    for number in range(1, 20):
        merge(shared_daemon, "ConfigMap", "live", {"data": {"a": str(number), "b": str(number), "gone": None}})
    eventually(lambda: shared_daemon.exec("live", "cat", "/cm/a", "/p/b", "/p/s") == "19191", 2.0)
    assert time.monotonic() - start < scaled(4)
    assert shared_daemon.exec("live", "ls", "/cm").split() == ["a", "b"]
    assert shared_daemon.exec("live", "cat", "/sub") == "0", "a file mounted by subPath stays as it was"
    seen = {tuple(line.split(",")) for line in shared_daemon.logs("live").splitlines()}
    assert len(seen) > 2 and not [pair for pair in seen if all(pair) and pair[0] != pair[1]]
    assert len(shared_daemon.exec("live", "ls", "-a", "/cm").split()) == 6, "old directories are removed"


def test_a_pod_waits_for_its_config_map(shared_daemon: Daemon) -> None:
    volume = {"name": "v", "configMap": {"name": "late"}}
    shared_daemon.apply(pod("waits", container(volumeMounts=[mount("v", "/v")]), volumes=[volume]))
    wanted = ("FailedMount", 'MountVolume.SetUp failed for volume "v" : configmap "late" not found')
    eventually(lambda: wanted in events(shared_daemon, "waits"))
    assert status(shared_daemon.pod("waits"))["state"]["waiting"]["reason"] == "ContainerCreating"
    make(shared_daemon, "ConfigMap", "late", data={"k": "v"})
    shared_daemon.wait_for("waits", "Running", 3)


def test_what_is_optional_may_be_missing_and_come_later(shared_daemon: Daemon) -> None:
    volume = {"name": "v", "secret": {"secretName": "maybe", "optional": True}}
    shared_daemon.apply(pod("optional", container(volumeMounts=[mount("v", "/v")]), volumes=[volume]))
    shared_daemon.wait_for("optional", "Running")
    assert shared_daemon.exec("optional", "ls", "/v") == ""
    make(shared_daemon, "Secret", "maybe", stringData={"k": "there"})
    eventually(lambda: "k" in shared_daemon.exec("optional", "ls", "/v"), 2.0)


@pytest.mark.fields("spec.volumes[].downwardAPI")
def test_downward_api_files_follow_the_labels(shared_daemon: Daemon) -> None:
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "app", "fieldRef": {"fieldPath": "metadata.labels['app']"}},
        {"path": "dir/name", "fieldRef": {"fieldPath": "metadata.name"}},
        {"path": "cpu", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu", "divisor": "1m"}},
    ]
    wanted = pod(
        "downward",
        container(volumeMounts=[mount("d", "/d")], resources={"limits": {"cpu": "250m"}}),
        volumes=[{"name": "d", "downwardAPI": {"items": items}}],
    )
    wanted["metadata"]["labels"] = {"app": "one", "z": ""}
    shared_daemon.apply(wanted)
    shared_daemon.wait_for("downward", "Running")
    read = lambda name: shared_daemon.exec("downward", "cat", f"/d/{name}")  # noqa: E731
    assert read("labels") == 'app="one"\nz=""'
    assert (read("app"), read("dir/name"), read("cpu")) == ("one", "downward", "250")
    merge(shared_daemon, "Pod", "downward", {"metadata": {"labels": {"app": "two"}}})
    eventually(lambda: read("app") == "two", 2.0)


@pytest.mark.fields("spec.serviceAccountName", "spec.volumes[].projected")
def test_a_service_account_token(shared_daemon: Daemon) -> None:
    token = {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}}
    volume = {"name": "t", "projected": {"sources": [token]}}
    shared_daemon.apply(
        pod(
            "token",
            container(volumeMounts=[mount("t", "/t")]),
            volumes=[volume],
            securityContext={"runAsUser": 1000, "fsGroup": 2000},
        )
    )
    found = shared_daemon.wait_for("token", "Running")
    text = shared_daemon.exec("token", "cat", "/t/token")
    claims = json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "=="))
    assert claims["sub"] == "system:serviceaccount:default:default" and claims["aud"] == ["vault"]
    assert claims["kubernetes.io"]["pod"] == {"name": "token", "uid": found["metadata"]["uid"]}
    assert claims["exp"] - claims["iat"] == 600
    assert shared_daemon.exec("token", "stat", "-Lc", "%a %u %g", "/t/token").strip() == "640 1000 2000"
    key = shared_daemon.config.state_dir / "service-account.key"
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.fields("spec.automountServiceAccountToken")
def test_what_client_libraries_look_for(shared_daemon: Daemon) -> None:
    make(shared_daemon, "ServiceAccount", "robot")
    shared_daemon.apply(pod("robotic", serviceAccountName="robot", automountServiceAccountToken=True))
    shared_daemon.apply(pod("plain", serviceAccountName="robot"))
    place = "/var/run/secrets/kubernetes.io/serviceaccount"
    shared_daemon.wait_for("robotic", "Running")
    assert shared_daemon.exec("robotic", "ls", place).split() == ["namespace", "token"]
    assert shared_daemon.exec("robotic", "cat", f"{place}/namespace") == "default"
    reviews = "/apis/authentication.k8s.io/v1/tokenreviews"
    found = shared_daemon.exec("robotic", "cat", f"{place}/token")
    asked = shared_daemon.cli("create", "token", "robot", "--duration=10m").stdout.strip()
    for token in (found, asked):
        status = shared_daemon.api("POST", reviews, {"spec": {"token": token}})["status"]
        assert status["authenticated"] and status["user"]["username"] == "system:serviceaccount:default:robot"
    shared_daemon.wait_for("plain", "Running")
    assert shared_daemon.exec("plain", "sh", "-c", f"ls {place} 2>&1", check=False) != ""
    shared_daemon.delete("robotic")
    gone = shared_daemon.api("POST", reviews, {"spec": {"token": found}})["status"]
    assert gone["error"] == "the Pod of the token is gone" and not gone.get("authenticated")


@pytest.mark.fields(
    "spec.containers[].env",
    "spec.containers[].envFrom",
    "spec.containers[].env[].valueFrom",
    "spec.containers[].env[].valueFrom.configMapKeyRef",
    "spec.containers[].env[].valueFrom.secretKeyRef",
)
def test_environment_from_objects(shared_daemon: Daemon) -> None:
    make(shared_daemon, "ConfigMap", "env", data={"A": "1", "log.level": "debug"})
    make(shared_daemon, "Secret", "env", stringData={"PASSWORD": MARK})
    env = [
        {"name": "A", "value": "over"},
        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "env", "key": "A"}}},
        {"name": "P", "valueFrom": {"secretKeyRef": {"name": "env", "key": "PASSWORD"}}},
        {"name": "NO", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "A", "optional": True}}},
        {"name": "BOTH", "value": "$(B)-$(P)"},
    ]
    env_from = [
        {"configMapRef": {"name": "env"}},
        {"prefix": "S_", "secretRef": {"name": "env"}},
        {"secretRef": {"name": "none", "optional": True}},
    ]
    shared_daemon.apply(pod("env", container(command=["env"], env=env, envFrom=env_from), restartPolicy="Never"))
    shared_daemon.wait_for("env", "Succeeded")
    found = dict(line.split("=", 1) for line in shared_daemon.logs("env").splitlines() if "=" in line)
    assert (found["A"], found["B"], found["P"], found["S_PASSWORD"]) == ("over", "1", MARK, MARK)
    assert found["BOTH"] == f"1-{MARK}" and "NO" not in found and found["log.level"] == "debug"


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"configMapKeyRef": {"name": "none", "key": "A"}}, 'configmap "none" not found'),
        ({"secretKeyRef": {"name": "absent", "key": "x"}}, 'secret "absent" not found'),
        ({"secretKeyRef": {"name": "half", "key": "x"}}, "couldn't find key x in Secret default/half"),
    ],
)
def test_a_missing_variable_is_told_and_waited_for(shared_daemon: Daemon, env: dict[str, Any], message: str) -> None:
    make(shared_daemon, "Secret", "half", stringData={"other": MARK})
    try:
        shared_daemon.apply(pod("lacks", container(env=[{"name": "A", "valueFrom": env}])))
        found = shared_daemon.wait_for("lacks", lambda one: "message" in status(one)["state"].get("waiting", {}))
        assert status(found)["state"]["waiting"] == {"reason": "CreateContainerConfigError", "message": message}
        eventually(lambda: ("Failed", f"Error: {message}") in events(shared_daemon, "lacks"))
        if "half" in message:
            merge(shared_daemon, "Secret", "half", {"stringData": {"x": "now"}})
            shared_daemon.wait_for("lacks", "Running", 3)
    finally:
        shared_daemon.api("DELETE", path_of("Secret", "half"))


def test_secrets_are_in_no_log_event_or_message(daemon: Daemon) -> None:
    encoded = base64.b64encode(MARK.encode()).decode()
    make(daemon, "Secret", "hidden", stringData={"k": MARK, "not.utf8": "x"}, data={"binary": "/w=="})
    binary = [{"name": "B", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "binary"}}}]
    wrong = [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "nope"}}}]
    env = [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "k"}}}]
    hush = [mount("v", "/v")]
    volumes = [{"name": "v", "secret": {"secretName": "hidden"}}]
    daemon.apply(
        pod(
            "hidden",
            container("good", env=env, volumeMounts=hush),
            container("binary", env=env + binary),
            container("wrong", env=env + wrong),
            container("path", env=env, volumeMounts=[mount("v", "/v", subPathExpr="$(K)/x/$(K)")]),
            volumes=volumes,
        )
    )
    daemon.wait_for("hidden", lambda one: "running" in status(one, "good")["state"])
    daemon.wait_for("hidden", lambda one: "message" in status(one, "path")["state"].get("waiting", {}))
    for bad in ({"data": {"k": MARK}}, {"stringData": {"k": [MARK]}}, {"stringData": {"a/b": MARK}}):
        with pytest.raises(ApiError) as caught:
            merge(daemon, "Secret", "hidden", bad)
        assert MARK not in json.dumps(caught.value.status) and encoded not in json.dumps(caught.value.status)
    time.sleep(0.3)
    shown = json.dumps(daemon.api("GET", "/api/v1/events")) + json.dumps(daemon.pod("hidden"))
    shown += daemon.cli("describe", "pod", "hidden").stdout + daemon.cli("describe", "secret", "hidden").stdout
    shown += daemon.log_file.read_text()
    for text in (MARK, encoded):
        where = shown.find(text)
        assert where < 0, shown[max(where - 300, 0) : where + 100]
    for log in daemon.config.log_dir.rglob("*.log"):
        assert MARK not in log.read_text()
    secret_directory = daemon.config.state_dir / "pods" / daemon.pod("hidden")["metadata"]["uid"]
    assert secret_directory.stat().st_mode & 0o777 == 0o700


def test_files_survive_a_restart_of_the_daemon_and_go_on_following(daemon: Daemon) -> None:
    make(daemon, "ConfigMap", "stays", data={"k": "1"})
    volume = {"name": "v", "configMap": {"name": "stays"}}
    daemon.apply(pod("stays", container(volumeMounts=[mount("v", "/v")]), volumes=[volume]))
    daemon.wait_for("stays", "Running")
    daemon.restart()
    merge(daemon, "ConfigMap", "stays", {"data": {"k": "2"}})
    eventually(lambda: daemon.exec("stays", "cat", "/v/k") == "2", 2.0)


@pytest.mark.fields("spec.containers[].env[].valueFrom.fileKeyRef")
def test_a_variable_from_a_file_that_another_container_wrote(shared_daemon: Daemon) -> None:
    """fileKeyRef; the writer is a container that ends, the reader waits for the file."""
    reference = {"volumeName": "d", "path": "out.env", "key": "TOKEN"}
    env = [
        {"name": "T", "valueFrom": {"fileKeyRef": reference}},
        {"name": "O", "valueFrom": {"fileKeyRef": reference | {"key": "NONE", "optional": True}}},
    ]
    writer = container(
        "writer", "sleep 1; printf \"# c\\nTOKEN='a b'\\n\" > /d/out.env", volumeMounts=[mount("d", "/d")]
    )
    shared_daemon.apply(
        pod(
            "filekey",
            writer,
            container("main", 'echo "got<$T><$O>"', env=env),
            volumes=[{"name": "d", "emptyDir": {}}],
            restartPolicy="OnFailure",
        )
    )
    found = shared_daemon.wait_for("filekey", lambda one: terminated(one), 40)
    assert terminated(found)["exitCode"] == 0
    assert shared_daemon.logs("filekey", "main") == "got<a b><>\n"
