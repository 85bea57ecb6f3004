"""ImageService over its socket, with registries on loopback: pulls through mirrors, logins, names, removal, garbage."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from cri_api.v1 import api_pb2 as api

from podrt.image.registry_push import Pusher
from podrt.image.registry_transport import Settings, Transport
from podrt.image.service import ImageStore
from tests.framework import pods
from tests.framework import registry as registries
from tests.framework.cri import CriClient, container, refused, sandbox
from tests.framework.daemon import Daemon, eventually
from tests.framework.images import copy_store
from tests.framework.patience import scaled
from tests.framework.pods import BUSYBOX
from tests.framework.probes import needs
from tests.framework.registry import PASSWORD, USER, docker_registry
from tests.unit.test_image_store import Layout, named
from tests.unit.test_image_unpack import entry, make_tar

pytestmark = needs(registries.available(), "docker-registry")

TWICE = ("registry.k8s.io/two/names:1", "registry.k8s.io/two/names:2", "gcr.example/other:1")
"""One image."""
TREE = "registry.k8s.io/tree:1"
BOX = "registry.k8s.io/box:1"
USERS = {"uid": ("1002", 1002, ""), "name": ("www-data", 0, "www-data"), "both": ("1003:users", 1003, "")}


class Source(NamedTuple):
    """What there is to pull."""

    mirror: str
    private: str
    """Wants to know who asks."""
    ids: dict[str, str]
    """Image ids by name."""
    digest: str
    """Of TREE's manifest."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, image_store: Path, module_daemon: Daemon) -> Iterator[Source]:
    """Registries with images, and hosts.toml files that make the first one the mirror of two others."""
    root = tmp_path_factory.mktemp("registries")
    hosts = module_daemon.config.registry_config_dir
    with docker_registry(root / "open") as mirror, docker_registry(root / "private", basic=True) as private:
        for domain in ("registry.k8s.io", "gcr.example"):
            (hosts / domain).mkdir(parents=True)
            (hosts / domain / "hosts.toml").write_text(
                f'server = "http://127.0.0.1:1"\n[host."http://{mirror}"]\ncapabilities = ["pull", "resolve"]\n'
            )
        copy_store(image_store, root / "store")
        yield asyncio.run(_push(root, mirror, private))


async def _push(root: Path, mirror: str, private: str) -> Source:
    login = {"auths": {private: {"username": USER, "password": PASSWORD}}}
    (root / "auth.json").write_text(json.dumps(login))
    store = ImageStore(root / "store")
    transport = Transport(Settings(root / "none", (root / "auth.json",)))
    pusher = Pusher(store, transport)
    contents: dict[str, tuple[bytes, str]] = dict.fromkeys(TWICE, (b"twice", ""))
    contents |= {TREE: (b"tree", "")}
    contents |= {f"registry.k8s.io/user-{kind}:1": (kind.encode(), user) for kind, (user, _, _) in USERS.items()}
    ids, digest = {}, ""
    try:
        for name, (content, user) in contents.items():
            layout = Layout()
            descriptor = layout.image(make_tar(entry("f", content * 1000)), config={"config": {"User": user}})
            layout.add(descriptor, **named("localhost/made:1"))
            (image,) = store.load(layout.write(root / "layouts" / name.replace("/", "-")))
            pushed = await pusher.push(image.id, name.replace(name.partition("/")[0], mirror, 1))
            ids[name], digest = image.id, pushed.digest if name == TREE else digest
        await pusher.push("localhost/made:1", f"{private}/guarded:1")
        ids[f"{private}/guarded:1"] = store.resolve("localhost/made:1").id
        # Another image than the framework's own, which other tests of the daemon need.
        tree = root / "box"
        subprocess.run(("cp", "-a", store.layers(store.resolve(BUSYBOX))[0], tree), check=True)
        (tree / "marker").touch()
        box = store.import_rootfs(tree, "localhost/box:1")
        await pusher.push("localhost/box:1", f"{mirror}/box:1")
        ids[BOX] = box.id
    finally:
        await transport.close()
        store.close()
    return Source(mirror, private, ids, digest)


class Images:
    """The calls of these tests."""

    def __init__(self, cri: CriClient) -> None:
        self.cri = cri

    def pull(self, name: str, **auth: str) -> str:
        spec = api.ImageSpec(image=name)
        ref: str = self.cri.call("PullImage", image=spec, auth=api.AuthConfig(**auth) if auth else None).image_ref
        return ref

    def status(self, name: str) -> Any:
        """None if it is not there."""
        answer = self.cri.call("ImageStatus", image=api.ImageSpec(image=name))
        return answer.image if answer.HasField("image") else None

    def remove(self, name: str) -> None:
        self.cri.call("RemoveImage", image=api.ImageSpec(image=name))

    def list(self) -> dict[str, Any]:
        return {one.id: one for one in self.cri.call("ListImages").images}


