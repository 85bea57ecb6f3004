"""A hostPath on a file server that has stopped answering: that Pod waits, the daemon and the other Pods don't.

The server is a FUSE mount that nobody serves: each look at it waits in the kernel, as with a dead NFS server.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from podrt.linux import libc
from tests.framework.daemon import Daemon
from tests.framework.pods import container, pod

MNT_DETACH = 2


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[Path]:
    """A directory whose inside is never reached, until the test is over."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("this machine has no FUSE")
    fd = os.open("/dev/fuse", os.O_RDWR)
    try:
        libc.mount("dead", str(tmp_path), "fuse", 0, f"fd={fd},rootmode=40000,user_id=0,group_id=0")
        yield tmp_path / "share"
    finally:
        # Whatever waits gets ECONNABORTED.
        os.close(fd)
        libc.umount2(str(tmp_path), MNT_DETACH)


def test_the_daemon_goes_on(shared_daemon: Daemon, hung: Path) -> None:
    volumes = [{"name": "h", "hostPath": {"path": str(hung)}}]
    mounts = [{"name": "h", "mountPath": "/h"}]
    for name in ("stuck-a", "stuck-b"):
        shared_daemon.apply(pod(name, container(volumeMounts=mounts), volumes=volumes))
    time.sleep(1)
    started = time.monotonic()
    shared_daemon.apply(pod("lively"))
    shared_daemon.wait_for("lively", "Ready")
    assert time.monotonic() - started < 15
    assert {shared_daemon.pod(name)["status"]["phase"] for name in ("stuck-a", "stuck-b")} == {"Pending"}
