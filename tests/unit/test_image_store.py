"""The image store: formats in and out, names, removal, and what a crash or damage on disk leaves."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import logging
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import zstandard

from podrt.errors import ConflictError, ImageError, InvalidError, NotFoundError
from podrt.image import manifest as manifests
from podrt.image.removing import Removal
from podrt.image.service import ImageStore
from podrt.image.types import Image, ImageConfig
from tests.unit.test_image_unpack import Entry, directory, entry, make_tar

NAME = "localhost/app:1"


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Layout:
    """Files of an OCI image layout, built up blob by blob."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
        self.entries: list[dict[str, Any]] = []

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        self.files[f"blobs/sha256/{sha(data)[7:]}"] = data
        return {"mediaType": media_type, "digest": sha(data), "size": len(data)}

    def image(
        self, *layers: bytes, pack: Callable[[bytes], bytes] = bytes, config: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        document = {"os": "linux", "architecture": manifests.host_architecture()} | (config or {})
        document.setdefault("rootfs", {"type": "layers", "diff_ids": [sha(layer) for layer in layers]})
        manifest = {
            "schemaVersion": 2,
            "config": self.blob(json.dumps(document).encode(), manifests.OCI_CONFIG),
            "layers": [self.blob(pack(layer), manifests.OCI_LAYER) for layer in layers],
        }
        return self.blob(json.dumps(manifest).encode(), manifests.OCI_MANIFEST)

    def add(self, descriptor: dict[str, Any], **more: Any) -> None:
        self.entries.append(descriptor | more)

    def write(self, root: Path) -> Path:
        for name, data in (self.files | {"index.json": json.dumps({"manifests": self.entries}).encode()}).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        return root

    def tar(self) -> bytes:
        files = self.files | {"index.json": json.dumps({"manifests": self.entries}).encode()}
        return make_tar(*(entry(name, data) for name, data in files.items()))


def named(name: str) -> dict[str, Any]:
    return {"annotations": {"org.opencontainers.image.ref.name": name}}


def test_the_digest_that_belongs_to_a_name() -> None:
    digests = tuple(f"{name}@sha256:{'0' * 64}" for name in ("docker.io/library/b", "r.example/a", "r.example/ab"))
    image = Image(id="sha256:" + "1" * 64, manifest_digest="", digests=digests)
    assert image.digest_for("r.example/a:1") == digests[1]
    assert image.digest_for("", image.id, "b") == digests[0]
    assert image.digest_for("r.example/none") == digests[0]
    assert Image(id="sha256:1", manifest_digest="").digest_for("b") == "sha256:1"


def one_image(pack: Callable[[bytes], bytes] = bytes, *entries: Entry) -> Layout:
    layout = Layout()
    layout.add(layout.image(make_tar(*(entries or (directory("etc"), entry("etc/a", b"1")))), pack=pack), **named(NAME))
    return layout


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    root = tmp_path / "rootfs"
    (root / "bin").mkdir(parents=True)
    (root / "bin/sh").write_bytes(b"#!")
    (root / "bin/sh").chmod(0o4755)
    os.link(root / "bin/sh", root / "bin/ash")
    (root / "sh").symlink_to("/bin/sh")
    (root / ("n" * 200)).write_bytes(b"long")
    return root


def snapshot(path: Path) -> list[tuple[Any, ...]]:
    result: list[tuple[Any, ...]] = []
    for found in sorted(path.rglob("*")):
        state = found.lstat()
        content = os.readlink(found) if found.is_symlink() else found.read_bytes() if found.is_file() else None
        links = state.st_nlink if found.is_file() else 0
        result.append((str(found.relative_to(path)), state.st_mode, state.st_uid, int(state.st_mtime), links, content))
    return result


@contextlib.contextmanager
def piped(data: bytes) -> Iterator[BinaryIO]:
    """The reading end of a pipe into which a thread writes ``data``."""
    reading, writing = os.pipe()

    def write() -> None:
        with open(writing, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    with open(reading, "rb", buffering=0) as pipe:
        yield pipe
    thread.join()


def files_below(store: ImageStore) -> list[str]:
    return sorted(
        str(path.relative_to(store.root))
        for path in store.root.rglob("*")
        if path.is_file() or path.parent.name == "layers"
    )


# Formats


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("form", ["directory", "archive", "gzip-archive", "pipe"])
def test_oci_layouts_are_loaded(store: ImageStore, tmp_path: Path, form: str, pack: Callable[[bytes], bytes]) -> None:
    layout = one_image(pack)
    if form == "directory":
        [image] = store.load(layout.write(tmp_path / "layout"))
    elif form == "archive":
        (tmp_path / "a.tar").write_bytes(layout.tar())
        [image] = store.load(tmp_path / "a.tar")
    elif form == "gzip-archive":
        [image] = store.load(io.BytesIO(gzip.compress(layout.tar())))
    else:
        with piped(layout.tar()) as pipe:
            [image] = store.load(pipe)
    assert image.names == (NAME,)
    assert image == store.resolve(NAME) == store.resolve(image.id) == store.resolve(image.id[7:15])
    assert store.resolve(f"localhost/app@{image.manifest_digest}") == image
    [layer] = store.layers(image)
    assert (layer / "etc/a").read_bytes() == b"1"
    assert not list((store.root / "staging").glob("*/*"))


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_what_is_saved_can_be_loaded_again(store: ImageStore, rootfs: Path, tmp_path: Path, kind: str) -> None:
    image = store.import_rootfs(rootfs, NAME, config=ImageConfig(cmd=("sh",), env=("A=1",)))
    store.tag(NAME, "busybox")
    archives = [io.BytesIO(), io.BytesIO()]
    for archive in archives:
        store.save([NAME, "busybox"], archive, kind)
    assert archives[0].getvalue() == archives[1].getvalue()
    archives[0].seek(0)
    other = ImageStore(tmp_path / "other")
    [loaded] = other.load(archives[0])
    assert loaded.id == image.id
    assert loaded.names == ("docker.io/library/busybox:latest", NAME)
    assert loaded.config == image.config
    if kind == "oci":
        assert loaded.manifest_digest == image.manifest_digest
    assert snapshot(other.layers(loaded)[0]) == snapshot(rootfs)
    assert other.layers(loaded)[0].stat().st_mode & 0o777 == 0o755


def test_several_images_share_an_archive_and_layers(store: ImageStore, tmp_path: Path) -> None:
    base, upper = make_tar(entry("a", b"1")), make_tar(entry("b", b"2"))
    layout = Layout()
    layout.add(layout.image(base), **named("localhost/base:1"))
    layout.add(layout.image(base, upper), **named("localhost/upper:1"))
    first, second = store.load(io.BytesIO(layout.tar()))
    assert store.layers(second)[1] == store.layers(first)[0]
    assert second.chain_ids == (sha(base), sha(f"{sha(base)} {sha(upper)}".encode()))
    assert [sorted(os.listdir(layer)) for layer in store.layers(second)] == [["b"], ["a"]]
    out = io.BytesIO()
    store.save(["localhost/base:1", "localhost/upper:1"], out, "docker")
    out.seek(0)
    assert {image.id for image in ImageStore(tmp_path / "other").load(out)} == {first.id, second.id}


def test_docker_archives_with_linked_layers_are_loaded(store: ImageStore) -> None:
    layer = make_tar(entry("a", b"1"))
    config = json.dumps({"os": "linux", "rootfs": {"diff_ids": [sha(layer)]}}).encode()
    manifest = [{"Config": f"{sha(config)[7:]}.json", "RepoTags": ["app:2"], "Layers": ["x/layer.tar"]}]
    archive = make_tar(
        entry("manifest.json", json.dumps(manifest).encode()),
        entry(f"{sha(config)[7:]}.json", config),
        entry("y/layer.tar", layer),
        entry("x/layer.tar", type=tarfile.SYMTYPE, linkname="../y/layer.tar"),
    )
    [image] = store.load(io.BytesIO(archive))
    assert image.names == ("docker.io/library/app:2",)
    assert (store.layers(image)[0] / "a").read_bytes() == b"1"


def test_of_an_index_this_machine_s_image_is_taken(store: ImageStore) -> None:
    layout = Layout()
    mine, other = layout.image(make_tar(entry("mine"))), layout.image(make_tar(entry("other")))
    here = {"architecture": manifests.host_architecture(), "os": "linux"}
    index = [
        other | {"platform": {"architecture": "s390x", "os": "linux"}},
        other | {"platform": {"architecture": "unknown", "os": "unknown"}},
        mine | {"platform": here},
    ]
    nested = layout.blob(json.dumps({"manifests": index}).encode(), manifests.OCI_INDEX)
    layout.add(nested, **named(NAME))
    [image] = store.load(io.BytesIO(layout.tar()))
    assert os.listdir(store.layers(image)[0]) == ["mine"]


def test_an_index_for_other_machines_says_for_which(store: ImageStore) -> None:
    layout = Layout()
    layout.add(layout.image(make_tar()), platform={"architecture": "s390x", "os": "linux"})
    with pytest.raises(ImageError, match=f"no image for linux/{manifests.host_architecture()}.*linux/s390x"):
        store.load(io.BytesIO(layout.tar()))


def test_a_root_file_system_becomes_an_image(store: ImageStore, rootfs: Path) -> None:
    config = ImageConfig(
        env=("A=1",), entrypoint=("/e",), cmd=("c",), user="1:2", working_dir="/w", stop_signal="SIGINT",
        exposed_ports=("80/tcp",), volumes=("/v",), labels={"k": "v"},
    )  # fmt: skip
    image = store.import_rootfs(rootfs, NAME, config=config, author="me", comment="why")
    assert image.config == config
    document = store.inspect(NAME)
    assert document["Config"]["ExposedPorts"] == {"80/tcp": {}}
    assert (document["Author"], document["Comment"], document["RepoTags"]) == ("me", "why", [NAME])
    assert [step["CreatedBy"] for step in store.history(NAME)] == ["podrt image import"]
    assert snapshot(store.layers(image)[0]) == snapshot(rootfs)


def test_a_root_file_system_archive_may_come_through_a_pipe(store: ImageStore) -> None:
    with piped(gzip.compress(make_tar(entry("a", b"1")))) as pipe:
        image = store.import_rootfs(pipe)
    assert image.names == ()
    assert (store.layers(image)[0] / "a").read_bytes() == b"1"


# Refusals


def broken(change: Callable[[Layout], None]) -> bytes:
    layout = one_image()
    change(layout)
    return layout.tar()


def _set_manifest(document: dict[str, Any], media_type: str = manifests.OCI_MANIFEST) -> bytes:
    layout = Layout()
    layout.add(layout.blob(json.dumps(document).encode(), media_type))
    return layout.tar()


def _foreign() -> bytes:
    layout = Layout()
    config = layout.blob(json.dumps({"rootfs": {"diff_ids": [sha(b"x")]}}).encode(), manifests.OCI_CONFIG)
    kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    layer = {"mediaType": kind, "digest": sha(b"x"), "size": 1, "urls": ["https://x"]}
    manifest = {"schemaVersion": 2, "config": config, "layers": [layer]}
    layout.add(layout.blob(json.dumps(manifest).encode(), manifests.OCI_MANIFEST))
    return layout.tar()


def _config(**fields: Any) -> bytes:
    layout = Layout()
    layout.add(layout.image(make_tar(entry("a")), config=fields))
    return layout.tar()


def _layer_is_other(layout: Layout) -> None:
    name = max(layout.files, key=lambda key: len(layout.files[key]))
    layout.files[name] = bytes(len(layout.files[name]))


def _manifest_is_other(layout: Layout) -> None:
    name = f"blobs/sha256/{layout.entries[0]['digest'][7:]}"
    layout.files[name] = layout.files[name].replace(b"schemaVersion", b"schemaversion")


def _layer_is_missing(layout: Layout) -> None:
    del layout.files[max(layout.files, key=lambda key: len(layout.files[key]))]


ARTIFACT = {
    "schemaVersion": 2,
    "config": {"mediaType": "application/helm", "digest": sha(b""), "size": 0},
    "layers": [],
}


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (make_tar(entry("a", b"1")), "no image archive; for a root file system use image import"),
        (make_tar(entry("repositories", b"{}")), "before 1.10"),
        (b"nonsense" * 100, "not an image archive"),
        (broken(_layer_is_other), "content is sha256:"),
        (broken(_manifest_is_other), "archive is corrupt"),
        (broken(_layer_is_missing), "missing in the archive"),
        (_set_manifest({"schemaVersion": 1, "fsLayers": []}), "schema 1"),
        (_set_manifest({"schemaVersion": 3}), "schemaVersion must be 2"),
        (_set_manifest(ARTIFACT), "artifact of type 'application/helm'"),
        (_foreign(), "foreign layer"),
        (_config(os="windows"), "for windows"),
        (_config(config={"Env": "A=1"}), "config.Env: must be a list"),
        (_config(config={"Cmd": [1]}), r"config.Cmd\[0\]: must be a string"),
        (_config(config={"Labels": []}), "config.Labels: must be an object"),
        (_config(rootfs={"diff_ids": ["../../x"]}), "no sha256 digest"),
        (_config(rootfs={"diff_ids": []}), "1 layers but rootfs.diff_ids lists 0"),
        (_config(rootfs={"diff_ids": [sha(b"other")]}), "unpacks to sha256:"),
        (make_tar(entry("index.json", b"[" * 100_000)), "not valid JSON"),
        (_config(config={"User": "\ud800"}), "surrogates not allowed"),
        (make_tar(entry("index.json", b'{"manifests":[{"digest":"sha256:../../x","size":1}]}')), "digest"),
        (make_tar(entry("manifest.json", b'[{"Config":"../../etc/passwd","Layers":[]}]')), "missing in the archive"),
        (make_tar(entry("manifest.json", b'{"a":1}')), "must be a list of images"),
    ],
)
def test_bad_archives_are_refused_and_leave_nothing(store: ImageStore, archive: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        store.load(io.BytesIO(archive))
    assert store.list() == []
    store.prune()
    assert files_below(store) == []


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, b"7"])
@pytest.mark.parametrize("size", [-512, -1024, -1536, -(1 << 40), 1 << 40])
def test_an_archive_whose_headers_lie_about_their_size(store: ImageStore, kind: bytes, size: int) -> None:
    header = tarfile.TarInfo("index.json")
    header.type = kind
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (0x80 << 88 | size if size > 0 else size % (1 << 96)).to_bytes(12, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    started = time.monotonic()
    with pytest.raises(ImageError):
        store.load(io.BytesIO(make_tar(entry("a", b"1"))[:1024] + bytes(block) + bytes(4096)))
    assert time.monotonic() - started < 5


def test_names_of_an_oci_directory_do_not_leave_it(store: ImageStore, tmp_path: Path) -> None:
    layout = one_image().write(tmp_path / "layout")
    blobs = layout / "blobs/sha256"
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ImageError, match="can't be read"):
        store.load(layout)