@pytest.fixture
def images(cri: CriClient, source: Source) -> Iterator[Images]:
    made = Images(cri)
    before = made.list()
    yield made
    for identity in set(made.list()) - set(before):
        made.remove(identity)


def test_a_pull_through_a_mirror_keeps_the_name(images: Images, source: Source) -> None:
    assert images.status(TREE) is None
    assert images.pull(TREE) == source.ids[TREE]
    found = images.status(TREE)
    assert (found.id, found.repo_tags) == (source.ids[TREE], [TREE])
    assert found.repo_digests == [f"registry.k8s.io/tree@{source.digest}"]
    assert found.size > 4000 and not found.HasField("uid") and not found.pinned
    for name in (found.id, found.id[7:], found.id[7:20], *found.repo_digests):
        assert images.status(name) == found, name
    assert images.list()[found.id] == found
    assert images.pull(TREE) == found.id, "again"
    images.remove(found.id)
    assert images.status(TREE) is None and found.id not in images.list()


def test_by_digest_there_is_no_tag(images: Images, source: Source) -> None:
    name = f"registry.k8s.io/tree@{source.digest}"
    assert images.pull(name) == source.ids[TREE]
    found = images.status(name)
    assert list(found.repo_tags) == [] and list(found.repo_digests) == [name]
    images.remove(name)
    assert images.status(name) is None


def test_one_image_of_many_names_goes_with_any(images: Images, source: Source) -> None:
    assert {images.pull(name) for name in TWICE} == {source.ids[TWICE[0]]}
    assert sorted(images.status(TWICE[0]).repo_tags) == sorted(TWICE)
    assert len(images.status(TWICE[0]).repo_digests) == 2, "one for each repository"
    images.remove(TWICE[1])
    assert [images.status(name) for name in (*TWICE, source.ids[TWICE[0]])] == [None] * 4
    images.remove(TWICE[1])
    images.remove("0" * 64)


def test_many_removals_at_once(images: Images, source: Source) -> None:
    images.pull(TREE)
    request = api.RemoveImageRequest(image=api.ImageSpec(image=TREE))
    calls = [images.cri.images.RemoveImage.future(request, timeout=scaled(60)) for _ in range(10)]
    assert [call.exception() for call in calls] == [None] * 10
    assert images.status(TREE) is None


@pytest.mark.parametrize("kind", USERS)
def test_users(images: Images, kind: str) -> None:
    images.pull(f"registry.k8s.io/user-{kind}:1")
    found = images.status(f"registry.k8s.io/user-{kind}:1")
    assert (found.uid.value, found.username) == USERS[kind][1:]


def test_verbose(images: Images) -> None:
    images.pull("registry.k8s.io/user-name:1")
    spec = api.ImageSpec(image="registry.k8s.io/user-name:1")
    info = json.loads(images.cri.call("ImageStatus", image=spec, verbose=True).info["info"])
    assert info["imageSpec"]["config"]["User"] == "www-data"


def test_what_can_not_be_pulled(images: Images, source: Source) -> None:
    with refused("NOT_FOUND", "not found in registry"):
        images.pull("registry.k8s.io/none:1")
    with refused("NOT_FOUND", "local"):
        images.pull("localhost/none:1")
    with refused("INVALID_ARGUMENT", "must be lower case"):
        images.pull("registry.k8s.io/UPPER:1")
    with refused("INVALID_ARGUMENT", "required"):
        images.pull("")
    with refused("INVALID_ARGUMENT", "'kata' is unknown"):
        images.cri.call("PullImage", image=api.ImageSpec(image=TREE, runtime_handler="kata"))
    with refused("UNKNOWN", "RegistryUnavailable: "):
        images.pull("127.0.0.1:1/none:1")
    assert source.ids[TREE] not in images.list()


