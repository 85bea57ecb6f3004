"""Writes images as one archive: an OCI archive, or the older form that every docker and podman loads.

Equal images give equal bytes: sorted, without times and owners. The output is written once from front to back, so it
may be a pipe. In the docker form layers are uncompressed, as old readers want them; their digests are then the diff
ids and the image's id stays.
"""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple, cast

from podrt.errors import ImageError, InvalidError
from podrt.image import manifest as manifests
from podrt.image.blobs import CHUNK, BlobStore, Progress, hash_bytes
from podrt.image.compression import Readable, decompress
from podrt.image.manifest import Descriptor, Manifest
from podrt.image.pack import PackedLayer
from podrt.image.reference import parse
from podrt.image.types import Image

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class Entry(NamedTuple):
    """One image to save."""

    image: Image
    manifest: Manifest
    names: tuple[str, ...]
    tar_sizes: tuple[int, ...]
    """Uncompressed length of each layer's archive, bottom first."""


def save(entries: Sequence[Entry], blobs: BlobStore, out: BinaryIO, format: str, progress: Progress | None) -> None:
    """Write the archive. Raises InvalidError for an unknown ``format``, ImageError if a part is not in the store."""
    if format not in ("oci", "docker"):
        raise InvalidError(f"format {format!r} is unknown; use oci or docker")
    if not entries:
        raise InvalidError("no image to save was named")
    writer = _Writer(out, progress)
    if format == "oci":
        _save_oci(entries, blobs, writer)
    else:
        _save_docker(entries, blobs, writer)
    writer.close()


def _save_oci(entries: Sequence[Entry], blobs: BlobStore, writer: _Writer) -> None:
    writer.add("oci-layout", _LAYOUT)
    descriptors: list[object] = []
    digests: set[str] = set()
    for entry in sorted(entries, key=lambda found: found.image.id):
        data = blobs.read(entry.image.manifest_digest)
        media_type = manifests.decode(data, "manifest").get("mediaType") or manifests.OCI_MANIFEST
        base = {"mediaType": media_type, "digest": entry.image.manifest_digest, "size": len(data)}
        base["platform"] = {"architecture": entry.image.architecture, "os": entry.image.os}
        descriptors += [base | {"annotations": name_annotations(name)} for name in entry.names] or [base]
        digests.update((entry.image.manifest_digest, entry.image.id), (layer.digest for layer in entry.manifest.layers))
    writer.add("index.json", index_document(descriptors))
    for digest in sorted(digests):
        with blobs.open(digest) as file:
            writer.copy("blobs/" + digest.replace(":", "/", 1), file, blobs.size(digest))


def index_document(descriptors: list[object]) -> bytes:
    """``index.json`` of an OCI layout."""
    return manifests.encode({"schemaVersion": 2, "mediaType": manifests.OCI_INDEX, "manifests": descriptors})


def name_annotations(name: str) -> dict[str, str]:
    """How an OCI layout says an image's name so that docker, containerd, podman and skopeo all find it."""
    return {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}


def _save_docker(entries: Sequence[Entry], blobs: BlobStore, writer: _Writer) -> None:
    documents: list[object] = []
    layers: dict[str, tuple[str, int]] = {}
    for entry in sorted(entries, key=lambda found: found.image.id):
        config = entry.image.id.partition(":")[2] + ".json"
        writer.add(config, blobs.read(entry.image.id))
        for diff_id, layer, size in zip(entry.image.diff_ids, entry.manifest.layers, entry.tar_sizes, strict=True):
            layers[diff_id] = (layer.digest, size)
        documents.append(
            {
                "Config": config,
                "RepoTags": [parse(name).familiar() for name in entry.names] or None,
                "Layers": [_layer_path(diff_id) for diff_id in entry.image.diff_ids],
            }
        )
    writer.add("manifest.json", manifests.encode(documents))
    for diff_id, (digest, size) in sorted(layers.items()):
        if size < 0:
            raise ImageError(f"layer {diff_id} is not unpacked; load its image again")
        with _plain(blobs, digest) as source:
            writer.copy(_layer_path(diff_id), source, size)


def _layer_path(diff_id: str) -> str:
    return diff_id.partition(":")[2] + "/layer.tar"


@contextlib.contextmanager
def _plain(blobs: BlobStore, digest: str) -> Iterator[Readable]:
    with blobs.open(digest) as file:
        yield decompress(file)[1]


class _Counting:
    """The output as tarfile wants it, which asks for the position at every step and so not for a pipe."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._length = 0

    def write(self, data: bytes) -> int:
        self._out.write(data)
        self._length += len(data)
        return len(data)

    def tell(self) -> int:
        return self._length


class _Filling:
    """A source that gives less than it is asked for at its end only, as tarfile takes any short read for the end."""

    def __init__(self, source: Readable) -> None:
        self._source = source

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        while 0 < len(data) < size and (more := self._source.read(size - len(data))):
            data += more
        return data


class _Writer:
    """A tar archive without anything that differs from one run to the next."""

    def __init__(self, out: BinaryIO, progress: Progress | None) -> None:
        self._tar = tarfile.TarFile(
            fileobj=cast(BinaryIO, _Counting(out)), mode="w", format=tarfile.PAX_FORMAT, copybufsize=CHUNK
        )
        self._progress = progress
        self._done = 0

    def add(self, name: str, data: bytes) -> None:
        self.copy(name, io.BytesIO(data), len(data))

    def copy(self, name: str, source: Readable, size: int) -> None:
        member = tarfile.TarInfo(name)
        member.size = size
        member.mode = 0o644
        try:
            self._tar.addfile(member, cast(BinaryIO, _Filling(source)))
        except OSError as error:
            if error.errno is None:  # tarfile's own "unexpected end of data"
                raise ImageError(f"{name}: is shorter than the {size} bytes recorded of it") from error
            raise
        self._done += size
        if self._progress is not None:
            self._progress(name, self._done, 0)

    def close(self) -> None:
        self._tar.close()


def save_built(out: BinaryIO, config: bytes, layer: BinaryIO, packed: PackedLayer, name: str) -> str:
    """Write an OCI archive of an image that was never in a store: one layer, one name. Returns the image's id.

    ``layer`` is what :func:`podrt.image.pack.pack` wrote, at its beginning.
    """
    image_id = hash_bytes(config)
    layers = [Descriptor(packed.media_type, packed.digest, packed.size)]
    data = manifests.encode(manifests.image_manifest(image_id, len(config), layers))
    descriptor = Descriptor(manifests.OCI_MANIFEST, hash_bytes(data), len(data))
    writer = _Writer(out, None)
    writer.add("oci-layout", _LAYOUT)
    writer.add("index.json", index_document([descriptor.document() | {"annotations": name_annotations(name)}]))
    for digest, blob in ((image_id, config), (descriptor.digest, data)):
        writer.add("blobs/" + digest.replace(":", "/", 1), blob)
    writer.copy("blobs/" + packed.digest.replace(":", "/", 1), layer, packed.size)
    writer.close()
    return image_id
