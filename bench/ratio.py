"""``python -m bench.ratio``: how many times the floor's time a Pod takes, for machines whose milliseconds mean nothing.

In an emulated VM everything is slow, C less than Python. What carries over is the comparison of one version with
the next: the floor and podrt run in turns on the same kernel.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from bench.podrt_bench import Podrt

REPOSITORY = Path(__file__).parents[1]


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    work = Path(tempfile.mkdtemp(prefix="podrt-ratio-", dir="/var/tmp"))
    binary, floor_directory = work / "floor", work / "floor.d"
    floor_directory.mkdir()
    compiler = ["gcc", "-O2", "-static", "-o", str(binary), str(REPOSITORY / "bench" / "floor.c")]
    subprocess.run(compiler, check=True, stdin=subprocess.DEVNULL)
    floor: dict[str, list[float]] = {"create_ms": [], "delete_ms": []}
    mine: dict[str, list[float]] = {"create_ms": [], "delete_ms": []}
    bench = Podrt(work / "podrt", REPOSITORY / "build" / "images" / "busybox.tar")
    try:
        bench.one_at_a_time(2)
        for _ in range(2):
            command = [str(binary), "-d", str(floor_directory), "-n", str(runs // 2)]
            measured = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            creates, deletes = bench.one_at_a_time(runs // 2)
            for name, values in (("create_ms", creates), ("delete_ms", deletes)):
                floor[name] += measured[name]
                mine[name] += values
    finally:
        left = bench.close()
        shutil.rmtree(work, ignore_errors=True)
    for name in ("create_ms", "delete_ms"):
        ratio = median(mine[name]) / median(floor[name])
        print(f"{name.removesuffix('_ms')}: {ratio:.1f} times the floor (median of {len(mine[name])})")
    for problem in left:
        print(f"left behind: {problem}", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
