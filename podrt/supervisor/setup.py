"""What the child between fork and exec does in each step: small functions over single kernel interfaces.

They run after a fork in a process that stands, or will stand, in a container's file system: see
:mod:`podrt.supervisor.child` for the rules.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import fcntl
import os
import resource
import stat
import struct
import termios
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from podrt.linux import abi, caps, libc
from podrt.supervisor.protocol import Credentials
from podrt.supervisor.users import Identity

_NAMESPACED_SYSCTLS = ("net/", "fs/mqueue/", "kernel/shm", "kernel/msg", "kernel/sem")
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_MAX_PROGRAM = 4096 * 8

IdMap = Sequence[tuple[int, int, int]]


def write_file(path: str, data: bytes) -> None:
    """One write(2) to an existing file of the kernel's. Raises OSError with the path."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    except OSError as error:
        raise OSError(error.errno, f"writing {data.decode(errors='replace')!r}: {error.strerror}", path) from error
    finally:
        os.close(fd)


def set_oom_score_adj(value: int) -> str:
    """Write oom_score_adj, see proc(5). Returns a warning, empty if all is well.

    Without CAP_SYS_RESOURCE it can't go below the lowest value that a privileged process has set: then it stays as
    it is.
    """
    path = "/proc/self/oom_score_adj"
    try:
        write_file(path, b"%d" % value)
    except PermissionError:
        with open(path, "rb", buffering=0) as file:
            kept = int(file.read())
        return f"oom_score_adj {value} is not permitted on this machine; {kept} is kept"
    return ""


