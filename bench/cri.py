"""The CRI: a Pod of two containers through podrt and through containerd + runc, by the same client in turns.

``python -m bench.cri`` measures this part alone. One Pod at a time: RunPodSandbox, twice CreateContainer and
StartContainer, ExecSync, twice StopContainer, StopPodSandbox, RemovePodSandbox; a Pod of podrt, then one of containerd,
so that what else the machine does weighs on both. Then the memory that Pods which sleep add to the runtime's own
processes (the containers' processes are not counted).
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cri_api.v1 import api_pb2 as api

from bench.containerd import PAUSE, Containerd, missing
from bench.pod import CONTAINERS
from bench.podrt_bench import pss
from tests.framework.cri import CriClient, container, sandbox
from tests.framework.daemon import Daemon, remove_cgroups

ARCHIVE = Path(__file__).parents[1] / "build" / "images" / "busybox.tar"
PAUSE_PROGRAM = Path(__file__).parents[1] / "podrt" / "engine" / "pause" / "pause"
STEPS = (
    "RunPodSandbox",
    "CreateContainer",
    "StartContainer",
    "ExecSync",
    "StopContainer",
    "StopPodSandbox",
    "RemovePodSandbox",
)
TO_RUNNING, TO_GONE = "to running", "to gone"
Times = dict[str, list[float]]


class Runtime:
    """One runtime under measurement. ``stack`` gets what ends its Pods."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        socket: Path | str,
        cgroup: str,
        logs: Path,
        memory: Callable[[], dict[str, float]],
    ) -> None:
        self.client = stack.enter_context(CriClient(socket))
        stack.callback(self.client.clear)
        self.memory = memory
        self.times: Times = {name: [] for name in (*STEPS, TO_RUNNING, TO_GONE)}
        self._cgroup = cgroup
        self._logs = logs
        self._count = 0

    def one(self) -> None:
        """One Pod's whole life; each step's milliseconds go to :attr:`times`."""
        start = time.perf_counter()
        sandbox_id, containers = self.up(self._timed)
        self.times[TO_RUNNING].append((time.perf_counter() - start) * 1e3)
        self._timed("ExecSync", container_id=containers[0], cmd=["true"])
        time.sleep(0.02)
        start = time.perf_counter()
        for container_id in containers:
            self._timed("StopContainer", container_id=container_id, timeout=0)
        self._timed("StopPodSandbox", pod_sandbox_id=sandbox_id)
        self._timed("RemovePodSandbox", pod_sandbox_id=sandbox_id)
        self.times[TO_GONE].append((time.perf_counter() - start) * 1e3)
        # What the kernel still cleans up of this Pod is not to be on the next one's time.
        time.sleep(0.2)

    def up(self, call: Callable[..., Any] | None = None) -> tuple[str, list[str]]:
        """Make a Pod of two sleeping containers by ``call``; the ids of the sandbox and of the containers."""
        call = call or self.client.call
        self._count += 1
        name = f"bench-{self._count}"
        # As a kubelet has it: every container with a PID namespace of its own.
        security = {"namespace_options": {"pid": api.CONTAINER}}
        linux: dict[str, Any] = {"cgroup_parent": f"{self._cgroup}/{name}", "security_context": security}
        pod = sandbox(name, self._logs / name, hostname=name, linux=linux)
        amounts = {"cpu_period": 100000, "cpu_quota": 50000, "cpu_shares": 512, "memory_limit_in_bytes": 64 << 20}
        sandbox_id = call("RunPodSandbox", config=pod).pod_sandbox_id
        containers = []
        for number in range(CONTAINERS):
            config = container(
                f"c{number}", log_path=f"c{number}.log", linux={"resources": amounts, "security_context": security}
            )
            made = call("CreateContainer", pod_sandbox_id=sandbox_id, config=config, sandbox_config=pod)
            call("StartContainer", container_id=made.container_id)
            containers.append(made.container_id)
        return sandbox_id, containers

    def _timed(self, method: str, **fields: Any) -> Any:
        start = time.perf_counter()
        answer = self.client.call(method, **fields)
        self.times[method].append((time.perf_counter() - start) * 1e3)
        return answer

    def grown(self, count: int) -> dict[str, float]:
        """What ``count`` sleeping Pods add to each of the runtime's processes, MiB a Pod."""
        before = self.memory()
        for _ in range(count):
            self.up()
        time.sleep(2)
        after = self.memory()
        self.client.clear()
        return {name: (after[name] - before[name]) / count for name in after}


