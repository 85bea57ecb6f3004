"""subPath: a part of a volume, held by descriptor.

The path is looked up with openat2(2) inside the volume (RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS): a link that a
container put there can't lead out, and one that is exchanged afterwards changes nothing, because what is bound is the
descriptor (CVE-2021-25741, CVE-2023-5043 of the kubelet's older ways). What is missing is made, as a directory with
the volume's mode.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from podrt.errors import InvalidError
from podrt.linux import inroot
from podrt.model.container import VolumeMount
from podrt.node.env import REFERENCE, expand


def wanted(mount: VolumeMount, environment: Mapping[str, str], container: str) -> str:
    """The path inside the volume, "" for all of it. Raises InvalidError for an expression that has no value."""
    if not mount.sub_path_expr:
        return mount.sub_path
    for match in REFERENCE.finditer(mount.sub_path_expr):
        name = match.group(1)
        if name is not None and name not in environment:
            raise InvalidError(
                f'failed to prepare subPathExpr for volumeMount "{mount.name}" of container "{container}": '
                f"variable {name} is not set"
            )
    path = expand(mount.sub_path_expr, environment)
    # The value came from outside; the look-up below could not be led out by it, but the user meant something else.
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise InvalidError(
            f'failed to prepare subPathExpr for volumeMount "{mount.name}" of container "{container}": '
            "its value must be a relative path without '..'"
        )
    return path


def open_(volume: Path, path: str, *, make: bool) -> int:
    """An O_PATH descriptor of ``path`` inside ``volume``, made as a directory if it is missing and ``make``.

    Raises OSError.
    """
    root = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            return inroot.open_in_root(root, path, os.O_PATH)
        except FileNotFoundError:
            if not make:
                raise
        mode = stat.S_IMODE(os.fstat(root).st_mode)
        fd = inroot.make_directory(root, path, mode & 0o777)
        os.chmod(f"/proc/self/fd/{fd}", mode)
        return fd
    finally:
        os.close(root)
