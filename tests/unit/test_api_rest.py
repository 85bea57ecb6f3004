"""The REST verbs over the socket: create, get, list, update, patch, delete, and their refusals."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from podrt.api import protobuf
from podrt.model.kinds import RESOURCES
from tests.unit.test_api_server import PODS, Harness, pod_document, serving

Json = Any
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Harness]:
    async with serving(tmp_path) as harness:
        yield harness


# Create


async def test_create_and_get(api: Harness) -> None:
    created = await api.pod()
    metadata = created["metadata"]
    assert created["kind"] == "Pod" and metadata["uid"] and metadata["resourceVersion"]
    assert metadata["namespace"] == "default"
    code, found = await api.call("GET", f"{PODS}/p")
    assert (code, found) == (200, created)


async def test_create_from_yaml(api: Harness) -> None:
    text = yaml.safe_dump(pod_document("y")).encode()
    code, created = await api.call("POST", PODS, text, kind="application/yaml")
    assert (code, created["metadata"]["name"]) == (201, "y")


async def test_create_without_type_uses_the_url(api: Harness) -> None:
    document = pod_document()
    del document["kind"], document["apiVersion"]
    assert (await api.call("POST", PODS, document))[0] == 201


async def test_generate_name(api: Harness) -> None:
    document = pod_document()
    document["metadata"] = {"generateName": "job-"}
    names = {(await api.call("POST", PODS, document))[1]["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3 and all(name.startswith("job-") and len(name) > 4 for name in names)


async def test_dry_run_stores_nothing(api: Harness) -> None:
    code, shown = await api.call("POST", f"{PODS}?dryRun=All", pod_document())
    assert code == 201 and shown["spec"]["restartPolicy"] == "Always"
    assert (await api.call("GET", f"{PODS}/p"))[0] == 404
    assert (await api.call("POST", f"{PODS}?dryRun=Some", pod_document()))[0] == 400


def misplaced() -> Json:
    document = pod_document()
    document["spec"]["containers"][0]["comand"] = ["x"]
    document["spec"]["frob"] = 1
    return document


async def test_field_validation(api: Harness) -> None:
    code, found = await api.call("POST", f"{PODS}?fieldValidation=Strict", misplaced())
    assert (code, found["reason"]) == (400, "BadRequest")
    assert 'unknown field "spec.containers[0].comand"' in found["message"]
    assert {cause["field"] for cause in found["details"]["causes"]} == {"spec.frob", "spec.containers[0].comand"}
    code, headers, _ = await api.raw("POST", f"{PODS}?fieldValidation=Warn", misplaced())
    assert code == 201
    warnings = headers.getall("Warning")  # type: ignore[attr-defined]
    assert len(warnings) == 2 and all(text.startswith('299 - "unknown field \\"spec.') for text in warnings)
    await api.call("DELETE", f"{PODS}/p")
    code, headers, _ = await api.raw("POST", f"{PODS}?fieldValidation=Ignore&dryRun=All", misplaced() | {"x": 1})
    assert "Warning" not in headers
    assert (await api.call("POST", f"{PODS}?fieldValidation=Perhaps", pod_document()))[0] == 400


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"metadata": {"name": "Bad_Name"}}, 422, 'Pod "Bad_Name" is invalid: metadata.name'),
        ({"metadata": {"name": "p", "namespace": "other"}}, 400, "does not match the namespace"),
        ({"spec": {"containers": []}}, 422, "spec.containers"),
        ({"spec": {"containers": "x"}}, 400, "spec.containers"),
        ({"kind": "Node"}, 400, "kind in the body (Node)"),
        ({"apiVersion": "v2"}, 400, "apiVersion"),
        ({"metadata": []}, 400, "metadata"),
    ],
)
async def test_refused_creations(api: Harness, change: Json, code: int, words: str) -> None:
    found = await api.call("POST", PODS, pod_document() | change)
    assert found[0] == code and words in found[1]["message"], found
    assert found[1]["kind"] == "Status" and found[1]["details"]["causes" if code == 422 else "kind"]
    assert (await api.call("GET", PODS))[1]["items"] == []


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"[]", b"\xff", b'{"a": NaN}', b"[" * 100_000])
async def test_unreadable_bodies(api: Harness, data: bytes) -> None:
    code, found = await api.call("POST", PODS, data)
    assert (code, found["reason"]) == (400, "BadRequest")


async def test_an_unknown_content_type_is_refused_by_name(api: Harness) -> None:
    code, found = await api.call("POST", PODS, b"\xa0", kind="application/cbor")
    assert (code, found["reason"]) == (415, "UnsupportedMediaType") and "application/json" in found["message"]


async def test_conflicts_and_missing_things(api: Harness) -> None:
    await api.pod()
    code, found = await api.call("POST", PODS, pod_document())
    assert (code, found["reason"], found["message"]) == (409, "AlreadyExists", 'pods "p" already exists')
    assert found["details"] == {"name": "p", "kind": "pods"}
    code, found = await api.call("GET", f"{PODS}/q")
    assert (code, found["reason"], found["message"]) == (404, "NotFound", 'pods "q" not found')
    assert found["details"] == {"name": "q", "kind": "pods"}
    assert (await api.call("POST", "/api/v1/namespaces/nope/pods", pod_document()))[0] == 404


# List


async def test_list_of_one_namespace_and_of_all(api: Harness) -> None:
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "other"}})
    await api.pod("a")
    await api.pod("b")
    assert (await api.call("POST", "/api/v1/namespaces/other/pods", pod_document("c")))[0] == 201

    async def names(path: str) -> list[str]:
        found = (await api.call("GET", path))[1]
        assert found["kind"] == "PodList" and found["metadata"]["resourceVersion"]
        return [item["metadata"]["name"] for item in found["items"]]

    assert await names(PODS) == ["a", "b"]
    assert await names("/api/v1/pods") == ["a", "b", "c"]
    assert await names("/api/v1/pods?labelSelector=app%20in%20(a,c)") == ["a", "c"]
    assert await names("/api/v1/pods?labelSelector=app!=a") == ["b", "c"]
    assert await names("/api/v1/pods?fieldSelector=metadata.name=b") == ["b"]
    assert await names("/api/v1/pods?fieldSelector=metadata.namespace=other") == ["c"]
    for query in ("labelSelector=a%20of%20b", "fieldSelector=spec.frob=1", "limit=x", "limit=-1", "continue=%21"):
        code, found = await api.call("GET", f"/api/v1/pods?{query}")
        assert code == 400 and found["kind"] == "Status", query


async def test_pages(api: Harness) -> None:
    for index in range(5):
        await api.pod(f"p{index}")
    seen, token, pages = [], "", 0
    while True:
        found = (await api.call("GET", f"{PODS}?limit=2&continue={token}"))[1]
        seen += [item["metadata"]["name"] for item in found["items"]]
        token, pages = found["metadata"].get("continue", ""), pages + 1
        if not token:
            break
        assert found["metadata"]["remainingItemCount"] == 5 - len(seen)
    assert seen == [f"p{index}" for index in range(5)] and pages == 3


async def test_table_and_metadata_forms(api: Harness) -> None:
    await api.pod()
    found = (await api.call("GET", PODS, accept=TABLE))[1]
    assert found["kind"] == "Table" and found["metadata"]["resourceVersion"]
    assert found["rows"][0]["cells"][:4] == ["p", "0/1", "Pending", "0"]
    assert found["rows"][0]["object"]["metadata"]["name"] == "p"
    assert (await api.call("GET", f"{PODS}/p", accept=TABLE))[1]["kind"] == "Table"
    whole = (await api.call("GET", f"{PODS}?includeObject=Object", accept=TABLE))[1]
    assert whole["rows"][0]["object"]["spec"]
    partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    found = (await api.call("GET", PODS, accept=partial))[1]
    assert found["kind"] == "PartialObjectMetadataList" and "spec" not in found["items"][0]
    for kind in ("namespaces", "nodes", "events"):
        assert (await api.call("GET", f"/api/v1/{kind}", accept=TABLE))[1]["kind"] == "Table"


# Update and patch


async def test_update_checks_the_version(api: Harness) -> None:
    pod = await api.pod()
    changed = json.loads(json.dumps(pod))
    changed["metadata"]["labels"] = {"x": "y"}
    code, updated = await api.call("PUT", f"{PODS}/p", changed)
    assert code == 200 and updated["metadata"]["labels"] == {"x": "y"}
    code, found = await api.call("PUT", f"{PODS}/p", pod)
    assert (code, found["reason"]) == (409, "Conflict") and "has been modified" in found["message"]
    assert (await api.call("PUT", f"{PODS}/q", pod))[0] == 400
    updated["spec"]["containers"][0]["name"] = "b"
    code, found = await api.call("PUT", f"{PODS}/p", updated)
    assert (code, found["reason"], found["details"]["kind"]) == (422, "Invalid", "Pod")


MERGE, STRATEGIC, JSON = (f"application/{kind}+json" for kind in ("merge-patch", "strategic-merge-patch", "json-patch"))


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        (MERGE, {"metadata": {"labels": {"app": None, "x": "y"}}}),
        (STRATEGIC, {"metadata": {"labels": {"app": None, "x": "y"}}}),
        (JSON, [{"op": "replace", "path": "/metadata/labels", "value": {"x": "y"}}]),
    ],
)
async def test_patch(api: Harness, kind: str, patch: Json) -> None:
    pod = await api.pod()
    code, shown = await api.call("PATCH", f"{PODS}/p?dryRun=All", patch, kind=kind)
    assert code == 200 and shown["metadata"]["labels"] == {"x": "y"}
    assert (await api.call("GET", f"{PODS}/p"))[1] == pod
    code, patched = await api.call("PATCH", f"{PODS}/p", patch, kind=kind)
    assert code == 200 and patched["metadata"]["labels"] == {"x": "y"}
    assert patched["spec"] == pod["spec"] and patched["metadata"]["uid"] == pod["metadata"]["uid"]


async def test_strategic_patch_of_an_image_keeps_the_last_applied_annotation(api: Harness) -> None:
    document = pod_document()
    document["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
    await api.call("POST", PODS, document)
    patch = {"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a", "image": "new"}]}}
    code, patched = await api.call("PATCH", f"{PODS}/p", patch, kind=STRATEGIC)
    assert code == 200 and patched["spec"]["containers"][0]["image"] == "new"
    assert "kubectl.kubernetes.io/last-applied-configuration" in patched["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("kind", "patch", "code", "words"),
    [
        ("application/apply-patch+yaml", {}, 415, "server-side apply is not supported"),
        ("application/json", {}, 415, "accepted media types"),
        (MERGE, {"metadata": {"name": "q"}}, 400, "does not match the name"),
        (MERGE, {"metadata": None}, 400, "metadata"),
        (MERGE, {"metadata": {"resourceVersion": "1"}}, 409, "has been modified"),
        (MERGE, {"metadata": {"uid": "1"}}, 409, "UID"),
        (MERGE, {"kind": "Node"}, 400, "kind"),
        (MERGE, [], 400, "metadata"),
        (MERGE, b"{", 400, "JSON"),
        (STRATEGIC, b'{"spec":' * 900 + b"1" + b"}" * 900, 400, "nested too deeply"),
        (JSON, {}, 400, "list"),
        (JSON, [{"op": "test", "path": "/metadata/name", "value": "x"}], 422, "test failed"),
        (STRATEGIC, {"spec": {"$patch": "x"}}, 400, "$patch"),
        (STRATEGIC, {"spec": {"restartPolicy": "Never"}}, 422, "spec"),
    ],
)
async def test_refused_patches(api: Harness, kind: str, patch: Json, code: int, words: str) -> None:
    pod = await api.pod()
    found = await api.call("PATCH", f"{PODS}/p", patch, kind=kind)
    assert found[0] == code and words in found[1]["message"], found
    assert (await api.call("GET", f"{PODS}/p"))[1] == pod


async def test_patch_with_unknown_field(api: Harness) -> None:
    await api.pod()
    patch = {"spec": {"frob": 1}}
    code, found = await api.call("PATCH", f"{PODS}/p?fieldValidation=Strict", patch, kind=MERGE)
    assert code == 400 and 'unknown field "spec.frob"' in found["message"]
    code, headers, _ = await api.raw("PATCH", f"{PODS}/p", patch, kind=MERGE)
    assert code == 200 and "spec.frob" in headers["Warning"]


async def test_status_is_a_subresource(api: Harness) -> None:
    await api.pod()
    patch = {"status": {"phase": "Running"}, "metadata": {"labels": {"no": "no"}}}
    code, patched = await api.call("PATCH", f"{PODS}/p/status", patch, kind=MERGE)
    assert code == 200 and patched["status"]["phase"] == "Running"
    assert patched["metadata"]["labels"] == {"app": "p"}
    code, patched = await api.call("PATCH", f"{PODS}/p", {"status": {"phase": "Failed"}}, kind=MERGE)
    assert patched["status"]["phase"] == "Running"
    assert (await api.call("GET", f"{PODS}/p/status"))[1]["status"]["phase"] == "Running"
    # A Pod may be called so.
    await api.pod("status")
    code, patched = await api.call("PATCH", f"{PODS}/status", {"metadata": {"labels": {"x": "y"}}}, kind=MERGE)
    assert patched["metadata"]["labels"]["x"] == "y"


# Delete


async def test_delete_and_preconditions(api: Harness) -> None:
    pod = await api.pod()
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "other"}}
    code, found = await api.call("DELETE", f"{PODS}/p", options)
    assert (code, found["reason"]) == (409, "Conflict")
    options = {"preconditions": {"uid": pod["metadata"]["uid"]}, "propagationPolicy": "Background"}
    code, found = await api.call("DELETE", f"{PODS}/p?dryRun=All", options)
    assert code == 200 and (await api.call("GET", f"{PODS}/p"))[0] == 200
    code, found = await api.call("DELETE", f"{PODS}/p", options)
    assert (code, found["kind"]) == (200, "Pod")
    assert (await api.call("GET", f"{PODS}/p"))[0] == 404
    assert (await api.call("DELETE", f"{PODS}/p"))[0] == 404


@pytest.mark.parametrize(
    ("query", "body", "grace"), [("", None, 30), ("?gracePeriodSeconds=5", None, 5), ("", {"gracePeriodSeconds": 7}, 7)]
)
async def test_graceful_deletion_of_a_pod_with_a_node(api: Harness, query: str, body: Json, grace: int) -> None:
    await api.pod(nodeName="node1")
    code, found = await api.call("DELETE", f"{PODS}/p{query}", body)
    assert code == 200 and found["metadata"]["deletionGracePeriodSeconds"] == grace
    assert (await api.call("GET", f"{PODS}/p"))[1]["metadata"]["deletionTimestamp"]


async def test_deletion_refusals(api: Harness) -> None:
    await api.pod()
    for query, body in (
        ("?gracePeriodSeconds=x", None),
        ("", b"{"),
        ("", {"kind": "Pod"}),
        ("", {"gracePeriodSeconds": "x"}),
    ):
        code, found = await api.call("DELETE", f"{PODS}/p{query}", body)
        assert (code, found["reason"]) == (400, "BadRequest"), (query, body)
    assert (await api.call("DELETE", f"{PODS}/p", {"propagationPolicy": "Perhaps"}))[0] == 422
    assert (await api.call("DELETE", "/api/v1/namespaces/default"))[0] == 403
    assert (await api.call("GET", f"{PODS}/p"))[0] == 200


async def test_delete_of_other_kinds_answers_success(api: Harness) -> None:
    event = {"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}}
    assert (await api.call("POST", "/api/v1/namespaces/default/events", event))[0] == 201
    code, found = await api.call("DELETE", "/api/v1/namespaces/default/events/e")
    assert (code, found["kind"], found["status"]) == (200, "Status", "Success")
    assert found["details"]["name"] == "e" and found["details"]["uid"]


async def test_delete_collection(api: Harness) -> None:
    for name in "abc":
        await api.pod(name)
    code, found = await api.call("DELETE", f"{PODS}?labelSelector=app!=b")
    assert code == 200 and [item["metadata"]["name"] for item in found["items"]] == ["a", "c"]
    assert [item["metadata"]["name"] for item in (await api.call("GET", PODS))[1]["items"]] == ["b"]


# Protobuf


def message(*fields: tuple[int, bytes]) -> bytes:
    """A protobuf message of fields with a length (all shorter than 128 bytes)."""
    return b"".join(bytes([number << 3 | 2, len(data)]) + data for number, data in fields)


def enveloped(kind: bytes, raw: bytes) -> bytes:
    return b"k8s\0" + message((1, message((1, b"v1"), (2, kind))), (2, raw), (3, b""), (4, b""))


PROTOBUF = "application/vnd.kubernetes.protobuf"


async def test_namespace_from_protobuf(api: Harness) -> None:
    labels = [(11, message((1, key), (2, value))) for key, value in ((b"a", b"1"), (b"b", b""))]
    metadata = message((1, b"made"), (2, b""), *labels, (8, b"")) + b"\x38\x00"
    body = enveloped(b"Namespace", message((1, metadata), (2, b""), (3, message((1, b"")))))
    code, created = await api.call("POST", "/api/v1/namespaces", body, kind=PROTOBUF)
    assert code == 201, created
    assert created["metadata"]["name"] == "made"
    assert created["metadata"]["labels"].items() >= {"a": "1", "b": ""}.items()


@pytest.mark.parametrize(
    ("path", "body", "code", "words"),
    [
        ("/api/v1/nodes", enveloped(b"Node", b""), 415, "accepted media types"),
        ("/api/v1/namespaces", enveloped(b"Node", b""), 415, "v1 Node is not read"),
        ("/api/v1/namespaces", enveloped(b"Pod", b""), 400, "Pod"),
        ("/api/v1/namespaces", enveloped(b"Namespace", message((1, message((1, b"x"), (15, b"y"))))), 415, "metadata"),
        ("/api/v1/namespaces", enveloped(b"Namespace", message((3, b"x"))), 415, "field 3"),
        ("/api/v1/namespaces", b"nope", 400, "no protobuf"),
        ("/api/v1/namespaces", b"k8s\0\x0a\x7f", 400, "cut short"),
        ("/api/v1/namespaces", b"k8s\0\xff\xff", 400, "cut short"),
        ("/api/v1/namespaces", b"k8s\0\x0d\0\0\0\0", 400, "wire type 5"),
        ("/api/v1/namespaces", b"k8s\0\x08\x01", 400, "number"),
        ("/api/v1/namespaces", enveloped(b"Namespace", message((1, message((1, b"\xff"))))), 400, "UTF-8"),
    ],
)
async def test_refused_protobuf(api: Harness, path: str, body: bytes, code: int, words: str) -> None:
    found = await api.call("POST", path, body, kind=PROTOBUF)
    assert found[0] == code and words in found[1]["message"], found


def test_a_pod_from_protobuf() -> None:
    handler = message((2, message((1, b"/ok"), (2, b"\x08\x00\x10\x50\x1a\x00"), (3, b""), (4, b""))))
    probe = message((1, handler)) + b"\x10\x00\x18\x02\x38\x00"
    main = message((1, b"c"), (3, b"a"), (3, b""), (10, probe), (13, b""), (8, message((1, quantity("cpu", "1")))))
    volume = message((1, b"v"), (2, message((2, message((1, b""))))))
    spec = message((1, volume), (2, main), (3, b"Always"), (14, b"")) + b"\x20\x00\x58\x00"
    body = enveloped(b"Pod", message((1, message((1, b"p"), (8, b""))), (2, spec), (3, message((1, b"")))))
    assert protobuf.document(body) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [
                {
                    "name": "c",
                    "command": ["a", ""],
                    "livenessProbe": {
                        "httpGet": {"path": "/ok", "port": 80},
                        "timeoutSeconds": 2,
                        "terminationGracePeriodSeconds": 0,
                    },
                    "resources": {"limits": {"cpu": "1"}},
                }
            ],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 0,
            "securityContext": {},
        },
    }


def quantity(name: str, value: str) -> bytes:
    return message((1, name.encode()), (2, message((1, value.encode()))))


@pytest.mark.parametrize("kind", ["Deployment", "Job", "CronJob", "ConfigMap", "Pod", "ResourceQuota", "PriorityClass"])
def test_what_is_read_from_protobuf(kind: str) -> None:
    (resource,) = (one for one in RESOURCES if one.kind == kind)
    assert protobuf.readable(resource)


def test_every_message_of_the_table_is_in_it() -> None:
    table = protobuf._messages()
    named = {
        wanted.removesuffix("?").removesuffix("[]").removesuffix("{}")
        for fields in table.values()
        for _, wanted in fields.values()
    }
    assert {"Container", "text", "LabelSelector"} <= named and named <= table.keys() | protobuf._SCALARS.keys()


async def test_warning_of_hooks_that_fail(api: Harness) -> None:
    document = pod_document()
    document["spec"]["containers"][0]["lifecycle"] = {"preStop": {"tcpSocket": {"port": 1}}}
    code, headers, _ = await api.raw("POST", PODS, document)
    assert code == 201
    (warning,) = headers.getall("Warning")  # type: ignore[attr-defined]
    assert warning.startswith('299 - "spec.containers[0].lifecycle.preStop.tcpSocket: fails when it is run')


async def test_binding_a_pod(api: Harness) -> None:
    assert (await api.raw("POST", PODS, pod_document("bindable", schedulerName="mine")))[0] == 201
    body = {"metadata": {"name": "bindable"}, "target": {"kind": "Node", "name": "here"}}
    code, status = await api.call("POST", f"{PODS}/bindable/binding", body)
    assert (code, status["status"]) == (201, "Success")
    _, found = await api.call("GET", f"{PODS}/bindable")
    assert found["spec"]["nodeName"] == "here"
    assert (await api.call("POST", f"{PODS}/bindable/binding", body))[0] == 409


async def test_pod_security_levels_of_a_namespace(api: Harness) -> None:
    def labels(mode: str) -> dict[str, Any]:
        return {"metadata": {"labels": {f"pod-security.kubernetes.io/{mode}": "restricted"}}}

    namespace = "/api/v1/namespaces/default"
    merge = "application/merge-patch+json"
    assert (await api.raw("PATCH", namespace, labels("warn"), kind=merge))[0] == 200
    code, headers, _ = await api.raw("POST", PODS, pod_document("warned"))
    assert code == 201
    assert 'would violate PodSecurity \\"restricted:latest\\"' in headers["Warning"]
    assert (await api.raw("PATCH", namespace, labels("enforce"), kind=merge))[0] == 200
    code, body = await api.call("POST", PODS, pod_document("refused"))
    assert (code, body["reason"]) == (403, "Forbidden")
    assert body["message"].startswith('pods "refused" is forbidden: violates PodSecurity "restricted:latest": allow')
