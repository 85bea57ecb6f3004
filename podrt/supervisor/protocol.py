"""The wire between the daemon and the supervisor.

One SOCK_SEQPACKET unix socket, one JSON object per message, file descriptors beside it (SCM_RIGHTS). A payload over
:data:`INLINE_BYTES` travels in a sealed memfd, sent as the first descriptor of a message ``{"memfd": length}``.

::

    daemon                                    supervisor                         child
      | hello {version}                          |                                 |
      |----------------------------------------->|                                 |
      | reply {version, pid, processes}          |                                 |
      |<-----------------------------------------|                                 |
      | launch {spec} + descriptors              |                                 |
      |----------------------------------------->| fork (clone3 on cgroup v2)      |
      |                                          |-------------------------------->| the steps of LaunchSpec, in order
      |                                          |     report: error | ready + fds | (report socket is close-on-exec)
      |                                          |<--------------------------------|
      |                                          |     end of file: exec succeeded |
      | reply {pid, start_time} + [pidfd, fds]   |<--------------------------------|
      |<-----------------------------------------|                                 |
      |                  ...                     |                                 |
      |                                          |     exit, output pumped to the end
      | event exit {id, code, signal, at}        |<--------------------------------|
      |<-----------------------------------------|                                 |
      | forget {id}                              |                                 |
      |----------------------------------------->| the exit record is dropped      |

Requests carry ``seq``; the reply repeats it, with ``error: {step, errno, path, message}`` if the request failed. The
supervisor keeps a process's record, exited or not, until ``forget``; a daemon that connects again gets them all with
``hello``, so no exit is lost between two daemons. One daemon at a time: a new connection replaces the old one.

Types are NamedTuples and plain JSON because this module is imported by the supervisor, whose memory every container's
fork shares.
"""

from __future__ import annotations

from typing import Any, NamedTuple

VERSION = 3
INLINE_BYTES = 64 * 1024
MAX_FDS = 250


class Credentials(NamedTuple):
    """Who the process is. Names are resolved by the child from the container's own passwd and group files."""

    user: str = "0"
    """``name``, ``uid``, ``name:group`` or ``uid:gid`` as an image's USER or runAsUser[:runAsGroup] gives it."""
    extra_gids: tuple[int, ...] = ()
    merge_image_groups: bool = True
    """Also the groups that the image's /etc/group lists for the user (supplementalGroupsPolicy Merge)."""
    non_root: bool = False
    """Refuse to start if the resolved uid is 0 (runAsNonRoot)."""
    bounding: tuple[str, ...] = ()
    """Capability names with prefix, ``CAP_CHOWN``. Permitted and effective too for uid 0; another uid has
    ``ambient``."""
    ambient: tuple[str, ...] = ()
    no_new_privs: bool = False
    umask: int = 0o022


class Stdio(NamedTuple):
    """Where descriptors 0, 1 and 2 of the process come from.

    ``kind`` is ``fifo`` (containers: paths of FIFOs, pumped into ``log``), ``fds`` (exec: indexes into the message's
    descriptors), ``terminal`` (a pseudo-terminal of the container's own devpts; the master comes back with the
    reply) or ``null``. With ``fifo`` and ``terminal`` the supervisor writes the log; an empty ``log`` writes none.
    """

    kind: str
    stdin: str | int | None = None
    stdout: str | int | None = None
    stderr: str | int | None = None
    stdin_once: bool = False
    columns: int = 80
    rows: int = 24


class Log(NamedTuple):
    """A log file in CRI format. ``max_bytes`` 0: never rotated."""

    path: str
    max_bytes: int
    max_files: int


