"""The verbs as a user runs them, against a fake server: what is asked, what is printed, which exit code."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from podrt.cli.main import cli
from tests.unit.test_cli_client import FakeServer, Handler, Request, client, server
from tests.unit.test_cli_websocket import Peer, failure, upgrade

__all__ = ["client", "server"]

NS = "/api/v1/namespaces/default"
PODS = f"{NS}/pods"
COLUMNS = [{"name": "Name"}, {"name": "Status"}, {"name": "IP", "priority": 1}]


def podrt(server: FakeServer, *args: str, input: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["--socket", server.path, *args], input=input, prog_name="podrt")


def table(*names: str, version: str = "5") -> dict[str, Any]:
    rows = [
        {"cells": [name, "Running", "10.0.0.1"], "object": {"metadata": {"name": name, "namespace": "default"}}}
        for name in names
    ]
    return {"kind": "Table", "columnDefinitions": COLUMNS, "rows": rows, "metadata": {"resourceVersion": version}}


def pod(name: str, phase: str = "Running", **spec: Any) -> dict[str, Any]:
    statuses = [{"name": "c", "ready": True, "restartCount": 2, "state": {"running": {"startedAt": None}}}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": f"u-{name}", "labels": {"app": "x"}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": "n1"} | spec,
        "status": {"phase": phase, "containerStatuses": statuses, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def listed(*items: dict[str, Any], kind: str = "PodList") -> dict[str, Any]:
    return {"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": "9"}, "items": list(items)}


def not_found(handler: Handler, request: Request) -> None:
    name = request.path.rpartition("/")[2]
    message = f'pods "{name}" not found'
    handler.reply(404, {"kind": "Status", "reason": "NotFound", "message": message, "code": 404, "details": {}})


# get


def test_get_asks_for_a_table(server: FakeServer) -> None:
    server.routes["GET", PODS] = table("web", "a-long-name")
    result = podrt(server, "get", "po", "-l", "app=x", "--field-selector", "status.phase=Running")
    assert result.output == "NAME          STATUS\nweb           Running\na-long-name   Running\n"
    request = server.requests[0]
    assert "as=Table" in request.headers["accept"]
    assert (request.param("labelSelector"), request.param("fieldSelector")) == ("app=x", "status.phase=Running")


def test_get_wide_without_headers_in_all_namespaces(server: FakeServer) -> None:
    server.routes["GET", "/api/v1/pods"] = table("web")
    result = podrt(server, "get", "pods", "-A", "-o=wide", "--no-headers=true")
    assert result.output == "default   web   Running   10.0.0.1\n"


def test_get_nothing(server: FakeServer) -> None:
    server.routes["GET", PODS] = server.routes["GET", "/api/v1/pods"] = table()
    result = podrt(server, "get", "pods")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "No resources found in default namespace.\n"
    assert podrt(server, "get", "pods", "-A").stderr == "No resources found\n"


def test_get_a_missing_pod(server: FakeServer) -> None:
    server.routes["GET", f"{PODS}/x"] = not_found
    server.routes["GET", f"{PODS}/web"] = table("web")
    result = podrt(server, "get", "pod/x", "pod/web")
    assert (result.exit_code, result.stderr) == (1, 'Error from server (NotFound): pods "x" not found\n')
    assert result.stdout == "NAME   STATUS\nweb    Running\n"
    assert podrt(server, "get", "pod", "x", "--ignore-not-found").exit_code == 0


def test_get_of_two_types_has_prefixes(server: FakeServer) -> None:
    server.routes["GET", PODS] = table("web")
    server.routes["GET", "/api/v1/nodes"] = table("n1")
    assert podrt(server, "get", "po,no").output == (
        "NAME      STATUS\npod/web   Running\n\nNAME      STATUS\nnode/n1   Running\n"
    )


def test_get_objects(server: FakeServer) -> None:
    server.routes["GET", PODS] = listed(pod("web"), pod("db"))
    server.routes["GET", f"{PODS}/web"] = pod("web")
    assert podrt(server, "get", "pods", "-o", "name").output == "pod/web\npod/db\n"
    assert podrt(server, "get", "pod", "web", "-o", "jsonpath={.status.phase}").output == "Running"
    assert podrt(server, "get", "pods", "-ojsonpath={.items[*].metadata.name}").output == "web db"
    document = json.loads(podrt(server, "get", "pods", "-o", "json").output)
    assert document["kind"] == "List"
    assert document["items"][0]["kind"] == "Pod"
    sort = ["get", "pods", "-o", "name", "--sort-by", ".metadata.name"]
    assert podrt(server, *sort).output == "pod/db\npod/web\n"
    assert "kind: Pod" in podrt(server, "get", "pod/web", "-o", "yaml").output


def test_get_with_bad_arguments(server: FakeServer) -> None:
    server.routes["GET", "/apis"] = {"groups": []}
    server.routes["GET", "/api/v1"] = {"resources": []}
    result = podrt(server, "get", "foos")
    assert (result.exit_code, result.stderr) == (1, 'error: the server doesn\'t have a resource type "foos"\n')
    assert podrt(server, "get", "pods", "pod/a").exit_code == 1
    assert podrt(server, "get", "pods", "-o", "xml").exit_code == 1
    assert "a name" not in podrt(server, "get", "pod", "a", "-l", "x=y").stdout
    assert podrt(server, "get", "pod", "a", "-A").exit_code == 1
    assert podrt(server, "get").exit_code == 1
    assert podrt(server, "get", "--bogus").exit_code == 2
    assert podrt(server, "bogus").exit_code == 2


def test_watch_goes_on_from_the_list(server: FakeServer) -> None:
    def answer(handler: Handler, request: Request) -> None:
        if request.param("watch") is None:
            handler.reply(200, table("web", version="41"))
            return
        assert request.param("resourceVersion") == "41"
        changed = table("web")
        changed["rows"][0]["cells"][1] = "Error"
        changed["columnDefinitions"] = None
        events = [{"type": "BOOKMARK", "object": {}}, {"type": "MODIFIED", "object": changed}]
        handler.reply(200, b"".join(json.dumps(event).encode() + b"\n" for event in events))

    server.routes["GET", PODS] = answer
    result = podrt(server, "get", "pods", "-w")
    assert (result.exit_code, result.output) == (0, "NAME   STATUS\nweb    Running\nweb    Error\n")


# describe, events, top


EVENT = {
    "metadata": {"name": "e", "namespace": "default"},
    "type": "Warning",
    "reason": "BackOff",
    "message": "again\nand again",
    "count": 3,
    "firstTimestamp": "2020-01-01T00:00:00Z",
    "lastTimestamp": "2020-01-02T00:00:00Z",
    "source": {"component": "podrt"},
    "involvedObject": {"kind": "Pod", "name": "web"},
}


def test_describe_pod(server: FakeServer) -> None:
    probe = {"httpGet": {"port": 80, "path": "/"}, "periodSeconds": 5}
    containers = [
        {
            "name": "c",
            "image": "nginx",
            "ports": [{"containerPort": 80}],
            "command": ["sh", "-c"],
            "resources": {"limits": {"memory": "64Mi"}},
            "livenessProbe": probe,
            "env": [
                {"name": "A", "value": "1"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            ],
            "volumeMounts": [{"name": "v", "mountPath": "/data", "readOnly": True}],
        }
    ]
    value = pod("web", containers=containers, volumes=[{"name": "v", "emptyDir": {}}])
    last = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    value["status"]["containerStatuses"][0]["lastState"] = last
    server.routes["GET", f"{PODS}/web"] = value
    server.routes["GET", f"{NS}/events"] = listed(EVENT, kind="EventList")
    result = podrt(server, "describe", "pod", "web")
    assert result.exit_code == 0, result.output
    text = result.output
    for line in (
        "Name:             web",
        "Status:           Running",
        "    Port:          80/TCP",
        "    Last State:     Terminated",
        "      Reason:       OOMKilled",
        "      Exit Code:    137",
        "    Restart Count:  2",
        "      memory:  64Mi",
        "    Liveness:  http-get http://:80/ delay=0s timeout=1s period=5s #success=1 #failure=3",
        "      A:   1",
        "      IP:   (v1:status.podIP)",
        "      /data from v (ro)",
        "    Type:        EmptyDir (a temporary directory that shares a pod's lifetime)",
    ):
        assert line in text.splitlines(), line
    assert "(x3 over" in text
    assert "again and again" in text
    selector = server.requests[1].param("fieldSelector")
    assert selector is not None
    assert "involvedObject.name=web" in selector
    assert "involvedObject.uid=u-web" in selector


def test_describe_node_and_namespace(server: FakeServer) -> None:
    status = {"allocatable": {"cpu": "2", "memory": "1Gi"}, "capacity": {"cpu": "2"}, "nodeInfo": {"osImage": "Debian"}}
    server.routes["GET", "/api/v1/nodes/n1"] = {"metadata": {"name": "n1"}, "status": status}
    requests = {"requests": {"cpu": "500m", "memory": "256Mi"}}
    busy = pod("web", containers=[{"name": "c", "image": "i", "resources": requests}])
    server.routes["GET", "/api/v1/pods"] = listed(busy)
    server.routes["GET", "/api/v1/events"] = listed()
    text = podrt(server, "describe", "node", "n1").output
    assert "OS Image:" in text
    assert "500m (25%)" in text
    assert "256Mi (25%)" in text
    assert text.splitlines()[-1].split() == ["Events:", "<none>"]
    server.routes["GET", "/api/v1/namespaces/default"] = {
        "metadata": {"name": "default"},
        "status": {"phase": "Active"},
    }
    assert "Status:       Active" in podrt(server, "describe", "ns", "default").output


def test_events(server: FakeServer) -> None:
    normal = EVENT | {"type": "Normal", "reason": "Started", "lastTimestamp": "2020-01-01T00:00:00Z", "count": 1}
    server.routes["GET", f"{NS}/events"] = listed(EVENT, normal, kind="EventList")
    lines = podrt(server, "events", "--for", "pod/web").output.splitlines()
    assert lines[0].split() == ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    assert "Started" in lines[1]
    assert "BackOff" in lines[2]
    assert server.requests[0].param("fieldSelector") == "involvedObject.kind=Pod,involvedObject.name=web"
    assert "Started" not in podrt(server, "events", "--types=Warning").output
    assert podrt(server, "events", "--types=Bad").exit_code == 2


def test_top(server: FakeServer) -> None:
    base = "/apis/metrics.k8s.io/v1beta1"
    containers = [
        {"name": "c", "usage": {"cpu": "1500000n", "memory": "2048Ki"}},
        {"name": "d", "usage": {"cpu": "0", "memory": "1Mi"}},
    ]
    server.routes["GET", f"{base}/namespaces/default/pods"] = listed(
        {"metadata": {"name": "w"}, "containers": containers}
    )
    assert podrt(server, "top", "pod").output == "NAME   CPU(cores)   MEMORY(bytes)\nw      2m           3Mi\n"
    assert "w     d      0m" in podrt(server, "top", "pod", "--containers").output
    server.routes["GET", f"{base}/nodes"] = listed(
        {"metadata": {"name": "n"}, "usage": {"cpu": "1", "memory": "512Mi"}}
    )
    node = {"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}}
    server.routes["GET", "/api/v1/nodes"] = listed(node)
    assert podrt(server, "top", "node").output.splitlines()[1].split() == ["n", "1000m", "50%", "512Mi", "50%"]


# delete, wait


def gone_after(server: FakeServer, name: str, delay: float) -> None:
    """A pod that ends ``delay`` seconds after its DELETE."""
    state = {"deleted": 0.0}

    def item(handler: Handler, request: Request) -> None:
        if request.method == "DELETE":
            state["deleted"] = time.monotonic()
        handler.reply(200, pod(name))

    def collection(handler: Handler, request: Request) -> None:
        left = state["deleted"] + delay - time.monotonic()
        if request.param("watch") is None:
            handler.reply(200, listed(*([pod(name)] if left > 0 else [])))
            return
        handler.start_chunks()
        time.sleep(max(0.0, left))
        handler.chunk(json.dumps({"type": "DELETED", "object": pod(name)}).encode() + b"\n")
        handler.wfile.write(b"0\r\n\r\n")

    server.routes["ANY", f"{PODS}/{name}"] = item
    server.routes["GET", PODS] = collection


def test_delete_waits_until_it_is_gone(server: FakeServer) -> None:
    gone_after(server, "web", 0.3)
    before = time.monotonic()
    result = podrt(server, "delete", "pod", "web", "--grace-period=5")
    assert (result.exit_code, result.output) == (0, 'pod "web" deleted from default namespace\n')
    assert time.monotonic() - before >= 0.3
    assert server.requests[0].json["gracePeriodSeconds"] == 5
    assert server.requests[-1].param("fieldSelector") == "metadata.name=web"


def test_delete_without_waiting_and_by_force(server: FakeServer) -> None:
    gone_after(server, "web", 60)
    assert podrt(server, "delete", "pod/web", "--wait=false").exit_code == 0
    result = podrt(server, "delete", "pod/web", "--force", "--wait=false")
    assert result.stdout == 'pod "web" force deleted from default namespace\n'
    assert "Immediate deletion" in result.stderr
    assert [request.json.get("gracePeriodSeconds") for request in server.sent("DELETE")] == [None, 0]
    assert podrt(server, "delete", "pod/web", "--now", "--wait=false").exit_code == 0
    assert server.sent("DELETE")[-1].json["gracePeriodSeconds"] == 1


def test_delete_times_out(server: FakeServer) -> None:
    gone_after(server, "web", 60)
    result = podrt(server, "delete", "pod", "web", "--timeout=300ms")
    assert (result.exit_code, result.stderr) == (1, "error: timed out waiting for the condition on pods/web\n")


def test_delete_what_is_not_there(server: FakeServer) -> None:
    server.routes["ANY", f"{PODS}/x"] = not_found
    result = podrt(server, "delete", "pod", "x")
    assert (result.exit_code, result.stderr) == (1, 'Error from server (NotFound): pods "x" not found\n')
    assert podrt(server, "delete", "pod", "x", "--ignore-not-found").exit_code == 0


def test_delete_needs_a_name_or_all(server: FakeServer) -> None:
    assert podrt(server, "delete", "pods").exit_code == 2
    assert podrt(server, "delete", "pods", "a", "--all").exit_code == 2
    assert podrt(server, "delete", "pods", "a", "--now", "--grace-period=3").exit_code == 2
    assert not server.requests


def test_delete_by_labels(server: FakeServer) -> None:
    gone_after(server, "web", 0)

    def collection(handler: Handler, request: Request) -> None:
        handler.reply(200, listed(*([pod("web")] if request.param("labelSelector") == "app=x" else [])))

    server.routes["GET", PODS] = collection
    assert podrt(server, "delete", "pods", "-l", "app=x").output == 'pod "web" deleted from default namespace\n'


def test_wait_for_a_condition(server: FakeServer) -> None:
    pending = pod("web", "Pending")
    pending["status"]["conditions"] = []
    server.routes["GET", f"{PODS}/web"] = pending

    def collection(handler: Handler, request: Request) -> None:
        if request.param("watch") is None:
            handler.reply(200, listed(pending))
        else:
            handler.reply(200, json.dumps({"type": "MODIFIED", "object": pod("web")}).encode() + b"\n")

    server.routes["GET", PODS] = collection
    result = podrt(server, "wait", "pod/web", "--for=condition=Ready", "--timeout=5s")
    assert (result.exit_code, result.output) == (0, "pod/web condition met\n")
    result = podrt(server, "wait", "pod/web", "--for=jsonpath={.status.phase}=Running", "--timeout=5s")
    assert (result.exit_code, result.output) == (0, "pod/web condition met\n")


def test_wait_times_out_with_code_1(server: FakeServer) -> None:
    gone_after(server, "web", 60)
    server.routes["GET", PODS] = listed(pod("web"))
    for condition in ("condition=Ready=False", "delete", "jsonpath={.status.phase}=Failed"):
        result = podrt(server, "wait", "pod/web", f"--for={condition}", "--timeout=0")
        assert (result.exit_code, result.stderr) == (1, "error: timed out waiting for the condition on pods/web\n")
    assert podrt(server, "wait", "pod/web", "--for=nonsense").exit_code == 2


def test_wait_for_delete_of_what_is_not_there(server: FakeServer) -> None:
    server.routes["GET", PODS] = listed()
    assert podrt(server, "wait", "pod/x", "--for=delete").output == "pod/x deleted\n"


# logs


def test_logs(server: FakeServer) -> None:
    server.routes["GET", f"{PODS}/web"] = pod("web")
    server.routes["GET", f"{PODS}/web/log"] = b"one\ntwo\n"
    args = ["--tail=5", "--since=1m", "-p", "--timestamps"]
    assert podrt(server, "logs", "web", *args).output == "one\ntwo\n"
    query = dict(server.requests[-1].query)
    assert query == {
        "previous": "true",
        "timestamps": "true",
        "tailLines": "5",
        "sinceSeconds": "60",
        "container": "c",
    }
    assert podrt(server, "logs", "pod/web", "--prefix").output == "[pod/web/c] one\n[pod/web/c] two\n"


def test_logs_of_several(server: FakeServer) -> None:
    two = pod("web", containers=[{"name": "a", "image": "i"}, {"name": "b", "image": "i"}])
    server.routes["GET", f"{PODS}/web"] = two
    server.routes["GET", PODS] = listed(two)
    server.routes["GET", f"{PODS}/web/log"] = lambda handler, request: handler.reply(
        200, f"from {request.param('container')}\n".encode()
    )
    result = podrt(server, "logs", "web")
    assert result.stdout == "from a\n"
    assert result.stderr == 'Defaulted container "a" out of: a, b\n'
    assert podrt(server, "logs", "web", "--all-containers").output == "from a\nfrom b\n"
    followed = podrt(server, "logs", "web", "--all-containers", "-f", "--prefix").output
    assert sorted(followed.splitlines()) == ["[pod/web/a] from a", "[pod/web/b] from b"]
    assert podrt(server, "logs", "-l", "app=x").stdout == "from a\n"
    assert server.requests[-1].param("tailLines") == "10"


def test_logs_with_bad_arguments(server: FakeServer) -> None:
    for args in (
        [],
        ["web", "--since=1m", "--since-time=x"],
        ["web", "-c", "a", "--all-containers"],
        ["web", "-l", "a"],
    ):
        assert podrt(server, "logs", *args).exit_code == 2
    assert podrt(server, "logs", "node/x").exit_code == 1
    assert podrt(server, "logs", "web", "--since=abc").exit_code == 1
    assert not server.requests


# exec, run


def test_exec_hands_on_the_exit_code(server: FakeServer) -> None:
    server.routes["GET", f"{PODS}/web"] = pod("web")
    server.routes["GET", f"{PODS}/web/exec"] = upgrade(lambda peer, _: peer.finish(failure(42)))
    assert podrt(server, "exec", "web", "--", "sh", "-c", "", "-x").exit_code == 42
    query = server.requests[-1].query
    assert [value for key, value in query if key == "command"] == ["sh", "-c", "", "-x"]
    assert ("container", "c") in query
    assert ("stdout", "true") in query
    assert "stdin" not in dict(query)


def test_exec_without_a_command_is_wrong_usage(server: FakeServer) -> None:
    assert podrt(server, "exec", "web").exit_code == 2


def test_run_prints_and_creates(server: FakeServer) -> None:
    server.routes["POST", PODS] = lambda handler, request: handler.reply(201, request.json)
    args = [
        "--image=nginx",
        "--port=80",
        "--env=A=b=c",
        "--labels=x=y",
        "--limits=cpu=1,memory=64Mi",
        "--restart=Never",
    ]
    result = podrt(server, "run", "web", *args, "--command", "--", "sleep", "-1")
    assert (result.exit_code, result.output) == (0, "pod/web created\n")
    sent = server.requests[0].json
    assert sent["metadata"] == {"name": "web", "labels": {"x": "y"}, "namespace": "default"}
    assert sent["spec"]["restartPolicy"] == "Never"
    assert sent["spec"]["containers"] == [
        {
            "name": "web",
            "image": "nginx",
            "command": ["sleep", "-1"],
            "ports": [{"containerPort": 80}],
            "env": [{"name": "A", "value": "b=c"}],
            "resources": {"limits": {"cpu": "1", "memory": "64Mi"}},
        }
    ]
    dry = podrt(server, "run", "x", "--image=i", "--dry-run=client", "-o", "yaml")
    assert "    run: x\n" in dry.output
    assert len(server.requests) == 1


def test_run_rm_attaches_and_removes(server: FakeServer) -> None:
    gone_after(server, "job", 0)
    state: dict[str, Any] = {"ended": False}

    def current() -> dict[str, Any]:
        value = pod("job", "Failed" if state["ended"] else "Running", containers=[{"name": "job", "stdin": True}])
        terminated = {"terminated": {"exitCode": 3}}
        value["status"]["containerStatuses"][0]["state"] = terminated if state["ended"] else {"running": {}}
        return value | {"spec": value["spec"] | {"restartPolicy": "Never"}}

    def collection(handler: Handler, request: Request) -> None:
        deleted = bool(server.sent("DELETE"))
        handler.reply(200, listed(*([] if deleted else [current()])))

    def attached(peer: Peer, _: Request) -> None:
        peer.send(b"\x01hello\n")
        state["ended"] = True
        peer.finish({"status": "Success"})

    server.routes["POST", PODS] = lambda handler, _: handler.reply(201, current())
    server.routes["GET", PODS] = collection
    server.routes["GET", f"{PODS}/job/attach"] = upgrade(attached)
    result = podrt(server, "run", "job", "--image=i", "-i", "--rm", "--", "x")
    assert result.exit_code == 3
    assert server.requests[0].json["spec"]["restartPolicy"] == "Never"
    assert 'pod "job" deleted' in result.stderr
    assert len(server.sent("DELETE")) == 1


@pytest.mark.parametrize(
    "args", [["x"], ["x", "--image=i", "-t"], ["x", "--image=i", "--rm"], ["x", "--image=i", "--env=novalue"]]
)
def test_run_with_bad_arguments(server: FakeServer, args: list[str]) -> None:
    assert podrt(server, "run", *args).exit_code == 2
    assert not server.requests


# patch, label


def test_label_and_annotate(server: FakeServer) -> None:
    def item(handler: Handler, request: Request) -> None:
        value = pod("web")
        value["metadata"]["resourceVersion"] = "1" if request.method == "GET" else "2"
        handler.reply(200, value)

    server.routes["ANY", f"{PODS}/web"] = item
    assert podrt(server, "label", "pod", "web", "tier=front", "old-").output == "pod/web labeled\n"
    assert server.requests[-1].json == {"metadata": {"labels": {"tier": "front", "old": None}}}
    assert server.requests[-1].headers["content-type"] == "application/merge-patch+json"
    refused = podrt(server, "label", "pod", "web", "app=other")
    assert (refused.exit_code, refused.stderr) == (
        1,
        "error: 'app' already has a value (x), and --overwrite is false\n",
    )
    assert podrt(server, "label", "pod/web", "app=other", "--overwrite").exit_code == 0
    assert podrt(server, "annotate", "pod/web", "note=hi there").output == "pod/web annotated\n"
    assert podrt(server, "label", "pod/web", "app-").output == "pod/web unlabeled\n"
    assert podrt(server, "label", "pod/web", "--list").output == "app=x\n"
    assert podrt(server, "label", "pod/web").exit_code == 2


def test_patch(server: FakeServer) -> None:
    server.routes["ANY", f"{PODS}/web"] = lambda handler, _: handler.reply(200, pod("web"))
    result = podrt(server, "patch", "pod", "web", "--type=merge", "-p", "spec: {activeDeadlineSeconds: 5}")
    assert result.output == "pod/web patched (no change)\n"
    assert server.requests[-1].json == {"spec": {"activeDeadlineSeconds": 5}}
    assert podrt(server, "patch", "pod", "web", "-p", "[").exit_code == 1


# images


BASE = "/apis/podrt.dev/v1alpha1"
IMAGE = {"id": "sha256:" + "a" * 64, "names": ["busybox:latest"]}


def test_image_load_by_length_and_from_a_directory(server: FakeServer, tmp_path: Path) -> None:
    lines = [{"progress": {"what": "unpacking", "done": 1, "total": 2}}, {"images": [IMAGE]}]
    server.routes["POST", f"{BASE}/images:load"] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    archive = tmp_path / "a.tar"
    archive.write_bytes(b"x" * 3_000_000)
    assert podrt(server, "image", "load", "-i", str(archive)).output == "Loaded image: busybox:latest\n"
    assert server.requests[-1].headers["content-length"] == "3000000"
    layout = tmp_path / "oci"
    (layout / "blobs").mkdir(parents=True)
    (layout / "index.json").write_text("{}")
    assert podrt(server, "image", "load", "-q", str(layout)).output == "busybox:latest\n"
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(server.requests[-1].body)) as tar:
        assert tar.getnames() == ["blobs", "index.json"]
    assert podrt(server, "image", "load", str(tmp_path / "none")).exit_code == 1


def test_image_load_reports_the_servers_last_line(server: FakeServer) -> None:
    error = {"kind": "Status", "status": "Failure", "reason": "Invalid", "message": "not an image archive", "code": 422}
    server.routes["POST", f"{BASE}/images:load"] = json.dumps({"error": error}).encode()
    result = podrt(server, "image", "load", "-", input="x")
    assert (result.exit_code, result.stderr) == (1, "Error from server (Invalid): not an image archive\n")
    server.routes["POST", f"{BASE}/images:load"] = b""
    assert "without a result" in podrt(server, "image", "load", "-", input="x").stderr


def test_image_import_with_configuration(server: FakeServer) -> None:
    server.routes["POST", f"{BASE}/images:import"] = json.dumps({"images": [IMAGE]}).encode()
    args = ["--cmd", "sh -c 'a b'", "--entrypoint", '["/x"]', "--env", "A=b", "--expose", "80"]
    assert podrt(server, "image", "import", "-", "my:1", *args, input="tar").exit_code == 0
    request = server.requests[-1]
    assert request.param("name") == "my:1"
    config = json.loads(request.param("config") or "")
    assert config == {
        "Cmd": ["sh", "-c", "a b"],
        "Entrypoint": ["/x"],
        "Env": ["A=b"],
        "ExposedPorts": {"80/tcp": {}},
    }


def test_image_save_leaves_no_half_file(server: FakeServer, tmp_path: Path) -> None:
    server.routes["GET", f"{BASE}/images:save"] = b"archive"
    target = tmp_path / "out.tar"
    assert podrt(server, "image", "save", "a", "b", "-o", str(target), "--format=docker").exit_code == 0
    assert target.read_bytes() == b"archive"
    assert server.requests[-1].query == [("ref", "a"), ("ref", "b"), ("format", "docker")]

    def broken(handler: Handler, _: Request) -> None:
        handler.start_chunks()
        handler.chunk(b"half")

    server.routes["GET", f"{BASE}/images:save"] = broken
    assert podrt(server, "image", "save", "a", "-o", str(tmp_path / "broken.tar")).exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.tar"]


def test_image_verbs(server: FakeServer) -> None:
    server.routes["GET", f"{BASE}/images"] = {"kind": "ImageList", "items": [IMAGE]}
    assert podrt(server, "image", "ls", "-q").output == IMAGE["id"] + "\n"
    assert podrt(server, "image", "ls", "-o", "name").output == "busybox:latest\n"
    server.routes["DELETE", f"{BASE}/images/reg%2Fa%3A1"] = {
        "items": [{"untagged": "reg/a:1"}, {"deleted": "sha256:x"}]
    }
    assert podrt(server, "image", "rm", "reg/a:1").output == "Untagged: reg/a:1\nDeleted: sha256:x\n"
    server.routes["POST", f"{BASE}/images:tag"] = IMAGE
    assert podrt(server, "image", "tag", "a", "b:1").output == "image/b:1 tagged\n"
    server.routes["POST", f"{BASE}/images:prune"] = {"items": [], "bytesReclaimed": 12_300_000}
    assert podrt(server, "image", "prune", "-a", "-f").output == "Reclaimed 12.3MB\n"
    server.routes["GET", f"{BASE}/images/a"] = {"Id": "x"}
    assert json.loads(podrt(server, "image", "inspect", "a").output) == [{"Id": "x"}]
    steps = [{"Created": 0, "CreatedBy": "CMD " + "x" * 80, "Size": 5, "Comment": ""}]
    server.routes["GET", f"{BASE}/images/a/history"] = {"items": steps}
    assert "x..." in podrt(server, "image", "history", "a").output


# the rest


def test_version_and_api_resources(server: FakeServer) -> None:
    server.routes["GET", "/version"] = {"gitVersion": "v1.33.0+podrt"}
    assert "Server Version: v1.33.0+podrt" in podrt(server, "version").output
    server.routes["GET", "/apis"] = {"groups": [{"preferredVersion": {"groupVersion": "apps/v1"}}]}
    pods = {"name": "pods", "singularName": "pod", "kind": "Pod", "namespaced": True, "shortNames": ["po"]}
    server.routes["GET", "/api/v1"] = {"resources": [pods, {"name": "pods/log", "kind": "Pod"}]}
    server.routes["GET", "/apis/apps/v1"] = {"resources": [{"name": "deployments", "kind": "Deployment"}]}
    assert podrt(server, "api-resources", "-o", "name").output == "pods\ndeployments.apps\n"


def test_interrupt_and_daemon_down(server: FakeServer, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["--socket", str(tmp_path / "no"), "get", "pods"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: the podrt daemon is not running")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    from podrt.cli import cmd_get

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cmd_get, "parse_targets", interrupt)
        assert podrt(server, "get", "pods").exit_code == 130


@pytest.fixture
def echo_port() -> Iterator[int]:
    import socket

    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data.upper())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def test_port_forward(server: FakeServer, echo_port: int) -> None:
    """A whole `podrt port-forward`, whose pod is an echo server; the other side half-closes."""
    import os
    import signal
    import socket
    import subprocess
    import sys

    server.routes["GET", f"{PODS}/web"] = pod("web")

    def forward(peer: Peer, request: Request) -> None:
        port = request.param("ports")
        assert port is not None
        number = int(port).to_bytes(2, "little")
        peer.send(b"\x00" + number)
        peer.send(b"\x01" + number)
        if port == "9":
            peer.send(b"\x01connection refused")
            return
        with socket.create_connection(("127.0.0.1", echo_port)) as target:
            while (message := peer.receive()) is not None and message != b"\xff\x00":
                target.sendall(message[1:])
            target.shutdown(socket.SHUT_WR)
            while data := target.recv(65536):
                peer.send(b"\x00" + data)
        peer.send(b"\x03\xe8", opcode=8)

    server.routes["GET", f"{PODS}/web/portforward"] = upgrade(forward, "v4.channel.k8s.io")
    code = "from podrt.cli.main import main; main()"
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, "--socket", server.path, "port-forward", "web", ":80", ":9"]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        ports = {}
        while len(ports) < 2:
            words = process.stdout.readline().split()
            assert words[:2] == ["Forwarding", "from"], process.stderr.read()
            ports.setdefault(words[-1], int(words[2].rpartition(":")[2]))
        data = os.urandom(200_000).hex().encode()
        with socket.create_connection(("127.0.0.1", ports["80"]), timeout=10) as local:
            sender = threading.Thread(target=lambda: (local.sendall(data), local.shutdown(socket.SHUT_WR)))
            sender.start()
            received = b""
            while piece := local.recv(65536):
                received += piece
            sender.join()
        assert received == data.upper()
        with socket.create_connection(("127.0.0.1", ports["9"]), timeout=10) as local:
            assert local.recv(10) == b""
        assert "connection refused" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read().strip() == ""


@pytest.mark.parametrize("ports", ["x", "1:2:3", "70000", "80:0", "-1"])
def test_port_forward_with_bad_ports(server: FakeServer, ports: str) -> None:
    assert podrt(server, "port-forward", "web", "--", ports).exit_code == 2
    assert not server.requests
