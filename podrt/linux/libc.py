"""System calls that Python's os module lacks, as thin typed wrappers. The only file that imports ctypes.

Every wrapper is named after its system call, adds no policy and fails as ``OSError(errno, "call(arguments): reason",
path)``. All symbols are resolved when this module is imported: nothing here opens a library later, so every function
may be called by the child of a fork that already stands in a container's file system (CVE-2019-14271). Flags and other
numbers that callers give are in :mod:`podrt.linux.abi`.

Python 3.12's ``os.unshare`` and ``os.setns`` are not used because 3.11 is supported.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct
from typing import Any

from podrt.linux import abi

# Numbers from 424 on are the same on every architecture; the older ones are (x86_64, aarch64 and other "generic" ones).
_OLD = {"pivot_root": (155, 41), "keyctl": (250, 219), "bpf": (321, 280), "seccomp": (317, 277), "getcwd": (79, 17)}
_NR = {name: numbers[0 if platform.machine() == "x86_64" else 1] for name, numbers in _OLD.items()} | {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
}

PathLike = str | bytes

_libc = ctypes.CDLL(None, use_errno=True)
# Keeps the interpreter lock across the call, as os.fork does: a clone must return in the thread state it left.
_libc_locked = ctypes.PyDLL(None, use_errno=True)

_long = ctypes.c_long
_int = ctypes.c_int
_ulong = ctypes.c_ulong
_char_p = ctypes.c_char_p
_void_p = ctypes.c_void_p
_size_t = ctypes.c_size_t


def _function(name: str, *argtypes: Any, library: Any = _libc, restype: Any = _int) -> Any:
    function = getattr(library, name)
    function.argtypes = argtypes
    function.restype = restype
    return function


_unshare = _function("unshare", _int)
_setns = _function("setns", _int, _int)
_mount = _function("mount", _char_p, _char_p, _char_p, _ulong, _char_p)
_umount2 = _function("umount2", _char_p, _int)
_prctl = _function("prctl", _int, _ulong, _ulong, _ulong, _ulong)
_tee = _function("tee", _int, _int, _size_t, ctypes.c_uint, restype=ctypes.c_ssize_t)
_splice = _function("splice", _int, _void_p, _int, _void_p, _size_t, ctypes.c_uint, restype=ctypes.c_ssize_t)
_setdomainname = _function("setdomainname", _char_p, _size_t)
_fstatfs = _function("fstatfs", _int, _void_p)
_syncfs = _function("syncfs", _int)
_get_errno = ctypes.get_errno

_before_fork = _function("PyOS_BeforeFork", library=ctypes.pythonapi, restype=None)
_after_fork_parent = _function("PyOS_AfterFork_Parent", library=ctypes.pythonapi, restype=None)
_after_fork_child = _function("PyOS_AfterFork_Child", library=ctypes.pythonapi, restype=None)


def _raw(*argtypes: Any, library: Any = _libc) -> Any:
    """syscall(2) as an object of its own, with the types of one system call's arguments."""
    function = library["syscall"]
    function.argtypes = (_long, *argtypes)
    function.restype = _long
    return function


_pivot_root = _raw(_char_p, _char_p)
_open_tree = _raw(_int, _char_p, ctypes.c_uint)
_move_mount = _raw(_int, _char_p, _int, _char_p, ctypes.c_uint)
_mount_setattr = _raw(_int, _char_p, ctypes.c_uint, _void_p, _size_t)
_fsopen = _raw(_char_p, ctypes.c_uint)
_fsconfig = _raw(_int, ctypes.c_uint, _char_p, _char_p, _int)
_fsmount = _raw(_int, ctypes.c_uint, ctypes.c_uint)
_openat2 = _raw(_int, _char_p, _void_p, _size_t)
_clone3 = _raw(_void_p, _size_t, library=_libc_locked)
_close_range = _raw(ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)
_keyctl = _raw(_int, _char_p)
_seccomp = _raw(ctypes.c_uint, ctypes.c_uint, _void_p)
_bpf = _raw(_int, _void_p, ctypes.c_uint)
_getcwd = _raw(_void_p, _size_t)


