"""The child between fork and exec: carries out a LaunchSpec, step by step, and decides nothing.

It runs as root with the container's own file system under its feet, so (design.md, the rules of the child):
nothing is imported or loaded any more, users are looked up in plain text, paths of the image only through openat2,
every descriptor but 0, 1 and 2 is close-on-exec, and the working directory is checked to lie inside the root.

::

    parent (supervisor)                      child
      | clone3                                 |
      |--------------------------------------->|  cgroups, oom score, descriptors, namespaces
      |          {"map": true}                 |  only if a user namespace is made
      |<---------------------------------------|
      |  writes uid_map and gid_map            |
      |          {"ok": true}                  |
      |--------------------------------------->|  host name, sysctls, mounts, terminal, user, limits
      |          {"ready": ..} + [master, ns]  |
      |<---------------------------------------|  seccomp, credentials, exec
      |          end of file | {"error": ..}   |
      |<---------------------------------------|

Every failure is reported with the name of its step, errno and path. The exit code (127 not found, 126 not
executable, else 125) only matters to one who reads it from outside: the daemon goes by the report.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed has only signal
import _socket
import errno
import gc
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from podrt.linux import abi, inroot, libc, mount, namespace
from podrt.linux.mount_console import Console, open_terminal
from podrt.linux.mount_context import Context
from podrt.supervisor import setup, users, wire
from podrt.supervisor.protocol import LaunchSpec

HANDLED_SIGNALS = (
    *(_signal.SIGCHLD, _signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP),
    *(_signal.SIGPIPE, _signal.SIGXFSZ),
)
"""All that the supervisor or the interpreter handle or ignore; the daemon starts the supervisor with the rest at
default. _signal, because signal's functions make enumerations of every number, which a launch would wait for."""

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def forbid_imports() -> None:
    """Called by the supervisor once all is imported: whatever a child might still ask for is an ImportError, and not
    a file of the image run as root (CVE-2019-14271). Here and not in the child, whose every changed page is a copy."""
    sys.path[:] = []
    sys.meta_path[:] = []
    sys.path_hooks[:] = []
    sys.path_importer_cache.clear()


class StepError(Exception):
    """A step failed for a reason that is no failed system call, or with a better message than the call's."""

    def __init__(self, message: str, number: int = 0, path: str = "") -> None:
        super().__init__(message)
        self.errno = number
        self.path = path


