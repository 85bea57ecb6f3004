"""Images of very many layers, made of one that is there."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from tests.framework.daemon import Daemon


def many_layers(path: Path, daemon: Daemon, count: int, name: str = "localhost/many:1") -> Path:
    """Write an OCI archive at ``path``: busybox of ``daemon`` and ``count`` layers, each with a file
    ``/layers/<number>`` that has its number in it."""
    base = path.with_suffix(".base")
    daemon.cli("image", "save", "localhost/podrt/busybox:latest", "-o", str(base))
    with tarfile.open(base) as tar:
        blobs = {member.name: _read(tar, member) for member in tar if member.isreg()}
    index = json.loads(blobs["index.json"])
    manifest = json.loads(blobs[_path(index["manifests"][0]["digest"])])
    config = json.loads(blobs[_path(manifest["config"]["digest"])])
    config.pop("history", None)
    for number in range(count):
        layer = _layer(number)
        manifest["layers"].append(_add(blobs, layer, "application/vnd.oci.image.layer.v1.tar"))
        config["rootfs"]["diff_ids"].append("sha256:" + hashlib.sha256(layer).hexdigest())
    manifest["config"] = _add(blobs, json.dumps(config).encode(), manifest["config"]["mediaType"])
    entry = _add(blobs, json.dumps(manifest).encode(), index["manifests"][0]["mediaType"])
    entry["annotations"] = {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    with tarfile.open(path, "w") as tar:
        for file, data in blobs.items():
            member = tarfile.TarInfo(file)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _add(blobs: dict[str, bytes], data: bytes, kind: str) -> dict[str, Any]:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    blobs[_path(digest)] = data
    return {"mediaType": kind, "digest": digest, "size": len(data)}


def _layer(number: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        directory = tarfile.TarInfo("layers")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(directory)
        data = f"{number}\n".encode()
        member = tarfile.TarInfo(f"layers/{number}")
        member.size, member.mode = len(data), 0o644
        tar.addfile(member, io.BytesIO(data))
    return out.getvalue()