def _fail(call: str, path: PathLike | int | None = None) -> OSError:
    number = _get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}", path)


def _encode(path: PathLike | None) -> bytes | None:
    return None if path is None else os.fsencode(path)


# -- namespaces and processes


def unshare(flags: int) -> None:
    """unshare(2)."""
    if _unshare(flags) < 0:
        raise _fail(f"unshare({flags:#x})")


def setns(fd: int, nstype: int = 0) -> None:
    """setns(2); ``fd`` is a namespace, or a pidfd with the CLONE_NEW* flags to join in ``nstype``."""
    if _setns(fd, nstype) < 0:
        raise _fail(f"setns({fd}, {nstype:#x})")


def clone3(flags: int = 0, *, cgroup_fd: int = -1, exit_signal: int = signal.SIGCHLD) -> tuple[int, int]:
    """clone3(2) as a fork: returns (pid, pidfd) in the parent and (0, -1) in the child.

    CLONE_PIDFD is always added, CLONE_INTO_CGROUP where ``cgroup_fd`` (a directory of cgroup2) is given. Only for a
    process of a single thread: C libraries' own fork handlers don't run, the interpreter's do.
    """
    pidfd = ctypes.c_int(-1)
    flags |= abi.CLONE_PIDFD | (abi.CLONE_INTO_CGROUP if cgroup_fd >= 0 else 0)
    arguments = struct.pack("11Q", flags, ctypes.addressof(pidfd), 0, 0, exit_signal, 0, 0, 0, 0, 0, max(cgroup_fd, 0))
    buffer = ctypes.create_string_buffer(arguments, len(arguments))
    _before_fork()
    pid = _clone3(_NR["clone3"], buffer, len(arguments))
    if pid == 0:
        _after_fork_child()
        return 0, -1
    number = _get_errno()
    _after_fork_parent()
    if pid < 0:
        raise OSError(number, f"clone3({flags:#x}): {os.strerror(number)}")
    return int(pid), pidfd.value


def prctl(option: int, a2: int = 0, a3: int = 0, a4: int = 0, a5: int = 0) -> int:
    """prctl(2) for options whose arguments are numbers."""
    result: int = _prctl(option, a2, a3, a4, a5)
    if result < 0:
        raise _fail(f"prctl({option}, {a2}, {a3}, {a4}, {a5})")
    return result


def set_no_new_privs() -> None:
    """PR_SET_NO_NEW_PRIVS: exec no longer grants privileges, for this process and its children, for good."""
    prctl(abi.PR_SET_NO_NEW_PRIVS, 1)


def set_subreaper() -> None:
    """PR_SET_CHILD_SUBREAPER: orphaned descendants become children of this process."""
    prctl(abi.PR_SET_CHILD_SUBREAPER, 1)


def ambient_raise(capability: int) -> None:
    """Add one capability, by number, to the ambient set; it must be permitted and inheritable."""
    prctl(abi.PR_CAP_AMBIENT, abi.PR_CAP_AMBIENT_RAISE, capability)


def ambient_clear() -> None:
    """Empty the ambient set."""
    prctl(abi.PR_CAP_AMBIENT, abi.PR_CAP_AMBIENT_CLEAR_ALL)


def set_seccomp(program: bytes, flags: int = 0) -> None:
    """seccomp(2) SECCOMP_SET_MODE_FILTER; ``program`` is an array of struct sock_filter (8 bytes each)."""
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    if _seccomp(_NR["seccomp"], abi.SECCOMP_SET_MODE_FILTER, flags, ctypes.create_string_buffer(fprog, len(fprog))) < 0:
        raise _fail(f"seccomp(SECCOMP_SET_MODE_FILTER, {flags:#x}, {len(program) // 8} instructions)")


