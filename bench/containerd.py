"""A containerd of the bench's own: with runc, the bridge plugin of CNI, and everything below one directory.

It runs in a network namespace of its own, so that its bridge, its iptables rules and its plugins' leases stay off the
machine and go with the namespace; a containerd of the machine is not touched. Its state is not systemd's matter: the
cgroupfs driver. Where there is no CAP_SYS_RESOURCE, it must not lower oom_score_adj (``restrict_oom_score_adj``).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.podrt_bench import pss
from tests.framework import leaks
from tests.framework.daemon import eventually, remove_cgroups

PLUGINS = (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
PAUSE = "localhost/podrt/pause:latest"

_CONFIG = """
version = 2
root = "{root}/root"
state = "{root}/state"
[grpc]
address = "{socket}"
[ttrpc]
address = "{socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
path = "{root}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{root}/cni"
"""
_NETWORK = """
{{"cniVersion": "0.4.0", "name": "bench", "plugins": [
 {{"type": "bridge", "bridge": "bench0", "isGateway": true, "ipMasq": true,
   "ipam": {{"type": "host-local", "dataDir": "{root}/leases", "ranges": [[{{"subnet": "10.214.0.0/16"}}]],
            "routes": [{{"dst": "0.0.0.0/0"}}]}}}},
 {{"type": "portmap", "capabilities": {{"portMappings": true}}}}]}}
"""


def missing() -> str:
    """Why containerd can't be measured here, else nothing."""
    for program in ("containerd", "ctr", "runc", "iptables"):
        if not shutil.which(program):
            return f"{program} is not installed"
    if not any((path / "bridge").exists() for path in PLUGINS):
        return "the CNI plugins are not installed"
    return ""


class Containerd:
    """A running containerd; :attr:`socket` is its CRI. ``close`` ends it and removes everything of it."""

    cgroup = "/podrt-bench-containerd"
    """Parent of all its Pods' cgroups."""

    def __init__(self, directory: Path, *archives: Path) -> None:
        """``archives``: OCI archives of the images, and of :data:`PAUSE`."""
        self.directory = directory
        self.socket = directory / "c.sock"
        self.netns = f"bench-containerd-{os.getpid()}"
        (directory / "cni").mkdir(parents=True)
        plugins = next(path for path in PLUGINS if (path / "bridge").exists())
        (directory / "config.toml").write_text(
            _CONFIG.format(root=directory, socket=self.socket, pause=PAUSE, plugins=plugins)
        )
        (directory / "cni" / "bench.conflist").write_text(_NETWORK.format(root=directory))
        subprocess.run(("ip", "netns", "add", self.netns), check=True)
        try:
            subprocess.run(("ip", "-n", self.netns, "link", "set", "lo", "up"), check=True)
            with open(directory / "log", "wb") as log:
                self._process = subprocess.Popen(
                    self._inside("containerd", "--config", str(directory / "config.toml")),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            eventually(lambda: self._ctr("version").returncode == 0, 60, "containerd answers")
            for archive in archives:
                done = self._ctr("--namespace", "k8s.io", "images", "import", str(archive))
                if done.returncode:
                    raise RuntimeError(f"containerd can't import {archive}: {done.stderr.strip()}")
        except BaseException:
            self.close()
            raise

    def _inside(self, *command: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.netns}", *command]

    def _ctr(self, *args: str) -> subprocess.CompletedProcess[str]:
        command = ("ctr", "--address", str(self.socket), *args)
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)

    def memory(self) -> dict[str, float]:
        """PSS in MiB of containerd itself and of all its shims together."""
        return {"daemon": pss(self._process.pid), "shims": sum(pss(process.pid) for process in self._shims())}

    def _shims(self) -> Iterator[leaks.Process]:
        for process in leaks.processes():
            if "containerd-shim" in process.command and str(self.socket) in process.command:
                yield process

    def close(self) -> None:
        """Its Pods are gone already, or they end here."""
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
        for one in (*self._shims(), *leaks.processes_below(self.cgroup)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
        eventually(lambda: not leaks.processes_below(self.cgroup), 20, "its containers' processes end")
        for point in reversed([point for point in leaks.mount_points() if point.startswith(f"{self.directory}/")]):
            subprocess.run(("umount", "-l", point), capture_output=True)
        subprocess.run(("ip", "netns", "del", self.netns), capture_output=True)
        remove_cgroups(self.cgroup)
        shutil.rmtree(self.directory, ignore_errors=True)