class LaunchSpec(NamedTuple):
    """All that the child does between fork and exec, in the order of the fields. Nothing here is decided by the child.

    ``*_fd`` and ``fds`` values are indexes into the descriptors sent beside the message.
    """

    id: str
    """Unique: the container id, ``<container id>/exec/<n>``, ``<sandbox id>/pause``, ``<sandbox id>/namespaces``."""
    kind: str
    """``container`` (own rootfs, log, restartable), ``exec`` (joins a container), ``pause``, ``namespaces`` (makes and
    reports namespaces, executes nothing)."""
    cgroup_tasks: tuple[str, ...] = ()
    """``tasks`` files to enter by, by path: one per v1 hierarchy."""
    cgroup_fd: int | None = None
    """A directory of a cgroup v2 hierarchy, for CLONE_INTO_CGROUP."""
    join: tuple[tuple[str, int], ...] = ()
    """(namespace kind, descriptor index); kinds as in /proc/self/ns: net uts ipc pid mnt cgroup user. In order; pid is
    joined by the supervisor before the fork; user is entered only after the mounts are done (``uid_map`` and
    ``gid_map`` are given with it too, for the owner of what is made in idmapped mounts)."""
    unshare: tuple[str, ...] = ()
    """Namespace kinds to create: mnt, cgroup, pid, net, uts, ipc, user."""
    uid_map: tuple[tuple[int, int, int], ...] = ()
    """(inside, outside, count); written when ``user`` is unshared."""
    gid_map: tuple[tuple[int, int, int], ...] = ()
    hostname: str = ""
    domainname: str = ""
    sysctls: tuple[tuple[str, str], ...] = ()
    """(path below /proc/sys with slashes, value), written after the namespaces are entered."""
    loopback_up: bool = False
    mounts: tuple[tuple[Any, ...], ...] = ()
    """Operations of :mod:`podrt.linux.mount` in their wire form (``mount.encode``); empty for exec."""
    root: str = ""
    """The directory that becomes /. For exec empty: the root is that of the joined mount namespace."""
    report_namespaces: tuple[str, ...] = ()
    """Kinds whose descriptors the child sends back, in this order (kind ``namespaces``, and pid of a pause)."""
    oom_score_adj: int | None = None
    rlimits: tuple[tuple[str, int, int], ...] = ()
    """(name without RLIMIT_, soft, hard); -1 is infinity. One that may not be raised is reported as a warning."""
    stdio: Stdio = Stdio("null")
    log: Log | None = None
    terminal: bool = False
    credentials: Credentials = Credentials()
    apparmor: str = ""
    label: str = ""
    """The SELinux label of the process; empty: as the policy has it."""
    cwd: str = "/"
    argv: tuple[str, ...] = ()
    """argv[0] is looked up in the PATH of ``env`` inside the container. Empty: exit 0 after the set-up."""
    env: tuple[str, ...] = ()
    """``NAME=value``. HOME is added from the image's passwd if absent."""
    seccomp_fd: int | None = None
    """A memfd with the compiled BPF program (struct sock_filter array)."""


# Requests (``op``) and their fields; every request has "seq". "fds" are descriptors beside the message.
#   hello   version    -> version, pid, nofile: [soft, hard] that processes get,
#                         processes: [[ProcessRecord, Stdio, Log | null]], terminals: [id], more: bool
#                         (fds: a pidfd for each running one, in order; then a master for each of ``terminals``).
#                         Several replies with the same seq, the last without ``more``.
#   launch  spec       -> pid, start_time, warnings: [str], user: [uid, gid, [gid], home] | null, terminal: bool
#                         (fds: pidfd, then the terminal's master if ``terminal``, then report_namespaces)
#   run     id         -> code, signal   when the command has ended (fds in: its standard output and error, a pidfd
#                         of the container's process, the list of podrt.linux.steps). An error of step "steps": the
#                         command was not executed. Nothing else is told of it, no record is kept, and the hello of
#                         another connection kills it.
#   handle  id         -> pid, start_time (fds: pidfd) of a command of ``run``; ESRCH when it has ended
#   adopt   record, stdio, log  -> ok   a container of a dead supervisor: go on with its FIFOs and log (fds: terminal
# master)   attach  id, stdin, stdout, stderr (bools; fds in: a pipe's writing end for each wanted output)
#                      -> ok (fds out: writing end of stdin, or the terminal's master, if ``stdin``)
#   close_stdin id     -> ok   after the only attach of stdinOnce
#   reopen_log id      -> ok
#   drain   id         -> ok   what the process has written until now is in its log
#   forget  id         -> ok   EBUSY while it runs
#   reexec             -> pid  the new image answers on the same socket
#   shutdown           -> ok   ends the supervisor; EBUSY while a process runs
# Events: exit {id, pid, code, signal, at, known}; warning {id, message}


class ProcessRecord(NamedTuple):
    """What the supervisor knows of one process."""

    id: str
    kind: str
    pid: int
    start_time: int
    """Field 22 of /proc/PID/stat, in clock ticks since boot: with the pid it names a process for good."""
    exited: bool = False
    code: int = 0
    signal: int = 0
    at: float = 0.0
    """Time of the exit, seconds since the epoch."""
    known: bool = True
    """False: it ended out of our sight and nobody can tell how."""
