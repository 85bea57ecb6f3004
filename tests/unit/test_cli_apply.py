"""apply and create: the three-way patch (checked through the server's own merge) and what is said and sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from podrt.api.strategic import strategic_merge
from podrt.cli.cmd_apply import LAST_APPLIED, patch_for, with_last_applied
from podrt.cli.errors import CliError
from podrt.cli.manifest import read_manifests
from podrt.cli.strategic import create_patch
from podrt.model.pod import Pod
from tests.unit.test_cli_support import PODS, FakeServer, Handler, Request, client, podrt, server

__all__ = ["client", "server"]


def pod(containers: list[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"containers": containers} | spec}


C1, C2 = {"name": "a", "image": "i1"}, {"name": "b", "image": "i2"}
TWINS = [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP"}]
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # name: (original, modified, current, expected)
    "nothing to do, defaults stay": (
        pod([C1]),
        pod([C1]),
        pod([C1 | {"imagePullPolicy": "Always"}], nodeName="n"),
        pod([C1 | {"imagePullPolicy": "Always"}], nodeName="n"),
    ),
    "image changed": (pod([C1]), pod([C1 | {"image": "new"}]), pod([C1, C2]), pod([C1 | {"image": "new"}, C2])),
    "container removed": (pod([C1, C2]), pod([C2]), pod([C1, C2]), pod([C2])),
    "container added in front": (pod([C2]), pod([C1, C2]), pod([C2]), pod([C1, C2])),
    "order changed": (pod([C1, C2]), pod([C2, C1]), pod([C1, C2]), pod([C2, C1])),
    "env removed, another's kept": (
        pod([C1 | {"env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}]),
        pod([C1 | {"env": [{"name": "X", "value": "3"}]}]),
        pod([C1 | {"env": [{"name": k, "value": "1"} for k in "XYZ"]}]),
        pod([C1 | {"env": [{"name": "X", "value": "3"}, {"name": "Z", "value": "1"}]}]),
    ),
    "field removed": (pod([C1], hostNetwork=True), pod([C1]), pod([C1], hostNetwork=True), pod([C1])),
    "list without a key is replaced": (
        pod([C1 | {"args": ["a", "b"]}]),
        pod([C1 | {"args": ["c"]}]),
        pod([C1 | {"args": ["a", "b"]}]),
        pod([C1 | {"args": ["c"]}]),
    ),
    "volume changes its kind": (
        pod([C1], volumes=[{"name": "v", "emptyDir": {}}]),
        pod([C1], volumes=[{"name": "v", "hostPath": {"path": "/x"}}]),
        pod([C1], volumes=[{"name": "v", "emptyDir": {"medium": ""}}, {"name": "w", "emptyDir": {}}]),
        pod([C1], volumes=[{"name": "v", "hostPath": {"path": "/x"}}, {"name": "w", "emptyDir": {}}]),
    ),
    "one port by two protocols": (
        pod([C1 | {"ports": TWINS}]),
        pod([C1 | {"ports": TWINS[:1]}]),
        pod([C1 | {"ports": TWINS}]),
        pod([C1 | {"ports": TWINS[:1]}]),
    ),
    "null removes": (pod([C1]), pod([C1], hostname=None), pod([C1], hostname="h"), pod([C1])),
}


@pytest.mark.parametrize("name", CASES)
def test_three_way_patch(name: str) -> None:
    original, modified, current, expected = CASES[name]
    patch = create_patch(original, modified, current)
    assert bool(patch) == (expected != current)
    merged = strategic_merge(current, patch, Pod)
    assert merged == expected
    if patch:
        assert create_patch(modified, modified, merged) == {}


def test_labels_of_others_survive() -> None:
    modified = with_last_applied({"metadata": {"name": "p", "labels": {"a": "2"}}})
    before = with_last_applied({"metadata": {"name": "p", "labels": {"a": "1", "gone": "x"}}})
    current = before | {"metadata": before["metadata"] | {"labels": {"a": "1", "gone": "x", "other": "o"}}}
    patch = patch_for(modified, current)
    assert patch["metadata"]["labels"] == {"a": "2", "gone": None}


def test_last_applied_is_kubectls_and_holds_no_itself() -> None:
    once = with_last_applied({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}})
    twice = with_last_applied(once)
    assert once == twice
    text = once["metadata"]["annotations"][LAST_APPLIED]
    assert json.loads(text)["metadata"] == {"annotations": {}, "name": "p"}
    assert text.endswith("}\n")


POD_YAML = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - {name: a, image: i1}\n"


class Store:
    """Just enough of a server to apply against: pods by path, a version for each write."""

    def __init__(self, server: FakeServer, *names: str) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.version = 0
        server.routes["POST", PODS] = self.post
        for name in names:
            server.routes["ANY", f"{PODS}/{name}"] = self.item

    def _put(self, handler: Handler, path: str, value: dict[str, Any], code: int) -> None:
        if value != self.objects.get(path):
            self.version += 1
            value = value | {"metadata": value["metadata"] | {"resourceVersion": str(self.version)}}
        self.objects[path] = value
        handler.reply(code, value)

    def post(self, handler: Handler, request: Request) -> None:
        self._put(handler, f"{request.path}/{request.json['metadata']['name']}", request.json, 201)

    def item(self, handler: Handler, request: Request) -> None:
        found = self.objects.get(request.path)
        if found is None:
            handler.reply(404, {"kind": "Status", "reason": "NotFound", "message": "no", "code": 404})
        elif request.method == "GET":
            handler.reply(200, found)
        else:
            assert request.headers["content-type"] == "application/strategic-merge-patch+json"
            self._put(handler, request.path, strategic_merge(found, request.json, Pod), 200)


def test_created_unchanged_configured(server: FakeServer, tmp_path: Path) -> None:
    store = Store(server, "web")
    file = tmp_path / "pod.yaml"
    file.write_text(POD_YAML)
    for text, word in ((POD_YAML, "created"), (POD_YAML, "unchanged"), (POD_YAML.replace("i1", "i2"), "configured")):
        file.write_text(text)
        result = podrt(server, "apply", "-f", str(file))
        assert (result.exit_code, result.output) == (0, f"pod/web {word}\n")
    assert store.objects[f"{PODS}/web"]["spec"]["containers"][0]["image"] == "i2"
    assert [request.method for request in server.requests] == ["GET", "POST", "GET", "GET", "PATCH"]
    assert server.sent("POST")[0].param("fieldValidation") == "Strict"


def test_dry_run_of_the_client_writes_nothing(server: FakeServer) -> None:
    Store(server, "web")
    result = podrt(server, "apply", "--dry-run", "-f", "-", input=POD_YAML)
    assert (result.exit_code, result.output) == (0, "pod/web created (dry run)\n")
    assert [request.method for request in server.requests] == ["GET"]


def test_dry_run_of_the_server_says_so_to_the_server(server: FakeServer) -> None:
    Store(server, "web")
    result = podrt(server, "apply", "--dry-run=server", "-f", "-", input=POD_YAML)
    assert result.output == "pod/web created (server dry run)\n"
    assert server.sent("POST")[0].param("dryRun") == "All"


def test_several_documents_and_one_that_fails(server: FakeServer) -> None:
    Store(server, "web", "db")

    def refuse(handler: Handler, request: Request) -> None:
        causes = [{"field": "spec.containers[0].image", "message": "Required value"}]
        details = {"kind": "Pod", "name": "web", "causes": causes}
        status = {"kind": "Status", "reason": "Invalid", "message": "m", "code": 422, "details": details}
        if request.json["metadata"]["name"] == "web":
            handler.reply(422, status)
        else:
            handler.reply(201, request.json)

    server.routes["POST", PODS] = refuse
    result = podrt(server, "apply", "-f", "-", input=f"{POD_YAML}---\n{POD_YAML.replace('web', 'db')}")
    assert result.exit_code == 1
    assert result.stdout == "pod/db created\n"
    assert result.stderr == 'The Pod "web" is invalid: spec.containers[0].image: Required value\n'


def test_server_errors_name_the_file(server: FakeServer, tmp_path: Path) -> None:
    Store(server, "web")
    status = {"kind": "Status", "reason": "BadRequest", "message": 'unknown field "spec.x"', "code": 400}
    server.routes["POST", PODS] = lambda handler, _: handler.reply(400, status)
    file = tmp_path / "pod.yaml"
    file.write_text(POD_YAML)
    result = podrt(server, "apply", "-f", str(file))
    expected = f'Error from server (BadRequest): error when creating "{file}": unknown field "spec.x"\n'
    assert (result.exit_code, result.stderr) == (1, expected)


def test_namespace_that_differs_is_refused(server: FakeServer) -> None:
    text = POD_YAML.replace("{name: web}", "{name: web, namespace: other}")
    for args in (["apply", "-n", "mine"], ["-n", "mine", "apply"]):
        result = podrt(server, *args, "-f", "-", input=text)
        assert result.exit_code == 1
        assert "does not match the namespace 'mine'" in result.stderr
    assert not server.requests


def test_create_prints_objects(server: FakeServer) -> None:
    Store(server, "web")
    result = podrt(server, "create", "-f", "-", "-o", "jsonpath={.kind}/{.metadata.name}", input=POD_YAML)
    assert (result.exit_code, result.output) == (0, "Pod/web")


def test_create_namespace(server: FakeServer) -> None:
    server.routes["POST", "/api/v1/namespaces"] = {"metadata": {"name": "t"}}
    assert podrt(server, "create", "ns", "t").output == "namespace/t created\n"
    assert server.requests[0].json["kind"] == "Namespace"


def test_a_kind_that_the_server_lacks(server: FakeServer) -> None:
    server.routes["GET", "/apis/x.io/v1"] = {"resources": []}
    result = podrt(server, "apply", "-f", "-", input="apiVersion: x.io/v1\nkind: Foo\nmetadata: {name: a}\n")
    assert result.exit_code == 1
    assert 'no matches for kind "Foo" in version "x.io/v1"' in result.stderr


def test_a_kind_found_by_discovery(server: FakeServer) -> None:
    rows = [{"name": "foos/status", "kind": "Foo"}, {"name": "foos", "kind": "Foo", "namespaced": True}]
    server.routes["GET", "/apis/x.io/v1"] = {"resources": rows}
    server.routes["POST", "/apis/x.io/v1/namespaces/n/foos"] = {"metadata": {"name": "a"}}
    text = "apiVersion: x.io/v1\nkind: Foo\nmetadata: {name: a, namespace: n}\n"
    assert podrt(server, "apply", "-f", "-", input=text).output == "foo.x.io/a created\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Pod\n", "apiVersion not set"),
        ("- a\n", "an object is expected, not list"),
        ("just text\n", "an object is expected, not str"),
        ("apiVersion: v1\nkind: Pod\nmetadata: []\n", "metadata must be an object"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {}\n", "metadata.name is required"),
        ("apiVersion: 1\nkind: Pod\n", "apiVersion must be a string"),
        ("", "no objects"),
        ('{"a": 1, "a": 2}', 'key "a" already set'),
        ("a: [", "error parsing STDIN"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_bad_manifests_send_nothing(server: FakeServer, text: Any, message: str) -> None:
    result = podrt(server, "apply", "-f", "-", input=text)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not server.requests


def test_manifests_of_directories(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: b}\n")
    (tmp_path / "a.json").write_text(
        '{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Pod"}]}'
    )
    (tmp_path / "readme.txt").write_text("no manifest")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "c.yaml").write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: c}\n")
    assert [Path(item.origin).name for item in read_manifests([str(tmp_path)])] == ["a.json", "b.yml"]
    assert [Path(item.origin).name for item in read_manifests([str(tmp_path)], True)] == ["a.json", "b.yml", "c.yaml"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("https://example.com/x.yaml", "URLs are not fetched"), ("/no/such/file.yaml", "does not exist")],
)
def test_files_that_are_not_read(name: str, message: str) -> None:
    with pytest.raises(CliError, match=message):
        read_manifests([name])


def test_an_empty_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="recognized file extensions"):
        read_manifests([str(tmp_path)])