def test_logins(images: Images, source: Source, shared_daemon: Daemon) -> None:
    name = f"{source.private}/guarded:1"
    both = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    with refused("UNAUTHENTICATED", "denies access"):
        images.pull(name)
    with refused("UNAUTHENTICATED"):
        images.pull(name, username=USER, password="wrong")
    with refused("UNAUTHENTICATED"):
        images.pull(name, username=USER, password=PASSWORD, server_address="other.example")
    with refused("INVALID_ARGUMENT", "auth.auth"):
        images.pull(name, auth="alice")
    for auth in (
        {"username": USER, "password": PASSWORD},
        {"username": USER, "password": PASSWORD, "server_address": f"http://{source.private}/v2/"},
        {"auth": both},
    ):
        assert images.pull(name, **auth) == source.ids[name]
        images.remove(name)
    login = {"auths": {source.private: {"username": USER, "password": PASSWORD}}}
    Path(shared_daemon.config.registry_auth_file).write_text(json.dumps(login))
    assert images.pull(name) == source.ids[name], "the node's own login, where the kubelet gives none"
    with refused("UNAUTHENTICATED"):
        images.pull(name, username=USER, password="wrong")
    Path(shared_daemon.config.registry_auth_file).unlink()
    text = shared_daemon.log_file.read_text()
    assert PASSWORD not in text and both not in text, "nothing of it is logged"


def test_a_caller_who_gives_up(images: Images) -> None:
    request = api.PullImageRequest(image=api.ImageSpec(image=TREE))
    with pytest.raises(grpc.RpcError) as caught:
        images.cri.images.PullImage(request, timeout=0.000001)
    answer: Any = caught.value
    assert answer.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_container_outlives_its_image(images: Images, source: Source, shared_daemon: Daemon) -> None:
    """RemoveImage obliges: nothing finds the image any more, its containers run on, and its layers go with them."""
    identity = images.pull(BOX)
    assert identity == source.ids[BOX]
    pod = sandbox()
    box = images.cri.run_sandbox(pod)
    unit = images.cri.run(box, pod, container(image=identity))
    assert images.cri.status(unit).image_id == identity
    (digest,) = images.status(BOX).repo_digests
    by_digest = images.cri.status(images.cri.create(box, pod, container("digest", image=digest)))
    assert (by_digest.image_id, by_digest.image_ref) == (identity, digest)
    images.remove(BOX)
    assert images.status(BOX) is None and identity not in images.list()
    with refused("NOT_FOUND"):
        images.cri.create(box, pod, container("second", image=identity))
    assert images.cri.exec(unit, "echo", "alive")[:2] == (0, "alive\n")
    shared_daemon.restart()
    assert images.status(identity) is None
    assert images.cri.exec(unit, "ls", "/marker")[0] == 0, "its files are all there"
    layers = shared_daemon.config.state_dir / "images" / "layers"
    before = len(list(layers.iterdir()))
    images.cri.stop_sandbox(box)
    images.cri.remove_sandbox(box)
    eventually(lambda: len(list(layers.iterdir())) < before, what="its layers are gone")
    assert images.pull(BOX) == identity and images.status(BOX).repo_tags == [BOX]


def test_pinned(daemon_factory: Any, source: Source) -> None:
    """What a pattern names, and what Pods of the API use, is not for the kubelet to collect; nor podrt's collector."""
    daemon = daemon_factory(image_pinned="localhost/podrt/tools*")
    with CriClient(daemon.config.cri_socket) as cri:
        images = Images(cri)
        assert images.status("localhost/podrt/tools").pinned and not images.status(BUSYBOX).pinned
        daemon.apply(pods.pod("user", pods.container()))
        eventually(lambda: images.status(BUSYBOX).pinned)
        daemon.delete_everything()
        assert not images.status(BUSYBOX).pinned


def test_file_systems(images: Images, shared_daemon: Daemon) -> None:
    before = images.cri.call("ImageFsInfo")
    images.pull(TREE)
    after = images.cri.call("ImageFsInfo")
    (first,), (second,) = before.image_filesystems, after.image_filesystems
    assert second.used_bytes.value - first.used_bytes.value > 8000, "the layer, unpacked and as it came"
    assert second.inodes_used.value > first.inodes_used.value and second.timestamp > first.timestamp > 0
    assert second.fs_id.mountpoint == str(shared_daemon.config.state_dir)
    assert after.container_filesystems[0].fs_id == second.fs_id


def test_writable_layers_count(images: Images) -> None:
    pod = sandbox()
    box = images.cri.run_sandbox(pod)
    unit = images.cri.run(box, pod, container())
    images.cri.exec(unit, "dd", "if=/dev/zero", "of=/data", "bs=1M", "count=8")

    def used() -> bool:
        (found,) = images.cri.call("ImageFsInfo").container_filesystems
        return bool(found.used_bytes.value >= 8 << 20 and found.inodes_used.value >= 1)

    eventually(used)
    images.cri.clear()
