"""Static Pods over a real store and directory; the steps are called, no time passes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from podrt.model.event import Event
from podrt.model.meta import ObjectMeta
from podrt.model.node import Node
from podrt.model.pod import Pod
from podrt.node.static_pods import StaticPods
from podrt.store.events import EventRecorder
from podrt.store.objects import Registry
from podrt.store.store import Store

WEB = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: IMAGE}]}\n"


class Harness:
    def __init__(self, root: Path) -> None:
        self.directory = root / "manifests"
        self.store = Store(root / "store.db")
        self.registry = Registry(self.store)
        self.store.create(Node(metadata=ObjectMeta(name="n")))
        self.static = StaticPods(self.directory, self.registry, EventRecorder(self.store), "n")

    def write(self, name: str, text: str) -> None:
        self.directory.mkdir(exist_ok=True)
        temporary = self.directory / ".new"
        temporary.write_text(text)
        temporary.rename(self.directory / name)

    def step(self) -> dict[str, str]:
        """One round; the Pods that are not being deleted, with their image."""
        self.static._read()
        self.static._reconcile()
        pods = self.store.list(Pod).items
        return {
            pod.metadata.name: pod.spec.containers[0].image for pod in pods if pod.metadata.deletion_timestamp is None
        }

    def finish(self) -> None:
        """What the agent does with Pods that are being deleted."""
        for pod in self.store.list(Pod).items:
            if pod.metadata.deletion_timestamp is not None:
                self.registry.finalize_pod(pod.metadata.namespace, pod.metadata.name, pod.metadata.uid)


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path)
    yield made
    made.store.close()


def test_no_directory_is_no_pods(harness: Harness) -> None:
    assert harness.step() == {}


def test_a_file_becomes_a_pod_of_this_node(harness: Harness) -> None:
    harness.write("web.yaml", WEB)
    assert harness.step() == {"web-n": "IMAGE"}
    pod = harness.store.get(Pod, "default", "web-n")
    assert pod.spec.node_name == "n"
    assert pod.metadata.annotations["kubernetes.io/config.source"] == "file"
    assert harness.step() == {"web-n": "IMAGE"}


def test_deleted_through_the_api_it_comes_back(harness: Harness) -> None:
    harness.write("web.yaml", WEB)
    harness.step()
    uid = harness.store.get(Pod, "default", "web-n").metadata.uid
    harness.registry.delete(Pod, "default", "web-n")
    assert harness.step() == {}
    harness.finish()
    assert harness.step() == {"web-n": "IMAGE"}
    assert harness.store.get(Pod, "default", "web-n").metadata.uid != uid


def test_a_changed_file_replaces_it_and_a_removed_one_ends_it(harness: Harness) -> None:
    harness.write("web.yaml", WEB)
    harness.step()
    harness.write("web.yaml", WEB.replace("IMAGE", "OTHER"))
    assert harness.step() == {}
    harness.finish()
    assert harness.step() == {"web-n": "OTHER"}
    os.unlink(harness.directory / "web.yaml")
    assert harness.step() == {}
    harness.finish()
    assert harness.step() == {}


def test_a_broken_file_is_told_and_does_not_end_what_ran(harness: Harness) -> None:
    harness.write("web.yaml", WEB)
    harness.write("other.json", '{"kind": "Pod", "metadata": {"name": "o"}, "spec": {"containers": [], "x": 1}}')
    assert harness.step() == {"web-n": "IMAGE"}
    messages = [event.message for event in harness.store.list(Event).items]
    assert len(messages) == 1 and "other.json" in messages[0] and "spec.x" in messages[0]
    harness.write("web.yaml", "kind: Pod\n  oops")
    assert harness.step() == {"web-n": "IMAGE"}
    harness.step()
    assert len(harness.store.list(Event).items) == 2


def test_after_a_restart_nothing_is_made_twice(harness: Harness) -> None:
    harness.write("web.yaml", WEB)
    harness.step()
    uid = harness.store.get(Pod, "default", "web-n").metadata.uid
    harness.static = StaticPods(harness.directory, harness.registry, EventRecorder(harness.store), "n")
    assert harness.step() == {"web-n": "IMAGE"}
    assert harness.store.get(Pod, "default", "web-n").metadata.uid == uid
