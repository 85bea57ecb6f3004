"""The image store: what the engine and the edges call. Synchronous and thread-safe.

``resolve``, ``layers``, ``list`` and ``inspect`` answer from memory. ``load``, ``import_rootfs``, ``save``,
``remove`` and ``prune`` move bytes and belong in a thread (``asyncio.to_thread``). Below the root::

    blobs/sha256/<hex>     manifests, configurations and layers as given
    layers/<hex>/          unpacked layers by chain id, and <hex>.json beside each
    images/<hex>.json      which images there are, and their names
    staging/<uuid>/        unfinished work of one store; leftovers are removed at start

An image appears when its record is written, after everything it needs is whole on disk, and disappears when the
record goes, before anything of it does. What no record needs is rubbish, found and removed by ``prune`` and at start.
Work in progress *pins* what it has stored but not yet recorded; containers *hold* their image. Holds are in memory:
the engine holds again at recovery.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from podrt.errors import ConflictError, ImageError, InvalidError, NotFoundError, PodrtError
from podrt.image import archive, imports, inspecting, saving
from podrt.image import manifest as manifests
from podrt.image.archive import Candidate, LayerSource
from podrt.image.blobs import BlobStore, Progress, hash_bytes
from podrt.image.compression import detect_file
from podrt.image.index import Index, Record
from podrt.image.layers import LayerStore, chain_ids
from podrt.image.manifest import Descriptor
from podrt.image.reference import Reference, parse
from podrt.image.staging import Staging
from podrt.image.types import Image, ImageConfig, parse_config
from podrt.image.unpack import Limits

_LOG = logging.getLogger(__name__)
_ID = re.compile(r"(?:sha256:)?([0-9a-f]{2,64})")
_LAYER_TYPES = {"plain": "", "gzip": "+gzip", "zstd": "+zstd"}


class Removal(NamedTuple):
    """One thing that ``remove`` or ``prune`` did; the other field is empty."""

    untagged: str = ""
    deleted: str = ""


class PruneReport(NamedTuple):
    """What ``prune`` removed; ``bytes_reclaimed`` counts blobs and unpacked layers."""

    removed: tuple[Removal, ...]
    bytes_reclaimed: int


class Usage(NamedTuple):
    """What the store takes. ``inodes`` counts entries of unpacked layers and blobs."""

    images: int
    layers: int
    blob_bytes: int
    layer_bytes: int
    inodes: int


class ImageStore:
    """The images below ``root``, which must be on a file system that overlayfs takes as lower layer."""

    def __init__(self, root: Path, limits: Limits | None = None) -> None:
        self.root = root
        root.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._staging = Staging(root / "staging")
        self.blobs = BlobStore(root / "blobs", self._staging.path)
        self._layers = LayerStore(root / "layers", self._staging.path, limits)
        self._index = Index(root / "images")
        self._lock = threading.RLock()
        self._records: dict[str, Record] = {}
        self._images: dict[str, Image] = {}
        self._manifests: dict[str, manifests.Manifest] = {}
        self._held: dict[str, set[str]] = {}
        self._pinned: Counter[str] = Counter()
        records, broken = self._index.load()
        for record in records.values():
            try:
                self._remember(record)
            except (PodrtError, OSError) as error:
                _LOG.error("image %s is passed over: %s", record.id, error)
                broken += 1
        self._all_known = not broken
        if self._staging.alone:
            self._sweep()

    def close(self) -> None:
        """Remove the staging directory. The store is not to be used afterwards."""
        self._staging.close()

    # Reading

    def list(self) -> builtins.list[Image]:
        """All images, by first name and id."""
        with self._lock:
            return sorted(self._images.values(), key=lambda image: (not image.names, image.names, image.id))

    def resolve(self, reference: str) -> Image:
        """The image of a name with tag or digest, an image id, or the unique beginning of one.

        Raises NotFoundError, ConflictError for a beginning of several ids, InvalidError for what is neither.
        """
        with self._lock:
            found = self._by_id(reference)
            if found is not None:
                return found
            wanted = parse(reference)
            for image in self._images.values():
                if _matches(image, wanted):
                    return image
        raise NotFoundError(
            f"image {reference!r} is not in the store; load it with image load, or see image ls for what is there"
        )

    def layers(self, image: Image) -> tuple[Path, ...]:
        """Directories of the unpacked layers, the uppermost first, as overlayfs wants its ``lowerdir``."""
        return tuple(self._layers.path(chain_id) for chain_id in reversed(image.chain_ids))

    def inspect(self, reference: str) -> dict[str, Any]:
        """A document in the shape of ``docker image inspect``."""
        image, config = self._with_config(reference)
        return inspecting.inspect(image, config, self._layer_infos(image))

    def history(self, reference: str) -> builtins.list[dict[str, Any]]:
        """How the image was made, newest step first, in the shape of docker's ``/images/<name>/history``."""
        image, config = self._with_config(reference)
        return inspecting.history(image, config, self._layer_infos(image))

    def usage(self) -> Usage:
        """Bytes and inodes of the whole store, rubbish included."""
        sizes = [self.blobs.size(digest) for digest in self.blobs.digests()]
        infos = [info for chain_id in self._layers.chain_ids() if (info := self._layers.info(chain_id))]
        return Usage(
            len(self._images),
            len(infos),
            sum(sizes),
            sum(info.size for info in infos),
            sum(info.entries for info in infos) + len(sizes),
        )

    # Putting in

    def load(self, source: Path | BinaryIO, progress: Progress | None = None) -> builtins.list[Image]:
        """Load every image of an OCI or docker archive, or of an OCI directory.

        ``source`` may be a pipe, and compressed. Raises ImageError (corrupt, unsafe, not an image archive),
        NotFoundError, ExhaustedError.
        """
        with archive.open_files(source, self._staging.path) as files:
            return [self.install(candidate, progress) for candidate in archive.candidates(files)]

    def install(self, candidate: Candidate, progress: Progress | None = None) -> Image:
        """Store one image with all its blobs, unpack its layers, and give it its names."""
        image_id = hash_bytes(candidate.config)
        what = f"image {image_id}"
        details = parse_config(manifests.decode(candidate.config, what), what)
        diff_ids = details["diff_ids"]
        if len(diff_ids) != len(candidate.layers):
            raise ImageError(f"{what}: has {len(candidate.layers)} layers but rootfs.diff_ids lists {len(diff_ids)}")
        if not diff_ids:
            raise ImageError(f"{what}: has no layers")
        pins: builtins.list[str] = []
        try:
            descriptors = [
                self._install_layer(source, diff_id, chain_id, pins, progress)
                for source, diff_id, chain_id in zip(candidate.layers, diff_ids, chain_ids(diff_ids), strict=True)
            ]
            self._pin(pins, image_id)
            self.blobs.write(io.BytesIO(candidate.config), image_id)
            data = candidate.manifest or manifests.encode(
                manifests.image_manifest(image_id, len(candidate.config), descriptors)
            )
            manifest_digest = hash_bytes(data)
            self._pin(pins, manifest_digest)
            self.blobs.write(io.BytesIO(data), manifest_digest)
            return self._record(image_id, manifest_digest, candidate.names)
        finally:
            with self._lock:
                self._pinned.subtract(pins)
                self._pinned += Counter()  # drops those at zero

    def import_rootfs(
        self,
        source: Path | BinaryIO,
        reference: str = "",
        *,
        config: ImageConfig | None = None,
        architecture: str = "",
        created: datetime | None = None,
        author: str = "",
        comment: str = "",
        progress: Progress | None = None,
    ) -> Image:
        """Make an image of one layer from a root file system: a directory, or a tar archive that may be compressed or
        a pipe.

        Without ``reference`` it has no name. ``architecture`` is this machine's unless given. Raises ImageError,
        NotFoundError, InvalidError.
        """
        names = (_taggable(reference),) if reference else ()
        with imports.layer_of(source, self._staging.path, progress) as layer:
            document = imports.config_document(
                layer.diff_id, config or ImageConfig(), architecture, created, author, comment
            )
            opened = LayerSource(layer.open, layer.digest, layer.size, layer.media_type)
            return self.install(Candidate(manifests.encode(document), None, (opened,), names), progress)

    def tag(self, source: str, target: str) -> Image:
        """Give an image one more name, taking it from any other. Raises NotFoundError, InvalidError."""
        name = _taggable(target)
        with self._lock:
            image = self.resolve(source)
            return self._record(image.id, image.manifest_digest, (name,))

    # Taking out

    def save(
        self,
        references: Sequence[str],
        fileobj: BinaryIO,
        format: str = "oci",
        progress: Progress | None = None,
    ) -> None:
        """Write images as one archive, ``oci`` or ``docker``; the same images give the same bytes.

        ``fileobj`` may be a pipe.
        """
        with contextlib.ExitStack() as stack:
            entries: dict[str, saving.Entry] = {}
            for reference in references:
                image = stack.enter_context(self._holding(reference))
                names = _saved_names(reference, image)
                known = entries[image.id].names if image.id in entries else ()
                infos = self._layer_infos(image)
                entries[image.id] = saving.Entry(
                    image,
                    self._manifests[image.id],
                    tuple(dict.fromkeys(known + names)),
                    tuple(info.tar_size if info else -1 for info in infos),
                )
            saving.save(list(entries.values()), self.blobs, fileobj, format, progress)

    def remove(self, reference: str, force: bool = False) -> builtins.list[Removal]:
        """Remove a name, and the image with its last one; by id, the image with all its names.

        Raises ConflictError while a container holds the image, or if an id has several names and ``force`` is not set.
        """
        with self._lock:
            image = self.resolve(reference)
            by_id = self._by_id(reference) is not None
            doomed = image.names
            if not by_id:
                wanted = parse(reference)
                doomed = tuple(
                    name
                    for name in image.names
                    if (name == str(wanted) if wanted.tag else parse(name).name == wanted.name)
                )
            elif len(image.names) > 1 and not force:
                raise ConflictError(
                    f"image {reference} has several names ({', '.join(image.names)}); remove them, or force"
                )
            if len(doomed) < len(image.names):
                return self._untag(image, doomed)
            if self._held.get(image.id):
                owners = ", ".join(sorted(self._held[image.id])[:3])
                raise ConflictError(f"image {reference} is used by {owners}; delete what uses it first")
            return self._delete(image)[0]

    def prune(self, all: bool = False) -> PruneReport:
        """Remove images without a name, with ``all`` every image that no container holds, and all rubbish."""
        removed: builtins.list[Removal] = []
        reclaimed = 0
        with self._lock:
            for image in self.list():
                if not self._held.get(image.id) and (all or not image.names):
                    removals, freed = self._delete(image)
                    removed += removals
                    reclaimed += freed
            reclaimed += self._sweep()
        return PruneReport(tuple(removed), reclaimed)

    def hold(self, image_id: str, owner: str) -> None:
        """Keep an image from being removed while ``owner`` (a container id) is there; again is no error.

        Raises NotFoundError.
        """
        with self._lock:
            if image_id not in self._images:
                raise NotFoundError(f"image {image_id} is not in the store")
            self._held.setdefault(image_id, set()).add(owner)

    def release(self, image_id: str, owner: str) -> None:
        """Undo ``hold``; nothing happens if there was none."""
        with self._lock:
            owners = self._held.get(image_id)
            if owners is not None:
                owners.discard(owner)
                if not owners:
                    del self._held[image_id]

    # Inside

    def _by_id(self, text: str) -> Image | None:
        match = _ID.fullmatch(text)
        if match is None:
            return None
        found = [image for image in self._images.values() if image.id.startswith("sha256:" + match[1])]
        named = not text.startswith("sha256:") and len(match[1]) < 64
        if named and any(_matches(image, parse(text)) for image in self._images.values()):
            return None  # a name that happens to look like an id
        if len(found) > 1:
            raise ConflictError(f"image id {text!r} fits {len(found)} images; give more of it")
        if not found and not named:
            raise NotFoundError(f"image {text!r} is not in the store; see image ls for what is there")
        return found[0] if found else None

    @contextlib.contextmanager
    def _holding(self, reference: str) -> Iterator[Image]:
        owner = f"save-{time.monotonic_ns()}"
        with self._lock:
            image = self.resolve(reference)
            self.hold(image.id, owner)
        try:
            yield image
        finally:
            self.release(image.id, owner)

    def _with_config(self, reference: str) -> tuple[Image, dict[str, Any]]:
        image = self.resolve(reference)
        return image, manifests.decode(self.blobs.read(image.id), f"image {image.id}")

    def _layer_infos(self, image: Image) -> tuple[Any, ...]:
        return tuple(self._layers.info(chain_id) for chain_id in image.chain_ids)

    def _pin(self, pins: builtins.list[str], *what: str) -> None:
        with self._lock:
            self._pinned.update(what)
            pins.extend(what)

    def _install_layer(
        self, source: LayerSource, diff_id: str, chain_id: str, pins: builtins.list[str], progress: Progress | None
    ) -> Descriptor:
        label = f"layer {(source.digest or diff_id)[7:19]}"
        self._pin(pins, chain_id, *([source.digest] if source.digest else []))
        digest = source.digest
        if not digest or not self.blobs.has(digest) or self.blobs.size(digest) != source.size:
            with source.open() as file:
                digest = self.blobs.write(file, digest, source.size, what=label, progress=progress).digest
            if not source.digest:
                self._pin(pins, digest)
        size = self.blobs.size(digest)
        with self.blobs.open(digest) as blob:
            kind = detect_file(blob)
            self._layers.add(blob, diff_id, chain_id)
        return Descriptor(manifests.OCI_LAYER + _LAYER_TYPES[kind], digest, size)

    def _record(self, image_id: str, manifest_digest: str, names: Sequence[Reference]) -> Image:
        """Write the record of an image with ``names`` added, and take those names from other images."""
        with self._lock:
            now = time.time_ns()
            known = self._records.get(image_id)
            given = dict(known.names) if known else {}
            given.update({str(name): now for name in names})
            record = Record(image_id, manifest_digest, given, known.added if known else now)
            self._index.save(record)
            image = self._remember(record)
            for other in [
                other
                for other in self._records.values()
                if other.id != image_id and not given.keys().isdisjoint(other.names)
            ]:
                rest = other._replace(names={name: at for name, at in other.names.items() if name not in given})
                self._index.save(rest)
                self._remember(rest)
            return image

    def _remember(self, record: Record) -> Image:
        """Build the image of a record from its blobs, and keep both. Raises PodrtError if any part is not there."""
        what = f"image {record.id}"
        details = parse_config(manifests.decode(self.blobs.read(record.id), what), what)
        parsed = manifests.parse_manifest(manifests.decode(self.blobs.read(record.manifest), what), what)
        chain = chain_ids(details["diff_ids"])
        sizes = [info.size for chain_id in chain if (info := self._layers.info(chain_id))]
        if len(sizes) < len(chain):
            raise ImageError(f"{what}: {len(chain) - len(sizes)} of its layers are missing; load it again")
        names = tuple(sorted(record.names))
        repositories = sorted({parse(name).name for name in names})
        image = Image(
            id=record.id,
            manifest_digest=record.manifest,
            names=names,
            digests=tuple(f"{name}@{record.manifest}" for name in repositories),
            size=sum(sizes),
            chain_ids=chain,
            **details,
        )
        self._records[record.id] = record
        self._images[record.id] = image
        self._manifests[record.id] = parsed
        return image

    def _untag(self, image: Image, names: Sequence[str]) -> builtins.list[Removal]:
        record = self._records[image.id]
        rest = record._replace(names={name: at for name, at in record.names.items() if name not in names})
        self._index.save(rest)
        self._remember(rest)
        return [Removal(untagged=name) for name in names]

    def _delete(self, image: Image) -> tuple[builtins.list[Removal], int]:
        self._index.remove(image.id)
        parsed = self._manifests.pop(image.id)
        del self._records[image.id], self._images[image.id]
        removals = [Removal(untagged=name) for name in image.names]
        blobs = [image.id, image.manifest_digest, *(layer.digest for layer in parsed.layers)]
        freed = self._free(blobs, reversed(image.chain_ids))
        return [*removals, Removal(deleted=image.id)], freed

    def _free(self, blobs: Sequence[str], chain: Iterator[str] | Sequence[str]) -> int:
        """Remove those of the given blobs and layers that no image and no work in progress needs; returns bytes."""
        needed = self._needed()
        freed = sum(self._layers.remove(chain_id) for chain_id in chain if chain_id not in needed)
        return freed + sum(self.blobs.remove(digest) for digest in blobs if digest not in needed)

    def _needed(self) -> set[str]:
        needed = set(self._pinned)
        for image in self._images.values():
            needed.update(image.chain_ids, (image.id, image.manifest_digest))
            needed.update(layer.digest for layer in self._manifests[image.id].layers)
        return needed

    def _sweep(self) -> int:
        """Remove what no image needs, unless a record couldn't be read: containers may still run on what it was
        about.
        """
        if not self._all_known:
            return 0
        return self._free(list(self.blobs.digests()), self._layers.chain_ids())


def _matches(image: Image, wanted: Reference) -> bool:
    if wanted.digest:
        return f"{wanted.name}@{wanted.digest}" in image.digests
    return str(wanted) in image.names


def _taggable(text: str) -> Reference:
    reference = parse(text)
    if reference.digest:
        raise InvalidError(
            f"image reference {text!r}: a name with a digest can't be given to an image; leave the digest out"
        )
    return reference


def _saved_names(reference: str, image: Image) -> tuple[str, ...]:
    """The names an archive gives to an image: the one asked for; all of them if it was asked for by id."""
    if (
        _ID.fullmatch(reference)
        and reference.removeprefix("sha256:") == image.id[7 : 7 + len(reference.removeprefix("sha256:"))]
    ):
        return image.names
    wanted = parse(reference)
    return tuple(
        name for name in image.names if name == str(wanted) or (wanted.digest and parse(name).name == wanted.name)
    )
