"""What a container executes: image configuration and spec merged by the rules of docker, Kubernetes and containerd.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from podrt.engine.records import Command
from podrt.engine.signals import parse as parse_signal
from podrt.engine.specs import ContainerSpec
from podrt.errors import Cause, InvalidError
from podrt.image.types import ImageConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_TERM = "xterm"

_RLIMITS = frozenset(
    "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK".split(" ")  # noqa: SIM905
)
_SYSCTL_NAME = re.compile(r"[a-z0-9_-]+([./][a-zA-Z0-9_*:-]+)+")
# Namespaced by the kernel, so a write inside the sandbox stays there (sysctl.d(5); the kubelet's list of the safe and
# unsafe).
_SYSCTLS = {
    "net": ("net/",),
    "ipc": ("kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue/"),
}


def resolve(spec: ContainerSpec, image: ImageConfig, hostname: str) -> Command:
    """The command line, environment (``NAME=value``), directory, user and stop signal of a container.

    ``command`` replaces ENTRYPOINT and drops CMD; ``args`` alone replace CMD. Raises InvalidError where nothing is left
    to execute, or the stop signal or directory can't be used.
    """
    args = spec.args
    command = spec.command
    if not command:
        args = args or image.cmd
        command = image.entrypoint
    argv = (*command, *args)
    if not argv or not argv[0]:
        raise InvalidError(
            f"container {spec.name}: neither the spec nor the image {spec.image} names a command",
            (Cause("command", "required: the image has no ENTRYPOINT or CMD", "FieldValueRequired"),),
        )
    cwd = spec.working_dir or image.working_dir or "/"
    if not cwd.startswith("/"):
        # Images may say it relative to /, as docker allows; a spec is held to the API's rule.
        if spec.working_dir:
            message = f"container {spec.name}: working_dir must be absolute, not {cwd!r}"
            raise InvalidError(message, (Cause("workingDir", "must be an absolute path"),))
        cwd = f"/{cwd}"
    stop_signal = spec.stop_signal or image.stop_signal or "SIGTERM"
    parse_signal(stop_signal)
    return Command(
        argv=argv,
        env=environment(spec.env, image.env, hostname=hostname, tty=spec.tty),
        cwd=cwd,
        user=user(spec.security.user, spec.security.group, image.user),
        stop_signal=stop_signal,
    )


def environment(
    spec: Sequence[tuple[str, str]], image: Sequence[str], *, hostname: str = "", tty: bool = False
) -> tuple[str, ...]:
    """PATH, TERM and HOSTNAME by default, then the image's variables, then the spec's; the last of a name wins.

    HOME is added by the child, which knows the user.
    """
    values: dict[str, str] = {"PATH": DEFAULT_PATH}
    if hostname:
        values["HOSTNAME"] = hostname
    if tty:
        values["TERM"] = DEFAULT_TERM
    for item in image:
        name, _, value = item.partition("=")
        if name:
            values[name] = value
    values.update(spec)
    if not values["PATH"]:
        values["PATH"] = DEFAULT_PATH
    return tuple(f"{name}={value}" for name, value in values.items())


def user(spec_user: str, spec_group: str, image_user: str) -> str:
    """``user`` or ``user:group`` for the child to look up. A group of the spec replaces the one beside the user."""
    chosen = spec_user or image_user or "0"
    if spec_group:
        return f"{chosen.partition(':')[0] or '0'}:{spec_group}"
    return chosen


def rlimits(limits: Mapping[str, tuple[int, int]]) -> tuple[tuple[str, int, int], ...]:
    """``RLIMIT_NOFILE``, ``nofile`` -> (``NOFILE``, soft, hard). Raises InvalidError for an unknown name."""
    result = []
    for name, (soft, hard) in limits.items():
        short = name.upper().removeprefix("RLIMIT_")
        if short not in _RLIMITS:
            raise InvalidError(f"rlimit {name!r} is unknown; known are {', '.join(sorted(_RLIMITS))}")
        if hard >= 0 and (soft < 0 or soft > hard):
            raise InvalidError(f"rlimit {name!r}: soft limit {soft} is above the hard limit {hard}")
        result.append((short, soft, hard))
    return tuple(result)


def sysctls(
    values: Mapping[str, str], *, own_net: bool, own_ipc: bool, user_namespace: bool
) -> tuple[tuple[str, str], ...]:
    """(path below /proc/sys, value) of a sandbox, defaults first.

    By default a sandbox's processes may bind ports below 1024 and open ICMP sockets without capabilities, as under
    containerd 2 and docker. Raises InvalidError for a name that is not namespaced, or is of a namespace that the
    sandbox shares with the host: writing it would change the host (CVE-2022-0811)."""
    result: dict[str, str] = {}
    if own_net:
        result["net/ipv4/ip_unprivileged_port_start"] = "0"
        if not user_namespace:
            # All ids must be mapped, so a user namespace keeps the kernel's default.
            result["net/ipv4/ping_group_range"] = "0 2147483647"
    for name, value in values.items():
        if not _SYSCTL_NAME.fullmatch(name):
            raise InvalidError(f"sysctl {name!r} is not a sysctl name", (Cause("sysctls", f"bad name {name!r}"),))
        # As sysctl(8): the first separator decides what the others mean.
        dotted = "/" not in name or 0 < name.find(".") < name.find("/")
        path = name.translate(str.maketrans("./", "/.")) if dotted else name
        kind = next((kind for kind, starts in _SYSCTLS.items() if path.startswith(starts)), "")
        parts = path.split("/")
        if not kind or ".." in parts or "" in parts:
            raise InvalidError(
                f"sysctl {name!r} is not namespaced: setting it would change the whole machine",
                (Cause("sysctls", f"{name} is not namespaced", "FieldValueForbidden"),),
            )
        if not (own_net if kind == "net" else own_ipc):
            shared = "network" if kind == "net" else "IPC"
            raise InvalidError(
                f"sysctl {name!r} can't be set: the sandbox uses the host's {shared} namespace",
                (Cause("sysctls", f"{name} belongs to the host's {shared} namespace", "FieldValueForbidden"),),
            )
        if "\n" in value or "\0" in value:
            raise InvalidError(f"sysctl {name!r}: the value has a control character")
        result[path] = value
    return tuple(result.items())
