"""Pulling from a registry that lies, breaks off, redirects and overwhelms: each gets its own clear error, and nothing
is left in the store."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from podrt.errors import (
    ExhaustedError,
    ForbiddenError,
    ImageError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from podrt.image import manifest as manifests
from podrt.image.registry_auth import Credential, Login
from podrt.image.registry_pull import Puller
from podrt.image.registry_transport import Settings, Transport
from podrt.image.service import ImageStore
from podrt.image.types import Image
from podrt.image.unpack import Limits
from tests.framework.registry import OCI_INDEX, FakeRegistry, cutting_proxy, digest_of, serving
from tests.unit.test_image_unpack import entry, make_tar

QUICK = Settings(auth_files=(), first_delay=0.01, tries=3, connect_timeout=5, idle_timeout=5)


class Setup:
    """A store, a puller, and a fake registry at ``address``."""

    def __init__(self, root: Path, registry: FakeRegistry, address: str, limits: Limits | None = None) -> None:
        self.store = ImageStore(root / "store", limits)
        self.registry = registry
        self.address = address
        self.transport = Transport(QUICK._replace(config_dir=root / "certs.d"))
        self.puller = Puller(self.store, self.transport)
        self.progress: list[tuple[str, int, int]] = []

    async def pull(self, name: str = "", **options: Any) -> Image:
        return await self.puller.pull(
            name or f"{self.address}/test", progress=lambda *step: self.progress.append(step), **options
        )

    async def refused(self, kind: type[Exception], *words: str, name: str = "") -> str:
        """Pull, which must fail with an error that has ``words`` and leave nothing behind; its text."""
        with pytest.raises(kind) as caught:
            await self.pull(name)
        text = str(caught.value)
        assert all(word in text for word in words), text
        self.assert_empty()
        return text

    def assert_empty(self) -> None:
        assert self.store.list() == []
        assert list(self.store.blobs.digests()) == []
        assert [p.name for p in (self.store.root / "layers").iterdir()] == []
        left = [p.name for p in self.store.staging.iterdir()]
        assert left == []

    async def close(self) -> None:
        await self.puller.close()
        await self.transport.close()
        self.store.close()


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    registry = FakeRegistry()
    with registry.running() as address:
        made = Setup(tmp_path, registry, address)
        yield made
        await made.close()


def layer(*names: str, size: int = 10) -> tuple[bytes, str]:
    """A compressed layer that doesn't compress, and its diff id."""
    tar = make_tar(*(entry(name, os.urandom(size)) for name in names))
    return gzip.compress(tar, 1), digest_of(tar)


def offer(registry: FakeRegistry, *layers: tuple[bytes, str], tag: str = "latest", **config: Any) -> str:
    return registry.add_image([data for data, _ in layers], [diff_id for _, diff_id in layers], tag, **config)


async def test_a_pull_brings_names_digests_and_files(setup: Setup) -> None:
    digest = offer(setup.registry, layer("a", "b"), layer("c"))
    image = await setup.pull()
    assert image.names == (f"{setup.address}/test:latest",)
    assert image.digests == (f"{setup.address}/test@{digest}",)
    top, bottom = setup.store.layers(image)
    assert sorted(os.listdir(bottom)) == ["a", "b"] and os.listdir(top) == ["c"]
    assert setup.progress[-1][1] == setup.progress[-1][2] > 0
    assert list((setup.store.root / "pulls").iterdir()) == []


async def test_by_digest_and_again(setup: Setup) -> None:
    digest = offer(setup.registry, layer("a"))
    image = await setup.pull(f"{setup.address}/test@{digest}")
    assert image.names == () and image.digests == (f"{setup.address}/test@{digest}",)
    assert setup.store.resolve(f"{setup.address}/test@{digest}") == image
    assert (await setup.pull(f"{setup.address}/test:old@{digest}")).names == (), "a tag beside a digest means nothing"
    blobs = setup.registry.fetched("blobs")
    again = await setup.pull()
    assert again.names == (f"{setup.address}/test:latest",)
    assert setup.registry.fetched("blobs") == blobs, "what is there is not fetched again"


async def test_an_index_gives_the_image_for_this_machine(setup: Setup) -> None:
    here = offer(setup.registry, layer("a"), tag="here")
    entries = [
        {"mediaType": manifests.OCI_MANIFEST, "digest": digest_of(b"x"), "size": 1}
        | {"platform": {"os": "linux", "architecture": "s390x"}},
        {"mediaType": manifests.OCI_MANIFEST, "digest": here, "size": len(setup.registry.manifests[here][1])}
        | {"platform": {"os": "linux", "architecture": manifests.host_architecture()}},
    ]
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    digest = setup.registry.add_manifest(index, "multi", OCI_INDEX)
    image = await setup.pull(f"{setup.address}/test:multi")
    assert image.manifest_digest == here
    assert set(image.digests) == {f"{setup.address}/test@{here}", f"{setup.address}/test@{digest}"}
    assert setup.store.resolve(f"{setup.address}/test@{digest}").id == image.id