def measure(work: Path, runs: int, pods: int, with_containerd: bool = True) -> dict[str, Any]:
    """``podrt`` and ``containerd``: the times of each step in ms and ``per_pod`` in MiB; or why there are none."""
    work.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"count": pods}
    with contextlib.ExitStack() as stack:
        runtimes = {"podrt": _podrt(stack, work)}
        results["containerd"] = missing() if with_containerd else "not asked for"
        if not results["containerd"]:
            runtimes["containerd"] = _containerd(stack, work)
        for number in range(-3, runs):
            for runtime in runtimes.values():
                runtime.one()
                if number < 0:  # to warm up
                    runtime.times = {name: [] for name in runtime.times}
        for name, runtime in runtimes.items():
            results[name] = {**runtime.times, "per_pod": runtime.grown(pods)}
    return results


def _podrt(stack: contextlib.ExitStack, work: Path) -> Runtime:
    subnets: dict[str, Any] = {"subnet_v4": "10.216.0.0/16", "subnet_v6": "fd16:7064:7274::/64"}
    daemon = Daemon(work / "podrt", None, cri=True, log_level="warning", **subnets)

    def destroy() -> None:
        for problem in daemon.destroy():
            print("left behind by the daemon:", problem, file=sys.stderr)

    stack.callback(destroy)
    daemon.start()
    daemon.cli("image", "load", "-i", str(ARCHIVE))
    _save_pause_image(daemon, work)
    cgroup = f"{daemon.config.cgroup_root}/cri"
    stack.callback(remove_cgroups, cgroup)  # as the kubelet does, whose they would be
    return Runtime(
        stack,
        daemon.config.cri_socket,
        cgroup,
        work / "logs",
        lambda: {"daemon": pss(daemon.pid), "supervisor": pss(daemon.supervisor_pid)},
    )


def _save_pause_image(daemon: Daemon, work: Path) -> None:
    """An image with podrt's own pause program, for the sandboxes of containerd."""
    tree = work / "pause"
    tree.mkdir()
    shutil.copy(PAUSE_PROGRAM, tree / "pause")
    daemon.cli("image", "import", "-q", str(tree), PAUSE, "--entrypoint", "/pause")
    daemon.cli("image", "save", "-q", PAUSE, "-o", str(work / "pause.tar"))


def _containerd(stack: contextlib.ExitStack, work: Path) -> Runtime:
    containerd = Containerd(work / "containerd", ARCHIVE, work / "pause.tar")
    stack.callback(containerd.close)
    return Runtime(stack, containerd.socket, containerd.cgroup, work / "logs", containerd.memory)


def ratio(results: dict[str, Any], what: str) -> float:
    """How many times podrt's median containerd takes."""
    theirs, ours = (statistics.median(results[name][what]) for name in ("containerd", "podrt"))
    return float(theirs / ours)


def per_pod(figures: dict[str, Any]) -> float:
    """MiB that a Pod adds to all processes of a runtime."""
    return float(sum(figures["per_pod"].values()))


def table(results: dict[str, Any]) -> str:
    """Medians side by side."""
    other = results["containerd"] if isinstance(results["containerd"], dict) else None
    lines = [f"{'CRI, ms (median)':46} {'podrt':>8} {'containerd':>11} {'ratio':>6}"]
    for what in (*STEPS, TO_RUNNING, TO_GONE):
        line = f"    {what:42} {statistics.median(results['podrt'][what]):8.1f}"
        if other:
            line += f" {statistics.median(other[what]):11.1f} {ratio(results, what):6.1f}"
        lines.append(line)
    line = f"    {'each idle Pod adds, MiB (PSS)':42} {per_pod(results['podrt']):8.3f}"
    if other:
        line += f" {per_pod(other):11.3f}"
    lines.append(line)
    if other is None:
        lines.append(f"    containerd: not measured: {results['containerd']}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.cri", description=__doc__)
    parser.add_argument("--runs", type=int, default=40, help="Pods of each runtime (40)")
    parser.add_argument("--pods", type=int, default=50, help="Pods whose memory is measured (50)")
    parser.add_argument("--parent", default="/var/tmp", help="where to work (/var/tmp)")
    parser.add_argument("--without-containerd", action="store_true", help="measure podrt alone")
    options = parser.parse_args()
    subprocess.run((str(PAUSE_PROGRAM.parent / "build"),), check=True)
    work = Path(tempfile.mkdtemp(prefix="podrt-cri-", dir=options.parent))
    try:
        results = measure(work, options.runs, options.pods, not options.without_containerd)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
