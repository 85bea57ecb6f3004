"""delete, wait, patch, label, annotate: what is sent, how long it waits, which exit code."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.unit.test_cli_support import (
    PODS,
    FakeServer,
    Handler,
    Request,
    client,
    gone_after,
    listed,
    not_found,
    pod,
    podrt,
    server,
)

__all__ = ["client", "server"]

# delete, wait


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


def test_delete_of_files_goes_on_past_kinds_that_nobody_serves(server: FakeServer, tmp_path: Path) -> None:
    gone_after(server, "web", 0)
    documents = [{"apiVersion": "v1", "kind": kind, "metadata": {"name": "web"}} for kind in ("Frob", "Pod")]
    (tmp_path / "all.yaml").write_text("---\n".join(json.dumps(document) + "\n" for document in documents))
    result = podrt(server, "delete", "-f", str(tmp_path / "all.yaml"))
    assert result.stdout == 'pod "web" deleted from default namespace\n'
    assert result.exit_code == 1 and 'no matches for kind "Frob"' in result.stderr


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
