"""Which images there are, what they are called, and what keeps a blob or a layer from being removed.

The index on disk and its image in memory, changed together under one lock. Three things keep content: an image that
needs it, a *hold* of a container on an image, and a *pin* of work in progress on what it has stored but not yet
recorded. What nothing keeps is rubbish.

A *retired* image has no names and is found no more, neither by its id; its layers stay for the containers that hold
it. The same content coming again makes it an image like others.
"""

from __future__ import annotations

import builtins
import contextlib
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from podrt.errors import ConflictError, ImageError, NotFoundError, PodrtError
from podrt.image import manifest as manifests
from podrt.image.blobs import BlobStore
from podrt.image.index import Index, Record
from podrt.image.journal import Kept
from podrt.image.layers import LayerStore, chain_ids
from podrt.image.reference import Reference, parse
from podrt.image.types import Image, parse_config

_LOG = logging.getLogger(__name__)
_ID = re.compile(r"(?:sha256:)?([0-9a-f]{2,64})")


class Pins:
    """What one piece of work keeps: blobs by digest, layers by chain id (the lowest layer's is a digest as well)."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.blobs: list[str] = []
        self.layers: list[str] = []

    def blob(self, digest: str) -> None:
        self._catalog.pin(self, blob=digest)

    def layer(self, chain_id: str) -> None:
        self._catalog.pin(self, layer=chain_id)


class Catalog:
    """``lock`` is reentrant: hold it to look and then act. Methods that change anything take it themselves."""

    def __init__(self, index: Index, blobs: BlobStore, layers: LayerStore) -> None:
        self.lock = threading.RLock()
        self._index = index
        self._blobs = blobs
        self._layers = layers
        self._records: dict[str, Record] = {}
        self._images: dict[str, Image] = {}
        self._retired: dict[str, Image] = {}
        self._manifests: dict[str, manifests.Manifest] = {}
        self._held: dict[str, set[str]] = {}
        self._pinned_blobs: Counter[str] = Counter()
        self._pinned_layers: Counter[str] = Counter()
        records, broken = index.load()
        for record in records.values():
            try:
                self._remember(record)
            except (PodrtError, OSError) as error:
                _LOG.error("image %s is passed over: %s", record.id, error)
                broken += 1
        self._complete = not broken

    # Looking

    def list(self) -> builtins.list[Image]:
        return list(
            self._images.values()
        )  # one step for other threads, so that no reader waits for a writer's fsync(2)

    def in_order(self) -> builtins.list[Image]:
        """By first name and id."""
        return sorted(self.list(), key=lambda image: (not image.names, image.names, image.id))

    def resolve(self, reference: str) -> Image:
        """See :meth:`podrt.image.service.ImageStore.resolve`."""
        found = self.by_id(reference)
        if found is not None:
            return found
        wanted = parse(reference)
        for image in self.list():
            if _matches(image, wanted):
                return image
        raise NotFoundError(
            f"image {reference!r} is not in the store; load it with image load, or see image ls for what is there"
        )

    def by_id(self, text: str) -> Image | None:
        """The image that ``text`` is the id of, in full or its beginning; None if ``text`` can be a name.

        Raises ConflictError if it fits several, NotFoundError for what can only be an id and is none.
        """
        match = _ID.fullmatch(text)
        if match is None:
            return None
        images = self.list()
        found = [image for image in images if image.id.startswith("sha256:" + match[1])]
        can_be_name = not text.startswith("sha256:") and len(match[1]) < 64
        if can_be_name and any(_matches(image, parse(text)) for image in images):
            return None
        if len(found) > 1:
            raise ConflictError(f"image id {text!r} fits {len(found)} images; give more of it")
        if not found and not can_be_name:
            raise NotFoundError(f"image {text!r} is not in the store; see image ls for what is there")
        return found[0] if found else None

    def get(self, image_id: str) -> Image | None:
        """Retired ones too."""
        return self._images.get(image_id) or self._retired.get(image_id)

    def retired(self) -> builtins.list[Image]:
        return list(self._retired.values())

    def manifest(self, image_id: str) -> manifests.Manifest:
        return self._manifests[image_id]

    # Changing

    def record(
        self, image_id: str, manifest_digest: str, names: Sequence[Reference], digests: Sequence[str] = ()
    ) -> Image:
        """Make the image known, or add ``names`` and ``digests`` to it; other images lose those names."""
        with self.lock:
            now = time.time_ns()
            known = self._records.get(image_id)
            given = dict(known.names) if known else {}
            given.update({str(name): now for name in names})
            all_digests = tuple(sorted({*(known.digests if known else ()), *digests}))
            record = Record(image_id, manifest_digest, given, known.added if known else now, all_digests)
            replaced = [known.manifest, *(layer.digest for layer in self._manifests[image_id].layers)] if known else []
            self._index.save(record)
            image = self._remember(record)
            self._free(replaced, ())  # the same image may come again in other blobs, differently compressed
            for other in list(self._records.values()):
                if other.id != image_id and not given.keys().isdisjoint(other.names):
                    self._rename(other, {name: at for name, at in other.names.items() if name not in given})
            return image

    def untag(self, image: Image, names: Sequence[str]) -> None:
        """Take names from an image, which stays."""
        with self.lock:
            record = self._records[image.id]
            self._rename(record, {name: at for name, at in record.names.items() if name not in names})

    def retire(self, image: Image) -> None:
        """Forget an image for all but those who hold it."""
        with self.lock:
            changed = self._records[image.id]._replace(names={}, digests=(), retired=True)
            self._index.save(changed)
            self._remember(changed)

    def delete(self, image: Image) -> int:
        """Forget an image and remove what only it needed; returns the bytes freed.

        The files of its layers go when :meth:`podrt.image.staging.Staging.empty_trash` is called, outside of the lock.
        """
        with self.lock:
            self._index.remove(image.id)
            parsed = self._manifests.pop(image.id)
            del self._records[image.id]
            self._images.pop(image.id, None)
            self._retired.pop(image.id, None)
            blobs = [image.id, image.manifest_digest, *(layer.digest for layer in parsed.layers)]
            return self._free(blobs, reversed(image.chain_ids))

    def sweep(self, spared: Kept | None = None) -> int:
        """Remove what no image needs, unless a record couldn't be read: containers may still run on what it was about.

        ``spared`` stays all the same. Returns the bytes freed.
        """
        with self.lock:
            if not self._complete:
                return 0
            kept = spared or Kept(frozenset(), frozenset())
            blobs = [digest for digest in self._blobs.digests() if digest not in kept.blobs]
            return self._free(blobs, [one for one in self._layers.chain_ids() if one not in kept.layers])

    # Keeping

    def hold(self, image_id: str, owner: str) -> None:
        with self.lock:
            if self.get(image_id) is None:
                raise NotFoundError(f"image {image_id} is not in the store")
            self._held.setdefault(image_id, set()).add(owner)
            self._index.touch(image_id)

    def release(self, image_id: str, owner: str) -> bool:
        """Whether the image was retired and is held by nobody now."""
        with self.lock:
            owners = self._held.get(image_id)
            if owners is not None:
                owners.discard(owner)
                self._index.touch(image_id)
                if not owners:
                    del self._held[image_id]
            return image_id in self._retired and not owners

    def holders(self, image_id: str) -> builtins.list[str]:
        with self.lock:
            return sorted(self._held.get(image_id, ()))

    def last_used(self, image_id: str) -> float:
        """Unix time of the last hold or release, or when the image came."""
        return self._index.last_used(image_id)

    @contextlib.contextmanager
    def pins(self) -> Iterator[Pins]:
        """Pins of one piece of work, which go with it; and with it what was pinned, if the work found that it is wrong
        (ImageError) and no image needs it."""
        pins = Pins(self)
        wrong = False
        try:
            yield pins
        except ImageError:
            wrong = True
            raise
        finally:
            with self.lock:
                self._pinned_blobs -= Counter(pins.blobs)
                self._pinned_layers -= Counter(pins.layers)
                if wrong:
                    self._free(pins.blobs, reversed(pins.layers))

    def pin(self, pins: Pins, blob: str = "", layer: str = "") -> None:
        with self.lock:
            if blob:
                self._pinned_blobs[blob] += 1
                pins.blobs.append(blob)
            if layer:
                self._pinned_layers[layer] += 1
                pins.layers.append(layer)

    # Inside

    def _rename(self, record: Record, names: dict[str, int]) -> None:
        changed = record._replace(names=names)
        self._index.save(changed)
        self._remember(changed)

    def _remember(self, record: Record) -> Image:
        """Build the image of a record from its blobs, and keep both. Raises PodrtError if any part is not there."""
        what = f"image {record.id}"
        details = parse_config(manifests.decode(self._blobs.read(record.id), what), what)
        parsed = manifests.parse_manifest(manifests.decode(self._blobs.read(record.manifest), what), what)
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
            digests=tuple(sorted({*(f"{name}@{record.manifest}" for name in repositories), *record.digests})),
            size=sum(sizes),
            chain_ids=chain,
            **details,
        )
        self._records[record.id] = record
        self._manifests[record.id] = parsed
        here, elsewhere = (self._retired, self._images) if record.retired else (self._images, self._retired)
        here[record.id] = image
        elsewhere.pop(record.id, None)
        return image

    def _free(self, blobs: Iterable[str], chain: Iterable[str]) -> int:
        """Remove those of the given blobs and layers that nothing keeps; returns bytes."""
        kept_blobs, kept_layers = set(self._pinned_blobs), set(self._pinned_layers)
        for image in (*self._images.values(), *self._retired.values()):
            kept_layers.update(image.chain_ids)
            kept_blobs.update((image.id, image.manifest_digest))
            kept_blobs.update(layer.digest for layer in self._manifests[image.id].layers)
        freed = sum(self._layers.remove(chain_id) for chain_id in chain if chain_id not in kept_layers)
        return freed + sum(self._blobs.remove(digest) for digest in blobs if digest not in kept_blobs)


def names_meant(wanted: Reference, image: Image) -> tuple[str, ...]:
    """Names of ``image`` that a reference means: one, or with a digest all of that repository."""
    return tuple(
        name for name in image.names if (name == str(wanted) if not wanted.digest else parse(name).name == wanted.name)
    )


def _matches(image: Image, wanted: Reference) -> bool:
    if wanted.digest:
        return f"{wanted.name}@{wanted.digest}" in image.digests
    return str(wanted) in image.names
