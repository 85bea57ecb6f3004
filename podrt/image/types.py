"""The image as the rest of podrt sees it: frozen, and free of JSON.

Field meanings: OCI image-spec, config.md. Ids and digests are ``sha256:<hex>``; an image's id is the digest of its
configuration.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from podrt.errors import ImageError, InvalidError
from podrt.image.reference import parse

_FRACTION = re.compile(r"\.(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What a container of the image runs with unless told otherwise."""

    env: tuple[str, ...] = ()
    """``NAME=value``."""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    """``user``, ``uid``, ``user:group`` or ``uid:gid``; names are those of the image's own files."""
    working_dir: str = ""
    stop_signal: str = ""
    exposed_ports: tuple[str, ...] = ()
    """``80/tcp``."""
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image of the store."""

    id: str
    manifest_digest: str
    names: tuple[str, ...] = ()
    """Canonical references with their tags, sorted; empty for a dangling image."""
    digests: tuple[str, ...] = ()
    """``name@digest`` for each distinct name."""
    created: datetime | None = None
    size: int = 0
    """Bytes of file contents of all layers, unpacked."""
    architecture: str = ""
    variant: str = ""
    os: str = "linux"
    author: str = ""
    config: ImageConfig = field(default_factory=ImageConfig)
    diff_ids: tuple[str, ...] = ()
    chain_ids: tuple[str, ...] = ()
    """One for each diff id, bottom first, as the configuration has them."""

    def digest_for(self, *references: str) -> str:
        """``name@digest`` of the first reference whose repository has one, else of any; the id where there is none.

        A reference may be an id, or anything else that is no name."""
        for reference in references:
            with contextlib.suppress(InvalidError):
                name = f"{parse(reference).name}@"
                for digest in self.digests:
                    if digest.startswith(name):
                        return digest
        return self.digests[0] if self.digests else self.id


def parse_config(document: Any, what: str) -> dict[str, Any]:
    """Check an image configuration and return the keyword arguments of :class:`Image` that come from it.

    Raises ImageError that names the field.
    """
    top = _object(document, what)
    rootfs = _object(top.get("rootfs"), f"{what}: rootfs")
    diff_ids = _strings(rootfs.get("diff_ids"), f"{what}: rootfs.diff_ids")
    for diff_id in diff_ids:
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", diff_id):
            raise ImageError(f"{what}: rootfs.diff_ids: {diff_id!r} is no sha256 digest")
    system = _string(top.get("os"), f"{what}: os") or "linux"
    if system != "linux":
        raise ImageError(f"{what}: the image is for {system}; only images for linux can run here")
    return {
        "created": parse_time(_string(top.get("created"), f"{what}: created")),
        "architecture": _string(top.get("architecture"), f"{what}: architecture"),
        "variant": _string(top.get("variant"), f"{what}: variant"),
        "author": _string(top.get("author"), f"{what}: author"),
        "os": system,
        "config": _image_config(top.get("config"), f"{what}: config"),
        "diff_ids": diff_ids,
    }


def parse_time(text: str) -> datetime | None:
    """RFC 3339 with any number of fraction digits; None where it is empty or not a time, as nothing hangs on it."""
    if not text:
        return None
    text = _FRACTION.sub(lambda match: f".{match[1][:6].ljust(6, '0')}", text, count=1)
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _image_config(value: Any, what: str) -> ImageConfig:
    config = _object(value, what)
    labels = _object(config.get("Labels"), f"{what}.Labels")
    for key, label in labels.items():
        _string(label, f"{what}.Labels[{key!r}]")
    return ImageConfig(
        env=_strings(config.get("Env"), f"{what}.Env"),
        entrypoint=_strings(config.get("Entrypoint"), f"{what}.Entrypoint"),
        cmd=_strings(config.get("Cmd"), f"{what}.Cmd"),
        user=_string(config.get("User"), f"{what}.User"),
        working_dir=_string(config.get("WorkingDir"), f"{what}.WorkingDir"),
        stop_signal=_string(config.get("StopSignal"), f"{what}.StopSignal"),
        exposed_ports=tuple(sorted(_object(config.get("ExposedPorts"), f"{what}.ExposedPorts"))),
        volumes=tuple(sorted(_object(config.get("Volumes"), f"{what}.Volumes"))),
        labels=labels,
    )


def _object(value: Any, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ImageError(f"{what}: must be an object, not {type(value).__name__}")
    return value


def _string(value: Any, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ImageError(f"{what}: must be a string, not {type(value).__name__}")
    if "\0" in value:
        raise ImageError(f"{what}: has a NUL byte in it")
    return value


def _strings(value: Any, what: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ImageError(f"{what}: must be a list of strings, not {type(value).__name__}")
    return tuple(_string(item, f"{what}[{index}]") for index, item in enumerate(value))
