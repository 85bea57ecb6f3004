"""Makes an image of one layer out of a root file system, given as a directory or as a tar archive."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from podrt.errors import NotFoundError
from podrt.image import manifest as manifests
from podrt.image.blobs import CHUNK, Progress, hash_bytes, write_all
from podrt.image.compression import Readable, decompress
from podrt.image.pack import pack
from podrt.image.tarstream import TarEntries, TarStream
from podrt.image.types import ImageConfig
from podrt.image.unpack import Limits


class RootLayer(NamedTuple):
    """A layer in a staging file; ``digest`` is empty where it is not known yet."""

    diff_id: str
    digest: str
    size: int
    media_type: str
    open: Callable[[], contextlib.AbstractContextManager[BinaryIO]]


@contextlib.contextmanager
def layer_of(source: Path | BinaryIO, staging: Path, progress: Progress | None) -> Iterator[RootLayer]:
    """The layer that ``source`` becomes; there while the context is.

    Raises ImageError if it is no tar archive, NotFoundError.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(source, Path) and source.is_dir():
            fd = os.open(staging, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            file: BinaryIO = stack.enter_context(open(fd, "w+b"))
            packed = pack(source, file, progress=progress)
            file.flush()
            yield RootLayer(packed.diff_id, packed.digest, packed.size, packed.media_type, _rewound(file))
            return
        if isinstance(source, Path):
            try:
                file = stack.enter_context(source.open("rb"))
            except FileNotFoundError as error:
                raise NotFoundError(f"{source}: no such file or directory") from error
        else:
            file = source if source.seekable() else stack.enter_context(_spool(source, staging, progress))
        start = file.tell()
        diff_id = _diff_id(file)
        size = file.tell() - start
        yield RootLayer(diff_id, "", size if size > 0 else -1, manifests.OCI_LAYER, _rewound(file, start))


def config_document(
    diff_id: str, config: ImageConfig, architecture: str, created: datetime | None, author: str, comment: str
) -> dict[str, Any]:
    """An image configuration (OCI image-spec, config.md) for one layer."""
    time = (created or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    values: dict[str, Any] = {
        "Env": list(config.env),
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.cmd),
        "User": config.user,
        "WorkingDir": config.working_dir,
        "StopSignal": config.stop_signal,
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Volumes": {volume: {} for volume in config.volumes},
        "Labels": dict(config.labels),
    }
    document: dict[str, Any] = {
        "architecture": architecture or manifests.host_architecture(),
        "os": "linux",
        "created": time,
        "config": {key: value for key, value in values.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": time, "created_by": "podrt image import", "comment": comment}],
    }
    if author:
        document["author"] = author
    return document


def config_digest(document: dict[str, Any]) -> str:
    """The id of the image that has this configuration."""
    return hash_bytes(manifests.encode(document))


def _rewound(file: BinaryIO, start: int = 0) -> Callable[[], contextlib.AbstractContextManager[BinaryIO]]:
    def opener() -> contextlib.AbstractContextManager[BinaryIO]:
        file.seek(start)
        return contextlib.nullcontext(file)

    return opener


def _diff_id(file: BinaryIO) -> str:
    """Hash the uncompressed archive, and see that it is one before anything is stored of it."""
    _, plain = decompress(file)
    limits = Limits()
    with TarStream(plain, limits.max_bytes) as stream:
        for _ in TarEntries(stream, 1 << 62):
            break
        return stream.finish()[0]


@contextlib.contextmanager
def _spool(source: Readable, staging: Path, progress: Progress | None) -> Iterator[BinaryIO]:
    fd = os.open(staging, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    with open(fd, "w+b") as file:
        done = 0
        while chunk := source.read(CHUNK):
            write_all(fd, chunk)
            done += len(chunk)
            if progress is not None:
                progress("reading", done, 0)
        file.seek(0)
        yield file
