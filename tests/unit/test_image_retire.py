"""Images removed while containers use them: gone for all but those, and from the disk with the last of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from podrt.errors import NotFoundError
from podrt.image.collect import Disk, ImageCollector
from podrt.image.service import ImageStore
from tests.framework.patience import scaled
from tests.unit.test_image_collect import add
from tests.unit.test_image_store import Layout, named
from tests.unit.test_image_unpack import entry, make_tar


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    made = ImageStore(tmp_path / "store")
    yield made
    made.close()


def gone(layer: Path) -> None:
    deadline = time.monotonic() + scaled(10)
    while layer.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_all_names_of_an_unused_image_go(store: ImageStore) -> None:
    image = add(store, "r.example/a:1", 0)
    store.tag("r.example/a:1", "other.example/b:2")
    (layer,) = store.layers(image)
    store.retire("r.example/a:1")
    assert store.list() == [] and not layer.exists() and not list(store.blobs.digests())
    with pytest.raises(NotFoundError):
        store.retire("other.example/b:2")


def test_a_used_image_keeps_its_layers_and_nothing_else_finds_it(store: ImageStore) -> None:
    image = add(store, "r.example/a:1", 0)
    (layer,) = store.layers(image)
    store.hold(image.id, "container")
    store.retire(image.id)
    assert store.list() == [] and store.by_manifest(image.manifest_digest) is None
    for reference in (image.id, image.id[7:19], "r.example/a:1", f"r.example/a@{image.manifest_digest}"):
        with pytest.raises(NotFoundError):
            store.resolve(reference)
    assert store.collect_retired() == 0 and layer.exists()
    assert store.prune(all=True).bytes_reclaimed == 0 and layer.exists()
    store.hold(image.id, "second")
    store.release(image.id, "container")
    assert store.collect_retired() == 0 and layer.exists()
    store.release(image.id, "second")
    gone(layer)
    assert store.collect_retired() == 0, "it has the lock, so all of it is gone"
    assert not list(store.blobs.digests())


def test_it_outlives_a_restart_until_it_is_held_no_more(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    image = add(store, "r.example/a:1", 0)
    (layer,) = store.layers(image)
    store.hold(image.id, "container")
    store.retire(image.id)
    store.close()
    again = ImageStore(store.root)
    assert again.list() == [] and layer.exists(), "recovery has not held it again yet"
    again.hold(image.id, "container")
    collector = ImageCollector(again, 100, 80)
    collector.collect(Disk(1000, 900))
    assert layer.exists()
    again.close()
    third = ImageStore(store.root)
    ImageCollector(third, 100, 80).collect(Disk(1000, 900))
    assert not layer.exists(), "its container went while no daemon ran"
    third.close()


def test_the_same_content_again_is_an_image_again(store: ImageStore) -> None:
    layout = Layout()
    layout.add(layout.image(make_tar(entry("f", b"1"))), **named("r.example/a:1"))
    (image,) = store.load(layout.write(store.root.parent / "layout"))
    (layer,) = store.layers(image)
    store.hold(image.id, "container")
    store.retire(image.id)
    (back,) = store.load(store.root.parent / "layout")
    assert (back.id, back.names) == (image.id, ("r.example/a:1",))
    assert store.list() == [back] and store.holders(back) == ["container"] and store.collect_retired() == 0
    store.release(image.id, "container")
    assert store.collect_retired() == 0 and layer.exists()
