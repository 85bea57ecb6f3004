"""Images as volumes of a container: a detached tree of an image's files, or of one path in them, read-only.

Several layers need an overlay, which has to be mounted somewhere for a moment: in the container's run directory, where
mounts don't spread. Its tree outlives that mount. Layers of a sandbox with a user namespace are shown with mapped ids,
for an overlay can't be mapped itself."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from podrt.engine.state import Container, Machine, closing
from podrt.errors import Cause, InvalidError
from podrt.linux import abi, inroot, mount_table
from podrt.linux.overlay import attach_layers, mount_overlay

_DIRECTORY = "image"


class Opened(NamedTuple):
    tree: int
    """Descriptor of a detached tree."""
    directory: bool


def open_all(machine: Machine, unit: Container, user_namespace_fd: int, fds: list[int]) -> dict[str, Opened]:
    """The trees of a container's mounts of images by destination, each appended to ``fds``, which the caller closes.

    Raises NotFoundError, InvalidError for a path that is not in the image, OSError.
    """
    found: dict[str, Opened] = {}
    for mount in unit.record.spec.mounts:
        if not mount.image:
            continue
        image = machine.images.resolve(unit.record.mounted_images[mount.destination])
        layers = [os.fspath(path) for path in machine.images.layers(image)]
        idmap_fd = user_namespace_fd if mount.idmap else -1
        with _shown(layers, unit.directory / _DIRECTORY, idmap_fd) as root:
            opened = _part(root, mount.image_path, f"container {unit.record.spec.name}: image {mount.image}")
        fds.append(opened.tree)
        found[mount.destination] = opened
    return found


def check(machine: Machine, unit: Container) -> None:
    """Raises what :func:`open_all` would raise later, when the container starts."""
    with closing([]) as fds:
        open_all(machine, unit, -1, fds)


def clean(unit: Container) -> None:
    """Take down what a daemon that was killed in between has left mounted."""
    mount_table.unmount_all(os.fspath(unit.directory / _DIRECTORY))


@contextlib.contextmanager
def _shown(layers: Sequence[str], place: Path, idmap_fd: int) -> Iterator[int]:
    """A descriptor of the image's root while it is mounted at ``place``."""
    place.mkdir(mode=0o700, exist_ok=True)
    trees = [mount_table.clone_tree(layer, recursive=False) for layer in layers]
    try:
        for tree in trees:
            if idmap_fd >= 0:
                mount_table.set_tree(tree, idmap_userns_fd=idmap_fd)
            mount_table.set_tree(tree, read_only=True, nosuid=True, nodev=True, propagation=abi.MS_PRIVATE)
        if len(trees) == 1:
            mount_table.attach_tree(trees[0], place)
            root = trees[0]
        else:
            attach_layers(os.fspath(place), trees)
            root = mount_overlay(os.fspath(place), [f"/proc/self/fd/{tree}" for tree in trees], ("ro",))
            trees.append(root)
        yield root
    finally:
        mount_table.unmount_all(os.fspath(place))
        for tree in trees:
            os.close(tree)


def _part(root: int, path: str, what: str) -> Opened:
    """No link of the image leads out of it."""
    try:
        fd = inroot.open_in_root(root, path or "/")
    except OSError as error:
        raise InvalidError(
            f"{what}: path {path!r}: {error.strerror}", (Cause("image_sub_path", f"{path}: {error.strerror}"),)
        ) from error
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise InvalidError(f"{what}: path {path!r} is neither a directory nor a file")
        return Opened(mount_table.clone_tree(fd, recursive=False), stat.S_ISDIR(mode))
    finally:
        os.close(fd)
