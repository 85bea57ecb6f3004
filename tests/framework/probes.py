"""What this machine can do, found by trying it. A test that needs what the machine lacks skips by one of these.

Probing the ability, not the uid or the kernel's version: root in a container may not mount, an old kernel may have the
feature. Each probe runs once and leaves nothing behind.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

from tests.framework.patience import scaled


def _works(*command: str) -> bool:
    try:
        return (
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=scaled(10)).returncode == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def has_command(name: str) -> bool:
    return shutil.which(name) is not None


def is_root() -> bool:
    return os.geteuid() == 0


@cache
def can_bind_mount() -> bool:
    return _works("unshare", "-m", "mount", "--bind", "/", "/mnt")


@cache
def can_make_netns() -> bool:
    return _works("unshare", "-n", "true")


@cache
def can_make_userns() -> bool:
    return _works("unshare", "-Ur", "true")


@cache
def can_overlay(directory: str) -> bool:
    """Whether an overlay's upper directory may lie in ``directory`` (not on another overlay)."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as root:
        for name in ("lower", "upper", "work", "merged"):
            Path(root, name).mkdir()
        options = f"lowerdir={root}/lower,upperdir={root}/upper,workdir={root}/work"
        return _works("unshare", "-m", "mount", "-t", "overlay", "overlay", "-o", options, f"{root}/merged")


@cache
def can_mknod(directory: str = "/tmp") -> bool:
    with tempfile.TemporaryDirectory(dir=directory) as root:
        return _works("mknod", f"{root}/null", "c", "1", "3")


@cache
def cgroup_mounts() -> dict[str, Path]:
    """Mount point of each hierarchy: a v1 controller (or named hierarchy) by name, the v2 hierarchy as ``unified``."""
    mounts: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        point = Path(left.split(" ")[4])
        if kind == "cgroup2":
            mounts.setdefault("unified", point)
        elif kind == "cgroup":
            for option in options.split(" ")[-1].split(","):
                name = option.removeprefix("name=")
                if name not in ("rw", "ro", "xattr") and "=" not in name:
                    mounts.setdefault(name, point)
    return mounts


@cache
def has_cgroup_controller(name: str) -> bool:
    """Whether limits of ``name`` (memory, cpu, pids) work, in v1 or in v2."""
    return name in cgroup_mounts() or has_cgroup_v2_controller(name)


@cache
def has_cgroup_v2_controller(name: str) -> bool:
    unified = cgroup_mounts().get("unified")
    return unified is not None and name in (unified / "cgroup.controllers").read_text().split()


@cache
def has_cgroup_freezer() -> bool:
    return bool({"unified", "freezer"} & cgroup_mounts().keys())


@cache
def has_nftables() -> bool:
    return has_command("nft") and _works("unshare", "-n", "nft", "add", "table", "inet", "probe")


@cache
def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@cache
def has_veth() -> bool:
    return _works("unshare", "-n", "ip", "link", "add", "probe0", "type", "veth", "peer", "name", "probe1")


@cache
def has_capability(number: int) -> bool:
    """Whether capability ``number`` (as in linux/capability.h) is in this process's effective set."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def needs(condition: bool, what: str) -> pytest.MarkDecorator:
    """``@needs(can_bind_mount(), "bind mounts")``: skip the test with "this machine has no ..." unless it holds."""
    return pytest.mark.skipif(not condition, reason=f"this machine lacks: {what}")