async def test_one_download_for_many_who_want_it(setup: Setup) -> None:
    offer(setup.registry, layer("a", size=100_000))
    images = await asyncio.gather(*(setup.pull() for _ in range(8)))
    assert len({image.id for image in images}) == 1
    assert len(setup.registry.fetched("blobs")) == 2  # configuration and layer
    assert len(setup.registry.fetched("manifests")) == 1


async def test_the_pull_ends_when_nobody_waits_any_more(setup: Setup) -> None:
    data, diff_id = layer("a", size=500_000)
    offer(setup.registry, (data, diff_id))

    async def stall(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[:100_000])
        await asyncio.sleep(60)
        return response

    setup.registry.overrides[f"blobs/{digest_of(data)}"] = stall
    first, second = asyncio.create_task(setup.pull()), asyncio.create_task(setup.pull())
    async with asyncio.timeout(10):
        while len(setup.registry.fetched("blobs")) < 2:
            await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.05)
        assert not second.done()
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        while list(setup.store.staging.iterdir()):
            await asyncio.sleep(0.01)
    assert setup.store.list() == []
    del setup.registry.overrides[f"blobs/{digest_of(data)}"]
    assert (await setup.pull()).size == 500_000


async def test_layers_that_are_there_are_not_fetched(setup: Setup) -> None:
    base = layer("a")
    offer(setup.registry, base)
    await setup.pull()
    offer(setup.registry, base, layer("b"))
    before = len(setup.registry.fetched("blobs"))
    image = await setup.pull()
    assert len(image.chain_ids) == 2
    assert len(setup.registry.fetched("blobs")) - before == 2  # configuration and upper layer


async def test_a_layer_used_twice_is_fetched_once(setup: Setup) -> None:
    same = layer("a")
    offer(setup.registry, same, same)
    image = await setup.pull()
    assert len(image.chain_ids) == 2 and len(setup.registry.fetched("blobs")) == 2


async def test_cut_connections_resume(setup: Setup) -> None:
    data, diff_id = layer("a", size=2_000_000)
    offer(setup.registry, (data, diff_id))
    digest = digest_of(data)
    ranges: list[int] = []

    async def ranged(request: web.Request) -> web.Response:
        start = request.http_range.start or 0
        ranges.append(start)
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        return web.Response(body=data[start:], status=206 if start else 200, headers=headers)

    setup.registry.overrides[f"blobs/{digest}"] = ranged
    with cutting_proxy(setup.address, 300_000) as (proxy, counts):
        image = await setup.pull(f"{proxy}/test")
    assert image.size == 2_000_000
    assert len(counts) > 6 and len(ranges) > 6 and ranges == sorted(set(ranges)), "each goes on where the last ended"
    assert sum(counts) < len(data) * 1.3


async def test_a_server_without_ranges_is_read_again(setup: Setup) -> None:
    data, diff_id = layer("a", size=300_000)
    offer(setup.registry, (data, diff_id))
    tries = 0

    async def cut_once(request: web.Request) -> web.StreamResponse:
        nonlocal tries
        tries += 1
        response = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        if tries == 1:
            await response.write(data[:150_000])
            await asyncio.sleep(0.1)
            assert request.transport is not None
            request.transport.abort()
        else:
            await response.write(data)
        return response

    setup.registry.overrides[f"blobs/{digest_of(data)}"] = cut_once
    assert (await setup.pull()).size == 300_000
    assert tries == 2


async def test_a_wrong_digest(setup: Setup) -> None:
    data, diff_id = layer("a", size=10_000)
    offer(setup.registry, layer("good"), (data, diff_id))
    wrong = data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]
    setup.registry.blobs[digest_of(data)] = wrong
    await setup.refused(ImageError, digest_of(data), "corrupt")


