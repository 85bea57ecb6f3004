"""imagePullPolicy, pull secrets, and the kubelet's words, without a registry."""

from __future__ import annotations

import asyncio
import base64
from types import SimpleNamespace
from typing import Any, cast

import pytest

from podrt.errors import NotFoundError, PodrtError, UnavailableError
from podrt.model.configuration import Secret
from podrt.model.container import Container
from podrt.model.meta import ObjectMeta
from podrt.model.pod import Pod, PodSpec
from podrt.model.volume import LocalObjectReference
from podrt.node import images
from podrt.node.context import Context
from podrt.node.images import ImageFailure, ImagePending, PodImages, ensure_image

HERE, AWAY, LOCAL = "r.example/here:1", "r.example/away:1", "localhost/mine:1"


class Node:
    """A context with a store that has HERE and LOCAL, and a puller that answers as told."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.asked: list[tuple[str, list[bytes]]] = []
        self.error: PodrtError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.images = self
        self.puller: Any = self
        self.store = self
        self.secrets: dict[str, Secret] = {}

    def resolve(self, name: str) -> Any:
        if name in (HERE, LOCAL):
            return SimpleNamespace(id="sha256:here", size=5)
        raise NotFoundError("no")

    async def pull(self, name: str, secrets: list[bytes]) -> Any:
        self.asked.append((name, secrets))
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return SimpleNamespace(id="sha256:pulled", size=1234)

    def find(self, kind: type[Any], namespace: str, name: str) -> Secret | None:
        return self.secrets.get(name)

    def event(self, pod: Pod, type_: str, reason: str, message: str, container: str = "") -> None:
        self.events.append(f"{type_} {reason} {message}")

    @property
    def context(self) -> Context:
        return cast(Context, self)


def pod(*secrets: str) -> Pod:
    references = tuple(LocalObjectReference(name=name) for name in secrets)
    return Pod(metadata=ObjectMeta(name="p", namespace="default"), spec=PodSpec(image_pull_secrets=references))


def container(image: str, policy: str) -> Container:
    return Container(name="c", image=image, image_pull_policy=policy)


@pytest.mark.parametrize(
    ("image", "policy", "pulled", "reason"),
    [
        (HERE, "IfNotPresent", False, ""),
        (HERE, "Never", False, ""),
        (HERE, "Always", True, ""),
        (AWAY, "IfNotPresent", True, ""),
        (AWAY, "Always", True, ""),
        (AWAY, "Never", False, "ErrImageNeverPull"),
        (LOCAL, "Always", False, ""),
        ("A:b:c", "Always", False, "InvalidImageName"),
    ],
)
async def test_policies(image: str, policy: str, pulled: bool, reason: str) -> None:
    node = Node()
    if reason:
        with pytest.raises(ImageFailure) as caught:
            await ensure_image(node.context, pod(), container(image, policy))
        assert caught.value.reason == reason
    else:
        found = await ensure_image(node.context, pod(), container(image, policy))
        assert found == ("sha256:pulled" if pulled else "sha256:here")
    assert [name for name, _ in node.asked] == ([image] if pulled else [])


async def test_always_fails_where_the_registry_can_not_be_asked() -> None:
    node = Node()
    node.error = UnavailableError("no route")
    with pytest.raises(ImageFailure) as caught:
        await ensure_image(node.context, pod(), container(HERE, "Always"))
    assert caught.value.reason == "ErrImagePull" and "no route" in str(caught.value)
    assert node.events == [
        f'Normal Pulling Pulling image "{HERE}"',
        f'Warning Failed Failed to pull image "{HERE}": no route',
    ]


async def test_the_words_of_a_pull() -> None:
    node = Node()
    await ensure_image(node.context, pod(), container(AWAY, "Always"))
    assert node.events[0] == f'Normal Pulling Pulling image "{AWAY}"'
    assert node.events[1].startswith(f'Normal Pulled Successfully pulled image "{AWAY}" in ')
    assert node.events[1].endswith("including waiting). Image size: 1234 bytes.")


async def test_secrets_of_the_pod() -> None:
    node = Node()
    data = {".dockerconfigjson": base64.b64encode(b'{"auths":{}}').decode()}
    node.secrets["login"] = Secret(type="kubernetes.io/dockerconfigjson", data=data)
    node.secrets["opaque"] = Secret(type="Opaque", data=data)
    await ensure_image(node.context, pod("login", "missing", "opaque"), container(AWAY, "Always"))
    assert node.asked == [(AWAY, [b'{"auths":{}}'])]
    assert [text.split(";")[0] for text in node.events[1:3]] == [
        f"Warning FailedToRetrieveImagePullSecret Unable to retrieve some image pull secrets ({name})"
        for name in ("missing", "opaque")
    ]


async def test_a_worker_does_not_wait_for_a_long_pull(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_PATIENCE", 0.01)
    node = Node()
    node.gate.clear()
    told: list[None] = []
    mine = PodImages(node.context, lambda: told.append(None))
    for _ in range(3):
        with pytest.raises(ImagePending):
            await mine.ensure(pod(), container(AWAY, "Always"))
    assert len(node.asked) == 1 and told == []
    node.gate.set()
    async with asyncio.timeout(5):
        while not told:
            await asyncio.sleep(0.01)
    assert await mine.ensure(pod(), container(AWAY, "Always")) == "sha256:pulled"
    assert len(told) == len(node.asked) == 1
    assert await mine.ensure(pod(), container(AWAY, "Always")) == "sha256:pulled"
    assert len(node.asked) == 2, "the next start asks again"


async def test_another_image_does_not_wait_for_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_PATIENCE", 0.01)
    node = Node()
    node.gate.clear()
    mine = PodImages(node.context, lambda: None)
    with pytest.raises(ImagePending):
        await mine.ensure(pod(), container(AWAY, "Always"))
    assert await mine.ensure(pod(), container(HERE, "IfNotPresent")) == "sha256:here"
    mine.close()


async def test_an_image_of_a_volume_is_pulled_once_beside_the_containers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_PATIENCE", 0.01)
    node = Node()
    node.gate.clear()
    mine = PodImages(node.context, lambda: None)
    for key in ("volume a", "volume b", "", "volume a"):
        with pytest.raises(ImagePending):
            await mine.ensure(pod(), container(AWAY, "Always"), key=key)
    assert len(node.asked) == 3
    mine.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0532, "53ms"),
        (0, "0ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.9999, "1m0s"),
        (123.25, "2m3.25s"),
        (12.3456, "12.346s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert images._duration(seconds) == text
