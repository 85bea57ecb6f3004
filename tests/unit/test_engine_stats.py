"""The disk usage of a writable layer, while its container does with it what it likes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from podrt.engine import disk
from podrt.engine.disk import disk_usage
from podrt.linux.removal import remove_tree


def test_what_is_counted(tmp_path: Path) -> None:
    layer = tmp_path / "upper"
    (layer / "a" / "b").mkdir(parents=True)
    (layer / "a" / "file").write_bytes(b"x" * 100_000)
    os.link(layer / "a" / "file", layer / "again")
    (layer / "link").symlink_to(tmp_path)
    used, inodes = disk_usage(layer)
    assert inodes == 4 and 100_000 <= used < 150_000
    assert disk_usage(tmp_path / "missing") == (0, 0)


def test_a_tree_deeper_than_any_path(tmp_path: Path) -> None:
    layer = tmp_path / "upper"
    layer.mkdir()
    fd = os.open(layer, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    (layer / "beside").touch()
    assert 2000 < disk_usage(layer)[1] <= 3001
    remove_tree(layer)


def test_a_directory_exchanged_for_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The container does so after the walk has seen the directory and before it goes in: it stays in the layer."""
    layer, outside = tmp_path / "upper", tmp_path / "outside"
    outside.mkdir()
    for number in range(200):
        (outside / str(number)).touch()
    (layer / "sub").mkdir(parents=True)
    real = disk._entries

    def exchange(fd: int) -> Iterator[tuple[str, os.stat_result]]:
        yield from real(fd)
        if not (layer / "sub").is_symlink():
            (layer / "sub").rmdir()
            (layer / "sub").symlink_to(outside)

    monkeypatch.setattr(disk, "_entries", exchange)
    assert disk_usage(layer)[1] == 1
    assert (layer / "sub").is_symlink()
