"""Kinds and flags of namespaces, and functions in a thread of their own."""

from __future__ import annotations

import os

import pytest

from podrt.linux import abi, namespace


def test_flags() -> None:
    assert namespace.flags(("net", "uts")) == abi.CLONE_NEWNET | abi.CLONE_NEWUTS
    assert namespace.flags(()) == 0
    with pytest.raises(KeyError):
        namespace.flags(("network",))


@pytest.mark.parametrize("kind", namespace.KINDS)
def test_current_namespaces(kind: str) -> None:
    fd = namespace.open_current(kind)
    try:
        assert namespace.same(fd, f"/proc/self/ns/{kind}")
        assert namespace.inode(fd) == os.stat(f"/proc/self/ns/{kind}").st_ino
    finally:
        os.close(fd)


def test_what_is_not_pinned(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "net")
    with pytest.raises(FileNotFoundError):
        namespace.open_pinned(path)
    with open(path, "w"):
        pass
    with pytest.raises(FileNotFoundError, match="no namespace is pinned here"):
        namespace.open_pinned(path)


def test_errors_come_back_from_the_thread() -> None:
    with pytest.raises(OSError, match="setns"):
        namespace.in_netns(0, lambda: 1)