def keyctl_join_session(name: str | None = None) -> int:
    """keyctl(2) KEYCTL_JOIN_SESSION_KEYRING: a session keyring of one's own. Returns its serial number."""
    serial: int = _keyctl(_NR["keyctl"], 1, _encode(name))
    if serial < 0:
        raise _fail("keyctl(KEYCTL_JOIN_SESSION_KEYRING)")
    return serial


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    data = os.fsencode(name)
    if _setdomainname(data, len(data)) < 0:
        raise _fail(f"setdomainname({name!r})")


# -- mounts


def mount(
    source: PathLike | None, target: PathLike, fstype: str | None = None, flags: int = 0, data: PathLike | None = None
) -> None:
    """mount(2); ``data`` is cut off by the kernel after one page."""
    if _mount(_encode(source), _encode(target), _encode(fstype), flags, _encode(data)) < 0:
        raise _fail(f"mount({source!r}, {target!r}, {fstype!r}, {flags:#x}, {data!r})", target)


def umount2(target: PathLike, flags: int = 0) -> None:
    """umount2(2)."""
    if _umount2(_encode(target), flags) < 0:
        raise _fail(f"umount2({target!r}, {flags:#x})", target)


def pivot_root(new: PathLike, old: PathLike) -> None:
    """pivot_root(2)."""
    if _pivot_root(_NR["pivot_root"], _encode(new), _encode(old)) < 0:
        raise _fail(f"pivot_root({new!r}, {old!r})", new)


def open_tree(dirfd: int, path: PathLike, flags: int) -> int:
    """open_tree(2); the descriptor is close-on-exec. With OPEN_TREE_CLONE it is a detached copy of the mount."""
    fd: int = _open_tree(_NR["open_tree"], dirfd, _encode(path), flags | abi.OPEN_TREE_CLOEXEC)
    if fd < 0:
        raise _fail(f"open_tree({dirfd}, {path!r}, {flags:#x})", path)
    return fd


def move_mount(from_fd: int, from_path: PathLike, to_fd: int, to_path: PathLike, flags: int) -> None:
    """move_mount(2)."""
    if _move_mount(_NR["move_mount"], from_fd, _encode(from_path), to_fd, _encode(to_path), flags) < 0:
        raise _fail(f"move_mount({from_fd}, {from_path!r}, {to_fd}, {to_path!r}, {flags:#x})", to_path)


def mount_setattr(
    dirfd: int,
    path: PathLike,
    flags: int,
    *,
    set: int = 0,
    clear: int = 0,
    propagation: int = 0,
    userns_fd: int = -1,
) -> None:
    """mount_setattr(2): ``set`` and ``clear`` of MOUNT_ATTR_*, ``propagation`` one of MS_PRIVATE, MS_SLAVE, ..."""
    attributes = struct.pack("4Q", set, clear, propagation, max(userns_fd, 0))
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    if _mount_setattr(_NR["mount_setattr"], dirfd, _encode(path), flags, buffer, len(attributes)) < 0:
        raise _fail(f"mount_setattr({dirfd}, {path!r}, {flags:#x}, +{set:#x} -{clear:#x})", path)


def fsopen(name: str, flags: int = abi.FSOPEN_CLOEXEC) -> int:
    """fsopen(2): a configuration context for a new file system."""
    fd: int = _fsopen(_NR["fsopen"], _encode(name), flags)
    if fd < 0:
        raise _fail(f"fsopen({name!r})", name)
    return fd


def fsconfig(fd: int, command: int, key: str | None = None, value: PathLike | None = None, aux: int = 0) -> None:
    """fsconfig(2)."""
    if _fsconfig(_NR["fsconfig"], fd, command, _encode(key), _encode(value), aux) < 0:
        raise _fail(f"fsconfig({fd}, {command}, {key!r}, {value!r})", value)


def fsmount(fd: int, flags: int = abi.FSMOUNT_CLOEXEC, attributes: int = 0) -> int:
    """fsmount(2): a detached mount of the configured file system, with MOUNT_ATTR_* attributes."""
    mount_fd: int = _fsmount(_NR["fsmount"], fd, flags, attributes)
    if mount_fd < 0:
        raise _fail(f"fsmount({fd}, {attributes:#x})")
    return mount_fd


# -- files


