"""The records of which images there are and what they are called: one small JSON file for each image.

``<root>/<hex of image id>.json`` holds the manifest's digest and the names, each with the time it was given.
The file's own time says when the image was last used.
Everything else is read from the configuration and manifest blobs. Each write is atomic and durable; moving a name
between two images takes two writes, and should only the first happen, the later time says whose the name is. A record
that can't be read is passed over and logged.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import NamedTuple

from podrt import fsutil
from podrt.errors import InvalidError
from podrt.image.reference import check_digest, parse

_LOG = logging.getLogger(__name__)
_VERSION = 1


class Record(NamedTuple):
    """One image; ``names`` maps canonical references to nanoseconds since 1970."""

    id: str
    manifest: str
    names: dict[str, int]
    added: int
    """When the image came here, in nanoseconds since 1970."""
    digests: tuple[str, ...] = ()
    """``repository@digest`` under which registries gave it, of an index too."""
    retired: bool = False
    """It is removed but for what a container uses of it; it has no names."""


class Index:
    """The records below ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load(self) -> tuple[dict[str, Record], int]:
        """All readable records by image id, each name with one image only; and how many could not be read."""
        records: dict[str, Record] = {}
        broken = 0
        for entry in sorted(os.scandir(self._root), key=lambda found: found.name):
            if not entry.name.endswith(".json"):
                continue
            try:
                record = _parse(json.loads(Path(entry.path).read_bytes()))
                if entry.name != _file_name(record.id):
                    raise ValueError(f"it is about image {record.id}")
            except (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidError) as error:
                _LOG.error("image record %s is passed over: %s; load the image again", entry.path, error)
                broken += 1
                continue
            records[record.id] = record
        return _settle_names(records), broken

    def save(self, record: Record) -> None:
        document = {"version": _VERSION, **record._asdict()}
        data = json.dumps(document, indent=1, sort_keys=True).encode()
        fsutil.write_atomic(self._root / _file_name(record.id), data, durable=True)

    def touch(self, image_id: str) -> None:
        """Note that the image is used now."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._root / _file_name(image_id))

    def last_used(self, image_id: str) -> float:
        """Unix time at which the image came, was changed, or was last used; 0 if it is not there."""
        try:
            return (self._root / _file_name(image_id)).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def remove(self, image_id: str) -> None:
        fsutil.unlink_missing_ok(self._root / _file_name(image_id))
        fsutil.sync_dir(self._root)


def _file_name(image_id: str) -> str:
    return image_id.partition(":")[2] + ".json"


def _parse(document: dict[str, object]) -> Record:
    if document["version"] != _VERSION:
        raise ValueError(f"version {document['version']!r} is unknown")
    names = document["names"]
    if not isinstance(names, dict):
        raise TypeError("names must be an object")
    for name in names:
        parse(name)
    return Record(
        check_digest(str(document["id"]), "id"),
        check_digest(str(document["manifest"]), "manifest"),
        {name: int(given) for name, given in names.items()},
        int(str(document["added"])),
        _digests(document.get("digests", [])),
        document.get("retired") is True,
    )


def _digests(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("digests must be a list")
    for digest in value:
        if not parse(str(digest)).digest:
            raise ValueError(f"{digest!r} has no digest")
    return tuple(map(str, value))


def _settle_names(records: dict[str, Record]) -> dict[str, Record]:
    owner: dict[str, tuple[int, str]] = {}
    for record in records.values():
        for name, given in record.names.items():
            owner[name] = max(owner.get(name, (-1, "")), (given, record.id))
    return {
        record.id: record._replace(
            names={name: given for name, given in record.names.items() if owner[name][1] == record.id}
        )
        for record in records.values()
    }
