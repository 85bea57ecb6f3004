"""The images of the tests: built once by ``images/build``, loaded once a session, then hard-linked into each daemon.

Loading the archives takes seconds, a hard-linked copy of the loaded store some milliseconds. Layers are only ever read
(overlay writes above them), so sharing their inodes between daemons is safe.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ARCHIVES = REPOSITORY / "build" / "images"
NAMES = ("busybox", "nginx", "python", "tools")


def archives() -> dict[str, Path]:
    """The archive of ``localhost/podrt/<name>:latest`` by name. ``images/build`` makes those that changed, in 0.2 s if
    none did. ``PODRT_TEST_IMAGES`` names a directory of finished archives instead, for a machine without the
    packages to build them of. Raises RuntimeError with its output."""
    if given := os.environ.get("PODRT_TEST_IMAGES"):
        return {name: Path(given, f"{name}.tar") for name in NAMES}
    command = [str(REPOSITORY / "images" / "build"), "--out", str(ARCHIVES), *NAMES]
    built = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if built.returncode:
        raise RuntimeError(f"images/build failed:\n{built.stdout}{built.stderr}")
    return {name: ARCHIVES / f"{name}.tar" for name in NAMES}


def copy_store(source: Path, target: Path) -> None:
    """A hard-linked copy of an image store's directory."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(target)
    subprocess.run(("cp", "-al", source, target), check=True, stdin=subprocess.DEVNULL)
