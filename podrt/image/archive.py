"""Reads images out of archives: OCI archives and directories, and docker archives (``docker save``, ``podman save``).

Both kinds are a handful of named files that point to one another; names are only ever looked up in the archive's own
table, never used as paths of this machine. docker 25 and later writes both kinds into one archive; the OCI side is
taken then, and the names of both. An archive that can't be read at random (a pipe, or one compressed as a whole) is
first put into a staging file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import posixpath
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from podrt.errors import ImageError, InvalidError, NotFoundError, PodrtError
from podrt.image import manifest as manifests
from podrt.image.blobs import CHUNK, hash_bytes
from podrt.image.compression import Readable, decompress
from podrt.image.manifest import Descriptor
from podrt.image.reference import Reference, parse

_LOG = logging.getLogger(__name__)
_MAX_FILES = 100_000
_MAX_NESTING = 3
_MAX_READ = 8 << 20
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_LEGACY_LAYER = "application/vnd.docker.image.rootfs.diff.tar"


class LayerSource(NamedTuple):
    """A layer that can be fetched: from an archive here, from a registry elsewhere."""

    open: Callable[[], contextlib.AbstractContextManager[BinaryIO]]
    digest: str
    """Empty where only reading it tells (docker archives)."""
    size: int
    """-1 where not known."""
    media_type: str
    arriving: bool = False
    """The layer is put into the blob store by who offers it; what ``open`` gives can be read while it comes, and ends
    only when the blob is there, whole and verified."""


class Candidate(NamedTuple):
    """An image that a source offers and the store may install."""

    config: bytes
    manifest: bytes | None
    """None: the source has none that describes these layers, and the store writes one."""
    layers: tuple[LayerSource, ...]
    names: tuple[Reference, ...] = ()
    digests: tuple[str, ...] = ()
    """``repository@digest`` under which a registry gives it."""


class Files:
    """The files of an archive by name. A name is relative and has ``/`` between its parts."""

    def open(self, name: str) -> BinaryIO:
        """Raises ImageError if there is no such file."""
        raise NotImplementedError

    def has(self, name: str) -> bool:
        raise NotImplementedError

    def size(self, name: str) -> int:
        raise NotImplementedError

    def read(self, name: str) -> bytes:
        """A whole small file (manifest, configuration)."""
        if self.size(name) > manifests.MAX_MANIFEST:
            raise ImageError(f"{name}: has {self.size(name)} bytes; at most {manifests.MAX_MANIFEST} are believed")
        with self.open(name) as file:
            return file.read()


class DirectoryFiles(Files):
    """Files below a directory; links are not followed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, name: str) -> BinaryIO:
        parts = [part for part in name.split("/") if part]
        directory = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts[:-1]:
                below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
                os.close(directory)
                directory = below
            fd = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except OSError as error:
            raise ImageError(f"{name}: can't be read from {self._root}: {error.strerror}") from error
        finally:
            os.close(directory)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise ImageError(f"{name}: in {self._root} is not a plain file")
        return open(fd, "rb", buffering=0)

    def has(self, name: str) -> bool:
        return (self._root / name).is_file()

    def size(self, name: str) -> int:
        try:
            return (self._root / name).stat().st_size
        except OSError as error:
            raise ImageError(f"{name}: can't be read from {self._root}: {error.strerror}") from error


