"""get, describe, events, top: what is asked and what is printed."""

from __future__ import annotations

import json

from tests.unit.test_cli_support import (
    NS,
    PODS,
    FakeServer,
    Handler,
    Request,
    client,
    listed,
    not_found,
    pod,
    podrt,
    server,
    table,
)

__all__ = ["client", "server"]

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
    "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{c}"},
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
        "Name:         web",
        "Status:       Running",
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
    assert "podrt  spec.containers{c}: again and again" in text
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
