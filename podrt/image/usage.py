"""What images take of the disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from podrt.image.blobs import BlobStore
from podrt.image.catalog import Catalog
from podrt.image.layers import LayerStore
from podrt.image.types import Image


class Usage(NamedTuple):
    """What the store takes. ``inodes`` counts entries of unpacked layers and blobs."""

    images: int
    layers: int
    blob_bytes: int
    layer_bytes: int
    inodes: int


class ImageUsage(NamedTuple):
    """What one image takes, in bytes: its unpacked layers, those of them that other images use too, and its blobs."""

    image: Image
    layers: int
    shared: int
    blobs: int


def of_store(catalog: Catalog, blobs: BlobStore, layers: LayerStore) -> Usage:
    """Everything together, rubbish included."""
    sizes = [blobs.size(digest) for digest in blobs.digests()]
    infos = [info for chain_id in layers.chain_ids() if (info := layers.info(chain_id))]
    return Usage(
        len(catalog.list()),
        len(infos),
        sum(sizes),
        sum(info.size for info in infos),
        sum(info.entries for info in infos) + len(sizes),
    )


def of_images(images: Sequence[Image], catalog: Catalog, blobs: BlobStore, layers: LayerStore) -> list[ImageUsage]:
    """Each of ``images``; a layer is shared if another of them has it too."""
    users = Counter(chain_id for image in images for chain_id in image.chain_ids)
    rows = []
    for image in images:
        sizes = {one: info.size for one in image.chain_ids if (info := layers.info(one))}
        shared = sum(size for one, size in sizes.items() if users[one] > 1)
        needed = {image.id, image.manifest_digest, *(one.digest for one in catalog.manifest(image.id).layers)}
        rows.append(ImageUsage(image, sum(sizes.values()), shared, sum(blobs.size(digest) for digest in needed)))
    return rows
