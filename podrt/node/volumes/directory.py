"""Where a Pod's files are: ``<state_dir>/pods/<uid>/`` in the kubelet's layout, passable for root alone.

Containers get binds of what is inside by descriptor, so no one else has to walk here.
"""

from __future__ import annotations

import os
from pathlib import Path

from podrt.linux import mount_table
from podrt.linux.removal import remove_tree as remove_tree


class PodDirectory:
    """The files of one Pod: ``<state_dir>/pods/<uid>/``."""

    def __init__(self, state_dir: Path, uid: str) -> None:
        self.path = state_dir / "pods" / uid

    @property
    def hosts(self) -> Path:
        return self.path / "etc-hosts"

    def volume(self, kind: str, name: str) -> Path:
        return self.path / "volumes" / f"kubernetes.io~{kind}" / name

    def termination_log(self, container: str, attempt: int) -> Path:
        return self.path / "containers" / container / str(attempt)

    def make(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def remove(self) -> None:
        """Unmount what is mounted below and delete everything. No error if it is gone already.

        Raises OSError if something can't be unmounted: nothing is deleted then, as it might be someone's data.
        """
        for point in reversed(mount_table.mount_points(self.path)):
            mount_table.unmount_all(point.path)
        remove_tree(self.path)


def make_directory(path: Path, mode: int = 0o755) -> bool:
    """Make a volume's directory (parents 0700) with exactly ``mode``; whether it was missing."""
    if path.is_dir():
        return False
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.mkdir()
    os.chmod(path, mode)
    return True
