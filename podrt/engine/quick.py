"""Commands in running containers that only their exit code and output are wanted of: probes, hooks, ExecSync.

They run often, so all that can be known beforehand is written down once: a list of system calls
(:mod:`podrt.linux.steps`) for each command of a container, in a sealed memfd, which the supervisor has carried out
without a fork of its own. The list does what :class:`podrt.supervisor.child.Child` does for an exec, in the same
order; its tests compare the two. It needs the user's home directory, which the first launch in the container tells.

Where a step fails nothing has been executed, and the ordinary way is taken, which can do more (make a missing working
directory) and says what is wrong.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import struct
import sys
from collections.abc import Sequence

from podrt.engine import confinement, launch
from podrt.engine.records import ContainerRecord
from podrt.engine.state import Container, Machine, Sandbox
from podrt.linux import abi, apparmor, caps, inroot, steps
from podrt.supervisor.child import candidates, environment
from podrt.supervisor.protocol import Credentials
from podrt.supervisor.wire import sealed_memfd

_MAX_LISTS = 8
"""Commands of one container whose lists are kept; the oldest goes."""
_KEYCTL_JOIN_SESSION_KEYRING = 1
_CAPABILITY_VERSION_3 = 0x20080522
_JOINED = abi.CLONE_NEWNET | abi.CLONE_NEWUTS | abi.CLONE_NEWIPC | abi.CLONE_NEWCGROUP | abi.CLONE_NEWNS
_ATTRIBUTE_FD = steps.CGROUP_FD
_PATH_MAX = 4096
_ELSEWHERE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM)


def list_of(machine: Machine, sandbox: Sandbox, unit: Container, argv: Sequence[str]) -> int | None:
    """The descriptor of the list for a command, owned by ``unit``; None where the ordinary way has to be taken."""
    key = tuple(argv)
    kept = unit.lists.pop(key, None)
    if kept is None:
        written = _write(machine, sandbox, unit, key)
        if written is None:
            return None
        kept = sealed_memfd("podrt-steps", written)
        if len(unit.lists) >= _MAX_LISTS:
            os.close(unit.lists.pop(next(iter(unit.lists))))
    unit.lists[key] = kept
    return kept


def drop(unit: Container, argv: Sequence[str]) -> None:
    """A list of which a step has failed."""
    if (kept := unit.lists.pop(tuple(argv), None)) is not None:
        os.close(kept)


def _write(machine: Machine, sandbox: Sandbox, unit: Container, argv: tuple[str, ...]) -> bytes | None:
    """The list, in the order of :mod:`podrt.supervisor.child`."""
    record, shared = unit.record, sandbox.record.spec
    if unit.home is None or record.uid is None or record.gid is None or not steps.supported():
        return None
    if not machine.cgroups.hierarchies.unified:
        return None
    if not argv or not argv[0] or record.spec.rlimits:
        return None
    security = record.spec.security
    credentials = confinement.credentials_of(security, record.command.user)
    program = confinement.seccomp_program(machine, security, credentials.bounding)
    profile = confinement.apparmor_profile(machine, security)
    if security.process_label:
        # An exec that changes the label clears the signal of the supervisor's death, and none changes it before.
        return None
    if profile not in ("", apparmor.DEFAULT):
        # Another profile may forbid what the exec starts, and is asked only if it is entered before.
        return None
    mapped = bool(shared.uid_maps or shared.gid_maps)
    made = steps.Steps()
    free = _begin(machine, record, made, profile)
    made.call("setns", steps.PIDFD, _JOINED)
    for stream in (1, 2):
        # So that the user can open /dev/stdout by name.
        made.call("fchown", stream, launch.outside(shared.uid_maps, record.uid), -1, tolerate=steps.ANY_ERROR)
    if mapped:
        made.call("setns", steps.PIDFD, abi.CLONE_NEWUSER)
        made.call("setgroups", 0, 0)
        made.call("setresgid", 0, 0, 0)
        made.call("setresuid", 0, 0, 0)
    _change_directory(made, record.command.cwd or "/", free)
    made.call("close_range", 3, 2**32 - 1, abi.CLOSE_RANGE_CLOEXEC)
    made.call("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, 0, tolerate=(errno.ENOSYS, errno.EPERM))
    made.call("umask", credentials.umask)
    made.call("prlimit64", 0, resource.RLIMIT_NOFILE, made.data(struct.pack("2Q", *machine.supervisor.nofile)), 0)
    _take_identity(made, record, credentials, program)
    if profile:
        # Not "exec": a profile that changes at the exec clears the signal of the supervisor's death.
        content = f"changeprofile {profile}".encode()
        made.call("write", _ATTRIBUTE_FD, made.data(content), len(content))
    _execute(made, argv, environment(record.command.env, unit.home))
    return made.finish()


def _begin(machine: Machine, record: ContainerRecord, made: steps.Steps, profile: str) -> int:
    """The steps on the host's side; with a profile :data:`_ATTRIBUTE_FD` is open in the end. Returns the lowest
    descriptor that is free afterwards."""
    made.call("prctl", abi.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # From here on it is known which number the next descriptor gets.
    free = steps.CGROUP_FD
    made.call("close_range", free, 2**32 - 1, 0)
    for path in machine.cgroups.tasks_files(record.cgroup):
        made.write(path, b"0", free)
    if record.spec.oom_score_adj is not None:
        denied = (errno.EACCES, errno.EPERM)
        made.write("/proc/self/oom_score_adj", b"%d" % record.spec.oom_score_adj, free, tolerate=denied)
    if profile:
        path = "/proc/self/attr/apparmor/current"
        made.open(path if os.path.exists(path) else "/proc/self/attr/current", os.O_WRONLY)
        space = made.data(bytes(256))
        made.call("fstatfs", free, space)
        made.expect(space, 2**64 - 1, abi.PROC_SUPER_MAGIC, errno.EINVAL)
        free += 1
    return free


def _change_directory(made: steps.Steps, cwd: str, free: int) -> None:
    made.open("/", os.O_PATH | os.O_DIRECTORY)
    how = struct.pack("3Q", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, inroot.IN_ROOT)
    made.call("openat2", free, made.text(cwd), made.data(how), len(how))
    made.call("fchdir", free + 1)
    # The kernel's own answer starts with "(unreachable)" outside the root (CVE-2024-21626).
    space = made.data(bytes(_PATH_MAX))
    made.call("getcwd", space, _PATH_MAX)
    made.expect(space, 0xFF if sys.byteorder == "little" else 0xFF << 56, ord("/"), errno.EXDEV)


def _take_identity(made: steps.Steps, record: ContainerRecord, credentials: Credentials, program: bytes | None) -> None:
    """From here on it can do only what the command may, but for the death of the supervisor."""
    filters = None
    if program is not None:
        code = made.data(program)
        filters = made.data(struct.pack("HxxxxxxQ", len(program) // 8, code))
    uid, gid = record.uid or 0, record.gid or 0
    if credentials.no_new_privs:
        made.call("prctl", abi.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    elif filters is not None:
        made.call("seccomp", abi.SECCOMP_SET_MODE_FILTER, 0, filters)
    for number in caps.dropped(credentials.bounding):
        made.call("prctl", abi.PR_CAPBSET_DROP, number, 0, 0, 0)
    made.call("setgroups", len(record.groups), made.numbers(record.groups))
    made.call("setresgid", gid, gid, gid)
    if uid != 0:
        made.call("prctl", abi.PR_SET_KEEPCAPS, 1, 0, 0, 0)
    made.call("setresuid", uid, uid, uid)
    permitted, inheritable, ambient = caps.final_sets(credentials.bounding, credentials.ambient, uid)
    header = made.data(struct.pack("Ii", _CAPABILITY_VERSION_3, 0))
    words = [mask >> shift & 0xFFFFFFFF for shift in (0, 32) for mask in (permitted, permitted, inheritable)]
    made.call("capset", header, made.numbers(words))
    made.call("prctl", abi.PR_CAP_AMBIENT, abi.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for number in ambient:
        made.call("prctl", abi.PR_CAP_AMBIENT, abi.PR_CAP_AMBIENT_RAISE, number, 0, 0)
    # The change of ids has cleared it.
    made.call("prctl", abi.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if credentials.no_new_privs and filters is not None:
        made.call("seccomp", abi.SECCOMP_SET_MODE_FILTER, 0, filters)


def _execute(made: steps.Steps, argv: tuple[str, ...], variables: dict[str, str]) -> None:
    name = argv[0]
    arguments = made.texts(argv)
    environ = made.texts(f"{key}={value}" for key, value in variables.items())
    paths = [name] if "/" in name else candidates(name, variables)
    for path in paths[:-1]:
        made.call("execve", made.text(path), arguments, environ, tolerate=_ELSEWHERE)
    made.call("execve", made.text(paths[-1]), arguments, environ)
