"""What probes cost: the CPU time of podrtd and its supervisor with many Pods, each probed three times a second.

``python -m bench.probes --pods 100 --seconds 20`` (as root) measures each handler in turn: Pods of one server and a
second container beside it, with liveness and readiness of the one and readiness of the other at a period of 1 s.
``total`` is what podrtd and the supervisor take; ``children`` is what exec probes take from the spawn to their end, of
which most is the probed command's own. What servers do to answer is not counted. ``probes.json`` has the last results.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.framework.daemon import Daemon, eventually

IMAGE = "localhost/podrt/busybox:latest"
ARCHIVE = Path(__file__).parents[1] / "build" / "images" / "busybox.tar"
SERVER = "mkdir /www; echo fine > /www/fine; exec httpd -f -p 8080 -h /www"
EXEC = {"exec": {"command": ["sh", "-c", "echo >> /count"]}}
HANDLERS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "httpGet": [{"httpGet": {"path": "/fine", "port": 8080}}] * 3,
    "tcpSocket": [{"tcpSocket": {"port": 8080}}] * 3,
    "httpGet, tcpSocket, httpGet": [
        {"httpGet": {"path": "/fine", "port": 8080}},
        {"tcpSocket": {"port": 8080}},
        {"httpGet": {"path": "/fine", "port": 8080}},
    ],
    "exec, once a second": [EXEC],
    "exec, httpGet, tcpSocket": [EXEC, {"httpGet": {"path": "/fine", "port": 8080}}, {"tcpSocket": {"port": 8080}}],
}


def pod(name: str, handlers: list[dict[str, Any]]) -> dict[str, Any]:
    """A server and a helper; the handlers are liveness and readiness of the one, readiness of the other."""
    common: dict[str, Any] = {"image": IMAGE, "imagePullPolicy": "Never"}
    server: dict[str, Any] = {"name": "server", "command": ["sh", "-c", SERVER], **common}
    helper: dict[str, Any] = {"name": "helper", "command": ["sleep", "1000000"], **common}
    # A busy machine shall not make a container restart in the middle of the measurement.
    timing = {"periodSeconds": 1, "timeoutSeconds": 30, "failureThreshold": 100}
    places = ((server, "livenessProbe"), (server, "readinessProbe"), (helper, "readinessProbe"))
    for (container, field), handler in zip(places, handlers, strict=False):
        container[field] = handler | timing
    spec = {"containers": [server, helper], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def cpu_seconds(pid: int, children: bool = False) -> float:
    """User and system time of a process so far, or of its children that have ended, see proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    first = 13 if children else 11
    return (int(fields[first]) + int(fields[first + 1])) / os.sysconf("SC_CLK_TCK")


def measure(daemon: Daemon, handlers: list[dict[str, Any]], pods: int, seconds: float) -> dict[str, float]:
    """Percent of one core that daemon and supervisor take while ``pods`` Pods are ready and probed."""
    names = [f"probed-{number}" for number in range(pods)]
    for name in names:
        daemon.apply(pod(name, handlers))
    for name in names:
        daemon.wait_for(name, "Ready", 120)
    time.sleep(5)
    done = execs(daemon, names[0]) if "exec" in json.dumps(handlers) else -1
    processes = {"podrtd": daemon.pid, "supervisor": daemon.supervisor_pid}
    before = {name: cpu_seconds(pid) for name, pid in processes.items()}
    ended = cpu_seconds(daemon.supervisor_pid, children=True)
    start = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - start
    spent = {name: cpu_seconds(pid) - before[name] for name, pid in processes.items()}
    ended = cpu_seconds(daemon.supervisor_pid, children=True) - ended
    if done >= 0:
        # On a machine with too little CPU time they come late; count those that were. The others come as late.
        done = (execs(daemon, names[0]) - done) * pods * len(handlers)
    for name in names:
        daemon.delete(name, grace=0, wait=False)
    eventually(lambda: not daemon.pods(), 120, "the Pods are gone")
    result = {name: round(100 * used / took, 2) for name, used in spent.items()}
    result["total"] = round(sum(result.values()), 2)
    if done >= 0:
        result["children"] = round(100 * ended / took, 2)
    if handlers:
        count = done if done >= 0 else pods * len(handlers) * took
        result |= {"probes_per_second": round(count / took), "us_per_probe": round(1e6 * sum(spent.values()) / count)}
    return result


def execs(daemon: Daemon, name: str) -> int:
    """How often the exec probes of a Pod have run so far."""
    return daemon.exec(name, "cat", "/count", container="server").count("\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.probes", description=__doc__)
    parser.add_argument("--pods", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--only", action="append", choices=sorted(HANDLERS), help="measure these handlers")
    parser.add_argument("--json", type=Path, help="also write the results there")
    arguments = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="podrt-bench-") as directory:
        daemon = Daemon(Path(directory) / "podrt", None, log_level="warning")
        try:
            daemon.start()
            daemon.cli("image", "load", "-i", str(ARCHIVE))
            for name in arguments.only or HANDLERS:
                results[name] = measure(daemon, HANDLERS[name], arguments.pods, arguments.seconds)
                print(f"{name:30} {results[name]}", flush=True)
        finally:
            problems = daemon.destroy()
    if problems:
        raise SystemExit("\n".join(problems))
    if arguments.json is not None:
        document = {"pods": arguments.pods, "seconds": arguments.seconds, "percent_of_one_core": results}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
