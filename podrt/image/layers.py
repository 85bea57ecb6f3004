"""Unpacked layers, one directory for each chain id, shared by all images and containers.

``<root>/<hex of chain id>/`` is the layer's file tree and is used as an overlayfs lower directory as it is;
``<hex>.json`` beside it says how large it is. Layers are unpacked in the staging directory, written out with syncfs(2)
and renamed into place: one is whole or absent, and a name that is there is never written again. The chain id of a
layer covers all layers below it (OCI image-spec, config.md, "Layer ChainID"), so equal ids mean equal stacks.

The tree of a layer can be gone through by anyone (0755), as in the container; the directories above it are for root
alone, since a layer holds setuid files and what else an image's author chose. Containers with a user namespace don't
mind: root mounts the layers, idmapped, and overlayfs looks below its mount point with the rights of who mounted it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from podrt import fsutil
from podrt.errors import ImageError
from podrt.image.compression import Readable
from podrt.image.staging import TRASH
from podrt.image.unpack import Limits, unpack
from podrt.linux import libc
from podrt.linux.removal import remove_tree

_LOG = logging.getLogger(__name__)
_HEX = 64
_VERSION = 1
_BATCH_BYTES = 512 << 20
"""Bytes of unpacked layers that wait for one syncfs(2) at most."""


class LayerInfo(NamedTuple):
    """What is recorded of an unpacked layer; sizes in bytes."""

    diff_id: str
    size: int
    """File contents."""
    entries: int
    tar_size: int
    """Length of the uncompressed archive."""


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """The chain id of each layer, bottom first."""
    result: list[str] = []
    for diff_id in diff_ids:
        if result:
            joined = f"{result[-1]} {diff_id}".encode()
            result.append(f"sha256:{hashlib.sha256(joined).hexdigest()}")
        else:
            result.append(diff_id)
    return tuple(result)


class Staged(NamedTuple):
    """An unpacked and verified layer that is not published yet: ``directory`` holds it as ``tree``."""

    directory: Path
    chain_id: str
    info: LayerInfo


class Batch:
    """Layers that one piece of work unpacks, bottom first; made by :meth:`LayerStore.batch`."""

    def __init__(self, store: LayerStore, staging: Path, limits: Limits | None) -> None:
        self._store = store
        self._staging = staging
        self._limits = limits
        self._staged: dict[str, Staged] = {}

    def add(
        self,
        source: Readable,
        diff_id: str,
        chain_id: str,
        verify: Callable[[], None] | None = None,
        below: Sequence[str] = (),
    ) -> LayerInfo:
        """Unpack the layer archive ``source`` unless its chain is there already, and verify its diff id.

        ``verify`` is called before the layer counts: it raises if the bytes that ``source`` gave are not the right
        ones. ``below`` are the chain ids of the layers below, bottom first. Raises ImageError if the content is another
        than ``diff_id`` says or is unsafe, OSError (ENOSPC).
        """
        if chain_id in self._staged:
            return self._staged[chain_id].info
        known = self._store.reserve(chain_id)
        if known is not None:
            if verify is not None:
                verify()
            return known
        directory = self._staging / f"layer-{uuid.uuid4().hex}"
        try:
            trees = [self._tree(one) for one in reversed(below)]
            info = self._unpack(source, directory, diff_id, trees, base=chain_id == diff_id)
            if verify is not None:
                verify()
        except BaseException:
            _remove(directory)
            self._store.unreserve([chain_id])
            raise
        self._staged[chain_id] = Staged(directory, chain_id, info)
        if sum(one.info.tar_size for one in self._staged.values()) > _BATCH_BYTES:
            self.publish()
        return info

    def _tree(self, chain_id: str) -> Path:
        staged = self._staged.get(chain_id)
        return staged.directory / "tree" if staged else self._store.path(chain_id)

    def _unpack(
        self, source: Readable, directory: Path, diff_id: str, below: Sequence[Path], *, base: bool
    ) -> LayerInfo:
        directory.mkdir(mode=0o700)
        # A whole directory more, as the staged tree's own root gets the mode that the archive says.
        tree = directory / "tree"
        tree.mkdir(mode=0o755)
        tree.chmod(0o755)
        found = unpack(source, tree, base=base, limits=self._limits, below=below)
        if found.diff_id != diff_id:
            raise ImageError(f"layer {diff_id}: unpacks to {found.diff_id}; the image is corrupt")
        return LayerInfo(*found)

    def publish(self) -> None:
        """Make what was unpacked so far durable and known."""
        if self._staged:
            self._store.publish(list(self._staged.values()))
            self.close()

    def close(self) -> None:
        """Remove what was not published."""
        staged, self._staged = self._staged, {}
        for one in staged.values():
            _remove(one.directory)
        self._store.unreserve(staged)


class LayerStore:
    """The unpacked layers below ``root``; ``staging`` is a private directory on the same file system."""

    def __init__(self, root: Path, staging: Path, limits: Limits | None = None) -> None:
        self.root = root
        self._staging = staging
        self._limits = limits
        root.mkdir(mode=0o755, parents=True, exist_ok=True)
        root.chmod(0o755)
        self._infos: dict[str, LayerInfo] = {}
        self._unpacked = threading.Condition()
        self._busy: set[str] = set()
        """Chain ids that are being unpacked."""
        for chain_id in list(self._present()):
            info = self._read_info(chain_id)
            if info is None:
                _LOG.warning("layer %s has no valid record and is unpacked anew when it is needed", chain_id)
            else:
                self._infos[chain_id] = info

    def path(self, chain_id: str) -> Path:
        return self.root / chain_id.removeprefix("sha256:")

    def info(self, chain_id: str) -> LayerInfo | None:
        """What is known of an unpacked layer; None if it is not there."""
        return self._infos.get(chain_id)

    def chain_ids(self) -> list[str]:
        """All layers, those included of which only the directory or only the record is there."""
        names = {entry.name.removesuffix(".json") for entry in os.scandir(self.root)}
        return [f"sha256:{name}" for name in sorted(names) if len(name) == _HEX]

    def add(self, source: Readable, diff_id: str, chain_id: str) -> LayerInfo:
        """Unpack one layer and publish it; see :meth:`Batch.add`."""
        with self.batch() as batch:
            return batch.add(source, diff_id, chain_id)

    @contextlib.contextmanager
    def batch(self) -> Iterator[Batch]:
        """Several layers, published together at the end. Of an image that turned out to be wrong (ImageError) none is;
        where something else ended the work, those that are whole are."""
        batch = Batch(self, self._staging, self._limits)
        try:
            yield batch
        except ImageError:
            raise
        except BaseException:
            with contextlib.suppress(OSError):
                batch.publish()
            raise
        else:
            batch.publish()
        finally:
            batch.close()

    def reserve(self, chain_id: str) -> LayerInfo | None:
        """Wait until nobody else unpacks this layer. Its info, or None: then the caller unpacks it and is to
        ``unreserve`` it."""
        with self._unpacked:
            while chain_id in self._busy:
                self._unpacked.wait()
            if chain_id not in self._infos:
                self._busy.add(chain_id)
                return None
            return self._infos[chain_id]

    def unreserve(self, chain_ids: Iterable[str]) -> None:
        with self._unpacked:
            self._busy.difference_update(chain_ids)
            self._unpacked.notify_all()

    def publish(self, staged: Sequence[Staged]) -> None:
        """Make unpacked layers durable and known: one syncfs(2) for all, as an fsync(2) of each file would cost as
        many journal commits."""
        for one in staged:
            document = {"version": _VERSION, "chain_id": one.chain_id, **one.info._asdict()}
            (one.directory / "info.json").write_bytes(json.dumps(document).encode())
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            libc.syncfs(fd)
            for one in staged:
                self._discard(one.chain_id)  # one without a record, left by a crash or damaged
                target = self.path(one.chain_id)
                os.rename(one.directory / "info.json", f"{target}.json")
                os.rename(one.directory / "tree", target)
            os.fsync(fd)
        finally:
            os.close(fd)
        for one in staged:
            self._infos[one.chain_id] = one.info

    def remove(self, chain_id: str) -> int:
        """Remove a layer that nothing uses; returns the bytes of its contents.

        It is gone at once; :meth:`podrt.image.staging.Staging.empty_trash` deletes the files.
        """
        info = self._infos.pop(chain_id, None)
        self._discard(chain_id)
        return info.size if info else 0

    def _discard(self, chain_id: str) -> None:
        """Take the directory away in one step, to where a crash leaves nothing of it behind."""
        target = self.path(chain_id)
        with contextlib.suppress(FileNotFoundError):
            os.rename(target, self._staging / f"{TRASH}{uuid.uuid4().hex}")
        fsutil.unlink_missing_ok(f"{target}.json")

    def _present(self) -> Iterator[str]:
        for entry in os.scandir(self.root):
            if len(entry.name) == _HEX and entry.is_dir(follow_symlinks=False):
                yield f"sha256:{entry.name}"

    def _read_info(self, chain_id: str) -> LayerInfo | None:
        try:
            document = json.loads(Path(f"{self.path(chain_id)}.json").read_bytes())
            if document["version"] != _VERSION or document["chain_id"] != chain_id:
                return None
            return LayerInfo(
                str(document["diff_id"]), int(document["size"]), int(document["entries"]), int(document["tar_size"])
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _remove(path: str | Path) -> None:
    """As far as it can be: what stays is staging's to remove at the next start."""
    with contextlib.suppress(OSError):
        remove_tree(path)
