"""Unpacked layers, one directory for each chain id, shared by all images and containers.

``<root>/<hex of chain id>/`` is the layer's file tree and is used as an overlayfs lower directory as it is;
``<hex>.json`` beside it says how large it is. A layer is unpacked in the staging directory, written out with sync(2),
and renamed into place: it is whole or absent, and a name that is there is never written again. The chain id of a
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
import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from podrt import fsutil
from podrt.errors import ImageError
from podrt.image.compression import Readable
from podrt.image.unpack import Limits, unpack

_LOG = logging.getLogger(__name__)
_HEX = 64
_TRASH = "removed-"
_VERSION = 1


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


class LayerStore:
    """The unpacked layers below ``root``; ``staging`` is a private directory on the same file system."""

    def __init__(self, root: Path, staging: Path, limits: Limits | None = None) -> None:
        self.root = root
        self._staging = staging
        self._limits = limits
        root.mkdir(mode=0o755, parents=True, exist_ok=True)
        root.chmod(0o755)
        self._infos: dict[str, LayerInfo] = {}
        self._unpacking = threading.Lock()
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
        """Unpack the layer archive ``source`` unless its chain is there already, and verify its diff id.

        Raises ImageError if the content is another than ``diff_id`` says or is unsafe, OSError (ENOSPC).
        """
        with self._unpacking:  # one at a time: two would only compete for the disk, and might unpack the same layer
            return self._infos.get(chain_id) or self._add(source, diff_id, chain_id)

    def _add(self, source: Readable, diff_id: str, chain_id: str) -> LayerInfo:
        temporary = self._staging / f"layer-{uuid.uuid4().hex}"
        temporary.mkdir(mode=0o700)
        try:
            # A whole directory more, as the staged tree's own root gets the mode that the archive says.
            tree = temporary / "tree"
            tree.mkdir(mode=0o755)
            tree.chmod(0o755)
            found = unpack(source, tree, base=chain_id == diff_id, limits=self._limits)
            if found.diff_id != diff_id:
                raise ImageError(f"layer {diff_id}: unpacks to {found.diff_id}; the image is corrupt")
            info = LayerInfo(*found)
            os.sync()  # once for the whole tree; an fsync(2) of each file would cost as many journal commits
            self._publish(tree, chain_id, info)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._infos[chain_id] = info
        return info

    def remove(self, chain_id: str) -> int:
        """Remove a layer that nothing uses; returns the bytes of its contents.

        It is gone at once; :meth:`empty_trash` deletes the files, which takes its time.
        """
        info = self._infos.pop(chain_id, None)
        self._discard(chain_id)
        return info.size if info else 0

    def empty_trash(self) -> None:
        """Delete the files of removed layers."""
        for entry in list(os.scandir(self._staging)):
            if entry.name.startswith(_TRASH):
                shutil.rmtree(entry.path, ignore_errors=True)  # another thread may be at the same

    def _publish(self, tree: Path, chain_id: str, info: LayerInfo) -> None:
        self._discard(chain_id)  # one without a record, left by a crash or damaged
        document = {"version": _VERSION, "chain_id": chain_id, **info._asdict()}
        target = self.path(chain_id)
        fsutil.write_atomic(f"{target}.json", json.dumps(document).encode(), durable=True)
        os.rename(tree, target)
        fsutil.sync_dir(self.root)

    def _discard(self, chain_id: str) -> None:
        """Take the directory away in one step, to where a crash leaves nothing of it behind."""
        target = self.path(chain_id)
        with contextlib.suppress(FileNotFoundError):
            os.rename(target, self._staging / f"{_TRASH}{uuid.uuid4().hex}")
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
