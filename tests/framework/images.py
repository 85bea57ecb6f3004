"""The images of the tests: built once by ``images/build``, loaded once a session, then hard-linked into each daemon.

Loading the archives takes seconds, a hard-linked copy of the loaded store some milliseconds. Layers are only ever read
(overlay writes above them), so sharing their inodes between daemons is safe.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ARCHIVES = REPOSITORY / "build" / "images"
NAMES = ("busybox", "nginx", "python", "tools")


def archive(name: str) -> Path:
    """The archive of ``localhost/podrt/<name>:latest``, built now if it isn't there or its recipe is newer."""
    ARCHIVES.mkdir(parents=True, exist_ok=True)
    path = ARCHIVES / f"{name}.tar"
    with open(ARCHIVES / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        recipes = max(file.stat().st_mtime for file in (REPOSITORY / "images").rglob("*") if file.is_file())
        if not path.exists() or path.stat().st_mtime < recipes:
            command = [str(REPOSITORY / "images" / "build"), "--out", str(ARCHIVES), name]
            built = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if built.returncode:
                raise RuntimeError(f"images/build {name} failed:\n{built.stdout}{built.stderr}")
            os.utime(path)
    return path


def copy_store(source: Path, target: Path) -> None:
    """A hard-linked copy of an image store's directory."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(target)
    subprocess.run(("cp", "-al", source, target), check=True, stdin=subprocess.DEVNULL)
