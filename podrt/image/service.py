"""The image store: what the engine and the edges call. Synchronous and thread-safe.

``resolve``, ``layers``, ``list`` and ``inspect`` answer from memory. ``load``, ``import_rootfs``, ``save``,
``remove`` and ``prune`` move bytes and belong in a thread (``asyncio.to_thread``). Below the root::

    blobs/sha256/<hex>     manifests, configurations and layers as given
    layers/<hex>/          unpacked layers by chain id, and <hex>.json beside each
    images/<hex>.json      which images there are, and their names
    staging/<uuid>/        unfinished work of one store; leftovers are removed at start
    pulls/<hex>.json       what interrupted pulls had begun with; see the journal module

An image appears when its record is written, after everything it needs is whole on disk, and disappears when the
record goes, before anything of it does. What no record needs is rubbish, found and removed by ``prune`` and at start.
Work in progress *pins* what it has stored but not yet recorded; containers *hold* their image. Holds are in memory:
the engine holds again at recovery.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import functools
import io
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from podrt.errors import ConflictError, ExhaustedError, ImageError, InvalidError, NotFoundError
from podrt.image import archive, imports, inspecting, saving
from podrt.image import manifest as manifests
from podrt.image.archive import Candidate, LayerSource
from podrt.image.blobs import CHUNK, BlobStore, Progress, hash_bytes
from podrt.image.catalog import Catalog, Pins
from podrt.image.compression import detect_file
from podrt.image.index import Index
from podrt.image.journal import Journal
from podrt.image.layers import Batch, LayerStore, chain_ids
from podrt.image.manifest import Descriptor
from podrt.image.reference import Reference, parse
from podrt.image.staging import Staging
from podrt.image.types import Image, ImageConfig, parse_config
from podrt.image.unpack import Limits
from podrt.image.usage import ImageUsage, Usage, of_images, of_store

_LAYER_TYPES = {"plain": "", "gzip": "+gzip", "zstd": "+zstd"}


class ImageInUseError(ConflictError):
    """Containers hold the image."""


class Removal(NamedTuple):
    """One thing that ``remove`` or ``prune`` did; the other field is empty."""

    untagged: str = ""
    deleted: str = ""


class PruneReport(NamedTuple):
    """What ``prune`` removed; ``bytes_reclaimed`` counts blobs and unpacked layers."""

    removed: tuple[Removal, ...]
    bytes_reclaimed: int


@contextlib.contextmanager
def _full_disk_is_told(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ExhaustedError(f"no space left for images in {root}; free some, for example with image prune") from error


class ImageStore:
    """The images below ``root``, which must be on a file system that overlayfs takes as lower layer."""

    def __init__(self, root: Path, limits: Limits | None = None) -> None:
        self.root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        # No user of the host gets at the setuid files of images; root mounts, so nobody else need pass.
        root.chmod(0o700)
        self._staging = Staging(root / "staging")
        self.blobs = BlobStore(root / "blobs", self._staging.path)
        self._layers = LayerStore(root / "layers", self._staging.path, limits)
        self._catalog = Catalog(Index(root / "images"), self.blobs, self._layers)
        self.journal = Journal(root / "pulls")
        if self._staging.alone:
            self._catalog.sweep(self.journal.kept())
        self._staging.empty_trash()

    def close(self) -> None:
        """Remove the staging directory. The store is not to be used afterwards."""
        self._staging.close()

    # Reading

    def list(self) -> builtins.list[Image]:
        """All images, by first name and id."""
        return sorted(self._catalog.list(), key=lambda image: (not image.names, image.names, image.id))

    def resolve(self, reference: str) -> Image:
        """The image of a name with tag or digest, an image id, or the unique beginning of one.

        Raises NotFoundError, ConflictError for a beginning of several ids, InvalidError for what is neither.
        """
        return self._catalog.resolve(reference)

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

    def disk_size(self, image: Image) -> int:
        """Bytes of an image on disk: its unpacked layers, and the blobs that they and the configuration came in."""
        parsed = self._catalog.manifest(image.id)
        return image.size + parsed.config.size + sum(layer.size for layer in parsed.layers)

    def configuration(self, reference: str) -> dict[str, Any]:
        """The image configuration as it came (OCI image-spec, config.md). Raises NotFoundError."""
        return self._with_config(reference)[1]

    def usage(self) -> Usage:
        """Bytes and inodes of the whole store, rubbish included."""
        return of_store(self._catalog, self.blobs, self._layers)

    def disk_usage(self) -> tuple[builtins.list[ImageUsage], Usage]:
        """What each image takes, and all together."""
        return of_images(self.list(), self._catalog, self.blobs, self._layers), self.usage()

    # For pulls

    @property
    def staging(self) -> Path:
        """A private directory for unfinished work, on the store's file system."""
        return self._staging.path

    def has_blob(self, digest: str, size: int) -> bool:
        return self.blobs.has(digest) and self.blobs.size(digest) == size

    def by_manifest(self, digest: str) -> Image | None:
        """The image that came with this manifest."""
        return next((image for image in self._catalog.list() if image.manifest_digest == digest), None)

    def add_names(self, image: Image, names: Sequence[Reference], digests: Sequence[str]) -> Image:
        """Give an image names, and ``repository@digest`` under which it is known. Raises NotFoundError."""
        with self._catalog.lock:
            found = self._catalog.resolve(image.id)
            return self._catalog.record(found.id, found.manifest_digest, names, digests)

    @contextlib.contextmanager
    def keep(self) -> Iterator[Callable[[Sequence[str], Sequence[str]], None]]:
        """A function that keeps blobs (digests) and layers (chain ids) from being removed while the context lasts."""
        with self._catalog.pins() as pins:

            def keep(blobs: Sequence[str], chain: Sequence[str]) -> None:
                for digest in blobs:
                    pins.blob(digest)
                for chain_id in chain:
                    pins.layer(chain_id)

            yield keep

    @contextlib.contextmanager
    def holding(self, image: Image) -> Iterator[None]:
        """Keep an image while the context lasts. Raises NotFoundError."""
        owner = f"work-{uuid.uuid4().hex}"
        self.hold(image.id, owner)
        try:
            yield
        finally:
            self.release(image.id, owner)

    # Putting in

    def load(self, source: Path | BinaryIO, progress: Progress | None = None) -> builtins.list[Image]:
        """Load every image of an OCI or docker archive, or of an OCI directory.

        ``source`` may be a pipe, and compressed. Raises ImageError (corrupt, unsafe, not an image archive),
        NotFoundError, ExhaustedError.
        """
        with _full_disk_is_told(self.root), archive.open_files(source, self._staging.path) as files:
            return [self.install(candidate, progress) for candidate in archive.candidates(files)]

    def install(self, candidate: Candidate, progress: Progress | None = None) -> Image:
        """Store one image with all its blobs, unpack its layers, and give it its names."""
        image_id = hash_bytes(candidate.config)
        what = f"image {image_id}"
        details = parse_config(manifests.decode(candidate.config, what), what)
        known = self._catalog.get(image_id)
        if known is not None and candidate.manifest in (None, self.blobs.read(known.manifest_digest)):
            return self._catalog.record(image_id, known.manifest_digest, candidate.names, candidate.digests)
        diff_ids = details["diff_ids"]
        if len(diff_ids) != len(candidate.layers):
            raise ImageError(f"{what}: has {len(candidate.layers)} layers but rootfs.diff_ids lists {len(diff_ids)}")
        if not diff_ids:
            raise ImageError(f"{what}: has no layers")
        with _full_disk_is_told(self.root), self._catalog.pins() as pins:
            with self._layers.batch() as batch:
                chain = chain_ids(diff_ids)
                descriptors = [
                    self._install_layer(source, diff_id, chain[: index + 1], pins, batch, progress)
                    for index, (source, diff_id) in enumerate(zip(candidate.layers, diff_ids, strict=True))
                ]
            pins.blob(image_id)
            self.blobs.write(io.BytesIO(candidate.config), image_id)
            data = candidate.manifest or manifests.encode(
                manifests.image_manifest(image_id, len(candidate.config), descriptors)
            )
            manifest_digest = hash_bytes(data)
            pins.blob(manifest_digest)
            self.blobs.write(io.BytesIO(data), manifest_digest)
            return self._catalog.record(image_id, manifest_digest, candidate.names, candidate.digests)

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
        with (
            _full_disk_is_told(self.root),
            imports.layer_of(source, self._staging.path, progress) as layer,
        ):
            document = imports.config_document(
                layer.diff_id, config or ImageConfig(), architecture, created, author, comment
            )
            opened = LayerSource(layer.open, layer.digest, layer.size, layer.media_type)
            return self.install(Candidate(manifests.encode(document), None, (opened,), names), progress)

    def tag(self, source: str, target: str) -> Image:
        """Give an image one more name, taking it from any other. Raises NotFoundError, InvalidError."""
        name = _taggable(target)
        with self._catalog.lock:
            image = self.resolve(source)
            return self._catalog.record(image.id, image.manifest_digest, (name,))

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
                names = image.names if self._catalog.by_id(reference) else _asked_for(parse(reference), image)
                known = entries[image.id].names if image.id in entries else ()
                infos = self._layer_infos(image)
                entries[image.id] = saving.Entry(
                    image,
                    self._catalog.manifest(image.id),
                    tuple(dict.fromkeys(known + names)),
                    tuple(info.tar_size if info else -1 for info in infos),
                )
            saving.save(list(entries.values()), self.blobs, fileobj, format, progress)

    def remove(self, reference: str, force: bool = False) -> builtins.list[Removal]:
        """Remove a name, and the image with its last one; by id, the image with all its names.

        Raises ConflictError while a container holds the image, or if an id has several names and ``force`` is not set.
        """
        with self._catalog.lock:
            image = self.resolve(reference)
            doomed = image.names
            if self._catalog.by_id(reference) is None:
                doomed = _asked_for(parse(reference), image)
            elif len(image.names) > 1 and not force:
                raise ConflictError(
                    f"image {reference} has several names ({', '.join(image.names)}); remove those, or force"
                )
            removals = [Removal(untagged=name) for name in doomed]
            if len(doomed) < len(image.names):
                self._catalog.untag(image, doomed)
                return removals
            if holders := self._catalog.holders(image.id):
                users = ", ".join(holders[:3])
                raise ImageInUseError(f"image {reference} is used by {users}; delete what uses it first")
            self._catalog.delete(image)
        self._staging.empty_trash()
        return [*removals, Removal(deleted=image.id)]

    def prune(self, all: bool = False) -> PruneReport:
        """Remove images without a name, with ``all`` every image that no container holds, and all rubbish."""
        removed: builtins.list[Removal] = []
        reclaimed = 0
        with self._catalog.lock:
            for image in self.list():
                if not self._catalog.holders(image.id) and (all or not image.names):
                    reclaimed += self._catalog.delete(image)
                    removed += [*(Removal(untagged=name) for name in image.names), Removal(deleted=image.id)]
            reclaimed += self.collect_retired()
            self.journal.clear()
            reclaimed += self._catalog.sweep()
        self._staging.empty_trash()
        return PruneReport(tuple(removed), reclaimed)

    def holders(self, image: Image) -> builtins.list[str]:
        """Who holds an image."""
        return self._catalog.holders(image.id)

    def last_used(self, image: Image) -> float:
        """Unix time of an image's last use, or when it came."""
        return self._catalog.last_used(image.id)

    def retire(self, reference: str) -> None:
        """Remove an image with all its names at once, as the CRI has it.

        What containers hold of it stays on disk, found by nobody else, until the last has released it. Raises
        NotFoundError, ConflictError (an id that fits several), InvalidError.
        """
        with self._catalog.lock:
            image = self.resolve(reference)
            if self._catalog.holders(image.id):
                self._catalog.retire(image)
            else:
                self._catalog.delete(image)
        self._staging.empty_trash()

    def collect_retired(self) -> int:
        """Remove the retired images that no container holds; returns the bytes freed.

        After a start there may be some whose containers are gone. Not to be called before those that still run hold
        theirs again (recovery).
        """
        freed = 0
        with self._catalog.lock:
            for image in self._catalog.retired():
                if not self._catalog.holders(image.id):
                    freed += self._catalog.delete(image)
        if freed:
            self._staging.empty_trash()
        return freed

    def collect(self, image: Image) -> int:
        """Remove an image that nothing uses, with all its names; returns the bytes freed. Raises ConflictError,
        NotFoundError."""
        with self._catalog.lock:
            if self._catalog.get(image.id) is None:
                raise NotFoundError(f"image {image.id} is not in the store")
            if self._catalog.holders(image.id):
                raise ConflictError(f"image {image.id} is used")
            freed = self._catalog.delete(image)
        self._staging.empty_trash()
        return freed

    def hold(self, image_id: str, owner: str) -> None:
        """Keep an image from being removed while ``owner`` (a container id) is there; again is no error.

        Raises NotFoundError.
        """
        self._catalog.hold(image_id, owner)

    def release(self, image_id: str, owner: str) -> None:
        """Undo ``hold``; nothing happens if there was none. The last one takes a retired image along, in a thread."""
        if self._catalog.release(image_id, owner):
            threading.Thread(target=self.collect_retired, name="podrt-retired", daemon=True).start()

    # Inside

    @contextlib.contextmanager
    def _holding(self, reference: str) -> Iterator[Image]:
        with self._catalog.lock:
            image = self.resolve(reference)
            context = self.holding(image)
            context.__enter__()
        try:
            yield image
        finally:
            context.__exit__(None, None, None)

    def _with_config(self, reference: str) -> tuple[Image, dict[str, Any]]:
        image = self.resolve(reference)
        return image, manifests.decode(self.blobs.read(image.id), f"image {image.id}")

    def _layer_infos(self, image: Image) -> tuple[Any, ...]:
        return tuple(self._layers.info(chain_id) for chain_id in image.chain_ids)

    def _install_layer(
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
        elif not digest or not self.blobs.has(digest) or self.blobs.size(digest) != source.size:
            with source.open() as file:
                digest = self.blobs.write(file, digest, source.size, what=label, progress=progress).digest
            if not source.digest:
                pins.blob(digest)
        size = self.blobs.size(digest)
        with self.blobs.open(digest) as blob:
            kind = detect_file(blob)
            if not source.arriving:
                batch.add(blob, diff_id, chain_id, below=below)
        return Descriptor(manifests.OCI_LAYER + _LAYER_TYPES[kind], digest, size)


def _exhaust(file: BinaryIO) -> None:
    """Read to the end, which raises if what arrives is not what it should be."""
    while file.read(CHUNK):
        pass


def _taggable(text: str) -> Reference:
    reference = parse(text)
    if reference.digest:
        raise InvalidError(
            f"image reference {text!r}: a name with a digest can't be given to an image; leave the digest out"
        )
    return reference


def _asked_for(wanted: Reference, image: Image) -> tuple[str, ...]:
    """Names of ``image`` that a reference means: one, or with a digest all of that repository."""
    return tuple(
        name for name in image.names if (name == str(wanted) if not wanted.digest else parse(name).name == wanted.name)
    )
