"""kill -9 in the middle of pulls: the store is consistent after each start, and the next pull uses what was whole."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from podrt.image.layers import chain_ids
from podrt.image.service import ImageStore
from tests.framework.registry import FakeRegistry, digest_of
from tests.unit.test_image_unpack import entry, make_tar

KILLS = 50
PULL = """
import asyncio, sys
from pathlib import Path
from podrt.image.registry_pull import Puller
from podrt.image.registry_transport import Settings, Transport
from podrt.image.service import ImageStore

async def main():
    store = ImageStore(Path(sys.argv[1]))
    transport = Transport(Settings(Path("/nonexistent"), ()))
    puller = Puller(store, transport)
    print("ready", flush=True)
    sys.stdin.readline()
    await puller.pull(sys.argv[2])
    await puller.close()
    await transport.close()
    store.close()

asyncio.run(main())
"""


def check(root: Path) -> ImageStore:
    """Open the store as a start of the daemon does, and look at everything in it."""
    store = ImageStore(root)
    for digest in store.blobs.digests():
        assert digest_of(store.blobs.path(digest).read_bytes()) == digest, "a blob is not what its name says"
    for path in (root / "layers").iterdir():
        if path.is_dir():
            record = json.loads(Path(f"{path}.json").read_text())
            assert sum(one.stat().st_size for one in path.rglob("*") if one.is_file()) == record["size"]
    for image in store.list():
        assert all(layer.is_dir() for layer in store.layers(image))
    assert [entry.name for entry in (root / "staging").iterdir()] == [store.staging.name]
    assert list(store.staging.iterdir()) == []
    return store


def test_killed_pulls_leave_the_store_consistent(tmp_path: Path) -> None:
    registry = FakeRegistry()
    layers = []
    for number in range(6):
        files = [entry(f"{number}-{index}", os.urandom(40_000)) for index in range(30)]
        layers.append(make_tar(*files))
    blobs = [gzip.compress(layer, 1) for layer in layers]
    registry.add_image(blobs, [digest_of(layer) for layer in layers])
    root = tmp_path / "store"
    chooser = random.Random(5)
    done = reused = 0
    with registry.running() as address:
        longest = pull_and_kill(root, f"{address}/test", None)
        for _ in range(KILLS):
            store = check(root)
            for image in store.list():
                store.remove(image.id, force=True)
                done += 1
            store.close()
            had = [digest for digest in map(digest_of, blobs) if (root / "blobs/sha256" / digest[7:]).exists()]
            before = len(registry.requests)
            pull_and_kill(root, f"{address}/test", chooser.uniform(0, longest))
            fetched = {path.rpartition("/")[2] for path, _ in registry.requests[before:]}
            assert not fetched & set(had), "what was whole is not fetched again"
            reused += bool(had)
        pull_and_kill(root, f"{address}/test", None)
    store = check(root)
    (image,) = store.list()
    assert image.chain_ids == chain_ids([digest_of(layer) for layer in layers])
    assert sum(1 for layer in store.layers(image) for _ in layer.iterdir()) == 180
    assert len(list(store.blobs.digests())) == len(blobs) + 2
    store.close()
    assert reused >= 5, (done, reused)


def pull_and_kill(root: Path, name: str, after: float | None) -> float:
    """Pull in a process of its own, which is killed after so many seconds (None: not). How long it took."""
    process = subprocess.Popen(
        (sys.executable, "-c", textwrap.dedent(PULL), str(root), name), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        start = time.monotonic()
        process.stdin.write(b"\n")
        process.stdin.flush()
        if after is None:
            assert process.wait(60) == 0
        else:
            time.sleep(after)
            process.send_signal(signal.SIGKILL)
            process.wait(60)
        return time.monotonic() - start
    finally:
        process.stdin.close()
        process.stdout.close()
