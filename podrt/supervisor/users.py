"""Users and groups of a container, looked up in its own /etc/passwd and /etc/group read as plain text.

The name service of the C library is never asked: it would load libraries of the container's file system into a
process of the host (CVE-2019-14271). Malformed lines are skipped, as the C library does; sizes are limited.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from podrt.linux import abi, libc
from podrt.supervisor.protocol import Credentials

MAX_FILE = 4 * 1024 * 1024
_MAX_ID = 2**32 - 2


class UserError(Exception):
    """The user or group can't be resolved; the message is for the one who wrote the Pod."""


class PasswdEntry(NamedTuple):
    name: bytes
    uid: int
    gid: int
    home: bytes


class GroupEntry(NamedTuple):
    name: bytes
    gid: int
    members: tuple[bytes, ...]


class Identity(NamedTuple):
    """What a user string comes to. ``groups`` holds the primary gid too, first (CVE-2022-36109)."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def parse_passwd(data: bytes) -> list[PasswdEntry]:
    """The well-formed lines of a passwd(5) file."""
    entries = []
    for line in data.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 6 and fields[0]:
            uid, gid = _number(fields[2]), _number(fields[3])
            if uid is not None and gid is not None:
                entries.append(PasswdEntry(fields[0], uid, gid, fields[5]))
    return entries


def parse_group(data: bytes) -> list[GroupEntry]:
    """The well-formed lines of a group(5) file."""
    entries = []
    for line in data.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 3 and fields[0]:
            gid = _number(fields[2])
            if gid is not None:
                members = fields[3].split(b",") if len(fields) > 3 else []
                entries.append(GroupEntry(fields[0], gid, tuple(name for name in members if name)))
    return entries


def resolve(credentials: Credentials, passwd: list[PasswdEntry], group: list[GroupEntry]) -> Identity:
    """Apply ``credentials.user`` to the image's files. A number is an id, listed or not. Raises UserError."""
    wanted_user, _, wanted_group = credentials.user.partition(":")
    user = (wanted_user or "0").encode(errors="surrogateescape")
    number = _number(user)
    # A number is an id, though chown(1) takes it for a name first: an image that has an account "1000" of uid 0 must
    # not make runAsUser 1000 root.
    if user.isdigit():
        entry = next((one for one in passwd if one.uid == number), None)
    else:
        entry = next((one for one in passwd if one.name == user), None)
    if entry is not None:
        uid, gid = entry.uid, entry.gid
    elif number is not None:
        uid, gid = number, 0
    else:
        raise UserError(f'user: no user "{wanted_user}" in the image\'s /etc/passwd')
    if wanted_group:
        gid = _resolve_group(wanted_group, group)
    if credentials.non_root and uid == 0:
        raise UserError("container has runAsNonRoot and its user is root (uid 0)")
    groups = [gid, *credentials.extra_gids]
    if credentials.merge_image_groups and entry is not None:
        groups += [one.gid for one in group if entry.name in one.members]
    home = os.fsdecode(entry.home) if entry is not None and entry.home else "/"
    return Identity(uid, gid, tuple(dict.fromkeys(groups)), home)


def load(root_fd: int, credentials: Credentials) -> Identity:
    """:func:`resolve` with the files below the directory ``root_fd``. Raises UserError, OSError."""
    passwd = parse_passwd(read_in_root(root_fd, "/etc/passwd"))
    return resolve(credentials, passwd, parse_group(read_in_root(root_fd, "/etc/group")))


def read_in_root(root_fd: int, path: str) -> bytes:
    """The content of a regular file of the image; empty if it isn't there. Raises UserError if it is too large."""
    try:
        fd = libc.openat2(
            root_fd,
            path,
            # Non-blocking: a FIFO put there must not hold the child for ever.
            os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY,
            resolve=abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_MAGICLINKS,
        )
    except (FileNotFoundError, NotADirectoryError):
        return b""
    try:
        status = os.fstat(fd)
        if status.st_mode & 0o170000 != 0o100000:
            raise UserError(f"user: {path} of the image is not a regular file")
        data = bytearray()
        while chunk := os.read(fd, 65536):
            data += chunk
            if len(data) > MAX_FILE:
                raise UserError(f"user: {path} of the image is larger than {MAX_FILE} bytes")
        return bytes(data)
    finally:
        os.close(fd)


def _resolve_group(wanted: str, group: list[GroupEntry]) -> int:
    name = wanted.encode(errors="surrogateescape")
    number = _number(name)
    if number is not None:
        return number
    entry = next((one for one in group if one.name == name and not name.isdigit()), None)
    if entry is None:
        raise UserError(f'user: no group "{wanted}" in the image\'s /etc/group')
    return entry.gid


def _number(text: bytes) -> int | None:
    if not text.isdigit() or len(text) > 10:
        return None
    number = int(text)
    return number if number <= _MAX_ID else None
