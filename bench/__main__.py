"""Run every measurement in one go and print the table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import cri, report, workload
from bench.podman_bench import podman
from bench.podrt_bench import Podrt

REPOSITORY = Path(__file__).parents[1]
ARCHIVE = REPOSITORY / "build" / "images" / "busybox.tar"


def floor(directory: Path, runs: int) -> report.Results:
    """What ``floor.c`` measured: create_ms, delete_ms."""
    directory.mkdir(exist_ok=True)
    command = [str(REPOSITORY / "build" / "bench" / "floor"), "-d", str(directory), "-n", str(runs)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL).stdout
    results: report.Results = json.loads(output)
    return results


def measure(work: Path, runs: int, batch: int, full: int, with_others: bool = True) -> report.Results:
    """All measurements, in directories below ``work``; ``with_others``: of podman and containerd, too."""

    def say(text: str) -> None:
        print(f"... {text}", file=sys.stderr, flush=True)

    results: report.Results = {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": f"{os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}",
    }
    results["floor"] = {"create_ms": [], "delete_ms": []}
    results["one"] = {"create_ms": [], "delete_ms": []}

    def compare() -> None:
        """The floor and podrt in turns, so that what else the machine does weighs on both."""
        for _ in range(4):
            block = max(1, runs // 8)
            bare = floor(work / "floor", block)
            creates, deletes = bench.one_at_a_time(block)
            results["floor"]["create_ms"] += bare["create_ms"]
            results["floor"]["delete_ms"] += bare["delete_ms"]
            results["one"]["create_ms"] += creates
            results["one"]["delete_ms"] += deletes

    bench = Podrt(work / "podrt", ARCHIVE)
    try:
        say("the floor, and one Pod at a time")
        bench.one_at_a_time(3)
        empty = bench.memory()
        compare()
        say("podrt apply")
        results["command"] = bench.command(min(runs, 20), work)
        results["cpu_ms"] = {"podrt --help": bench.cpu_of("--help"), "podrt get pods": bench.cpu_of("get", "pods")}
        say(f"{batch} Pods at once")
        results["batch"] = bench.at_once(batch)
        say(f"a Deployment of {2 * batch}")
        results["scaled"] = workload.scaled(bench, 2 * batch, batch)
        say(f"{full} Pods running")
        # The peak of the batch is still in the heap: what idle Pods add is counted from here.
        before = sum(bench.memory().values())
        names = bench.fill(full)
        time.sleep(2)
        filled = bench.memory()
        results["memory"] = {"empty": empty, "full": filled, "per_pod": (sum(filled.values()) - before) / full}
        creates, deletes = bench.one_at_a_time(runs)
        results["full"] = {"count": full, "create_ms": creates, "delete_ms": deletes}
        bench.clear(names)
        say("the floor, and one Pod at a time, again")
        compare()
    finally:
        left = bench.close()
    if left:
        print("left behind by the daemon:", *left, sep="\n  ", file=sys.stderr)
    if with_others:
        say("podman")
        results["podman"] = podman(ARCHIVE, work / "podman", min(runs, 10))
    else:
        results["podman"] = "not asked for"
    say("the CRI, and containerd")
    results["cri"] = cri.measure(work / "cri", runs, batch, with_others)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument("--runs", type=int, default=40, help="runs of each single measurement (40)")
    parser.add_argument("--batch", type=int, default=50, help="Pods at once (50)")
    parser.add_argument("--full", type=int, default=300, help="Pods running meanwhile (300)")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs", help="where results go (docs/)")
    parser.add_argument(
        "--parent", default="/var/tmp", help="a directory that may be an overlay's upper one (/var/tmp)"
    )
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="podrt-bench-", dir=options.parent))
    try:
        results = measure(work, options.runs, options.batch, options.full)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{results['machine']}, {results['when']}\n\n{report.table(results)}")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "bench.json").write_text(json.dumps(results, indent=1) + "\n")
    for path in report.pictures(results, options.out):
        print(f"wrote {path}")
    return 0 if all(reached for *_, reached in report.targets(results)) else 3


if __name__ == "__main__":
    sys.exit(main())
