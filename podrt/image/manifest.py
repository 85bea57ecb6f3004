"""Manifests and indexes: what is read out of them, and which of several is meant for this machine.

OCI image-spec (manifest.md, image-index.md) and docker's schema 2, which differ in media types only. Pure; callers
bring the bytes.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from typing import Any, NamedTuple

from podrt.errors import ImageError, InvalidError
from podrt.image.reference import check_digest

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
MAX_MANIFEST = 4 << 20
"""Bytes of a manifest, index or configuration: the limit that registries have for manifests."""

_MACHINES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "i386": "386",
    "loongarch64": "loong64",
}


class Descriptor(NamedTuple):
    """A pointer to a blob (descriptor.md)."""

    media_type: str
    digest: str
    size: int
    architecture: str = ""
    os: str = ""
    annotations: dict[str, str] = {}  # noqa: RUF012 - never changed
    urls: tuple[str, ...] = ()

    @property
    def is_index(self) -> bool:
        return self.media_type in (OCI_INDEX, DOCKER_LIST)

    def document(self) -> dict[str, Any]:
        """The JSON form, without platform and annotations."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


class Manifest(NamedTuple):
    """An image manifest: its configuration and its layers, bottom first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


def host_architecture() -> str:
    """This machine in the words of GOARCH, which image configurations use."""
    machine = platform.machine()
    return _MACHINES.get(machine, machine)


def decode(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises ImageError.

    Also for an escape that is half a character (``\\ud800``): Python reads it, but no answer of an API could hold it,
    and one such image would take all others out of every list.
    """
    try:
        document = json.loads(data)
        if b"\\u" in data:
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what}: not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise ImageError(f"{what}: must be a JSON object, not {type(document).__name__}")
    return document


def encode(document: dict[str, Any] | list[Any]) -> bytes:
    """JSON whose bytes depend on the content only."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def parse_descriptor(value: Any, what: str) -> Descriptor:
    """Raises ImageError that names the field."""
    if not isinstance(value, dict):
        raise ImageError(f"{what}: must be an object, not {type(value).__name__}")
    media_type, digest, size = value.get("mediaType", ""), value.get("digest", ""), value.get("size", -1)
    if not isinstance(media_type, str) or not isinstance(digest, str):
        raise ImageError(f"{what}: mediaType and digest must be strings")
    try:
        check_digest(digest, what)
    except InvalidError as error:
        raise ImageError(str(error)) from error
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ImageError(f"{what}: size must be a number of bytes, not {size!r}")
    target = value.get("platform") or {}
    annotations = value.get("annotations") or {}
    urls = value.get("urls") or []
    if not isinstance(target, dict) or not isinstance(annotations, dict) or not isinstance(urls, list):
        raise ImageError(f"{what}: platform and annotations must be objects, urls a list")
    strings = {key: text for key, text in annotations.items() if isinstance(text, str)}
    return Descriptor(
        media_type,
        digest,
        size,
        str(target.get("architecture", "")),
        str(target.get("os", "")),
        strings,
        tuple(map(str, urls)),
    )


def parse_index(document: dict[str, Any], what: str) -> list[Descriptor]:
    """The entries of an index or manifest list."""
    entries = document.get("manifests")
    if not isinstance(entries, list):
        raise ImageError(f"{what}: manifests: must be a list")
    return [parse_descriptor(entry, f"{what}: manifests[{index}]") for index, entry in enumerate(entries)]


def is_index(document: dict[str, Any]) -> bool:
    """Whether a document is an index rather than a manifest; old ones carry no mediaType."""
    return document.get("mediaType") in (OCI_INDEX, DOCKER_LIST) or (
        "manifests" in document and "layers" not in document
    )


def parse_manifest(document: dict[str, Any], what: str) -> Manifest:
    """Raises ImageError for schema 1, artifacts that are no images, encrypted layers, and anything malformed."""
    version = document.get("schemaVersion")
    if version == 1 or "fsLayers" in document:
        raise ImageError(
            f"{what}: is a schema 1 manifest, which docker gave up in 2017; build the image again with a newer tool"
        )
    if version != 2:
        raise ImageError(f"{what}: schemaVersion must be 2, not {version!r}")
    config = parse_descriptor(document.get("config"), f"{what}: config")
    if config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
        raise ImageError(f"{what}: is an artifact of type {config.media_type!r}, not a container image")
    entries = document.get("layers")
    if not isinstance(entries, list):
        raise ImageError(f"{what}: layers: must be a list")
    layers = tuple(parse_descriptor(entry, f"{what}: layers[{index}]") for index, entry in enumerate(entries))
    for index, layer in enumerate(layers):
        if "encrypted" in layer.media_type:
            raise ImageError(f"{what}: layers[{index}]: is encrypted ({layer.media_type}), which isn't supported")
    return Manifest(config, layers)


def image_manifest(config_digest: str, config_size: int, layers: Sequence[Descriptor]) -> dict[str, Any]:
    """An OCI manifest."""
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor(OCI_CONFIG, config_digest, config_size).document(),
        "layers": [layer.document() for layer in layers],
    }


def is_foreign(layer: Descriptor) -> bool:
    """Whether the layer's content is not distributed with the image but fetched from elsewhere (Windows bases)."""
    return "foreign" in layer.media_type or "nondistributable" in layer.media_type or bool(layer.urls)


def choose(entries: list[Descriptor], what: str) -> Descriptor:
    """The manifest of an index that is for this machine. Raises ImageError that lists what there is."""
    here = host_architecture()
    candidates = [entry for entry in entries if entry.os != "unknown"]  # attestations say unknown/unknown
    for entry in candidates:
        if entry.os in ("linux", "") and entry.architecture == here:
            return entry
    if len(candidates) == 1 and not candidates[0].architecture:
        return candidates[0]
    offered = ", ".join(sorted({f"{entry.os}/{entry.architecture}" for entry in candidates})) or "nothing"
    raise ImageError(f"{what}: has no image for linux/{here}; it has {offered}")
