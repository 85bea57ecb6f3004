"""Takes images out of the store: by name or id, all that nothing uses, or retired ones that were let go of.

What a container holds is never removed; an image that is *retired* (as the CRI removes it) is only found no more until
the last container has let go. Each decision and its deed are under the catalog's lock; the files of layers go outside
of it, for that may take minutes.
"""

from __future__ import annotations

from typing import NamedTuple

from podrt.errors import ConflictError, NotFoundError
from podrt.image.catalog import Catalog, names_meant
from podrt.image.journal import Journal
from podrt.image.reference import parse
from podrt.image.staging import Staging
from podrt.image.types import Image


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


class Remover:
    """Removes from the parts of one store. The methods are those of :class:`podrt.image.service.ImageStore`, which
    says what they do and raise."""

    def __init__(self, catalog: Catalog, staging: Staging, journal: Journal) -> None:
        self._catalog = catalog
        self._staging = staging
        self._journal = journal

    def remove(self, reference: str, force: bool) -> list[Removal]:
        with self._catalog.lock:
            image = self._catalog.resolve(reference)
            doomed = image.names
            if self._catalog.by_id(reference) is None:
                doomed = names_meant(parse(reference), image)
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

    def prune(self, all: bool) -> PruneReport:
        removed: list[Removal] = []
        reclaimed = 0
        with self._catalog.lock:
            for image in self._catalog.in_order():
                if not self._catalog.holders(image.id) and (all or not image.names):
                    reclaimed += self._catalog.delete(image)
                    removed += [*(Removal(untagged=name) for name in image.names), Removal(deleted=image.id)]
            reclaimed += self.collect_retired()
            self._journal.clear()
            reclaimed += self._catalog.sweep()
        self._staging.empty_trash()
        return PruneReport(tuple(removed), reclaimed)

    def retire(self, reference: str) -> None:
        with self._catalog.lock:
            image = self._catalog.resolve(reference)
            if self._catalog.holders(image.id):
                self._catalog.retire(image)
            else:
                self._catalog.delete(image)
        self._staging.empty_trash()

    def collect_retired(self) -> int:
        freed = 0
        with self._catalog.lock:
            for image in self._catalog.retired():
                if not self._catalog.holders(image.id):
                    freed += self._catalog.delete(image)
        if freed:
            self._staging.empty_trash()
        return freed

    def collect(self, image: Image) -> int:
        with self._catalog.lock:
            if self._catalog.get(image.id) is None:
                raise NotFoundError(f"image {image.id} is not in the store")
            if self._catalog.holders(image.id):
                raise ConflictError(f"image {image.id} is used")
            freed = self._catalog.delete(image)
        self._staging.empty_trash()
        return freed
