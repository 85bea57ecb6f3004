"""podrt's own group over the socket, with a real image store: load, import, save, list, tag, remove, prune."""

from __future__ import annotations

import asyncio
import io
import json
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.unit.test_api_server import PODS, Harness, eventually, serving

Json = Any
BASE = "/apis/podrt.dev/v1alpha1"
NAME = "localhost/test/one:v1"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Harness]:
    async with serving(tmp_path) as harness:
        yield harness


def rootfs(**files: bytes) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in files.items():
            # Owned by whoever runs the tests: without root no other owner can be given to the unpacked file.
            entry = tarfile.TarInfo(name)
            entry.size, entry.uid, entry.gid = len(content), os.getuid(), os.getgid()
            archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


async def lines(api: Harness, path: str, body: bytes) -> list[Json]:
    code, headers, data = await api.raw("POST", BASE + path, body, kind="application/x-tar")
    assert code == 200, data
    assert headers["Content-Type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in data.splitlines()]


async def imported(api: Harness, name: str = NAME, **files: bytes) -> Json:
    config = quote(json.dumps({"Cmd": ["/bin/sh"], "Env": ["A=1"], "Labels": {"x": "y"}}))
    found = await lines(api, f"/images:import?name={quote(name)}&config={config}", rootfs(**(files or {"f": b"data"})))
    assert list(found[-1]) == ["images"], found[-1]
    (image,) = found[-1]["images"]
    return image


async def test_import_and_list(api: Harness) -> None:
    image = await imported(api)
    assert image["names"] == [NAME] and image["id"].startswith("sha256:") and not image["inUse"]
    assert api.agent.images_loaded == 1
    found = (await api.call("GET", f"{BASE}/images"))[1]
    assert found["kind"] == "ImageList" and found["items"] == [image]
    keys = {"id", "digest", "names", "repoDigests", "size", "created", "architecture", "os", "inUse"}
    assert set(image) == keys and image["size"] == 4
    table = (await api.call("GET", f"{BASE}/images", accept=TABLE))[1]
    assert table["kind"] == "Table" and table["rows"][0]["cells"][0] == NAME


async def test_inspect_and_history_by_quoted_reference(api: Harness) -> None:
    image = await imported(api)
    for reference in (NAME, image["id"], image["id"][7:19]):
        code, found = await api.call("GET", f"{BASE}/images/{quote(reference, safe='')}")
        assert code == 200 and found["Id"] == image["id"]
        assert found["Config"]["Cmd"] == ["/bin/sh"] and found["Config"]["Env"] == ["A=1"]
        code, found = await api.call("GET", f"{BASE}/images/{quote(reference, safe='')}/history")
        assert code == 200 and len(found["items"]) == 1
    code, found = await api.call("GET", f"{BASE}/images/{quote('localhost/nope:v1', safe='')}")
    assert (code, found["reason"]) == (404, "NotFound")


async def test_an_image_in_use_names_the_pods(api: Harness) -> None:
    image = await imported(api)
    path = f"{BASE}/images/{quote(NAME, safe='')}"
    await api.pod()
    api.images.hold(image["id"], "some-container-id")
    code, found = await api.call("DELETE", path)
    assert code == 409 and "used by some-container-id" in found["message"]
    status = [{"name": "c", "image": NAME, "imageID": f"docker-pullable://x@{image['id']}", "ready": True}]
    await api.call(
        "PATCH", f"{PODS}/p/status", {"status": {"containerStatuses": status}}, kind="application/merge-patch+json"
    )
    code, found = await api.call("DELETE", path)
    assert code == 409
    assert found["message"] == f"image {NAME} is used by pod default/p; delete what uses it first"
    api.images.release(image["id"], "some-container-id")
    assert (await api.call("DELETE", path))[0] == 200


@pytest.mark.parametrize(("kind", "size"), [("oci", 1 << 20), ("docker", 1 << 20)])
async def test_save_and_load(api: Harness, kind: str, size: int) -> None:
    image = await imported(api, big=os.urandom(size))
    code, _, archive = await api.raw("GET", f"{BASE}/images:save?ref={quote(NAME)}&format={kind}")
    assert code == 200 and len(archive) > size
    code, found = await api.call("DELETE", f"{BASE}/images/{quote(NAME, safe='')}")
    assert code == 200 and {"untagged": "", "deleted": image["id"]} in found["items"]
    found = await lines(api, "/images:load", archive)
    assert found[-1]["images"][0]["id"] == image["id"] and found[-1]["images"][0]["names"] == [NAME]
    assert any("progress" in line for line in found[:-1])
    for line in found[:-1]:
        assert set(line["progress"]) == {"what", "done", "total"}
    assert not list((api.config.state_dir / "spool").iterdir())


async def test_load_of_rubbish_ends_with_a_status(api: Harness) -> None:
    found = await lines(api, "/images:load", b"no archive" * 1000)
    status = found[-1]["error"]
    assert (status["kind"], status["status"], status["code"]) == ("Status", "Failure", 422)
    assert (await api.call("GET", f"{BASE}/images"))[1]["items"] == []
    assert api.agent.images_loaded == 0
    assert not list((api.config.state_dir / "spool").iterdir())


async def test_upload_that_breaks_off_leaves_nothing(api: Harness) -> None:
    _, writer = await asyncio.open_unix_connection(str(api.config.socket))
    head = f"POST {BASE}/images:load HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    writer.write(head.encode() + b"x" * 1000)
    await writer.drain()
    spool = api.config.state_dir / "spool"
    await eventually(lambda: spool.is_dir() and list(spool.iterdir()), "the upload is spooled")
    writer.close()
    await writer.wait_closed()
    await eventually(lambda: not list(spool.iterdir()), "the upload is gone")
    assert (await api.call("GET", f"{BASE}/images"))[1]["items"] == []


async def test_save_that_is_broken_off_ends_its_writer(api: Harness) -> None:
    await imported(api, big=os.urandom(8 << 20))
    async with api.http.get(f"http://podrt{BASE}/images:save?ref={quote(NAME)}") as response:
        await response.content.read(1000)
    # The writer holds the image; it is let go, so that it can be removed.
    async with asyncio.timeout(5):
        while (await api.call("DELETE", f"{BASE}/images/{quote(NAME, safe='')}"))[0] != 200:
            await asyncio.sleep(0.01)


async def test_tag_prune_usage_info(api: Harness) -> None:
    image = await imported(api)
    code, found = await api.call("POST", f"{BASE}/images:tag?source={quote(NAME)}&target=localhost/test/two:v2")
    assert code == 200 and found["names"] == [NAME, "localhost/test/two:v2"]
    assert api.agent.images_loaded == 2
    code, found = await api.call("DELETE", f"{BASE}/images/{quote(image['id'], safe='')}")
    assert (code, found["reason"]) == (409, "Conflict")
    code, found = await api.call("POST", f"{BASE}/images:prune")
    assert code == 200 and found["items"] == []
    usage = (await api.call("GET", f"{BASE}/images:usage"))[1]
    assert usage["images"] == 1 and usage["layers"] == 1 and usage["blobBytes"] > 0
    code, found = await api.call("POST", f"{BASE}/images:prune?all=true")
    assert code == 200 and found["bytesReclaimed"] > 0
    assert (await api.call("GET", f"{BASE}/info"))[1] == {"kind": "SystemInfo"}


async def test_in_use_by_a_pods_container(api: Harness) -> None:
    image = await imported(api)
    await api.pod()
    status = {"containerStatuses": [{"name": "a", "imageID": image["id"], "image": NAME}]}
    await api.call(
        "PATCH", "/api/v1/namespaces/default/pods/p/status", {"status": status}, kind="application/merge-patch+json"
    )
    (found,) = (await api.call("GET", f"{BASE}/images"))[1]["items"]
    assert found["inUse"]


@pytest.mark.parametrize(
    ("method", "path", "code", "words"),
    [
        ("GET", "/images:save", 400, "ref"),
        ("GET", "/images:save?ref=localhost/nope:v1", 404, "not in the store"),
        ("GET", "/images:save?ref=x&format=zip", 400, "format"),
        ("POST", "/images:tag?source=x", 400, "target"),
        ("POST", "/images:tag?source=localhost/nope:v1&target=y", 404, "not in the store"),
        ("POST", "/images:import?config=%7B%22Frob%22:1%7D", 400, "Frob"),
        ("POST", "/images:frob", 404, "requested resource"),
        ("DELETE", "/images/localhost%2Fnope:v1", 404, "not in the store"),
    ],
)
async def test_refusals(api: Harness, method: str, path: str, code: int, words: str) -> None:
    found = await api.call(method, BASE + path)
    assert found[0] == code and words in found[1]["message"], found


async def test_pull_refuses_what_it_can_not_do(api: Harness) -> None:
    code, _, data = await api.raw("POST", BASE + "/images:pull", b"")
    assert code == 400 and b"reference" in data
    code, _, data = await api.raw("POST", BASE + "/images:pull?reference=x", b"")
    assert code == 501, data  # the harness has no registry client
