"""SELinux: whether the kernel has it, what labels containers get where nobody says, and labelling of files.

The kernel's side is selinuxfs at /sys/fs/selinux; the policy's files are those of libselinux, selinux_lxc_contexts(5).
A container enters its label at its exec (``supervisor.child``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import NamedTuple

ATTRIBUTE = "security.selinux"
_ROOT = "/sys/fs/selinux"
_CONFIG = "/etc/selinux"
_PROCESS = "system_u:system_r:container_t:s0"
_FILE = "system_u:object_r:container_file_t:s0"
_PASSED_OVER = (errno.ENOTSUP, errno.ENOENT)
"""File systems without labels of files, or with one for all (``context=``); files that go meanwhile."""


class Defaults(NamedTuple):
    """The labels, without categories, of containers and of their files. ``usable``: the policy knows them and lets this
    process's children take the first, so that a container of which nothing is said can have them."""

    process: str
    file: str
    usable: bool


def enabled() -> bool:
    """Whether the running kernel has SELinux, enforcing or permissive."""
    return os.path.exists(f"{_ROOT}/enforce")


def defaults() -> Defaults | None:
    """None without SELinux."""
    if not enabled():
        return None
    process, file = parse_contexts(_read(f"{_CONFIG}/{_policy(_read(f'{_CONFIG}/config'))}/contexts/lxc_contexts"))
    return Defaults(process, file, valid(process) and valid(file) and _may_become(process))


def valid(label: str) -> bool:
    """Whether the loaded policy knows a label (security_check_context(3))."""
    try:
        fd = os.open(f"{_ROOT}/context", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, label.encode() + b"\0")
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def parse_contexts(text: str) -> tuple[str, str]:
    """(``process``, ``file``) of an lxc_contexts file; what it leaves out is as container-selinux has it."""
    found = {"process": _PROCESS, "file": _FILE}
    for line in text.splitlines():
        name, separator, value = line.partition("=")
        if separator and not line.lstrip().startswith("#") and value.strip().strip('"'):
            found[name.strip()] = value.strip().strip('"')
    return found["process"], found["file"]


def relabel(path: str, label: str) -> None:
    """Give ``path`` and all below it on the same file system a label; links are labelled, not followed.

    What has the label already is not written to. Raises OSError.
    """
    top = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        found = os.fstat(top)
        here = f"/proc/self/fd/{top}"
        # The directory last, so that one who sees its label knows that the rest is done.
        if stat.S_ISDIR(found.st_mode):
            for _, directories, files, fd in os.fwalk(f"{here}/.", topdown=True):
                if os.fstat(fd).st_dev != found.st_dev:
                    directories.clear()
                    continue
                for name in files:
                    _set(f"/proc/self/fd/{fd}/{name}", label, follow=False)
                # fwalk counts links to directories among these.
                for name in directories:
                    if stat.S_ISLNK(_mode(name, fd)):
                        _set(f"/proc/self/fd/{fd}/{name}", label, follow=False)
                _set(f"/proc/self/fd/{fd}", label)
        _set(here, label)
    finally:
        os.close(top)


def _mode(name: str, fd: int) -> int:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


def _set(path: str, label: str, *, follow: bool = True) -> None:
    wanted = label.encode()
    try:
        if os.getxattr(path, ATTRIBUTE, follow_symlinks=follow).rstrip(b"\0") != wanted:
            os.setxattr(path, ATTRIBUTE, wanted, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.ENODATA:
            os.setxattr(path, ATTRIBUTE, wanted, follow_symlinks=follow)
        elif error.errno not in _PASSED_OVER:
            raise


def _policy(config: str) -> str:
    """SELINUXTYPE of /etc/selinux/config."""
    for line in config.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "SELINUXTYPE":
            return value.strip()
    return "targeted"


def _may_become(label: str) -> bool:
    """Whether the policy lets a process of this one's label take ``label`` at an exec; permissive, it lets all."""
    if _read(f"{_ROOT}/enforce").strip() == "0":
        return True
    own = _read("/proc/self/attr/current").rstrip("\0\n")
    try:
        number = int(_read(f"{_ROOT}/class/process/index"))
        bit = 1 << int(_read(f"{_ROOT}/class/process/perms/transition")) - 1
        fd = os.open(f"{_ROOT}/access", os.O_RDWR | os.O_CLOEXEC)
    except (OSError, ValueError):
        return False
    try:
        os.write(fd, f"{own} {label} {number}".encode())
        return bool(int(os.read(fd, 4096).split()[0], 16) & bit)
    except (OSError, ValueError, IndexError):
        return False
    finally:
        os.close(fd)


def _read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
    return ""
