"""Static Pods: manifests in a directory that the daemon keeps running, as a kubelet does.

Each file holds one Pod (YAML or JSON). It becomes the Pod ``<name>-<node>`` with the annotations that a kubelet gives
its mirror Pods; deleted through the API it comes back, a changed file replaces it, a removed file ends it. A file that
can't be used is reported once per change as a warning event of the node, and what ran from it before goes on.

The directory is looked at every few seconds: a handful of stat(2) calls, and it may not exist yet.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from pathlib import Path
from typing import NamedTuple

import msgspec

from podrt.errors import PodrtError
from podrt.model import codec
from podrt.model.kinds import resource_named
from podrt.model.node import Node
from podrt.model.pod import Pod
from podrt.store.events import EventRecorder
from podrt.store.objects import Registry
from podrt.store.watch import Change

logger = logging.getLogger(__name__)

PERIOD = 2.0
SOURCE = "kubernetes.io/config.source"
HASH = "kubernetes.io/config.hash"
MIRROR = "kubernetes.io/config.mirror"
SUFFIXES = (".yaml", ".yml", ".json")
MAX_BYTES = 1 << 20


class _Stamp(NamedTuple):
    """What tells a changed file."""

    inode: int
    size: int
    mtime: int


class StaticPods:
    """Keeps the Pods of ``directory`` in the store."""

    def __init__(self, directory: Path, registry: Registry, recorder: EventRecorder, node_name: str) -> None:
        self._directory = directory
        self._registry = registry
        self._store = registry.store
        self._recorder = recorder
        self._node_name = node_name
        self._seen: dict[str, _Stamp] = {}
        self._wanted: dict[str, Pod] = {}
        """By file name."""
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Look at the directory and at the Pods until cancelled."""
        subscription = self._store.subscribe(self._on_change, Pod)
        try:
            while True:
                self._changed.clear()
                self._read()
                self._reconcile()
                try:
                    async with asyncio.timeout(PERIOD):
                        await self._changed.wait()
                except TimeoutError:
                    pass
        finally:
            subscription.close()

    def _on_change(self, change: Change) -> None:
        # A deleted one comes back at once; what else happens to Pods is none of our business.
        if change.new is None and SOURCE in change.object.metadata.annotations:
            self._changed.set()

    # The files

    def _read(self) -> None:
        try:
            files = {path.name: path for path in self._directory.iterdir() if path.suffix in SUFFIXES}
        except FileNotFoundError:
            files = {}
        except OSError as error:
            logger.warning("static Pods: %s: %s", self._directory, error.strerror)
            return
        for name in self._seen.keys() - files.keys():
            del self._seen[name]
            self._wanted.pop(name, None)
        for name, path in sorted(files.items()):
            try:
                status = path.stat()
                stamp = _Stamp(status.st_ino, status.st_size, status.st_mtime_ns)
                if self._seen.get(name) == stamp:
                    continue
                self._seen[name] = stamp
                self._wanted[name] = self._pod(path)
            except (PodrtError, OSError, ValueError) as error:
                self._report(f"{path}: {error}")

    def _pod(self, path: Path) -> Pod:
        """Raises MalformedError, OSError, and ValueError for what is no Pod."""
        if path.name.startswith(".") or not path.is_file():
            raise ValueError("not a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError("larger than 1 MiB")
        pod = codec.decode(data, content_type="application/yaml", expected=resource_named("pods")).object
        assert isinstance(pod, Pod)
        if not pod.metadata.name:
            raise ValueError("metadata.name: required")
        digest = hashlib.sha256(data).hexdigest()[:32]
        meta = pod.metadata
        marks = {SOURCE: "file", HASH: digest, MIRROR: digest}
        named = msgspec.structs.replace(
            meta,
            name=f"{meta.name}-{self._node_name}",
            namespace=meta.namespace or "default",
            annotations={**meta.annotations, **marks},
        )
        spec = msgspec.structs.replace(pod.spec, node_name=self._node_name)
        return msgspec.structs.replace(pod, metadata=named, spec=spec)

    # The Pods

    def _reconcile(self) -> None:
        wanted = {(pod.metadata.namespace, pod.metadata.name): pod for pod in self._wanted.values()}
        stored = {
            (pod.metadata.namespace, pod.metadata.name): pod
            for pod in self._store.list(Pod).items
            if pod.metadata.annotations.get(SOURCE) == "file"
        }
        for key, pod in stored.items():
            same = key in wanted and wanted[key].metadata.annotations[HASH] == pod.metadata.annotations.get(HASH)
            if not same and pod.metadata.deletion_timestamp is None and not self._unread(pod):
                self._registry.delete(Pod, *key)
        for key, pod in wanted.items():
            if key not in stored:
                self._create(pod)

    def _unread(self, pod: Pod) -> bool:
        """A file is there that can't be used now: what may have come from it is left alone."""
        broken = [name for name in self._seen if name not in self._wanted]
        return bool(broken) and not any(one.metadata.name == pod.metadata.name for one in self._wanted.values())

    def _create(self, pod: Pod) -> None:
        try:
            self._registry.create(pod)
        except PodrtError as error:
            self._report(f"static Pod {pod.metadata.name}: {error}")

    def _report(self, message: str) -> None:
        logger.warning("%s", message)
        node = self._store.find(Node, "", self._node_name)
        if node is not None:
            self._recorder.record(node, "Warning", "FailedStaticPod", message)
