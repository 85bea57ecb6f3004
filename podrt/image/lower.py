"""What the layers below say about a directory that a layer uses without an entry for it.

An archive may hold ``a/b`` and nothing about ``a``. Unpacked by itself, the layer then needs a directory ``a``, which
overlayfs shows instead of the one below: so it has to have that one's owner, mode, attributes and time.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from podrt.linux import abi, libc

OPAQUE_XATTR = "trusted.overlay.opaque"
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE = abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_SYMLINKS | abi.RESOLVE_NO_XDEV
_COPIED = ("user.", "security.capability", "system.posix_acl_")
_NOT_COPIED = "user.overlay."


def open_below(layers: Sequence[Path], parts: Sequence[str]) -> int | None:
    """A descriptor of the directory that is seen at ``parts`` through ``layers`` (unpacked, the uppermost first); None
    if there is none."""
    for layer in layers:
        root = os.open(layer, _FLAGS)
        try:
            hides = False
            for count in range(1, len(parts) + 1):
                try:
                    fd = libc.openat2(root, "/".join(parts[:count]), _FLAGS, 0, _RESOLVE)
                except OSError as error:
                    if error.errno == errno.ENOENT:
                        break
                    return None  # a whiteout, a file or a link
                if count == len(parts):
                    return fd
                hides = hides or _is_opaque(fd)
                os.close(fd)
            if hides:
                return None
        finally:
            os.close(root)
    return None


def copy_directory(source: int, target: int) -> int:
    """Give ``target`` the owner, mode and attributes of ``source`` (descriptors); returns its mtime in nanoseconds."""
    found = os.fstat(source)
    os.fchown(target, found.st_uid, found.st_gid)
    os.fchmod(target, found.st_mode & 0o7777)
    for name in os.listxattr(source):
        if name.startswith(_COPIED) and not name.startswith(_NOT_COPIED):
            os.setxattr(target, name, os.getxattr(source, name))
    return found.st_mtime_ns


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, OPAQUE_XATTR) == b"y"
    except OSError:
        return False
