"""The same Pod by ``podman kube play``, with runc, in a storage and a network namespace of its own.

The network namespace keeps podman's bridge and its iptables rules off the machine; they go with it. Where there is no
CAP_SYS_RESOURCE, runc can't raise the limits that podman writes for every container (nofile 1048576; `kube play` takes
no others): a wrapper takes them out of the bundle first, which costs podman one sed for each container.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

from bench.pod import pod
from tests.framework import leaks, probes

NETNS = "podrt-bench-podman"
CAP_SYS_RESOURCE = 24
WRAPPER = r"""#!/bin/sh
previous=
for word do
    if [ "$previous" = --bundle ]; then sed -i 's/,"rlimits":\[[^]]*\]//' "$word/config.json"; fi
    previous=$word
done
exec runc "$@"
"""


class Podman:
    """podman with everything of its own below ``directory``."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        runtime = "runc"
        if not probes.has_capability(CAP_SYS_RESOURCE):
            runtime = str(directory / "runc")
            Path(runtime).write_text(WRAPPER)
            Path(runtime).chmod(0o755)
        self.base = ["nsenter", f"--net=/run/netns/{NETNS}", "podman", "--runtime", runtime]
        self.base += ["--root", str(directory / "root"), "--runroot", str(directory / "run")]
        self.base += ["--cgroup-manager", "cgroupfs", "--storage-driver", "overlay", "--events-backend", "file"]
        self.cgroups = leaks.Snapshot.take("libpod_parent").cgroups
        subprocess.run(("ip", "netns", "add", NETNS), check=True)
        subprocess.run(("ip", "-n", NETNS, "link", "set", "lo", "up"), check=True)

    def call(self, *args: str) -> None:
        """Run podman. Raises RuntimeError with its stderr."""
        command = [*self.base, *args]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
        if done.returncode:
            raise RuntimeError(f"podman {' '.join(args)}: {done.stderr.strip()}")

    def close(self) -> None:
        subprocess.run([*self.base, "system", "reset", "--force"], capture_output=True, stdin=subprocess.DEVNULL)
        subprocess.run(("ip", "netns", "del", NETNS), check=True)
        if not self.cgroups:
            for mount in probes.cgroup_mounts().values():
                subprocess.run(
                    ("find", mount / "libpod_parent", "-depth", "-type", "d", "-delete"), capture_output=True
                )


def podman(archive: Path, directory: Path, runs: int) -> dict[str, list[float]] | str:
    """``apply_ms`` and ``delete_ms`` of ``kube play`` and ``pod rm -f -t 0``, or why there are none."""
    for program in ("podman", "runc"):
        if not shutil.which(program):
            return f"{program} is not installed"
    result: dict[str, list[float]] = {"apply_ms": [], "delete_ms": []}
    file = directory / "pod.json"
    engine = Podman(directory)
    try:
        engine.call("load", "-i", str(archive))
        for number in range(-1, runs):  # the first also builds podman's pause image
            name = f"podman-bench-{number + 1}"
            file.write_text(json.dumps(pod(name)))
            start = time.perf_counter()
            engine.call("kube", "play", str(file))
            played = time.perf_counter()
            time.sleep(0.05)
            stop = time.perf_counter()
            engine.call("pod", "rm", "-f", "-t", "0", name)
            if number >= 0:
                result["apply_ms"].append((played - start) * 1e3)
                result["delete_ms"].append((time.perf_counter() - stop) * 1e3)
            time.sleep(0.05)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        engine.close()
    return result
