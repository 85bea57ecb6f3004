"""Replacing the content of a directory at one stroke, in the layout that programs know from Kubernetes.

The files lie in ``..<time>/``; ``..data`` is a link to it, and each visible name a link ``name -> ..data/name``. New
content is written to a new ``..<time>/`` first, and then a rename(2) of a new link over ``..data`` shows all of it: a
reader sees the old files or the new ones. Programs that watch the directory see the rename.

The directory belongs to root and containers have it read-only, so paths can be used here.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from podrt.errors import InvalidError
from podrt.node.volumes.payload import Payload

DATA = "..data"
_NEW_DATA = "..data_tmp"


def check_path(path: str) -> None:
    """Raises InvalidError for a path that would leave the directory or clash with its own names.

    The API has refused such a path before; what writes files as root looks again.
    """
    parts = path.split("/")
    if not path or "\0" in path or any(part in ("", ".", "..") for part in parts) or parts[0].startswith(".."):
        raise InvalidError(f"{path!r} is not a path of a file in a volume")


def write(target: Path, files: Payload, prepare: Callable[[Path], None] | None = None) -> bool:
    """Make ``files`` the content of ``target``, an existing directory. False if it was so already.

    ``prepare`` is called with the new directory before it is shown (ownership). Raises InvalidError for a bad path,
    OSError; the old content stays then.
    """
    for path in files:
        check_path(path)
    current = _current(target)
    if current is not None and _same(target / current, files):
        _link(target, files)
        return False
    new = _new_directory(target)
    try:
        for path, file in files.items():
            place = new / path
            place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(fd, "wb", buffering=0) as stream:
                if file.uid:
                    os.fchown(fd, file.uid, -1)
                os.fchmod(fd, file.mode)
                stream.write(file.data)
        if prepare is not None:
            prepare(new)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target / _NEW_DATA)
        os.symlink(new.name, target / _NEW_DATA)
        os.rename(target / _NEW_DATA, target / DATA)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    _link(target, files)
    if current is not None:
        shutil.rmtree(target / current, ignore_errors=True)
    return True


def _new_directory(target: Path) -> Path:
    stamp = datetime.datetime.now(datetime.UTC).strftime("..%Y_%m_%d_%H_%M_%S.%f")
    for number in range(1000):
        path = target / f"{stamp}{number:03}"
        try:
            path.mkdir(mode=0o755)
        except FileExistsError:
            continue
        path.chmod(0o755)
        return path
    raise FileExistsError(f"no free name for a new directory in {target}")


def _current(target: Path) -> str | None:
    """The name that ``..data`` points to, if that is a directory here."""
    try:
        name = os.readlink(target / DATA)
    except FileNotFoundError:
        return None
    return name if "/" not in name and (target / name).is_dir() else None


def _same(directory: Path, files: Payload) -> bool:
    found = set()
    for root, _, names in os.walk(directory):
        for name in names:
            place = Path(root, name)
            path = str(place.relative_to(directory))
            wanted = files.get(path)
            # Ownership (fsGroup) may have added to the mode; it never changes within the life of a Pod.
            if wanted is None or place.stat().st_mode & wanted.mode != wanted.mode or place.read_bytes() != wanted.data:
                return False
            found.add(path)
    return found == set(files)


def _link(target: Path, files: Payload) -> None:
    """Make the visible names those of ``files``; after the rename, so that none points to nothing for long."""
    wanted = {path.partition("/")[0] for path in files}
    there = {name for name in os.listdir(target) if not name.startswith("..")}
    for name in wanted - there:
        os.symlink(f"{DATA}/{name}", target / name)
    for name in there - wanted:
        os.unlink(target / name)
