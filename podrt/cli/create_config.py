"""``podrt create configmap`` and ``create secret generic``: content from the command line and from files."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from podrt.cli.errors import CliError


def config_map(
    name: str, namespace: str, literals: Sequence[str], files: Sequence[str], env_files: Sequence[str]
) -> dict[str, Any]:
    """A ConfigMap; what is not UTF-8 goes into binaryData. Raises CliError, OSError."""
    texts: dict[str, str] = {}
    binaries: dict[str, str] = {}
    for key, data in _content(literals, files, env_files).items():
        try:
            texts[key] = data.decode()
        except UnicodeDecodeError:
            binaries[key] = base64.b64encode(data).decode()
    value: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(name, namespace)}
    return value | ({"data": texts} if texts else {}) | ({"binaryData": binaries} if binaries else {})


def secret(
    name: str, namespace: str, kind: str, literals: Sequence[str], files: Sequence[str], env_files: Sequence[str]
) -> dict[str, Any]:
    """A Secret of type ``kind`` ("" for Opaque). Raises CliError, OSError."""
    content = _content(literals, files, env_files)
    data = {key: base64.b64encode(value).decode() for key, value in content.items()}
    value = {"apiVersion": "v1", "kind": "Secret", "metadata": _metadata(name, namespace), "type": kind or "Opaque"}
    return value | ({"data": data} if data else {})


def _metadata(name: str, namespace: str) -> dict[str, str]:
    return {"name": name, "namespace": namespace}


def _content(literals: Sequence[str], files: Sequence[str], env_files: Sequence[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for key, data in (*_literals(literals), *_files(files), *_env_files(env_files)):
        if key in found:
            raise CliError(f'cannot add key "{key}", another key by that name already exists')
        found[key] = data
    return found


def _literals(items: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key:
            # The text may be a secret that was meant to be its value.
            raise CliError("--from-literal: expected KEY=VALUE", 2)
        yield key, text.encode()


def _files(items: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """``PATH``, ``KEY=PATH``, or a directory, whose plain files are taken under their names."""
    for item in items:
        key, equals, place = item.partition("=")
        path = Path(place if equals else item)
        if path.is_dir():
            if equals:
                raise CliError(f"--from-file: {item}: cannot give a key name for a directory path", 2)
            for entry in sorted(path.iterdir()):
                if entry.is_file():
                    yield entry.name, entry.read_bytes()
        else:
            yield (key if equals else path.name), path.read_bytes()


def _env_files(items: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Lines ``KEY=VALUE``; blank ones and comments are left out."""
    for item in items:
        for number, line in enumerate(Path(item).read_text().splitlines(), 1):
            plain = line.lstrip()
            if not plain or plain.startswith("#"):
                continue
            key, equals, text = plain.partition("=")
            if not equals or not key:
                raise CliError(f"--from-env-file: {item}: line {number} is not KEY=VALUE", 2)
            yield key, text.encode()