def open_apparmor() -> int:
    """The attribute that sets the profile of the next exec; opened on the host's own procfs, which no mount of the
    container's can redirect (CVE-2025-52881)."""
    for path in ("/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if libc.fstatfs_type(fd) != abi.PROC_SUPER_MAGIC:
            os.close(fd)
            raise OSError(errno.EINVAL, "not on a procfs", path)
        return fd
    raise OSError(errno.EOPNOTSUPP, "this kernel has no AppArmor")


def open_label() -> tuple[int, int]:
    """The attributes that set the SELinux label of the next exec and of new keyrings; see :func:`open_apparmor`."""
    fds = tuple(os.open(f"/proc/self/attr/{name}", os.O_WRONLY | os.O_CLOEXEC) for name in ("exec", "keycreate"))
    if any(libc.fstatfs_type(fd) != abi.PROC_SUPER_MAGIC for fd in fds):
        raise OSError(errno.EINVAL, "not on a procfs", "/proc/self/attr")
    return fds[0], fds[1]


def set_names(hostname: str, domainname: str) -> None:
    if hostname:
        _socket.sethostname(hostname)
    if domainname:
        libc.setdomainname(domainname)


def write_sysctls(sysctls: Sequence[tuple[str, str]]) -> None:
    """Write below /proc/sys. Raises OSError EPERM for one that would change the host, and for a path that isn't
    plain."""
    if not sysctls:
        return
    base = os.open("/proc/sys", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.fstatfs_type(base) != abi.PROC_SUPER_MAGIC:
            raise OSError(errno.EINVAL, "not a procfs", "/proc/sys")
        for path, value in sysctls:
            if not path.startswith(_NAMESPACED_SYSCTLS) or ".." in path.split("/") or "\n" in value or "\0" in value:
                raise OSError(errno.EPERM, "not a sysctl of a network or IPC namespace", path)
            resolve = abi.RESOLVE_BENEATH | abi.RESOLVE_NO_SYMLINKS | abi.RESOLVE_NO_XDEV
            fd = libc.openat2(base, path, os.O_WRONLY, resolve=resolve)
            try:
                os.write(fd, value.encode())
            except OSError as error:
                raise OSError(error.errno, f"writing {value!r}: {error.strerror}", path) from error
            finally:
                os.close(fd)
    finally:
        os.close(base)


def loopback_up() -> None:
    """Set the flag UP of ``lo`` in the current network namespace, see netdevice(7)."""
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        request = fcntl.ioctl(sock.fileno(), _SIOCGIFFLAGS, struct.pack("16sh22x", b"lo", 0))
        flags = struct.unpack_from("h", request, 16)[0]
        fcntl.ioctl(sock.fileno(), _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))
    finally:
        sock.close()


def become_root() -> None:
    """Root of the user namespace just entered; the ids from before have no meaning in it."""
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def outside(identity: int, id_map: IdMap) -> int | None:
    """The id on the host for one inside a user namespace; None if it isn't mapped. No map: the same."""
    if not id_map:
        return identity
    for inside, start, count in id_map:
        if inside <= identity < inside + count:
            return start + identity - inside
    return None


@contextlib.contextmanager
def file_system_root(uid_map: IdMap, gid_map: IdMap, mapped: bool) -> Iterator[Callable[[], None]]:
    """Yields a function that makes new files belong to the container's root, with all capabilities kept.

    Through an idmapped mount the host's root has no id, and creating a mount point would fail with EOVERFLOW.
    """
    uid, gid = outside(0, uid_map), outside(0, gid_map)
    switched = False

    def switch() -> None:
        nonlocal switched
        if switched or not mapped or not uid or not gid:
            return
        libc.prctl(abi.PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
        os.setegid(gid)
        os.seteuid(uid)
        switched = True

    yield switch
    if switched:
        os.seteuid(0)
        os.setegid(0)
        libc.prctl(abi.PR_SET_SECUREBITS, 0)
        libc.prctl(abi.PR_SET_DUMPABLE, 0)


def give_to(fds: Sequence[int], uid: int | None) -> None:
    """Let the container's user reopen its standard streams by name (``/dev/stdout``): pipes and terminals get its
    uid."""
    if uid is None:
        return
    for fd in set(fds):
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or (stat.S_ISCHR(mode) and libc.fstatfs_type(fd) == abi.DEVPTS_SUPER_MAGIC):
            with contextlib.suppress(OSError):
                os.fchown(fd, uid, -1)


def raise_rlimits(rlimits: Sequence[tuple[str, int, int]]) -> list[str]:
    """Raise hard limits while the host's privileges last. Returns warnings for those that can't be; lowers nothing, for
    the child still needs descriptors and memory."""
    warnings = []
    for name, _, hard in rlimits:
        number = _rlimit(name)
        soft_now, hard_now = resource.getrlimit(number)
        if _above(hard, hard_now):
            try:
                resource.setrlimit(number, (soft_now, hard))
            except (PermissionError, ValueError):
                warnings.append(f"RLIMIT_{name}: {hard} is above the limit of this machine; {hard_now} is kept")
    return warnings


def set_rlimits(rlimits: Sequence[tuple[str, int, int]], nofile: tuple[int, int]) -> None:
    """Set the limits exactly, as far as :func:`raise_rlimits` made room for them. The last step before privileges
    go."""
    if all(name != "NOFILE" for name, _, _ in rlimits):
        resource.setrlimit(resource.RLIMIT_NOFILE, nofile)
    for name, soft, hard in rlimits:
        number = _rlimit(name)
        limit = resource.getrlimit(number)[1]
        hard = limit if _above(hard, limit) else hard
        resource.setrlimit(number, (hard if _above(soft, hard) else soft, hard))


def set_window(terminal_fd: int, columns: int, rows: int) -> None:
    """TIOCSWINSZ, see ioctl_tty(2)."""
    fcntl.ioctl(terminal_fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


def set_controlling_terminal(slave_fd: int) -> None:
    """TIOCSCTTY; the process must be a session leader without a terminal."""
    fcntl.ioctl(slave_fd, termios.TIOCSCTTY, 0)


def duplicate_above(fd: int, lowest: int) -> int:
    """A close-on-exec copy whose number is at least ``lowest``."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)


def join_keyring() -> None:
    """A session keyring of one's own; without it containers would share the supervisor's, so only a kernel without
    keyrings (or a sandbox around podrt that forbids them) is passed over. Raises OSError EDQUOT, ENOMEM."""
    try:
        libc.keyctl_join_session()
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise


def read_program(fd: int) -> bytes:
    """A compiled seccomp program from its memfd. Raises OSError EINVAL if it can't be one."""
    size = os.fstat(fd).st_size
    if not 0 < size <= _MAX_PROGRAM or size % 8:
        raise OSError(errno.EINVAL, f"a seccomp program can't have {size} bytes")
    return os.pread(fd, size, 0)


def take_identity(identity: Identity, credentials: Credentials) -> None:
    """Groups, ids and capabilities, for good. Raises OSError; EINVAL means an id that the user namespace doesn't
    map."""
    try:
        caps.drop_bounding(credentials.bounding)
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        if identity.uid != 0:
            caps.keep_over_setuid()
        os.setresuid(identity.uid, identity.uid, identity.uid)
        caps.apply(credentials.bounding, credentials.ambient, identity.uid)
    except OSError as error:
        if error.errno == errno.EINVAL:
            text = f"uid {identity.uid}, gid {identity.gid} or a group is not mapped in the Pod's user namespace"
            raise OSError(errno.EINVAL, text) from error
        raise


def _rlimit(name: str) -> int:
    number: Any = getattr(resource, f"RLIMIT_{name}", None)
    if not isinstance(number, int):
        raise OSError(errno.EINVAL, f"unknown resource limit {name}")
    return number


def _above(value: int, limit: int) -> bool:
    if limit == resource.RLIM_INFINITY:
        return False
    return value == resource.RLIM_INFINITY or value > limit
