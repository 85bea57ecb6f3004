"""Capabilities: which ones a container gets (pure), and giving them to the process (in the child).

The only file that imports prctl (python-prctl). Names carry their prefix, ``CAP_CHOWN``; Kubernetes' names without it
are taken too. The ambient set, which python-prctl has not, goes through libc.

Order in the child: :func:`drop_bounding` as long as CAP_SETPCAP is there, set groups and ids, then :func:`apply`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import prctl

from podrt.errors import InvalidError
from podrt.linux import abi, libc

# capability.h, by number. python-prctl's own table ends where the headers did that it was built with.
_NAMES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)


def _last() -> int:
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return int(file.read())


_LAST = _last()
NUMBERS: dict[str, int] = {f"CAP_{name}": number for number, name in enumerate(_NAMES) if number <= _LAST}
ALL: tuple[str, ...] = tuple(NUMBERS)
"""Every capability that this kernel and podrt know, by number."""

DEFAULT: tuple[str, ...] = tuple(
    name
    for name in ALL
    if name.removeprefix("CAP_")
    in {
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
        *("NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    }
)
"""What a container gets that asks for nothing: the fourteen of containerd and docker."""


def normalize(name: str) -> str:
    """``net_admin``, ``NET_ADMIN`` or ``CAP_NET_ADMIN`` as ``CAP_NET_ADMIN``. Raises InvalidError if there is none."""
    full = name.upper()
    full = full if full.startswith("CAP_") else f"CAP_{full}"
    if full not in NUMBERS:
        raise InvalidError(f"unknown capability {name!r}; see capabilities(7)")
    return full


def current() -> tuple[str, ...]:
    """What this process may hand on: capabilities both permitted and in its bounding set."""
    sets = {}
    with open("/proc/thread-self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith(("CapPrm:", "CapBnd:")):
                key, _, value = line.partition(":")
                sets[key] = int(value, 16)
    mask = sets["CapPrm"] & sets["CapBnd"]
    return tuple(name for name, number in NUMBERS.items() if mask >> number & 1)


def resolve(
    add: Iterable[str],
    drop: Iterable[str],
    privileged: bool = False,
    *,
    base: Collection[str] = DEFAULT,
    available: Collection[str] | None = None,
) -> tuple[str, ...]:
    """The capabilities of a container: ``base``, with ALL of ``add`` or ``drop`` first, then each name of ``add``, then
    each of ``drop``; so ``drop: [ALL], add: [KILL]`` leaves KILL.

    Limited to ``available`` (default :func:`current`): nobody can give away what it hasn't; see :func:`lacking`.
    Raises InvalidError for an unknown name, privileged or not.
    """
    adds, drops = list(add), list(drop)
    wanted = set(ALL if privileged else base)
    add_all = any(name.upper() == "ALL" for name in adds)
    drop_all = any(name.upper() == "ALL" for name in drops)
    added = {normalize(name) for name in adds if name.upper() != "ALL"}
    dropped = {normalize(name) for name in drops if name.upper() != "ALL"}
    if not privileged:
        if add_all:
            wanted = set(ALL)
        if drop_all:
            wanted = set()
        wanted = (wanted | added) - dropped
    have = current() if available is None else available
    return tuple(name for name in ALL if name in wanted and name in have)


def lacking(names: Iterable[str], available: Collection[str] | None = None) -> tuple[str, ...]:
    """Which of ``names`` this process hasn't got itself, for a warning."""
    have = current() if available is None else available
    return tuple(name for name in map(normalize, names) if name not in have)


def dropped(keep: Collection[str]) -> list[int]:
    """The numbers of all capabilities of this kernel but ``keep``: what leaves the bounding set."""
    kept = {NUMBERS[name] for name in keep}
    return [number for number in range(_LAST + 1) if number not in kept]


def final_sets(bounding: Collection[str], ambient: Collection[str], uid: int) -> tuple[int, int, list[int]]:
    """(permitted and effective, inheritable, ambient) of a process once its ids are set: two masks and the numbers."""
    handed = [NUMBERS[name] for name in ambient if name in bounding]
    inheritable = sum(1 << number for number in handed)
    permitted = sum(1 << NUMBERS[name] for name in bounding) if uid == 0 else inheritable
    return permitted, inheritable, handed


# -- in the child: nothing below opens a file


def drop_bounding(keep: Collection[str]) -> None:
    """Drop everything but ``keep`` from the bounding set. Needs CAP_SETPCAP."""
    for number in dropped(keep):
        libc.prctl(abi.PR_CAPBSET_DROP, number)


def set_sets(permitted: Iterable[str], inheritable: Iterable[str] = ()) -> None:
    """capset(2): permitted and effective are ``permitted``, inheritable is ``inheritable``, everything else is off."""
    on = [NUMBERS[name] for name in permitted]
    handed = [NUMBERS[name] for name in inheritable]
    off = [number for number in range(_LAST + 1) if number not in on]
    not_handed = [number for number in range(_LAST + 1) if number not in handed]
    # The module's own set_caps refuses capabilities that are younger than its headers.
    prctl._prctl.set_caps(on, on, handed, off, off, not_handed)


def raise_ambient(names: Iterable[str]) -> None:
    """The ambient set is exactly ``names``; they must be permitted and inheritable."""
    libc.ambient_clear()
    for name in names:
        libc.ambient_raise(NUMBERS[name])


def keep_over_setuid() -> None:
    """PR_SET_KEEPCAPS: the permitted set survives the change to another uid, so that :func:`apply` can follow it."""
    libc.prctl(abi.PR_SET_KEEPCAPS, 1)


def apply(bounding: Collection[str], ambient: Collection[str], uid: int) -> None:
    """The final sets, after the ids are set: uid 0 has all of ``bounding``, another uid only ``ambient``.

    The inheritable set is ``ambient`` too and otherwise empty (CVE-2022-24769).
    """
    handed = [name for name in ambient if name in bounding]
    set_sets(bounding if uid == 0 else handed, handed)
    raise_ambient(handed)
