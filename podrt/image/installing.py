"""Stores an image that comes: its layers unpacked, its configuration and manifest as given, then its record.

What is on disk already is not written again. All that is stored is pinned until the record is there; the record comes
last, so an image that is found is whole.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from typing import BinaryIO

from podrt.errors import ImageError
from podrt.image import manifest as manifests
from podrt.image.archive import Candidate, LayerSource
from podrt.image.blobs import CHUNK, BlobStore, Progress, hash_bytes
from podrt.image.catalog import Catalog, Pins
from podrt.image.compression import detect_file
from podrt.image.layers import Batch, LayerStore, chain_ids
from podrt.image.manifest import Descriptor
from podrt.image.types import Image, parse_config

_LAYER_TYPES = {"plain": "", "gzip": "+gzip", "zstd": "+zstd"}


class Installer:
    """Puts images into the parts of one store."""

    def __init__(self, catalog: Catalog, blobs: BlobStore, layers: LayerStore) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._layers = layers

    def install(self, candidate: Candidate, progress: Progress | None = None) -> Image:
        """See :meth:`podrt.image.service.ImageStore.install`. Raises ImageError, and OSError of a full disk."""
        image_id = hash_bytes(candidate.config)
        what = f"image {image_id}"
        details = parse_config(manifests.decode(candidate.config, what), what)
        known = self._catalog.get(image_id)
        if known is not None and candidate.manifest in (None, self._blobs.read(known.manifest_digest)):
            return self._catalog.record(image_id, known.manifest_digest, candidate.names, candidate.digests)
        diff_ids = details["diff_ids"]
        if len(diff_ids) != len(candidate.layers):
            raise ImageError(f"{what}: has {len(candidate.layers)} layers but rootfs.diff_ids lists {len(diff_ids)}")
        if not diff_ids:
            raise ImageError(f"{what}: has no layers")
        with self._catalog.pins() as pins:
            with self._layers.batch() as batch:
                chain = chain_ids(diff_ids)
                descriptors = [
                    self._layer(source, diff_id, chain[: index + 1], pins, batch, progress)
                    for index, (source, diff_id) in enumerate(zip(candidate.layers, diff_ids, strict=True))
                ]
            pins.blob(image_id)
            self._blobs.write(io.BytesIO(candidate.config), image_id)
            data = candidate.manifest or manifests.encode(
                manifests.image_manifest(image_id, len(candidate.config), descriptors)
            )
            manifest_digest = hash_bytes(data)
            pins.blob(manifest_digest)
            self._blobs.write(io.BytesIO(data), manifest_digest)
            return self._catalog.record(image_id, manifest_digest, candidate.names, candidate.digests)

    def _layer(
        self,
        source: LayerSource,
        diff_id: str,
        chain: Sequence[str],
        pins: Pins,
        batch: Batch,
        progress: Progress | None,
    ) -> Descriptor:
        *below, chain_id = chain
        label = f"layer {(source.digest or diff_id)[7:19]}"
        pins.layer(chain_id)
        digest = source.digest
        if digest:
            pins.blob(digest)
        if source.arriving:
            with source.open() as file:
                try:
                    batch.add(file, diff_id, chain_id, functools.partial(_exhaust, file), below)
                except ImageError:
                    _exhaust(file)  # bytes that are not those asked for are the better reason
                    raise
        elif not digest or not self._blobs.has(digest) or self._blobs.size(digest) != source.size:
            with source.open() as file:
                digest = self._blobs.write(file, digest, source.size, what=label, progress=progress).digest
            if not source.digest:
                pins.blob(digest)
        size = self._blobs.size(digest)
        with self._blobs.open(digest) as blob:
            kind = detect_file(blob)
            if not source.arriving:
                batch.add(blob, diff_id, chain_id, below=below)
        return Descriptor(manifests.OCI_LAYER + _LAYER_TYPES[kind], digest, size)


def _exhaust(file: BinaryIO) -> None:
    """Read to the end, which raises if what arrives is not what it should be."""
    while file.read(CHUNK):
        pass
