"""nfs: mounted with the host's mount.nfs (nfs-common), which podrt doesn't bring along."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

from podrt.model.volume import NFSVolumeSource
from podrt.node.volumes.directory import make_directory
from podrt.node.volumes.errors import Unavailable

TIMEOUT = 60.0
"""Seconds that a server has to answer."""
HELPER = "mount.nfs"


def helper() -> str | None:
    """The path of mount.nfs; it is often outside of a daemon's PATH."""
    return shutil.which(HELPER, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


async def set_up(source: NFSVolumeSource, path: Path, mount_options: tuple[str, ...] = ()) -> Path:
    """Mount the export at ``path``. Raises Unavailable."""
    make_directory(path)
    if os.path.ismount(path):
        return path
    program = helper()
    if program is None:
        raise Unavailable(f"this machine has no {HELPER}: install the package nfs-common (nfs-utils)")
    options = [*mount_options, *(["ro"] if source.read_only else []), "nosuid", "nodev"]
    process = await asyncio.create_subprocess_exec(
        program,
        f"{source.server}:{source.path}",
        os.fspath(path),
        "-o",
        ",".join(options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            _, errors = await process.communicate()
    except TimeoutError:
        raise Unavailable(f"{source.server}:{source.path}: no answer within {TIMEOUT:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise Unavailable(f"mount failed: {errors.decode(errors='replace').strip()[:300]}")
    return path
