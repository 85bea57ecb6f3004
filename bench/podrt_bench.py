"""podrt measured through its API and its command line, on a daemon of its own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.observer import Observer
from bench.pod import pod
from tests.framework.client import UnixConnection, path_of
from tests.framework.daemon import Daemon, cli_command

PODS = path_of("Pod")


class Podrt:
    """One daemon under measurement. Times are milliseconds."""

    def __init__(self, root: Path, archive: Path) -> None:
        subnets: dict[str, Any] = {"subnet_v4": "10.215.0.0/16", "subnet_v6": "fd15:7064:7274::/64"}
        self.daemon = Daemon(root, None, log_level="warning", **subnets)
        self.daemon.start()
        self.daemon.cli("image", "load", "-i", str(archive))
        self.observer = Observer(self.daemon.config.socket)
        self.connection = UnixConnection(self.daemon.config.socket, timeout=120)
        self.count = 0

    def close(self) -> list[str]:
        self.connection.close()
        return self.daemon.destroy()

    def _names(self, count: int) -> list[str]:
        self.count += count
        return [f"bench-{number}" for number in range(self.count - count, self.count)]

    def request(self, method: str, path: str, body: Any = None) -> None:
        """Raises RuntimeError for an answer that is an error."""
        data = None if body is None else json.dumps(body)
        self.connection.request(method, path, body=data, headers={"Content-Type": "application/json"})
        response = self.connection.getresponse()
        answer = response.read()
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {answer.decode(errors='replace')}")

    def create(self, names: Sequence[str]) -> list[float]:
        """POST all, wait until all run; for each the time from its POST until both containers run."""
        sent = {}
        for name in names:
            body = pod(name)
            sent[name] = time.perf_counter()
            self.request("POST", PODS, body)
        self.observer.wait(self.observer.running, names)
        return [(self.observer.running[name] - sent[name]) * 1e3 for name in names]

    def delete(self, names: Sequence[str]) -> list[float]:
        """DELETE all, wait until all are gone; for each the time from its DELETE until the watch says so."""
        sent = {}
        for name in names:
            sent[name] = time.perf_counter()
            self.request("DELETE", f"{PODS}/{name}?gracePeriodSeconds=0")
        self.observer.wait(self.observer.gone, names)
        return [(self.observer.gone[name] - sent[name]) * 1e3 for name in names]

    def one_at_a_time(self, runs: int) -> tuple[list[float], list[float]]:
        """Create and delete single Pods, one after the other."""
        creates, deletes = [], []
        for name in self._names(runs):
            creates += self.create([name])
            time.sleep(0.02)
            deletes += self.delete([name])
            time.sleep(0.05)
        return creates, deletes

    def at_once(self, count: int) -> dict[str, Any]:
        """``count`` Pods POSTed one right after the other; ``*_all_ms``: from the first request to the last result."""
        names = self._names(count)
        start = time.perf_counter()
        creates = self.create(names)
        created = time.perf_counter()
        time.sleep(1)
        stop = time.perf_counter()
        deletes = self.delete(names)
        return {
            "count": count,
            "create_ms": creates,
            "create_all_ms": (created - start) * 1e3,
            "delete_ms": deletes,
            "delete_all_ms": (time.perf_counter() - stop) * 1e3,
        }

    def fill(self, count: int) -> list[str]:
        """``count`` more Pods that stay, made in tens."""
        names = self._names(count)
        for start in range(0, count, 10):
            self.create(names[start : start + 10])
        return names

    def clear(self, names: Sequence[str]) -> None:
        for start in range(0, len(names), 10):
            self.delete(names[start : start + 10])

    def memory(self) -> dict[str, float]:
        """PSS of the two processes in MiB."""
        return {"daemon": pss(self.daemon.pid), "supervisor": pss(self.daemon.supervisor_pid)}

    def command(self, runs: int, directory: Path) -> dict[str, list[float]]:
        """``podrt apply -f`` and ``podrt delete -f`` as whole processes.

        ``apply_ms``: from the start of the process until it has ended *and* both containers run. ``apply_exit_ms``:
        until it has ended.
        """
        result: dict[str, list[float]] = {"apply_ms": [], "apply_exit_ms": [], "delete_ms": []}
        for name in self._names(runs):
            file = directory / f"{name}.json"
            file.write_text(json.dumps(pod(name)))
            start = time.perf_counter()
            self._run("apply", "-f", str(file))
            ended = time.perf_counter()
            self.observer.wait(self.observer.running, [name])
            result["apply_exit_ms"].append((ended - start) * 1e3)
            result["apply_ms"].append((max(ended, self.observer.running[name]) - start) * 1e3)
            time.sleep(0.05)
            start = time.perf_counter()
            self._run("delete", "-f", str(file))
            ended = time.perf_counter()
            self.observer.wait(self.observer.gone, [name])
            result["delete_ms"].append((max(ended, self.observer.gone[name]) - start) * 1e3)
            time.sleep(0.05)
        return result

    def cpu_of(self, *args: str, runs: int = 5) -> float:
        """CPU time of ``podrt ARGS`` in ms: the least of ``runs``."""
        times = []
        for _ in range(runs):
            before = os.times()
            self._run(*args)
            after = os.times()
            spent = after.children_user + after.children_system - before.children_user - before.children_system
            times.append(spent * 1e3)
        return min(times)

    def _run(self, *args: str) -> None:
        command = [*cli_command(), *args]
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=self.daemon.cli_env
        )


def pss(pid: int) -> float:
    """Proportional set size of a process in MiB, /proc/PID/smaps_rollup of proc(5)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no Pss of process {pid}")
