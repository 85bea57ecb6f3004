"""Where images and writable layers are, as the CRI's FilesystemIdentifier says it.

The kubelet looks up the device of such a directory by itself. It takes two different names for two file systems, so
one file system must have one name in all answers.
"""

from __future__ import annotations

import os
from pathlib import Path

from podrt.config import Config


def mountpoints(config: Config) -> tuple[str, str]:
    """A directory on the file system of the images, and one on that of the writable layers. Raises OSError."""
    images, containers = config.state_dir / "images", config.state_dir / "containers"
    if _device(images) == _device(containers):
        return str(config.state_dir), str(config.state_dir)
    return str(images), str(containers)


def _device(path: Path) -> int:
    return os.stat(path).st_dev
