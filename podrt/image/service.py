"""The image store: what the engine and the edges call. Synchronous and thread-safe.

``resolve``, ``layers``, ``list`` and ``inspect`` answer from memory. ``load``, ``import_rootfs``, ``save``,
``remove`` and ``prune`` move bytes and belong in a thread (``asyncio.to_thread``). How images come in and go out is in
``installing`` and ``removing``; here are the parts, put together. Below the root::

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
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from podrt.errors import ExhaustedError, InvalidError
from podrt.image import archive, imports, inspecting, saving
from podrt.image import manifest as manifests
from podrt.image.archive import Candidate, LayerSource
from podrt.image.blobs import BlobStore, Progress
from podrt.image.catalog import Catalog, names_meant
from podrt.image.index import Index
from podrt.image.installing import Installer
from podrt.image.journal import Journal
from podrt.image.layers import LayerStore
from podrt.image.reference import Reference, parse
from podrt.image.removing import PruneReport, Removal, Remover
from podrt.image.staging import Staging
from podrt.image.types import Image, ImageConfig
from podrt.image.unpack import Limits
from podrt.image.usage import ImageUsage, Usage, of_images, of_store


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
        self._installer = Installer(self._catalog, self.blobs, self._layers)
        self._remover = Remover(self._catalog, self._staging, self.journal)
        if self._staging.alone:
            self._catalog.sweep(self.journal.kept())
        self._staging.empty_trash()

    def close(self) -> None:
        """Remove the staging directory. The store is not to be used afterwards."""
        self._staging.close()

    # Reading

    def list(self) -> builtins.list[Image]:
        """All images, by first name and id."""
        return self._catalog.in_order()

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
        with _full_disk_is_told(self.root):
            return self._installer.install(candidate, progress)

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
                names = image.names if self._catalog.by_id(reference) else names_meant(parse(reference), image)
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
        return self._remover.remove(reference, force)

    def prune(self, all: bool = False) -> PruneReport:
        """Remove images without a name, with ``all`` every image that no container holds, and all rubbish."""
        return self._remover.prune(all)

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
        self._remover.retire(reference)

    def collect_retired(self) -> int:
        """Remove the retired images that no container holds; returns the bytes freed.

        After a start there may be some whose containers are gone. Not to be called before those that still run hold
        theirs again (recovery).
        """
        return self._remover.collect_retired()

    def collect(self, image: Image) -> int:
        """Remove an image that nothing uses, with all its names; returns the bytes freed. Raises ConflictError,
        NotFoundError."""
        return self._remover.collect(image)

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


def _taggable(text: str) -> Reference:
    reference = parse(text)
    if reference.digest:
        raise InvalidError(
            f"image reference {text!r}: a name with a digest can't be given to an image; leave the digest out"
        )
    return reference
