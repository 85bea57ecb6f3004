"""image verbs, version, api-resources, and how commands end."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from podrt.cli.main import cli
from tests.unit.test_cli_support import (
    FakeServer,
    Handler,
    Request,
    client,
    podrt,
    server,
)

__all__ = ["client", "server"]

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
