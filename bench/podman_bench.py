"""The same Pod by ``podman kube play``, with runc, in a storage of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

from bench.pod import pod


def podman(archive: Path, directory: Path, runs: int) -> dict[str, list[float]] | str:
    """``apply_ms`` and ``delete_ms`` of ``kube play`` and ``pod rm -f -t 0``, or why there are none."""
    if not shutil.which("podman"):
        return "podman is not installed"
    if not shutil.which("runc"):
        return "runc is not installed (crun refuses cgroup layouts that runc takes)"
    base = ["podman", "--root", str(directory / "root"), "--runroot", str(directory / "run"), "--runtime", "runc"]
    base += ["--cgroup-manager", "cgroupfs", "--storage-driver", "overlay", "--events-backend", "file"]

    def call(*args: str) -> None:
        done = subprocess.run([*base, *args], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
        if done.returncode:
            raise RuntimeError(f"podman {' '.join(args)}: {done.stderr.strip()}")

    result: dict[str, list[float]] = {"apply_ms": [], "delete_ms": []}
    file = directory / "pod.json"
    directory.mkdir(parents=True, exist_ok=True)
    try:
        call("load", "-i", str(archive))
        for number in range(-1, runs):  # the first also builds podman's pause image
            name = f"podman-bench-{number + 1}"
            file.write_text(json.dumps(pod(name)))
            start = time.perf_counter()
            call("kube", "play", str(file))
            played = time.perf_counter()
            time.sleep(0.05)
            stop = time.perf_counter()
            call("pod", "rm", "-f", "-t", "0", name)
            if number >= 0:
                result["apply_ms"].append((played - start) * 1e3)
                result["delete_ms"].append((time.perf_counter() - stop) * 1e3)
            time.sleep(0.05)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        subprocess.run([*base, "system", "reset", "--force"], capture_output=True, stdin=subprocess.DEVNULL)
    return result