async def test_a_layer_that_is_not_what_the_configuration_says(setup: Setup) -> None:
    data, _ = layer("a")
    offer(setup.registry, (data, digest_of(b"other")))
    await setup.refused(ImageError, "unpacks to")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_truncated_layer(setup: Setup, chunked: bool) -> None:
    data, diff_id = layer("a", size=10_000)
    offer(setup.registry, (data, diff_id))

    async def short(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = len(data) - 1
        await response.prepare(request)
        await response.write(data[:-1])
        await response.write_eof()
        return response

    setup.registry.overrides[f"blobs/{digest_of(data)}"] = short
    await setup.refused(ImageError, "truncated", str(len(data)))


async def test_a_layer_longer_than_it_says(setup: Setup) -> None:
    data, diff_id = layer("a", size=10_000)
    offer(setup.registry, (data, diff_id))

    async def long(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(data + b"x" * 10)
        await response.write_eof()
        return response

    setup.registry.overrides[f"blobs/{digest_of(data)}"] = long
    await setup.refused(ImageError, "longer than")


@pytest.mark.parametrize(
    ("limits", "word"), [(Limits(max_bytes=1 << 20), "bomb"), (Limits(max_entries=5), "more than the 5 entries")]
)
async def test_a_decompression_bomb(tmp_path: Path, limits: Limits, word: str) -> None:
    registry = FakeRegistry()
    tar = make_tar(*(entry(f"f{index}", b"\0" * 1_000_000) for index in range(10)))
    registry.add_image([gzip.compress(tar)], [digest_of(tar)])
    with registry.running() as address:
        setup = Setup(tmp_path, registry, address, limits)
        await setup.refused(ImageError, word)
        await setup.close()


async def test_an_oversized_manifest(setup: Setup) -> None:
    setup.registry.add_manifest(b"{" + b" " * (5 << 20) + b"}", "latest")
    await setup.refused(ImageError, "manifest", "believed")


async def test_an_oversized_configuration(setup: Setup) -> None:
    data, diff_id = layer("a")
    setup.registry.add_image([data], [diff_id], author="x" * (5 << 20))
    await setup.refused(ImageError, "configuration", "believed")


async def test_a_layer_larger_than_the_disk(setup: Setup) -> None:
    digest = offer(setup.registry, layer("a"))
    kind, data = setup.registry.manifests[digest]
    document = json.loads(data)
    document["layers"][0]["size"] = 1 << 60
    setup.registry.add_manifest(json.dumps(document).encode(), "latest", kind)
    with pytest.raises(ExhaustedError, match="bytes"):
        await setup.pull()


async def test_schema_1(setup: Setup) -> None:
    old = {"schemaVersion": 1, "name": "test", "fsLayers": [{"blobSum": digest_of(b"")}], "history": [{}]}
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    setup.registry.add_manifest(json.dumps(old).encode(), "latest", kind)
    await setup.refused(ImageError, "schema 1")


async def test_a_foreign_layer(setup: Setup) -> None:
    digest = offer(setup.registry, layer("a"))
    document = json.loads(setup.registry.manifests[digest][1])
    document["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    setup.registry.add_manifest(json.dumps(document).encode(), "latest")
    await setup.refused(ImageError, "foreign layer")


async def test_urls_of_a_layer_are_only_a_hint(setup: Setup) -> None:
    digest = offer(setup.registry, layer("a"))
    document = json.loads(setup.registry.manifests[digest][1])
    document["layers"][0]["urls"] = ["http://127.0.0.1:1/layer"]
    setup.registry.add_manifest(json.dumps(document).encode(), "latest")
    assert (await setup.pull()).size == 10


async def test_a_manifest_of_another_digest(setup: Setup) -> None:
    digest = offer(setup.registry, layer("a"))
    wanted = digest_of(b"another")
    setup.registry.manifests[wanted] = setup.registry.manifests[digest]
    await setup.refused(ImageError, wanted, "corrupt", name=f"{setup.address}/test@{wanted}")


async def test_no_such_image(setup: Setup) -> None:
    await setup.refused(NotFoundError, "not found", setup.address)


async def test_local_names_are_never_pulled(setup: Setup) -> None:
    await setup.refused(NotFoundError, "localhost/", "never pulled", name="localhost/test")
    assert setup.registry.requests == []


async def test_nobody_listens(setup: Setup) -> None:
    await setup.refused(UnavailableError, "can't be reached", name="127.0.0.1:1/test")


async def test_a_server_in_trouble_is_asked_again(setup: Setup) -> None:
    offer(setup.registry, layer("a"))
    tries = 0

    async def flaky(request: web.Request) -> web.Response:
        nonlocal tries
        tries += 1
        if tries < 3:
            return web.Response(status=503)
        kind, data = setup.registry.manifests["latest"]
        return web.Response(body=data, headers={"Content-Type": kind})

    setup.registry.overrides["manifests/latest"] = flaky
    assert (await setup.pull()).names and tries == 3


@contextmanager
def storage(data: bytes) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Another host, which gives the blob to anybody; the headers that it got."""
    seen: list[dict[str, str]] = []

    async def give(request: web.Request) -> web.Response:
        seen.append(dict(request.headers))
        return web.Response(body=data)

    app = web.Application()
    app.add_routes([web.get("/{path:.*}", give)])
    with serving(app) as address:
        yield address, seen


async def test_redirects_to_another_host_do_not_tell_it_who_we_are(setup: Setup) -> None:
    data, diff_id = layer("a")
    offer(setup.registry, (data, diff_id))
    secret = json.dumps({"auths": {setup.address: {"username": "u", "password": "p"}}}).encode()
    kind, manifest = setup.registry.manifests["latest"]

    async def guarded(request: web.Request) -> web.Response:
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return web.Response(body=manifest, headers={"Content-Type": kind})

    setup.registry.overrides["manifests/latest"] = guarded
    with storage(data) as (other, seen):

        async def elsewhere(request: web.Request) -> web.Response:
            assert "Authorization" in request.headers
            raise web.HTTPTemporaryRedirect(f"http://{other}/blob")

        setup.registry.overrides[f"blobs/{digest_of(data)}"] = elsewhere
        image = await setup.pull(secrets=[secret])
    assert image.size == 10
    assert len(seen) == 1 and "Authorization" not in seen[0]


async def test_a_redirect_loop(setup: Setup) -> None:
    async def around(request: web.Request) -> web.Response:
        raise web.HTTPFound(request.path)

    setup.registry.overrides["manifests/latest"] = around
    await setup.refused(ImageError, "redirects")


async def test_wrong_credentials(setup: Setup) -> None:
    async def never(request: web.Request) -> web.Response:
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    setup.registry.overrides["manifests/latest"] = never
    await setup.refused(ForbiddenError, "denies access", "imagePullSecrets")


async def test_what_an_interrupted_pull_had_is_used_again(setup: Setup, tmp_path: Path) -> None:
    first, second = layer("a"), layer("b", size=400_000)
    offer(setup.registry, first, second)

    async def broken(request: web.Request) -> web.Response:
        return web.Response(status=503)

    setup.registry.overrides[f"blobs/{digest_of(second[0])}"] = broken
    with pytest.raises(UnavailableError):
        await setup.pull()
    assert setup.store.blobs.has(digest_of(first[0]))
    setup.store.close()
    setup.store = ImageStore(setup.store.root)  # a new start, which sweeps
    await setup.puller.close()
    setup.puller = Puller(setup.store, setup.transport)
    setup.registry.overrides.clear()
    before = setup.registry.fetched("blobs").count(f"/v2/test/blobs/{digest_of(first[0])}")
    image = await setup.pull()
    assert image.size == 400_010
    assert setup.registry.fetched("blobs").count(f"/v2/test/blobs/{digest_of(first[0])}") == before
    assert list((setup.store.root / "pulls").iterdir()) == []


async def test_through_a_proxy(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(setup.registry, layer("a"))
    seen: list[str] = []

    async def forward(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Proxy-Authorization", ""))
        path = request.path.removeprefix("/v2/test/")
        kind, _, name = path.partition("/")
        found = setup.registry.manifests.get(name, ("", b""))[1] or setup.registry.blobs.get(name)
        return web.Response(body=found) if kind in ("manifests", "blobs") and found else web.Response(status=404)

    app = web.Application()
    app.add_routes([web.get("/{path:.*}", forward)])
    hosts = setup.transport.settings.config_dir / "far.example"
    hosts.mkdir(parents=True)
    (hosts / "hosts.toml").write_text('server = "http://far.example"\n')
    with serving(app) as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:pass@{proxy}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert (await setup.pull("far.example/test")).size == 10
    assert len(seen) == 3 and set(seen) == {"Basic dXNlcjpwYXNz"}


async def test_a_token_that_the_caller_has_already(setup: Setup) -> None:
    """``registry_token`` of the CRI: nobody is asked for another, and none is tried where it is refused."""
    offer(setup.registry, layer("a"))
    served = setup.registry.manifests["latest"]

    async def guarded(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") == "Bearer given":
            return web.Response(body=served[1], headers={"Content-Type": served[0]})
        challenge = f'Bearer realm="http://{setup.address}/token",service="test"'
        return web.json_response({}, status=401, headers={"WWW-Authenticate": challenge})

    setup.registry.overrides["manifests/latest"] = guarded
    with pytest.raises(UnauthenticatedError):
        await setup.pull(login=Login(Credential(registry_token="stale")))
    assert not [path for path, _ in setup.registry.requests if path == "/token"]
    image = await setup.pull(login=Login(Credential(registry_token="given")))
    assert image.names == (f"{setup.address}/test:latest",)