class _Bounded:
    """A file of which nobody reads much at once: tarfile would take the word of a header for how long it is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_READ:
            raise ImageError(f"a header in the archive says it has {size} bytes; at most {_MAX_READ} are believed")
        return self._file.read(size)


class TarFiles(Files):
    """Files of an uncompressed tar archive that can be read at random.

    Links within the archive are followed, as ``docker save`` writes one layer of two images once.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._members: dict[str, tarfile.TarInfo] = {}
        try:
            bounded = cast(BinaryIO, _Bounded(file))
            self._tar = tarfile.TarFile(fileobj=bounded, mode="r", encoding="utf-8", errors="surrogateescape")
            end = -1
            while (member := self._tar.next()) is not None:
                cast(Any, self._tar).members.clear()
                # A size below zero leads back to headers that were read already, for ever.
                if member.size < 0 or member.offset <= end:
                    raise ImageError(f"entry {member.name!r} says it has {member.size} bytes; the archive is corrupt")
                end = member.offset
                self._members[posixpath.normpath(member.name).lstrip("/")] = member
                if len(self._members) > _MAX_FILES:
                    raise ImageError(f"archive has more than {_MAX_FILES} files; it is no image archive")
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            raise ImageError(f"not an image archive: {error}") from error

    def _member(self, name: str) -> tarfile.TarInfo:
        name = posixpath.normpath(name)
        for _ in range(_MAX_NESTING):
            member = self._members.get(name)
            if member is None:
                break
            if member.isreg() and member.sparse is None:
                return member
            if member.issym():
                name = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
            elif member.islnk():
                name = posixpath.normpath(member.linkname)
            else:
                break
        raise ImageError(f"{name}: is missing in the archive; it is incomplete")

    def open(self, name: str) -> BinaryIO:
        opened = self._tar.extractfile(self._member(name))
        if opened is None:
            raise ImageError(f"{name}: is not a plain file in the archive")
        return cast(BinaryIO, opened)

    def has(self, name: str) -> bool:
        return posixpath.normpath(name) in self._members

    def size(self, name: str) -> int:
        return self._member(name).size


@contextlib.contextmanager
def open_files(source: Path | BinaryIO, staging: Path) -> Iterator[Files]:
    """The files of a directory, an archive, or an open archive that may be a pipe. Raises ImageError, NotFoundError."""
    if isinstance(source, Path):
        if source.is_dir():
            yield DirectoryFiles(source)
            return
        try:
            file = source.open("rb")
        except FileNotFoundError as error:
            raise NotFoundError(f"{source}: no such file or directory") from error
        with file, _random_access(file, staging) as ready:
            yield TarFiles(ready)
        return
    with _random_access(source, staging) as ready:
        yield TarFiles(ready)


@contextlib.contextmanager
def _random_access(file: BinaryIO, staging: Path) -> Iterator[BinaryIO]:
    plain: Readable
    if file.seekable():
        start = file.tell()
        kind, plain = decompress(file)
        if kind == "plain":
            file.seek(start)
            yield file
            return
    else:
        _, plain = decompress(file)
    with _anonymous(staging) as spool:
        shutil.copyfileobj(plain, spool, CHUNK)
        spool.seek(0)
        yield spool


