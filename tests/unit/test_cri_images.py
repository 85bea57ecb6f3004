"""ImageService over a real store: what the kubelet is told of images, and how they go."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cri_api.v1 import api_pb2 as cri

from podrt.config import Config
from podrt.cri import filesystems
from podrt.cri.errors import code_of
from podrt.cri.image_service import ImageService, login_of, user_of
from podrt.engine.disk import Measured
from podrt.engine.specs import (
    ContainerSpec,
    ContainerState,
    ContainerStatus,
    SandboxSpec,
    SandboxState,
    SandboxStatus,
)
from podrt.errors import ConflictError, InvalidError, NotFoundError, PodrtError, UnavailableError
from podrt.image.registry_auth import Credential, Login
from podrt.image.service import ImageStore
from podrt.image.types import Image
from tests.unit.test_image_retire import gone
from tests.unit.test_image_store import Layout, named
from tests.unit.test_image_unpack import entry, make_tar


class FakeEngine:
    def __init__(self) -> None:
        self.sandboxes: list[SandboxStatus] = []
        self.containers: list[ContainerStatus] = []

    def add(self, image: Image, owner: str) -> None:
        number = len(self.sandboxes)
        spec = SandboxSpec(name="p", namespace="n", uid="u", owner=owner)
        self.sandboxes.append(SandboxStatus(id=f"s{number}", spec=spec, state=SandboxState.READY, created_at=1.0))
        self.containers.append(
            ContainerStatus(
                id=f"c{number}",
                sandbox_id=f"s{number}",
                spec=ContainerSpec(name="c", image="i"),
                state=ContainerState.RUNNING,
                image_id=image.id,
                image_ref="",
                created_at=1.0,
            )
        )

    def list_sandboxes(self, uid: str = "") -> list[SandboxStatus]:
        return self.sandboxes

    def list_containers(self, sandbox_id: str = "") -> list[ContainerStatus]:
        return self.containers

    async def writable_layers(self) -> Measured:
        return Measured(5.0, 4096, 3)


class FakePuller:
    def __init__(self, image: Image | None) -> None:
        self.image = image
        self.calls: list[tuple[str, Login | None]] = []
        self.error: Exception | None = None

    async def pull(self, text: str, *, login: Login | None = None) -> Image | None:
        self.calls.append((text, login))
        if self.error is not None:
            raise self.error
        return self.image


class House:
    def __init__(self, root: Path, **settings: Any) -> None:
        self.config = Config.under(root, "x", **settings)
        (self.config.state_dir / "containers").mkdir(parents=True)
        self.store = ImageStore(self.config.state_dir / "images")
        self.engine = FakeEngine()
        self.puller = FakePuller(None)
        parts: Any = (self.config, self.engine, self.store, self.puller)
        self.service = ImageService(*parts, handlers=("", "userns"))

    def add(self, name: str, content: bytes = b"1", user: str = "") -> Image:
        layout = Layout()
        descriptor = layout.image(make_tar(entry("f", content)), config={"config": {"User": user}})
        layout.add(descriptor, **named(name))
        (image,) = self.store.load(io.BytesIO(layout.tar()))
        return image

    async def names(self, **options: Any) -> list[list[str]]:
        answer = await self.service.ListImages(cri.ListImagesRequest(**options), None)
        return [list(one.repo_tags) for one in answer.images]

    async def status(self, name: str, verbose: bool = False) -> cri.ImageStatusResponse:
        request = cri.ImageStatusRequest(image=cri.ImageSpec(image=name), verbose=verbose)
        return await self.service.ImageStatus(request, None)

    async def remove(self, name: str) -> None:
        await self.service.RemoveImage(cri.RemoveImageRequest(image=cri.ImageSpec(image=name)), None)

    async def pull(self, name: str, handler: str = "", **auth: str) -> str:
        spec = cri.ImageSpec(image=name, runtime_handler=handler)
        request = cri.PullImageRequest(image=spec, auth=cri.AuthConfig(**auth) if auth else None)
        return (await self.service.PullImage(request, None)).image_ref


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path, image_pinned="r.example/base/*, localhost/*")
    yield made
    made.store.close()


async def test_what_is_told_of_an_image(house: House) -> None:
    image = house.add("r.example/a:1", b"x" * 1000, "1000:1000")
    digest = f"r.example/a@{image.manifest_digest}"
    for reference in (image.id, image.id[7:], image.id[7:20], "r.example/a:1", digest):
        found = (await house.status(reference)).image
        assert found.id == image.id and found.repo_tags == ["r.example/a:1"] and found.repo_digests == [digest]
        assert found.uid.value == 1000 and found.HasField("uid") and found.username == ""
        assert found.size > 1000 and not found.pinned
    assert await house.names() == [["r.example/a:1"]]


async def test_names_in_full(house: House) -> None:
    house.store.tag(house.add("r.example/a:1").id, "busybox")
    found = (await house.status("busybox")).image
    assert found.repo_tags == ["docker.io/library/busybox:latest", "r.example/a:1"]


async def test_verbose(house: House) -> None:
    image = house.add("r.example/a:1", user="app")
    assert not (await house.status(image.id)).info
    info = json.loads((await house.status(image.id, verbose=True)).info["info"])
    assert info["imageSpec"]["config"]["User"] == "app" and info["chainID"] == image.chain_ids[-1]


@pytest.mark.parametrize("name", ["r.example/none:1", "sha256:" + "0" * 64, "Not/A/Name", f"a@sha256:{'0' * 64}"])
async def test_what_is_not_there_is_an_empty_answer(house: House, name: str) -> None:
    house.add("r.example/a:1")
    assert not (await house.status(name)).HasField("image")
    assert await house.names(filter=cri.ImageFilter(image=cri.ImageSpec(image=name))) == []
    await house.remove(name)


async def test_a_user_of_thousands_of_digits_is_a_name(house: House) -> None:
    """And no error that would take all images out of the list."""
    house.add("r.example/a:1", user="9" * 5000)
    assert await house.names() == [["r.example/a:1"]]


async def test_the_filter(house: House) -> None:
    house.add("r.example/a:1")
    house.add("r.example/b:1", b"2")
    assert await house.names(filter=cri.ImageFilter(image=cri.ImageSpec(image="r.example/b:1"))) == [["r.example/b:1"]]
    assert len(await house.names(filter=cri.ImageFilter())) == 2


async def test_an_id_that_fits_several_is_refused(house: House) -> None:
    beginnings: list[str] = []
    while len(set(beginnings)) == len(beginnings):
        number = len(beginnings)
        beginnings.append(house.add(f"r.example/a:{number}", b"%d" % number).id[7:9])
    with pytest.raises(ConflictError, match="give more of it"):
        await house.remove("sha256:" + beginnings[-1])
    assert len(house.store.list()) == len(beginnings)


@pytest.mark.parametrize("rpc", ["ImageStatus", "PullImage", "RemoveImage"])
async def test_a_name_is_needed(house: House, rpc: str) -> None:
    with pytest.raises(InvalidError, match=r"image\.image: required"):
        await getattr(house.service, rpc)(getattr(cri, f"{rpc}Request")(), None)


async def test_one_name_takes_all_with_it(house: House) -> None:
    image = house.add("r.example/a:1")
    house.store.tag(image.id, "other.example/b:2")
    assert len((await house.names())[0]) == 2
    await house.remove("other.example/b:2")
    assert await house.names() == []
    await house.remove("r.example/a:1")
    await house.remove(image.id)


async def test_a_used_image_goes_and_its_container_keeps_the_layers(house: House) -> None:
    image = house.add("r.example/a:1")
    (layer,) = house.store.layers(image)
    house.store.hold(image.id, "container")
    await house.remove(image.id)
    assert await house.names() == [] and not (await house.status(image.id)).HasField("image") and layer.exists()
    house.store.release(image.id, "container")
    gone(layer)


async def test_pinned_by_the_configuration_and_by_pods_of_the_api(house: House) -> None:
    house.add("r.example/base/pause:3")
    of_api, of_cri = house.add("r.example/a:1", b"2"), house.add("r.example/b:1", b"3")
    house.engine.add(of_api, "")
    house.engine.add(of_cri, "cri")
    answer = await house.service.ListImages(cri.ListImagesRequest(), None)
    assert {one.repo_tags[0]: one.pinned for one in answer.images} == {
        "r.example/a:1": True,
        "r.example/b:1": False,
        "r.example/base/pause:3": True,
    }
    assert (await house.status("r.example/a:1")).image.pinned
    await house.remove("r.example/base/pause:3")
    assert len(await house.names()) == 2, "pinned is advice"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", (None, "")),
        ("0", (0, "")),
        ("1000:staff", (1000, "")),
        ("app", (None, "app")),
        ("app:staff", (None, "app")),
        ("12abc", (None, "12abc")),
        ("٣", (None, "٣")),
        (str(2**63), (None, str(2**63))),
        ("9" * 5000, (None, "9" * 5000)),
    ],
)
def test_user(user: str, expected: tuple[int | None, str]) -> None:
    assert user_of(user) == expected


BOTH = base64.b64encode(b"alice:se:cret\0").decode()


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        ({}, None),
        ({"server_address": "r.example"}, None),
        ({"username": "alice", "password": "p", "auth": BOTH}, Login(Credential("alice", "p"))),
        ({"auth": BOTH}, Login(Credential("alice", "se:cret"))),
        ({"identity_token": "t"}, Login(Credential(identity_token="t"))),
        ({"registry_token": "t", "server_address": "r.example"}, Login(Credential(registry_token="t"), "r.example")),
    ],
)
def test_auth(auth: dict[str, str], expected: Login | None) -> None:
    assert login_of(cri.AuthConfig(**auth)) == expected


@pytest.mark.parametrize("auth", ["!", base64.b64encode(b"alice").decode(), base64.b64encode(b"\xff:\xff").decode()])
def test_auth_that_is_none_is_refused_and_not_repeated(auth: str) -> None:
    with pytest.raises(InvalidError) as caught:
        login_of(cri.AuthConfig(auth=auth))
    assert auth not in str(caught.value).replace("auth.auth", "") and "alice" not in str(caught.value)


async def test_a_pull_answers_with_the_id(house: House) -> None:
    house.puller.image = image = house.add("r.example/a:1")
    assert await house.pull("r.example/a:1") == image.id
    assert await house.pull("r.example/a:1", "userns", username="alice", password="p") == image.id
    assert house.puller.calls == [("r.example/a:1", None), ("r.example/a:1", Login(Credential("alice", "p")))]


async def test_pulls_that_fail(house: House) -> None:
    with pytest.raises(InvalidError, match="'kata' is unknown"):
        await house.pull("r.example/a:1", "kata")
    house.puller.error = NotFoundError("no such tag")
    with pytest.raises(NotFoundError):
        await house.pull("r.example/a:1")
    house.puller.error = UnavailableError("no such host")
    with pytest.raises(PodrtError, match=r"^RegistryUnavailable: no such host") as caught:
        await house.pull("r.example/a:1")
    assert code_of(caught.value).name == "UNKNOWN", "the kubelet looks for the word in messages of this code alone"


async def test_file_systems(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.add("r.example/a:1", b"x" * 5000)
    answer = await house.service.ImageFsInfo(cri.ImageFsInfoRequest(), None)
    (images,), (containers,) = answer.image_filesystems, answer.container_filesystems
    assert images.used_bytes.value > 10000 and images.inodes_used.value >= 4 and images.timestamp > 0
    assert (containers.used_bytes.value, containers.inodes_used.value) == (4096, 3)
    assert containers.timestamp == 5_000_000_000
    assert images.fs_id.mountpoint == containers.fs_id.mountpoint == str(house.config.state_dir)
    monkeypatch.setattr(filesystems, "_device", lambda path: hash(path))
    answer = await house.service.ImageFsInfo(cri.ImageFsInfoRequest(), None)
    assert answer.image_filesystems[0].fs_id.mountpoint == str(house.store.root)
    assert answer.container_filesystems[0].fs_id.mountpoint == str(house.config.state_dir / "containers")
