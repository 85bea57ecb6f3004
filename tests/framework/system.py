"""The podrt that is installed on this machine under systemd, for the tests of the VM."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from podrt import config
from tests.framework.client import Client
from tests.framework.daemon import Daemon, eventually

UNIT = "podrtd.service"


def systemctl(*arguments: str, check: bool = True) -> str:
    """Run systemctl; its output, stripped. Raises AssertionError with what it said."""
    result = subprocess.run(("systemctl", *arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert not check or result.returncode == 0, f"systemctl {' '.join(arguments)}: {result.stdout}{result.stderr}"
    return result.stdout.strip()


def show(name: str, unit: str = UNIT) -> str:
    """One property of the unit; a time as ``@`` and seconds."""
    return systemctl("show", "--timestamp=unix", "--value", "-p", name, unit)


class SystemDaemon(Daemon):
    """The daemon that systemd owns; ``start``, ``stop`` and ``restart`` go through systemctl."""

    def __init__(self) -> None:
        self.config = config.load()
        self.client = Client(self.config.socket)
        self.tag = "system"
        self.process = None
        self.base = None
        self.environment = {}

    def start(self, timeout: float = 60.0) -> None:
        systemctl("start", UNIT)
        eventually(self.ready, timeout, "the API answers")

    def stop(self, timeout: float = 60.0) -> int:
        systemctl("stop", UNIT)
        return int(show("ExecMainStatus"))

    def restart(self) -> None:
        systemctl("restart", UNIT)
        eventually(self.ready, 60, "the API answers")

    @property
    def info(self) -> dict[str, Any]:
        """What ``podrt system info`` is made of."""
        found: dict[str, Any] = self.api("GET", "/apis/podrt.dev/v1alpha1/info")
        return found

    @property
    def cgroup_root(self) -> Path:
        """Directory of the daemon's Pods in cgroup2."""
        return Path("/sys/fs/cgroup") / str(self.info["cgroupRoot"]).lstrip("/")

    def cgroup_of(self, pod: str, container: str = "main") -> Path:
        """A container's directory in cgroup2, wherever below the daemon's its Pod is."""
        found = self.pod(pod)
        [identity] = [
            status["containerID"].partition("://")[2]
            for status in found["status"]["containerStatuses"]
            if status["name"] == container
        ]
        [directory] = self.cgroup_root.rglob(identity)
        return directory

    def log_tail(self, lines: int = 60) -> str:
        command = ("journalctl", "-u", UNIT, "-n", str(lines), "--no-pager", "-o", "short-precise")
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout


def under_systemd() -> bool:
    """Whether PID 1 is systemd and podrt is installed as its unit."""
    return os.path.isdir("/run/systemd/system") and show("LoadState") == "loaded"
