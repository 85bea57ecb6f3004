"""AppArmor: whether the kernel has it, which profiles it knows, and podrt's own default one.

A profile is loaded into the kernel by apparmor_parser(8), which has to be installed (Debian's package ``apparmor``):
the kernel takes only what that compiles. A container enters its profile at its exec (``supervisor.child``).
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess

DEFAULT = "podrt-default"

_PARSER_SECONDS = 60

_PROFILE = """
profile podrt-default flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,

  # Signals and traces stay among containers; whoever is outside may send them in.
  signal (receive) peer=unconfined,
  signal (send,receive) peer=podrt-default,
  ptrace (trace,read,tracedby,readby) peer=podrt-default,
  unix,

  deny mount,

  # What configures the host's kernel, even where a mount of /proc or /sys is writable.
  deny /proc/* w,
  deny /proc/sys/[^n]** w,
  deny /proc/{acpi,asound,bus,driver,fs,irq,scsi,tty}/** w,
  deny /proc/{kcore,sysrq-trigger} rwklx,
  deny /sys/{block,bus,class,dev,devices,hypervisor,module,power}/** wklx,
  deny /sys/fs/[^c]** wklx,
  deny /sys/kernel/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
"""
"""To the effect of what dockerd and containerd confine by. Denials hold whatever else is allowed."""


def enabled() -> bool:
    """Whether the running kernel enforces AppArmor."""
    with contextlib.suppress(OSError), open("/sys/module/apparmor/parameters/enabled", encoding="ascii") as file:
        return file.read().startswith("Y")
    return False


def loaded() -> frozenset[str]:
    """Names of the profiles that the kernel knows; empty if that can't be read (no securityfs)."""
    with (
        contextlib.suppress(OSError),
        open("/sys/kernel/security/apparmor/profiles", encoding="utf-8", errors="surrogateescape") as file,
    ):
        return frozenset(line.rpartition(" (")[0] for line in file)
    return frozenset()


def load_default() -> str:
    """Load (anew) the default profile; blocks for a process. Returns why it could not be, or "" if it is loaded."""
    parser = shutil.which("apparmor_parser", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if parser is None:
        return "apparmor_parser is not installed (Debian's package apparmor)"
    try:
        done = subprocess.run(
            (parser, "--replace", "--skip-cache", "--quiet"),
            input=_PROFILE.encode(),
            capture_output=True,
            timeout=_PARSER_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stderr.decode(errors="replace").strip() if done.returncode else ""