def openat2(dirfd: int, path: PathLike, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2); close-on-exec. EAGAIN (a rename or mount raced with ``..``) is tried again up to 128 times."""
    how = struct.pack("3Q", flags | os.O_CLOEXEC, mode, resolve)
    buffer = ctypes.create_string_buffer(how, len(how))
    data = _encode(path)
    for _ in range(128):
        fd: int = _openat2(_NR["openat2"], dirfd, data, buffer, len(how))
        if fd >= 0:
            return fd
        if _get_errno() not in (errno.EAGAIN, errno.EINTR):
            break
    raise _fail(f"openat2({dirfd}, {path!r}, {flags:#o}, resolve={resolve:#x})", path)


def fstatfs_type(fd: int) -> int:
    """The ``f_type`` of fstatfs(2): which kind of file system a descriptor is on, compare with ``*_MAGIC``."""
    buffer = ctypes.create_string_buffer(256)
    if _fstatfs(fd, buffer) < 0:
        raise _fail(f"fstatfs({fd})")
    kind: int = struct.unpack_from("@L", buffer.raw)[0]
    return kind


def syncfs(fd: int) -> None:
    """syncfs(2): write out everything of the file system that a descriptor is on, and wait for it."""
    if _syncfs(fd) < 0:
        raise _fail(f"syncfs({fd})")


def getcwd() -> str:
    """The kernel's own answer, which starts with ``(unreachable)`` where the directory is outside the root."""
    buffer = ctypes.create_string_buffer(4096)
    if _getcwd(_NR["getcwd"], buffer, len(buffer)) < 0:
        raise _fail("getcwd()")
    return os.fsdecode(buffer.value)


def close_range(first: int, last: int, flags: int = 0) -> None:
    """close_range(2); with CLOSE_RANGE_CLOEXEC the descriptors are closed by the next exec instead."""
    if _close_range(_NR["close_range"], first, last, flags) < 0:
        raise _fail(f"close_range({first}, {last}, {flags:#x})")


def tee(fd_in: int, fd_out: int, length: int, flags: int = 0) -> int:
    """tee(2): copy from pipe to pipe without consuming. Returns the bytes copied, 0 at end of file."""
    count: int = _tee(fd_in, fd_out, length, flags)
    if count < 0:
        raise _fail(f"tee({fd_in}, {fd_out}, {length})")
    return count


def splice(fd_in: int, fd_out: int, length: int, flags: int = 0) -> int:
    """splice(2) without offsets. Returns the bytes moved, 0 at end of file."""
    count: int = _splice(fd_in, None, fd_out, None, length, flags)
    if count < 0:
        raise _fail(f"splice({fd_in}, {fd_out}, {length})")
    return count


# -- bpf(2), as far as the devices controller of cgroup v2 needs it


def bpf_prog_load(program_type: int, instructions: bytes, program_license: str, name: str = "") -> int:
    """BPF_PROG_LOAD: returns a descriptor of the verified program. ``instructions``: struct bpf_insn, 8 bytes each."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    licence = ctypes.create_string_buffer(program_license.encode())
    attr = struct.pack(
        "=IIQQIIQII16s",
        program_type,
        len(instructions) // 8,
        ctypes.addressof(code),
        ctypes.addressof(licence),
        0,
        0,
        0,
        0,
        0,
        name.encode()[:15],
    )
    return _bpf_call(abi.BPF_PROG_LOAD, attr, "BPF_PROG_LOAD")


def bpf_prog_attach(target_fd: int, program_fd: int, attach_type: int, flags: int = 0) -> None:
    """BPF_PROG_ATTACH to a cgroup directory."""
    _bpf_call(abi.BPF_PROG_ATTACH, struct.pack("=IIII", target_fd, program_fd, attach_type, flags), "BPF_PROG_ATTACH")


def _bpf_call(command: int, attr: bytes, name: str) -> int:
    buffer = ctypes.create_string_buffer(attr, len(attr))
    result: int = _bpf(_NR["bpf"], command, buffer, len(attr))
    if result < 0:
        raise _fail(f"bpf({name})")
    return result
