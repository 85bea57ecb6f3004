"""The test framework itself: a leak checker or tier counter that can't fail would hide everything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from podrt.config import Config
from tests.framework.daemon import eventually, new_tag
from tests.framework.images import REPOSITORY
from tests.framework.leaks import Footprint, Snapshot, tree
from tests.framework.tiers import tier_of


def test_footprint_sees_new_files_and_fifos_but_not_images(tmp_path: Path) -> None:
    config = Config.under(tmp_path, new_tag(), netns_dir=tmp_path / "netns")
    for directory in (config.run_dir, config.state_dir / "images", config.log_dir, config.netns_dir):
        directory.mkdir(parents=True)
    base = Footprint.take(config)
    (config.state_dir / "images" / "layer").touch()
    (config.netns_dir / "pod-1").touch()
    os.mkfifo(config.run_dir / "out")
    left = Footprint.take(config).beyond(base)
    assert left == ["netns: pod-1", f"files: p {config.run_dir}/out"]


def test_a_mount_on_top_of_a_mount_is_seen() -> None:
    mounts = ("/", "/run")
    nothing: frozenset[str] = frozenset()
    base = Snapshot(mounts=mounts, netns=nothing, links=nothing, tables=nothing, cgroups=nothing)
    doubled = Snapshot(mounts=(*mounts, "/run"), netns=nothing, links=nothing, tables=nothing, cgroups=nothing)
    assert doubled.beyond(base) == ["mounts: /run"]
    assert base.beyond(doubled) == []


def test_tree_names_kinds(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "directory").mkdir()
    assert tree(tmp_path) == {f"- {tmp_path}/file", f"l {tmp_path}/link", f"d {tmp_path}/directory"}


def test_tags_are_short_and_differ() -> None:
    first, second = new_tag(), new_tag()
    assert first != second
    assert max(len(first), len(second)) <= 8


def test_eventually_says_what_it_waited_for() -> None:
    with pytest.raises(AssertionError, match="the moon is full; last seen: 0"):
        eventually(lambda: 0, timeout=0.05, what="the moon is full")


def test_tier_is_the_directory() -> None:
    assert tier_of(Path(__file__)) == "unit"
    assert tier_of(REPOSITORY / "tests" / "root" / "test_x.py") == "root"
    assert tier_of(REPOSITORY / "tests" / "framework" / "tiers.py") is None


@pytest.mark.parametrize(
    ("text", "code"), [("def test_it(): pass", 0), ("import pytest\n@pytest.mark.skip\ndef test_it(): pass", 1)]
)
def test_a_tier_that_is_skipped_whole_fails_the_session(tmp_path: Path, text: str, code: int) -> None:
    """Run pytest on a copy of the plugin beside a tier of one test."""
    unit = tmp_path / "tests" / "unit"
    unit.mkdir(parents=True)
    (unit / "test_one.py").write_text(text)
    framework = tmp_path / "tests" / "framework"
    framework.mkdir()
    for name in ("__init__.py", "tiers.py", "probes.py", "patience.py"):
        (framework / name).write_text((REPOSITORY / "tests" / "framework" / name).read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--tiers=unit",
        "-ptests.framework.tiers",
        "-pno:cacheprovider",
        "-pno:asyncio",
        "tests/unit",
    ]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("tier unit: 1 ran" in done.stdout) == (code == 0)
    assert ("not one test of it ran" in done.stdout) == (code == 1)


def test_examples_are_one_pod_each_and_named_after_the_file() -> None:
    files = sorted((REPOSITORY / "examples").glob("*.yaml"))
    assert files
    for file in files:
        document = yaml.safe_load(file.read_text())
        assert (document["kind"], document["metadata"]["name"]) == ("Pod", file.stem)
