"""hostPath: a file or directory of the host, checked against the type that the Pod names.

Links are followed as the host's own: who may name a hostPath may read the host. That a *container* can't turn its own
files into someone else's is the matter of ``subpath``.
"""

from __future__ import annotations

import stat
from pathlib import Path

from podrt.model.volume import HostPathVolumeSource
from podrt.node.volumes.errors import Unavailable

_CHECKS = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


def set_up(source: HostPathVolumeSource) -> Path:
    """The path, made where its type says so. Raises Unavailable."""
    path, kind = Path(source.path), source.type or ""
    if kind in ("", "DirectoryOrCreate") and not path.exists():
        # With no type the kubelet checks nothing and the runtimes make the directory: users rely on it.
        path.mkdir(mode=0o755, parents=True)
    elif kind == "FileOrCreate" and not path.exists():
        path.touch(mode=0o644)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        hint = "make it, or use type DirectoryOrCreate or FileOrCreate"
        raise Unavailable(f"hostPath: {path} does not exist on the host; {hint}") from None
    check = _CHECKS.get(kind.removesuffix("OrCreate"))
    if check is not None and not check[0](mode):
        raise Unavailable(f"hostPath type check failed: {path} is not {check[1]}, as type {kind} demands")
    return path
