"""Push to and pull from Debian's docker-registry: TLS, basic and token authentication, mirrors, cut connections."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from podrt.errors import ForbiddenError, UnavailableError
from podrt.image.registry_pull import Puller
from podrt.image.registry_push import Pusher
from podrt.image.registry_transport import Settings, Transport
from podrt.image.service import ImageStore
from podrt.image.types import Image
from tests.framework import registry as registries
from tests.framework.probes import needs
from tests.framework.registry import PASSWORD, USER, cutting_proxy, docker_registry, token_server
from tests.unit.test_image_store import Layout, named
from tests.unit.test_image_unpack import entry, make_tar

pytestmark = needs(registries.available(), "docker-registry")


class Machine:
    """A store with puller and pusher and its own configuration directories."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.hosts = root / "certs.d"
        self.auth = root / "auth.json"
        self.store = ImageStore(root / "store")
        self.transport = Transport(Settings(self.hosts, (self.auth,), first_delay=0.02))
        self.puller = Puller(self.store, self.transport)
        self.pusher = Pusher(self.store, self.transport)

    def trust(self, address: str, cert: Path) -> None:
        self.configure(address, f'ca = "{cert}"')

    def configure(self, domain: str, text: str) -> None:
        (self.hosts / domain).mkdir(parents=True)
        (self.hosts / domain / "hosts.toml").write_text(text)

    def log_in(self, address: str, **entry: str) -> None:
        self.auth.write_text(secret(address, **entry).decode())

    async def close(self) -> None:
        await self.puller.close()
        await self.transport.close()
        self.store.close()


def secret(address: str, **entry: str) -> bytes:
    return json.dumps({"auths": {address: entry or {"username": USER, "password": PASSWORD}}}).encode()


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Machine]:
    machine = Machine(tmp_path / "here")
    yield machine
    await machine.close()


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Machine]:
    machine = Machine(tmp_path / "there")
    yield machine
    await machine.close()


def some_image(machine: Machine, size: int = 100_000) -> Image:
    """An image of two layers."""
    layout = Layout()
    layers = [make_tar(entry("a", os.urandom(size))), make_tar(entry("b", b"b"))]
    layout.add(layout.image(*layers, pack=lambda data: gzip.compress(data, 1)), **named("localhost/some:1"))
    path = machine.store.root.parent / "some.tar"
    path.write_bytes(layout.tar())
    return machine.store.load(path)[0]


async def test_what_is_pushed_can_be_pulled_by_tag_and_digest(tmp_path: Path, here: Machine, there: Machine) -> None:
    image = some_image(here)
    with docker_registry(tmp_path / "registry") as address:
        pushed = await here.pusher.push("localhost/some:1", f"{address}/team/some:v1")
        assert pushed.digest == image.manifest_digest
        again: list[tuple[str, int, int]] = []
        await here.pusher.push("localhost/some:1", f"{address}/team/some:v2", progress=lambda *step: again.append(step))
        by_tag = await there.puller.pull(f"{address}/team/some:v1")
        assert (by_tag.id, by_tag.manifest_digest) == (image.id, image.manifest_digest)
        by_digest = await there.puller.pull(f"{address}/team/some@{pushed.digest}")
        assert by_digest.names == (f"{address}/team/some:v1",)


async def test_tls_with_a_private_ca(tmp_path: Path, here: Machine, there: Machine) -> None:
    image = some_image(here)
    with docker_registry(tmp_path / "registry", tls=True) as address:
        here.trust(address, tmp_path / "registry/cert.pem")
        await here.pusher.push("localhost/some:1", f"{address}/some:1")
        with pytest.raises(UnavailableError, match=r"certificate is not trusted.*hosts\.toml"):
            await there.puller.pull(f"{address}/some:1")
        there.trust(address, tmp_path / "registry/cert.pem")
        assert (await there.puller.pull(f"{address}/some:1")).id == image.id


async def test_basic_authentication(tmp_path: Path, here: Machine, there: Machine) -> None:
    image = some_image(here)
    with docker_registry(tmp_path / "registry", basic=True) as address:
        with pytest.raises(ForbiddenError):
            await here.pusher.push("localhost/some:1", f"{address}/some:1")
        here.log_in(address)
        await here.pusher.push("localhost/some:1", f"{address}/some:1")
        with pytest.raises(ForbiddenError, match="denies access"):
            await there.puller.pull(f"{address}/some:1")
        with pytest.raises(ForbiddenError):
            await there.puller.pull(f"{address}/some:1", secrets=[secret(address, username=USER, password="wrong")])
        there.log_in(address, username=USER, password="old")
        pulled = await there.puller.pull(f"{address}/some:1", secrets=[secret(address)])
        assert pulled.id == image.id, "the secret is tried before the file"


async def test_token_authentication(tmp_path: Path, here: Machine, there: Machine) -> None:
    image = some_image(here)
    with (
        token_server(tmp_path / "tokens") as (tokens, cert, asked),
        docker_registry(tmp_path / "registry", token_server=tokens, token_cert=cert) as address,
    ):
        with pytest.raises(ForbiddenError):
            await here.pusher.push("localhost/some:1", f"{address}/public/some:1")
        here.log_in(address)
        for repository in ("public/some", "private/some"):
            await here.pusher.push("localhost/some:1", f"{address}/{repository}:1")
        asked.clear()
        assert (await there.puller.pull(f"{address}/public/some:1")).id == image.id
        assert asked == [""], "one token serves all requests of a pull"
        with pytest.raises(ForbiddenError):
            await there.puller.pull(f"{address}/private/some:1")
        there.log_in(address, identitytoken="refresh-me")
        assert f"{address}/private/some:1" in (await there.puller.pull(f"{address}/private/some:1")).names


async def test_through_a_mirror(tmp_path: Path, here: Machine, there: Machine) -> None:
    image = some_image(here)
    with docker_registry(tmp_path / "registry") as address:
        await here.pusher.push("localhost/some:1", f"{address}/library/busybox:1.28")
        there.configure("docker.io", f'server = "http://127.0.0.1:1"\n[host."http://{address}"]\n')
        pulled = await there.puller.pull("busybox:1.28")
        assert pulled.id == image.id and pulled.names == ("docker.io/library/busybox:1.28",)


async def test_the_registry_is_asked_where_the_mirror_lacks_the_image(
    tmp_path: Path, here: Machine, there: Machine
) -> None:
    image = some_image(here)
    with docker_registry(tmp_path / "one") as empty, docker_registry(tmp_path / "two") as address:
        await here.pusher.push("localhost/some:1", f"{address}/some:1")
        text = f'server = "http://{address}"\n[host."http://127.0.0.1:1"]\n[host."http://{empty}"]\n'
        there.configure("registry.example", text)
        assert (await there.puller.pull("registry.example/some:1")).id == image.id


async def test_cut_connections_resume_where_they_ended(tmp_path: Path, here: Machine, there: Machine) -> None:
    image = some_image(here, 5_000_000)
    with docker_registry(tmp_path / "registry") as address:
        await here.pusher.push("localhost/some:1", f"{address}/some:1")
        with cutting_proxy(address, 700_000) as (proxy, counts):
            there.configure("registry.example", f'server = "http://{proxy}"')
            assert (await there.puller.pull("registry.example/some:1")).id == image.id
        assert len(counts) >= 7 and sum(counts) < 5_000_000 * 1.2, counts