class Child:
    """One launch. ``fds`` are the descriptors sent beside it; ``report`` is the child's end of the socket pair."""

    def __init__(self, spec: LaunchSpec, fds: Sequence[int], report: _socket.socket) -> None:
        self.spec = spec
        self.fds = fds
        self.report = report
        self.step = "start"
        self.warnings: list[str] = []
        self.stdio: list[int] = []
        self.master: int | None = None
        self.namespace_fds: list[int] = []
        self.label_fds: tuple[int, ...] = ()
        self.user_fd = next((fds[index] for kind, index in spec.join if kind == "user"), None)

    def run(self, nofile: tuple[int, int]) -> NoReturn:
        """``nofile`` is the RLIMIT_NOFILE that processes get by default. Never returns and never raises."""
        code = 125
        try:
            self._carry_out(nofile)
            code = 0
        except BaseException as error:
            code = self._fail(error)
        finally:
            os._exit(code)

    def _carry_out(self, nofile: tuple[int, int]) -> None:
        spec = self.spec
        self._detach()
        self.step = "cgroup"
        for path in spec.cgroup_tasks:
            setup.write_file(path, b"0")
        self.step = "oom_score_adj"
        if spec.oom_score_adj is not None:
            self._warn(setup.set_oom_score_adj(spec.oom_score_adj))
        self.step = "stdio"
        self._open_stdio()
        self.step = "apparmor"
        attribute_fd = setup.open_apparmor() if spec.apparmor else None
        self.step = "selinux"
        self.label_fds = setup.open_label() if spec.label else ()
        self.step = "namespace"
        self._namespaces()
        self.step = "hostname"
        setup.set_names(spec.hostname, spec.domainname)
        self.step = "sysctl"
        setup.write_sysctls(spec.sysctls)
        self.step = "network"
        if spec.loopback_up:
            setup.loopback_up()
        self.step = "namespace"
        self.namespace_fds = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in spec.report_namespaces]
        if spec.kind == "namespaces":
            self._ready(None)
            return
        self.step = "mount"
        self._mounts()
        self.step = "terminal"
        if spec.stdio.kind == "terminal":
            self._terminal()
        self.step = "user"
        identity = users.load(self._root_fd(), spec.credentials)
        setup.give_to(self.stdio, setup.outside(identity.uid, spec.uid_map))
        self.step = "rlimit"
        self.warnings += setup.raise_rlimits(spec.rlimits)
        self.step = "namespace"
        self._enter_user_namespace()
        self.step = "cwd"
        _change_directory(self._root_fd(), spec.cwd or "/")
        if not spec.argv:
            self._ready(identity)
            return
        self.step = "stdio"
        self._install_stdio()
        self._exec(identity, attribute_fd, nofile)

    # -- first steps, on the host's side

    def _detach(self) -> None:
        # The supervisor's death in the middle of this must not leave a half-made container behind.
        libc.prctl(abi.PR_SET_PDEATHSIG, _signal.SIGKILL)
        # Not to be traced or read by processes of a PID namespace that it has joined.
        libc.prctl(abi.PR_SET_DUMPABLE, 0)
        gc.disable()
        if sys.path or sys.meta_path or sys.path_hooks:
            raise StepError("the supervisor could still import; its main has to call forbid_imports()")
        _signal.set_wakeup_fd(-1)
        for number in HANDLED_SIGNALS:
            _signal.signal(number, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        os.setsid()
        os.umask(0)

    def _open_stdio(self) -> None:
        stdio = self.spec.stdio
        sources = (stdio.stdin, stdio.stdout, stdio.stderr)
        if stdio.kind == "fifo":
            # Read and write: without a reader the writer then blocks instead of getting SIGPIPE, and the supervisor
            # may die. stdinOnce alone needs an end of file, so there only the supervisor holds the writing end.
            self.stdio = [
                _open_or_null(path, os.O_RDONLY if number == 0 and stdio.stdin_once else os.O_RDWR)
                for number, path in enumerate(sources)
            ]
        elif stdio.kind == "fds":
            self.stdio = [_null() if index is None else self.fds[int(index)] for index in sources]
        elif stdio.kind == "null":
            self.stdio = [_null(), _null(), _null()]
        elif stdio.kind != "terminal":
            raise StepError(f"unknown kind of stdio {stdio.kind!r}")

    def _namespaces(self) -> None:
        spec = self.spec
        if "user" in spec.unshare:
            # First and alone: the other namespaces are then owned by it.
            libc.unshare(abi.CLONE_NEWUSER)
            wire.send(self.report, {"map": True})
            if wire.receive(self.report) is None:
                raise StepError("the supervisor went away")
            setup.become_root()
        flags = 0
        for kind, index in spec.join:
            if kind not in ("user", "pid"):
                libc.setns(self.fds[index], namespace.FLAGS[kind])
        for kind in spec.unshare:
            if kind not in ("user", "pid") and not (kind == "cgroup" and self.user_fd is not None):
                flags |= namespace.FLAGS[kind]
        if flags:
            libc.unshare(flags)
        if "mnt" in spec.unshare:
            # What the container mounts must not travel to the supervisor's namespace; what the host mounts may come in.
            libc.mount(None, "/", flags=abi.MS_SLAVE | abi.MS_REC)

    def _enter_user_namespace(self) -> None:
        if self.user_fd is None:
            return
        libc.setns(self.user_fd, abi.CLONE_NEWUSER)
        setup.become_root()
        flags = 0
        if "mnt" in self.spec.unshare:
            # A mount namespace owned by the user namespace, in which the mounts made so far are locked.
            flags |= abi.CLONE_NEWNS
        if "cgroup" in self.spec.unshare:
            flags |= abi.CLONE_NEWCGROUP
        if flags:
            libc.unshare(flags)

    # -- inside

    def _mounts(self) -> None:
        context = Context(None, self.fds)
        with setup.file_system_root(self.spec.uid_map, self.spec.gid_map, self.user_fd is not None) as as_mapped_root:
            for encoded in self.spec.mounts:
                operation = mount.decode(encoded)
                if isinstance(operation, Console) and self.spec.stdio.kind == "terminal" and context.root_fd:
                    self.master, context.console_fd = open_terminal(context.root_fd)
                    self.stdio = [context.console_fd]
                try:
                    operation.execute(context)
                except OSError as error:
                    text = f"{operation.describe()}: {error.strerror}"
                    raise StepError(text, error.errno or 0, _path_of(error)) from error
                if context.root_fd is not None:
                    as_mapped_root()

    def _terminal(self) -> None:
        if self.master is None:
            self.master, slave = open_terminal(self._root_fd())
            self.stdio = [slave]
        setup.set_window(self.master, self.spec.stdio.columns, self.spec.stdio.rows)
        setup.set_controlling_terminal(self.stdio[0])
        self.stdio = self.stdio[:1] * 3

    def _root_fd(self) -> int:
        return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def _install_stdio(self) -> None:
        # Above 2 first: one of the three may itself be 0, 1 or 2.
        high = [setup.duplicate_above(fd, 3) for fd in self.stdio]
        for number, fd in enumerate(high):
            os.dup2(fd, number, inheritable=True)
        libc.close_range(3, 2**32 - 1, abi.CLOSE_RANGE_CLOEXEC)

    def _exec(self, identity: users.Identity, attribute_fd: int | None, nofile: tuple[int, int]) -> NoReturn:
        spec = self.spec
        credentials = spec.credentials
        self.step = "selinux"
        for label_fd in self.label_fds:
            os.write(label_fd, spec.label.encode())
        self.step = "keyring"
        setup.join_keyring()
        self.step = "seccomp"
        program = None if spec.seccomp_fd is None else setup.read_program(self.fds[spec.seccomp_fd])
        variables = environment(spec.env, identity.home)
        self.step = "apparmor"
        if attribute_fd is not None:
            os.write(attribute_fd, f"exec {spec.apparmor}".encode())
        os.umask(credentials.umask)
        self._ready(identity)
        self.step = "rlimit"
        setup.set_rlimits(spec.rlimits, nofile)
        self.step = "seccomp"
        if credentials.no_new_privs:
            libc.set_no_new_privs()
        elif program is not None:
            # Without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes before the capabilities are dropped.
            libc.set_seccomp(program)
        self.step = "capabilities"
        setup.take_identity(identity, credentials)
        self.step = "seccomp"
        if credentials.no_new_privs and program is not None:
            libc.set_seccomp(program)
        self.step = "exec"
        libc.prctl(abi.PR_SET_PDEATHSIG, 0)
        _execute(spec.argv, variables)

    # -- reports

    def _ready(self, identity: users.Identity | None) -> None:
        fds = ([] if self.master is None else [self.master]) + self.namespace_fds
        user = None if identity is None else [identity.uid, identity.gid, list(identity.groups), identity.home]
        wire.send(
            self.report,
            {"ready": True, "terminal": self.master is not None, "warnings": self.warnings, "user": user},
            fds,
        )

    def _warn(self, text: str) -> None:
        if text:
            self.warnings.append(text)

    def _fail(self, error: BaseException) -> int:
        number, path = 0, ""
        if isinstance(error, StepError):
            number, path, text = error.errno, error.path, str(error)
        elif isinstance(error, OSError):
            number, path = error.errno or 0, _path_of(error)
            text = f"{self.step}: {error.strerror or error}" + (f": {path}" if path and self.step != "exec" else "")
        elif isinstance(error, users.UserError):
            text = str(error)
        else:
            text = f"{self.step}: {type(error).__name__}: {error}"
        report = {"step": self.step, "errno": number, "path": path, "message": text}
        try:
            wire.send(self.report, {"error": report})
        except BaseException:
            return 125
        if self.step == "exec":
            return 127 if number == errno.ENOENT else 126
        return 125


def _change_directory(root_fd: int, cwd: str) -> None:
    """Enter a directory inside the root, making what is missing; proves that the directory lies below the root
    (CVE-2024-21626)."""
    try:
        # By descriptor: a name could lead elsewhere by the time it is used.
        os.fchdir(inroot.make_directory(root_fd, cwd))
    except OSError as error:
        raise StepError(f"cwd: {cwd}: {error.strerror}", error.errno or 0, cwd) from error
    here = libc.getcwd()
    if not here.startswith("/"):
        raise StepError(f"cwd: {cwd} lies outside the container's root", errno.EXDEV, cwd)


def _execute(argv: tuple[str, ...], variables: dict[str, str]) -> NoReturn:
    """execve(2) of argv, argv[0] looked up in PATH as Kubernetes users know it from other runtimes."""
    name = argv[0]
    if "/" in name:
        try:
            os.execve(name, argv, variables)
        except OSError as error:
            raise _exec_error(name, error) from error
    denied: OSError | None = None
    for path in candidates(name, variables):
        try:
            os.execve(path, argv, variables)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            denied = error
        except OSError as error:
            raise _exec_error(name, error) from error
    if denied is not None:
        raise StepError(f'exec: "{name}": permission denied', errno.EACCES, name)
    raise StepError(f'exec: "{name}": executable file not found in $PATH', errno.ENOENT, name)


def _exec_error(name: str, error: OSError) -> StepError:
    number = error.errno or 0
    if number in (errno.ENOENT, errno.ENOTDIR):
        if os.path.exists(name):
            text = f'exec: "{name}": its interpreter or loader is missing in the image: no such file or directory'
        else:
            text = f'exec: "{name}": stat {name}: {(error.strerror or "").lower()}'
        return StepError(text, number, name)
    if number == errno.ENOEXEC:
        return StepError(f"exec {name}: exec format error", number, name)
    return StepError(f'exec: "{name}": {(error.strerror or "").lower()}', number, name)


def candidates(name: str, variables: Mapping[str, str]) -> list[str]:
    """What a command without a slash may be, by PATH, in order."""
    directories = variables.get("PATH", _DEFAULT_PATH).split(":") if name else []
    return [f"{directory or '.'}/{name}" for directory in directories]


def environment(entries: Sequence[str], home: str) -> dict[str, str]:
    """The variables of a process: the last of a name counts, and HOME is there."""
    variables = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        if name:
            variables[name] = value
    variables.setdefault("HOME", home)
    return variables


def _open_or_null(path: str | int | None, flags: int) -> int:
    return _null() if path is None else os.open(str(path), flags | os.O_CLOEXEC | os.O_NOCTTY)


def _null() -> int:
    return os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)


def _path_of(error: OSError) -> str:
    name = error.filename
    return os.fsdecode(name) if isinstance(name, str | bytes) else ""
