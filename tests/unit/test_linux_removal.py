"""Removing trees that were made to be hard to remove."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podrt.linux.removal import remove_tree


def nest(path: Path, depth: int) -> None:
    path.mkdir()
    fd = os.open(path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=below))
        os.close(fd)
        fd = below
    os.close(fd)


def test_a_tree_deeper_than_any_stack_or_path(tmp_path: Path) -> None:
    nest(tmp_path / "deep", 2500)
    remove_tree(tmp_path / "deep")
    assert list(tmp_path.iterdir()) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "sub").mkdir(parents=True)
    (kept / "file").write_text("x")
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    for directory in (tree, tree / "a", tree / "a" / "b"):
        (directory / "to-directory").symlink_to(kept)
        (directory / "to-file").symlink_to(kept / "file")
        (directory / "loop").symlink_to("loop")
        os.mkfifo(directory / "fifo")
        (directory / ".removing-0").mkdir()
        (directory / ".removing-0" / "x").write_text("x")
        (directory / ".removing-1").write_text("x")
        (directory / os.fsdecode(b"\xff\n")).write_text("x")
        (directory / "closed").mkdir(mode=0)
    remove_tree(tree)
    assert not tree.exists() and (kept / "file").read_text() == "x" and (kept / "sub").is_dir()


def test_wide_directories(tmp_path: Path) -> None:
    for number in range(1500):  # more than one getdents(2) lists
        (tmp_path / "tree" / str(number) / "sub").mkdir(parents=True)
        (tmp_path / "tree" / str(number) / "file").touch()
    remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    remove_tree(tmp_path / "missing")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(NotADirectoryError):
            remove_tree(tmp_path / name)
    assert (tmp_path / "real").is_dir()
