"""What an archive's entry says about itself, taken with care: its name, its attributes, its time."""

from __future__ import annotations

import errno
import logging
import os
import tarfile
from decimal import Decimal, InvalidOperation

from podrt.errors import ImageError

_LOG = logging.getLogger(__name__)

_XATTR = "SCHILY.xattr."
_XATTRS_KEPT = ("user.", "security.capability", "system.posix_acl_access", "system.posix_acl_default")
_XATTRS_FORGED = ("user.overlay.", "trusted.")
_MAX_PATH = 4096
_MAX_DEPTH = 256
_NS = 10**9


def split_name(name: str, what: str) -> list[str]:
    """Components of an archive name, taken relative to the root.

    Raises ImageError for ``..``, NUL, and what is too long.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ImageError(f"{what} {name!r} has '..' in it: it tries to leave the layer; the image is unsafe")
    if "\0" in name:
        raise ImageError(f"{what} {name!r} has a NUL byte in it")
    if len(name) > _MAX_PATH or len(parts) > _MAX_DEPTH:
        raise ImageError(f"{what} {name[:60]!r}... is too long ({len(name)} characters, {len(parts)} levels)")
    return parts


def set_xattrs(fd: int, member: tarfile.TarInfo) -> None:
    """Set the extended attributes that an image may bring (``user.*``, file capabilities, POSIX ACLs); drop all
    others.
    """
    for key, value in member.pax_headers.items():
        if not key.startswith(_XATTR):
            continue
        name = key[len(_XATTR) :]
        if not name.startswith(_XATTRS_KEPT) or name.startswith(_XATTRS_FORGED):
            continue
        try:
            os.setxattr(fd, name, value.encode("utf-8", "surrogateescape"))
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
            _LOG.warning("layer entry %r: this file system can't keep the attribute %s", member.name, name)


def mtime(member: tarfile.TarInfo) -> int:
    """Nanoseconds; exact where the extended header gives a decimal fraction, and within what file systems take."""
    try:
        seconds = Decimal(member.pax_headers["mtime"]) if "mtime" in member.pax_headers else Decimal(member.mtime)
        value = int(seconds * _NS)
    except (InvalidOperation, ValueError, OverflowError):
        return 0
    return max(-(2**31) * _NS, min(value, 2**34 * _NS))
