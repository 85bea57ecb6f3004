"""Collection of images by disk use, what images take, and the removal of many files beside the work."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from podrt import config as configuration
from podrt.errors import ConflictError, InvalidError
from podrt.image.collect import Disk, ImageCollector
from podrt.image.service import ImageStore
from podrt.image.types import Image
from tests.unit.test_image_store import Layout, named
from tests.unit.test_image_unpack import entry, make_tar

FULL = Disk(1_000_000, 50_000)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    made = ImageStore(tmp_path / "store")
    yield made
    made.close()


def add(store: ImageStore, name: str, age: float, size: int = 30_000, base: bytes = b"") -> Image:
    """An image of ``size`` bytes of files (and as many in its blob), last used ``age`` seconds ago."""
    layout = Layout()
    layers = [base] if base else []
    layout.add(layout.image(*layers, make_tar(entry("f", os.urandom(size)))), **named(name))
    (image,) = store.load(io.BytesIO(layout.tar()))
    at = time.time() - age
    os.utime(store.root / "images" / f"{image.id[7:]}.json", (at, at))
    return image


def names(images: list[Image]) -> list[str]:
    return [image.names[0].rpartition("/")[2] for image in images]


def test_the_least_recently_used_go_first_and_no_more_than_needed(store: ImageStore) -> None:
    for name, age in (("a:1", 500), ("b:1", 900), ("c:1", 700)):
        add(store, f"r.example/{name}", age)
    collector = ImageCollector(store, 85, 85)
    # 950,000 of 1,000,000 are used and 850,000 may be: two images of 60,000 and more make that room.
    assert names(collector.collect(FULL)) == ["b:1", "c:1"]
    assert names(store.list()) == ["a:1"]


def test_nothing_goes_below_the_threshold(store: ImageStore) -> None:
    add(store, "r.example/a:1", 500)
    assert ImageCollector(store, 96, 80).collect(FULL) == []
    assert ImageCollector(store, 100, 80).collect(Disk(1000, 1)) == []


def test_what_is_used_new_or_pinned_stays(store: ImageStore) -> None:
    used = add(store, "r.example/used:1", 0)
    store.hold(used.id, "container")
    os.utime(store.root / "images" / f"{used.id[7:]}.json", (1, 1))
    add(store, "r.example/new:1", 60)
    add(store, "localhost/made/here:1", 5000)
    add(store, "r.example/old:1", 121)
    collector = ImageCollector(store, 85, 1, ["localhost/*"])
    assert names(collector.collect(FULL)) == ["old:1"]
    assert len(store.list()) == 3
    with pytest.raises(ConflictError):
        store.collect(used)


def test_use_is_remembered_across_restarts(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    first, second = add(store, "r.example/a:1", 900), add(store, "r.example/b:1", 800)
    store.hold(first.id, "x")
    store.release(first.id, "x")
    store.close()
    again = ImageStore(store.root)
    assert again.last_used(first) > again.last_used(second)
    assert names(ImageCollector(again, 85, 1).candidates()) == ["b:1"], "the other was used just now"
    again.close()


def test_disk_usage_tells_shared_from_own(store: ImageStore) -> None:
    base = make_tar(entry("base", b"x" * 1000))
    add(store, "r.example/a:1", 0, 10, base)
    add(store, "r.example/b:1", 0, 20, base)
    add(store, "r.example/c:1", 0, 30)
    rows, total = store.disk_usage()
    assert [(row.layers, row.shared) for row in rows] == [(1010, 1000), (1020, 1000), (30, 0)]
    assert total.layer_bytes == 1060


def test_removed_layers_are_deleted_beside_the_work(store: ImageStore) -> None:
    image = add(store, "r.example/a:1", 0)
    (layer,) = store.layers(image)
    store.remove("r.example/a:1")
    assert not layer.exists()
    deadline = time.monotonic() + 10
    while list(store.staging.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("wrong", [{"image_gc_low": 90}, {"image_gc_high": 101}, {"registry_parallel": 0}])
def test_thresholds_are_checked(tmp_path: Path, wrong: dict[str, int]) -> None:
    file = tmp_path / "config.toml"
    file.write_text("\n".join(f"{key} = {value}" for key, value in wrong.items()))
    with pytest.raises(InvalidError):
        configuration.load(file)