def _anonymous(staging: Path) -> BinaryIO:
    """A file without a name: gone with its descriptor, whatever happens."""
    fd = os.open(staging, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    return open(fd, "w+b")


def candidates(files: Files) -> list[Candidate]:
    """The images of an archive. Raises ImageError if it is none, or if one of its images can't be used here."""
    legacy = _docker_entries(files) if files.has("manifest.json") else []
    if files.has("index.json"):
        names = {config: refs for config, refs, _ in legacy}
        return _oci_candidates(files, names)
    if legacy:
        return [_docker_candidate(files, *entry) for entry in legacy]
    if files.has("repositories"):
        raise ImageError(
            "archive was written by docker before 1.10 and can't be used; save the image again with a newer docker"
        )
    raise ImageError(
        "neither index.json (OCI) nor manifest.json (docker save) found: this is no image archive;"
        " for a root file system use image import"
    )


# OCI image layout (image-layout.md)


def _oci_candidates(files: Files, legacy_names: dict[str, tuple[Reference, ...]]) -> list[Candidate]:
    if files.has("oci-layout"):
        version = manifests.decode(files.read("oci-layout"), "oci-layout").get("imageLayoutVersion")
        if not isinstance(version, str) or not version.startswith("1."):
            raise ImageError(f"oci-layout: imageLayoutVersion must be 1.0.0, not {version!r}")
    entries = manifests.parse_index(manifests.decode(files.read("index.json"), "index.json"), "index.json")
    usable = [entry for entry in entries if entry.is_index or not entry.architecture or _is_for_here(entry)]
    if not usable:
        manifests.choose(entries, "index.json")  # raises and says what there is
    found: dict[str, Candidate] = {}
    for entry in usable:
        digest, candidate = _oci_candidate(files, entry, _names(entry), 0)
        known = found.get(digest)
        merged = (known.names if known else ()) + candidate.names
        merged += legacy_names.get(hash_bytes(candidate.config), ())
        found[digest] = candidate._replace(names=tuple(dict.fromkeys(merged)))
    return list(found.values())


def _is_for_here(entry: Descriptor) -> bool:
    return entry.os in ("linux", "") and entry.architecture == manifests.host_architecture()


def _oci_candidate(files: Files, entry: Descriptor, names: tuple[Reference, ...], depth: int) -> tuple[str, Candidate]:
    data = _read_blob(files, entry, "manifest")
    what = f"manifest {entry.digest}"
    document = manifests.decode(data, what)
    if manifests.is_index(document):
        if depth >= _MAX_NESTING:
            raise ImageError(f"{what}: indexes are nested more than {_MAX_NESTING} deep")
        return _oci_candidate(files, manifests.choose(manifests.parse_index(document, what), what), names, depth + 1)
    parsed = manifests.parse_manifest(document, what)
    layers = tuple(_oci_layer(files, layer, f"{what}: layers[{index}]") for index, layer in enumerate(parsed.layers))
    return entry.digest, Candidate(_read_blob(files, parsed.config, "configuration"), data, layers, names)


def _oci_layer(files: Files, layer: Descriptor, what: str) -> LayerSource:
    path = _blob_path(layer.digest)
    if not files.has(path):
        if manifests.is_foreign(layer):
            raise ImageError(
                f"{what}: is a foreign layer ({layer.media_type}): its content isn't in the image; it can't be used"
            )
        raise ImageError(f"{what}: blob {layer.digest} is missing in the archive; it is incomplete")
    return LayerSource(lambda: files.open(path), layer.digest, layer.size, layer.media_type)


def _read_blob(files: Files, descriptor: Descriptor, what: str) -> bytes:
    data = files.read(_blob_path(descriptor.digest))
    if len(data) != descriptor.size or hash_bytes(data, descriptor.digest.partition(":")[0]) != descriptor.digest:
        raise ImageError(
            f"{what} {descriptor.digest}: content doesn't have that digest and size; the archive is corrupt"
        )
    return data


def _blob_path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/", 1)


def _names(entry: Descriptor) -> tuple[Reference, ...]:
    """Names from annotations.

    ``ref.name`` is a whole name (podman, skopeo) or just a tag, which alone says too little.
    """
    for key in _NAME_ANNOTATIONS:
        text = entry.annotations.get(key, "")
        if "/" in text or ":" in text:
            return _references([text], f"annotation {key}")
    return ()


def _references(texts: list[str], what: str) -> tuple[Reference, ...]:
    result = []
    for text in texts:
        try:
            reference = parse(text)
        except InvalidError as error:
            _LOG.warning("%s: name passed over: %s", what, error)
            continue
        result.append(Reference(reference.name, reference.tag or "latest"))
    return tuple(result)


# docker archives


def _docker_entries(files: Files) -> list[tuple[str, tuple[Reference, ...], dict[str, object]]]:
    """Configuration digest, names and entry for each image of ``manifest.json``."""
    try:
        document = manifests.decode(b'{"images":' + files.read("manifest.json") + b"}", "manifest.json")["images"]
    except PodrtError as error:
        raise ImageError(f"manifest.json can't be read: {error}") from error
    if not isinstance(document, list):
        raise ImageError("manifest.json: must be a list of images")
    result = []
    for index, entry in enumerate(document):
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("Config"), str)
            or not isinstance(entry.get("Layers"), list)
        ):
            raise ImageError(f"manifest.json: [{index}]: must have Config and Layers")
        tags = entry.get("RepoTags") or []
        if not isinstance(tags, list):
            raise ImageError(f"manifest.json: [{index}].RepoTags: must be a list")
        digest = hash_bytes(files.read(entry["Config"]))
        result.append((digest, _references([str(tag) for tag in tags], "manifest.json"), entry))
    return result


def _docker_candidate(files: Files, digest: str, names: tuple[Reference, ...], entry: dict[str, object]) -> Candidate:
    config_path = str(entry["Config"])
    base = posixpath.basename(config_path).removesuffix(".json")
    if len(base) == 64 and f"sha256:{base}" != digest:
        raise ImageError(f"{config_path}: content has the digest {digest}; the archive is corrupt")
    layers = [_docker_layer(files, str(path)) for path in cast(list[object], entry["Layers"])]
    return Candidate(files.read(config_path), None, tuple(layers), names)


def _docker_layer(files: Files, path: str) -> LayerSource:
    return LayerSource(lambda: files.open(path), "", files.size(path), _LEGACY_LAYER)
