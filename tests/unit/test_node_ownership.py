"""fsGroup on trees that a container has made."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from podrt.linux.removal import remove_tree
from podrt.node.volumes import ownership


def test_a_tree_too_deep_for_recursion(tmp_path: Path) -> None:
    """A container nests directories in its volume; the next start of the Pod must not fail for it, nor the daemon."""
    top = tmp_path / "volume"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    try:
        ownership.apply(top, os.getgid())
        assert os.fstat(fd).st_mode & stat.S_ISGID
    finally:
        os.close(fd)
        remove_tree(top)


def test_links_are_neither_changed_nor_followed(tmp_path: Path) -> None:
    outside, top = tmp_path / "outside", tmp_path / "volume"
    (outside / "sub").mkdir(parents=True)
    (outside / "file").touch(0o600)
    (top / "deep").mkdir(parents=True, mode=0o700)
    (top / "deep" / "file").touch(0o600)
    (top / "deep" / "directory").symlink_to(outside)
    (top / "link").symlink_to(outside / "file")
    before = [path.stat().st_mode for path in (outside, outside / "sub", outside / "file")]
    ownership.apply(top, os.getgid())
    assert [path.stat().st_mode for path in (outside, outside / "sub", outside / "file")] == before
    assert stat.S_IMODE((top / "deep" / "file").stat().st_mode) == 0o660
    assert stat.S_IMODE((top / "deep").stat().st_mode) == 0o2770
