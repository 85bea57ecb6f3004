"""Images: loading an archive and pulling from a registry on this machine, by podrt and podman in turns.

``python -m bench.images``: one image of 500 MB in few files and one of 50,000 small files. Each run starts without the
image. podman is measured as it is installed, with the overlay driver on the same file system; it doesn't wait for the
disk, podrt does (syncfs), so podrt's figures hold the writing and podman's don't.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from bench.podman_bench import Podman
from podrt.image.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, host_architecture
from tests.framework.daemon import Daemon
from tests.framework.registry import docker_registry

MEGABYTE = 1_000_000
Results = dict[str, dict[str, list[float]]]


def large() -> Iterator[tuple[str, bytes]]:
    """500 MB in 50 files, which compress to about half."""
    chooser = random.Random(1)
    for number in range(50):
        piece = chooser.randbytes(MEGABYTE // 2) + bytes(MEGABYTE // 2)
        yield f"large/{number}", piece * 10


def small() -> Iterator[tuple[str, bytes]]:
    """50,000 files of 1 to 4 kB in 500 directories."""
    chooser = random.Random(2)
    for number in range(50_000):
        yield f"small/{number % 500}/{number}", chooser.randbytes(chooser.randrange(200, 800)) * 5


def build(path: Path, name: str, files: Iterator[tuple[str, bytes]]) -> None:
    """An OCI archive of an image with these files in one layer compressed as ``docker build`` does."""
    from isal import igzip

    raw = path.with_suffix(".layer")
    plain = hashlib.sha256()
    with (
        raw.open("wb") as file,
        igzip.IGzipFile(fileobj=file, mode="wb", compresslevel=2, mtime=0) as packed,  # type: ignore[no-untyped-call]
    ):

        class Both(io.RawIOBase):
            def write(self, data: bytes) -> int:  # type: ignore[override]
                plain.update(data)
                return packed.write(data)  # type: ignore[no-any-return, no-untyped-call]

        with tarfile.open(fileobj=cast(BinaryIO, Both()), mode="w|") as tar:
            for entry, data in files:
                member = tarfile.TarInfo(entry)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    config = json.dumps(
        {
            "os": "linux",
            "architecture": host_architecture(),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{plain.hexdigest()}"]},
        }
    ).encode()
    layer = hashlib.file_digest(raw.open("rb"), "sha256").hexdigest()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _descriptor(config, OCI_CONFIG),
            "layers": [{"mediaType": f"{OCI_LAYER}+gzip", "digest": f"sha256:{layer}", "size": raw.stat().st_size}],
        }
    ).encode()
    listed = _descriptor(manifest, OCI_MANIFEST) | {"annotations": {"org.opencontainers.image.ref.name": name}}
    with tarfile.open(path, "w") as tar:
        for file_name, data in (
            ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
            ("index.json", json.dumps({"schemaVersion": 2, "manifests": [listed]}).encode()),
            (_path(config), config),
            (_path(manifest), manifest),
        ):
            member = tarfile.TarInfo(file_name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        tar.add(raw, f"blobs/sha256/{layer}")
    raw.unlink()


def _descriptor(data: bytes, kind: str) -> dict[str, object]:
    return {"mediaType": kind, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}


def _path(data: bytes) -> str:
    return f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    os.sync()  # what the last one left to be written is not this one's
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(work: Path, runs: int) -> Results:
    """Seconds by measurement and by engine."""
    results: Results = {}
    podman: Podman | None = Podman(work / "podman") if shutil.which("podman") else None
    daemon = Daemon(work / "podrt")
    try:
        daemon.start()
        with docker_registry(work / "registry") as address:
            for what, files in (("500 MB", large), ("50,000 files", small)):
                archive = work / "image.tar"
                name = f"{address}/bench:1"
                build(archive, name, files())
                daemon.cli("image", "load", "-q", "-i", str(archive), timeout=600)
                daemon.cli("image", "push", "-q", name, timeout=600)
                daemon.cli("image", "rm", name)
                for _ in range(runs):
                    _one(results, what, archive, name, daemon, podman)
    finally:
        if podman is not None:
            podman.close()
        for problem in daemon.destroy():
            print("left behind:", problem, file=sys.stderr)
    return results


def _one(results: Results, what: str, archive: Path, name: str, daemon: Daemon, podman: Podman | None) -> None:
    for verb in ("load", "pull"):
        row = results.setdefault(f"{verb} {what}", {"podrt": [], "podman": []})
        words = ("image", "load", "-i", str(archive)) if verb == "load" else ("image", "pull", name)
        row["podrt"].append(timed(lambda words=words: daemon.cli(*words, timeout=600)))  # type: ignore[misc]
        daemon.cli("image", "rm", name, timeout=600)
        if podman is None:
            continue
        if verb == "load":
            row["podman"].append(timed(lambda: podman.call("load", "-q", "-i", str(archive))))
        else:
            # podman's own network namespace has no way to the registry: it is of no use for a pull.
            base = podman.base[2:]
            pull = [*base, "pull", "-q", "--tls-verify=false", name]
            row["podman"].append(timed(lambda pull=pull: subprocess.run(pull, check=True, capture_output=True)))  # type: ignore[misc]
        podman.call("rmi", "-a", "-f")


def table(results: Results) -> str:
    lines = [f"{'seconds (median)':<22}{'podrt':>9}{'podman':>9}  ratio"]
    for what, row in results.items():
        ours = statistics.median(row["podrt"])
        theirs = statistics.median(row["podman"]) if row["podman"] else float("nan")
        lines.append(f"{what:<22}{ours:9.2f}{theirs:9.2f}{ours / theirs:7.2f}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.images", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each measurement (3)")
    parser.add_argument("--parent", default="/var/tmp", help="where to work; needs 5 GB (/var/tmp)")
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="podrt-images-", dir=options.parent))
    try:
        results = measure(work, options.runs)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(table(results))
    return (
        0
        if all(statistics.median(r["podrt"]) <= statistics.median(r["podman"] or [1e9]) for r in results.values())
        else 3
    )


if __name__ == "__main__":
    sys.exit(main())
