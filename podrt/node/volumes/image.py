"""image: the files of an OCI image, read-only.

One layer is bound as it is; several are an overlay. The image can't be removed while the volume is there.
"""

from __future__ import annotations

import os
from pathlib import Path

from podrt.errors import PodrtError
from podrt.image.service import ImageStore
from podrt.linux import abi, libc, mount_table
from podrt.linux.overlay import mount_overlay
from podrt.node.volumes.directory import PodDirectory, make_directory
from podrt.node.volumes.errors import Unavailable


def owner(uid: str, name: str) -> str:
    """Under which name a Pod's volume holds its image."""
    return f"volume/{uid}/{name}"


def set_up(images: ImageStore, image_id: str, uid: str, name: str, directory: PodDirectory) -> Path:
    """Mount the image's files. Raises Unavailable."""
    path = directory.volume("image", name)
    make_directory(path)
    try:
        image = images.resolve(image_id)
        images.hold(image.id, owner(uid, name))
    except PodrtError as error:
        raise Unavailable(str(error)) from error
    if not os.path.ismount(path):
        layers = [os.fspath(layer) for layer in images.layers(image)]
        if len(layers) == 1:
            tree = mount_table.clone_tree(layers[0], recursive=False)
            try:
                mount_table.set_tree(tree, read_only=True, nosuid=True, nodev=True, propagation=abi.MS_PRIVATE)
                mount_table.attach_tree(tree, path)
            finally:
                os.close(tree)
        elif layers:
            os.close(mount_overlay(os.fspath(path), layers, ("ro",)))
    return path


def is_overlay(path: Path) -> bool:
    """An overlay can't be idmapped: a Pod with a user namespace sees its files as nobody's."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return libc.fstatfs_type(fd) == OVERLAYFS_SUPER_MAGIC
    finally:
        os.close(fd)


OVERLAYFS_SUPER_MAGIC = 0x794C7630