def test_a_device_in_place_of_a_blob_is_not_read(store: ImageStore, tmp_path: Path) -> None:
    layout = one_image().write(tmp_path / "layout")
    blob = max((layout / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.unlink()
    os.mkfifo(blob)
    with pytest.raises(ImageError):
        store.load(layout)


def test_missing_sources(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        store.load(tmp_path / "none")
    with pytest.raises(NotFoundError):
        store.import_rootfs(tmp_path / "none")
    with pytest.raises(ImageError, match="not a tar archive"):
        store.import_rootfs(io.BytesIO(b"text" * 500))
    with pytest.raises(InvalidError, match="format"):
        store.load(io.BytesIO(one_image().tar()))
        store.save([NAME], io.BytesIO(), "zip")


# Names and removal


@pytest.fixture
def image(store: ImageStore) -> Image:
    return store.load(io.BytesIO(one_image().tar()))[0]


def test_a_name_moves_to_the_image_that_got_it_last(store: ImageStore, image: Image) -> None:
    layout = one_image(bytes, entry("other", b"1"))
    [other] = store.load(io.BytesIO(layout.tar()))
    assert store.resolve(NAME) == other
    assert store.resolve(image.id).names == ()
    assert {found.id: found.names for found in ImageStore(store.root).list()} == {other.id: (NAME,), image.id: ()}


def test_unknown_and_ambiguous_references(store: ImageStore, image: Image) -> None:
    for text in ("none", "sha256:" + "0" * 64, "0" * 64, "sha256:00", f"localhost/app@sha256:{'0' * 64}"):
        with pytest.raises(NotFoundError):
            store.resolve(text)
    with pytest.raises(InvalidError):
        store.resolve("Not A Name")
    for number in range(300):  # until two ids begin alike
        store.import_rootfs(io.BytesIO(make_tar(entry("n", str(number).encode()))), f"localhost/n:{number}")
        starts = [found.id[7:9] for found in store.list()]
        if twice := {start for start in starts if starts.count(start) > 1}:
            with pytest.raises(ConflictError, match="fits 2 images"):
                store.resolve("sha256:" + twice.pop())
            return
    pytest.fail("no two of 300 ids begin alike")


def test_removal_of_names_and_images(store: ImageStore, image: Image) -> None:
    store.tag(NAME, "other:2")
    with pytest.raises(ConflictError, match="several names"):
        store.remove(image.id)
    assert store.remove("other:2") == [Removal(untagged="docker.io/library/other:2")]
    store.hold(image.id, "container-1")
    with pytest.raises(ConflictError, match="used by container-1"):
        store.remove(NAME)
    with pytest.raises(ConflictError, match="used by container-1"):
        store.remove(image.id, force=True)
    assert store.prune(all=True).removed == ()
    store.release(image.id, "container-1")
    store.release(image.id, "container-1")
    assert store.remove(NAME) == [Removal(untagged=NAME), Removal(deleted=image.id)]
    assert files_below(store) == []
    with pytest.raises(NotFoundError):
        store.hold(image.id, "container-2")


def test_removal_keeps_what_another_image_shares(store: ImageStore) -> None:
    base, upper = make_tar(entry("a", b"1")), make_tar(entry("b", b"2"))
    layout = Layout()
    layout.add(layout.image(base), **named("localhost/base:1"))
    layout.add(layout.image(base, upper), **named("localhost/upper:1"))
    first, second = store.load(io.BytesIO(layout.tar()))
    store.remove(second.id)
    assert [path.exists() for path in store.layers(second)] == [False, True]
    assert store.prune().bytes_reclaimed == 0
    store.remove(first.id)
    assert files_below(store) == []


def test_prune_takes_images_without_a_name(store: ImageStore, image: Image) -> None:
    store.import_rootfs(io.BytesIO(make_tar(entry("big", bytes(100_000)))))
    report = store.prune()
    assert len(report.removed) == 1 and report.bytes_reclaimed > 200_000
    assert store.list() == [image]
    assert store.usage().images == 1
    assert [removal.deleted for removal in store.prune(all=True).removed] == ["", image.id]
    assert store.usage() == (0, 0, 0, 0, 0)


def test_an_image_that_comes_again_in_other_blobs_replaces_them(store: ImageStore, image: Image) -> None:
    [again] = store.load(io.BytesIO(one_image(gzip.compress).tar()))
    assert again.id == image.id and again.manifest_digest != image.manifest_digest
    assert len(list(store.blobs.digests())) == 3


def test_progress_is_told(store: ImageStore) -> None:
    calls: list[tuple[str, int, int]] = []
    store.load(io.BytesIO(one_image().tar()), lambda *call: calls.append(call))
    assert calls and calls[-1][0].startswith("layer ") and calls[-1][1] == calls[-1][2] > 0


# Crashes and damage


def test_everything_is_there_after_a_restart(store: ImageStore, image: Image) -> None:
    assert ImageStore(store.root).list() == [image]


def test_leftovers_of_a_crash_are_removed_at_start(store: ImageStore, image: Image) -> None:
    before = files_below(store)
    store.close()
    dead = store.root / "staging" / "dead"
    (dead / "layer-1/tree/etc").mkdir(parents=True)
    (store.root / "staging" / "file").write_bytes(b"")
    (store.root / "blobs/sha256" / ("0" * 64)).write_bytes(b"unrecorded")
    orphan = store.root / "layers" / ("1" * 64)
    orphan.mkdir()
    (store.root / "layers" / f"{'2' * 64}.json").write_bytes(b"{}")
    again = ImageStore(store.root)
    assert not dead.exists()
    assert files_below(again) == before


def test_the_work_of_a_living_store_is_left_alone(store: ImageStore) -> None:
    mine = store._staging.path / "layer-1"
    mine.mkdir()
    ImageStore(store.root)
    assert mine.exists()


@pytest.mark.parametrize("damage", ["record", "version", "config", "layer"])
def test_a_damaged_image_is_passed_over_and_reported(
    store: ImageStore, image: Image, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = store.import_rootfs(io.BytesIO(make_tar(entry("a"))), "localhost/other")
    record = store.root / "images" / f"{image.id[7:]}.json"
    if damage == "record":
        record.write_bytes(b'{"version": 1')
    elif damage == "version":
        record.write_bytes(record.read_bytes().replace(b'"version": 1', b'"version": 99'))
    elif damage == "config":
        store.blobs.path(image.id).write_bytes(b"{}")
    else:
        (store.root / "layers" / f"{image.chain_ids[0][7:]}.json").unlink()
    store.close()
    with caplog.at_level(logging.ERROR):
        again = ImageStore(store.root)
    assert again.list() == [other]
    assert image.id[7:] in caplog.text
    assert store.layers(image)[0].exists()  # containers may run on it
    [loaded] = again.load(io.BytesIO(one_image().tar()))
    assert loaded.id == image.id
    assert (again.layers(loaded)[0] / "etc/a").read_bytes() == b"1"


def test_many_threads_load_the_same_image(store: ImageStore) -> None:
    archive = one_image().tar()
    found: list[Image] = []
    threads = [threading.Thread(target=lambda: found.extend(store.load(io.BytesIO(archive)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(map(repr, found))) == 1
    assert ImageStore(store.root).list() == found[:1]
