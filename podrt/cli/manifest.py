"""Manifests from files, directories and stdin."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from podrt.cli.errors import CliError

_ENDINGS = (".json", ".yaml", ".yml")


class Manifest(NamedTuple):
    """One object of a file; ``origin`` is the file's name, or STDIN."""

    value: dict[str, Any]
    origin: str

    @property
    def api_version(self) -> str:
        return str(self.value["apiVersion"])

    @property
    def kind(self) -> str:
        return str(self.value["kind"])

    @property
    def name(self) -> str:
        """Raises CliError if the object has none."""
        name = self.value["metadata"].get("name")
        if not name:
            raise CliError(f"error when reading {self.origin!r}: {self.kind}: metadata.name is required")
        return str(name)

    def namespace(self, default: str, explicit: bool) -> str:
        """The object's namespace, else ``default``. Raises CliError if ``-n`` was given and differs."""
        own = self.value["metadata"].get("namespace")
        if own and explicit and own != default:
            raise CliError(
                f"the namespace from the provided object {str(own)!r} does not match the namespace {default!r}; "
                f"pass '--namespace={own}' to perform this operation"
            )
        return str(own or default)


def read_manifests(filenames: Sequence[str], recursive: bool = False) -> list[Manifest]:
    """All objects of ``filenames`` in their order; Lists are taken apart. Raises CliError that names the file.

    Everything is read and checked before anything is sent.
    """
    found: list[Manifest] = []
    for filename in filenames:
        for origin, text in _texts(filename, recursive):
            found += _objects(text, origin)
    if not found:
        raise CliError("no objects passed: the files hold none")
    return found


def _texts(filename: str, recursive: bool) -> Iterator[tuple[str, str]]:
    if filename == "-":
        yield "STDIN", _decode(sys.stdin.buffer.read(), "STDIN")
    elif filename.startswith(("http://", "https://")):
        raise CliError(f"{filename}: URLs are not fetched; download the file and look at it first")
    elif os.path.isdir(filename):
        paths = list(_files_below(filename, recursive))
        if not paths:
            raise CliError(f"error reading [{filename}]: recognized file extensions are [{' '.join(_ENDINGS)}]")
        for path in paths:
            yield path, _read(path)
    elif not os.path.lexists(filename):
        raise CliError(f'the path "{filename}" does not exist')
    else:
        yield filename, _read(filename)


def _files_below(directory: str, recursive: bool) -> Iterator[str]:
    for folder, folders, files in os.walk(directory):
        folders.sort()
        yield from (os.path.join(folder, name) for name in sorted(files) if name.endswith(_ENDINGS))
        if not recursive:
            return


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return _decode(file.read(), path)


def _decode(data: bytes, origin: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CliError(f"error parsing {origin}: byte {error.start} is not UTF-8") from None


def _objects(text: str, origin: str) -> Iterator[Manifest]:
    for document in _documents(text, origin):
        is_list = isinstance(document, dict) and str(document.get("kind", "")).endswith("List")
        if is_list and isinstance(document.get("items"), list):
            yield from (_checked(item, origin) for item in document["items"])
        else:
            yield _checked(document, origin)


def _documents(text: str, origin: str) -> Iterator[Any]:
    """JSON is read as JSON (and needs no YAML parser), everything else as YAML."""
    if text.lstrip()[:1] == "{":
        import json

        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            result = dict(pairs)
            if len(result) != len(pairs):
                keys = [key for key, _ in pairs]
                twice = next(key for key in keys if keys.count(key) > 1)
                raise CliError(f'error parsing {origin}: key "{twice}" already set in map')
            return result

        try:
            yield json.loads(text, object_pairs_hook=unique)
            return
        except ValueError:
            pass  # a YAML flow mapping, several documents, or an error that the YAML parser explains by line
    from podrt.cli.yamlio import load_all

    yield from load_all(text, origin)


def _checked(value: Any, origin: str) -> Manifest:
    if not isinstance(value, dict):
        raise CliError(f"error parsing {origin}: an object is expected, not {type(value).__name__}")
    missing = [f"{key} not set" for key in ("apiVersion", "kind") if not value.get(key)]
    if missing:
        raise CliError(f'error validating "{origin}": error validating data: [{", ".join(missing)}]')
    for key in ("apiVersion", "kind"):
        if not isinstance(value[key], str):
            raise CliError(f'error validating "{origin}": {key} must be a string')
    if not isinstance(value.setdefault("metadata", {}), dict):
        raise CliError(f'error validating "{origin}": metadata must be an object')
    return Manifest(value, origin)
