"""The bench runs to its end and measures what it says; and what doesn't hang on a quiet machine keeps its targets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import report
from bench.__main__ import measure
from tests.framework import leaks, probes
from tests.framework.daemon import Daemon, cli_command
from tests.framework.images import REPOSITORY


@pytest.fixture(scope="module")
def floor_program() -> Path:
    """``floor.c`` where the bench looks for it."""
    program = REPOSITORY / "build" / "bench" / "floor"
    program.parent.mkdir(parents=True, exist_ok=True)
    source = str(REPOSITORY / "bench" / "floor.c")
    subprocess.run(("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", program, source), check=True)
    return program


@pytest.mark.skipif(not probes.has_veth(), reason="this machine lacks: veth")
def test_floor_makes_pods_and_leaves_nothing(floor_program: Path, daemon_base: Path) -> None:
    work = daemon_base / "floor"
    work.mkdir()
    done = subprocess.run((floor_program, "-d", work, "-n", "3", "-b", "pr-flr-t"), check=True, stdout=subprocess.PIPE)
    results = json.loads(done.stdout)
    assert len(results["create_ms"]) == len(results["delete_ms"]) == 3
    assert min(results["create_ms"]) > 0
    assert sorted(path.name for path in work.iterdir()) == ["lower1", "lower2"]
    assert not [point for point in leaks.mount_points() if point.startswith(f"{work}/")]
    assert "pr-flr-t" not in leaks.links()
    assert not [mount for mount in probes.cgroup_mounts().values() if (mount / "podrt-floor").exists()]
    shutil.rmtree(work)


@pytest.mark.timeout(300)
def test_bench_measures_everything(
    floor_program: Path, daemon_base: Path, image_archives: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    work = daemon_base / "bench"
    work.mkdir()
    try:
        results = measure(work, runs=5, batch=8, full=20, with_others=False)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    assert "left behind" not in capsys.readouterr().err
    text = report.table(results)
    for part in ("(a)", "(b)", "(c)", "(d)", "(e)", "(f)", "RunPodSandbox", "targets"):
        assert part in text
    assert len(results["one"]["create_ms"]) == len(results["floor"]["create_ms"]) == 8
    assert len(results["batch"]["create_ms"]) == 8
    assert [len(results["scaled"][f"{one}up_ms"]) for one in ("", "single_")] == [3, 3]
    assert min(results["scaled"]["down_ms"]) > 0 and results["scaled"]["count"] == 16
    assert sum(results["memory"]["empty"].values()) < 100, text
    assert results["memory"]["per_pod"] < 0.3, text
    assert len(results["cri"]["podrt"]["RunPodSandbox"]) == 5
    assert len(results["cri"]["podrt"]["StartContainer"]) == 10


@pytest.mark.parametrize("arguments", [("--help",), ("get", "pods")])
def test_cpu_time_of_the_command_line(daemon: Daemon, arguments: tuple[str, ...]) -> None:
    """Acceptance 9: under 120 ms of CPU time, user and system, of the whole process."""
    best = 1e9
    for _ in range(5):
        before = os.times()
        subprocess.run([*cli_command(), *arguments], check=True, stdout=subprocess.DEVNULL, env=daemon.cli_env)
        after = os.times()
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        best = min(best, spent * 1e3)
    assert best < 120, f"{sys.executable}: podrt {' '.join(arguments)} took {best:.0f} ms"
