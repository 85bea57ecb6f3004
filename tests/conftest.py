"""Fixtures of all tiers. ``daemon_factory`` owns every daemon of a test: its teardown, its log, its leaks."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.framework import images, leaks, probes
from tests.framework.daemon import Daemon

pytest_plugins = ["tests.framework.tiers"]

hypothesis.settings.register_profile("podrt", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", parent=hypothesis.settings.get_profile("podrt"), derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "podrt")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so does what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

_daemons = pytest.StashKey[list[Daemon]]()

DaemonFactory = Callable[..., Daemon]


@pytest.fixture(scope="session")
def daemon_base() -> Iterator[Path]:
    """The directory below which the daemons under test live: short (socket paths end at 107 bytes), and an overlay's
    upper directory may be there. ``PODRT_TEST_DIR`` names another parent."""
    for parent in (os.environ.get("PODRT_TEST_DIR"), "/var/tmp", "/dev/shm"):
        if parent and probes.can_overlay(parent):
            break
    else:
        pytest.skip("this machine lacks: a directory that may be an overlay's upper one (set PODRT_TEST_DIR)")
    path = Path(tempfile.mkdtemp(prefix="podrt-", dir=parent))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def image_archives() -> dict[str, Path]:
    """Archive of each test image by its short name (busybox, nginx, python, tools), built if need be."""
    return images.archives()


@pytest.fixture(scope="session")
def image_store(daemon_base: Path, image_archives: dict[str, Path]) -> Path:
    """An image store with all the test images in it, made by a real daemon through ``podrt image load``."""
    daemon = Daemon(daemon_base / "images")
    store = daemon_base / "store"
    try:
        daemon.start()
        for path in image_archives.values():
            daemon.cli("image", "load", "-i", str(path))
        daemon.stop()
        (daemon.config.state_dir / "images").rename(store)
    finally:
        daemon.destroy()
    return store


@pytest.fixture(scope="session")
def daemon_settings() -> dict[str, Any]:
    """Settings of every daemon that the fixtures make; a tier may have its own."""
    return {}


@contextlib.contextmanager
def _factory(base: Path, store: Path, keep: list[Daemon], common: dict[str, Any]) -> Generator[DaemonFactory]:
    def make(
        *, start: bool = True, with_images: bool = True, env: dict[str, str] | None = None, **settings: Any
    ) -> Daemon:
        root = Path(tempfile.mkdtemp(dir=base))
        daemon = Daemon(root, store if with_images else None, **(common | settings))
        keep.append(daemon)
        daemon.environment.update(env or {})
        if start:
            daemon.start()
        return daemon

    yield make
    problems = []
    for daemon in reversed(keep):
        problems += [f"{daemon.tag}: {problem}" for problem in daemon.destroy()]
    keep.clear()
    if problems:
        pytest.fail("left behind:\n  " + "\n  ".join(problems), pytrace=False)


@pytest.fixture
def daemon_factory(
    request: pytest.FixtureRequest, daemon_base: Path, image_store: Path, daemon_settings: dict[str, Any]
) -> Iterator[DaemonFactory]:
    """``make(start=True, with_images=True, env={}, **config settings) -> Daemon``. Each is destroyed and checked for
    leaks after the test; the daemons' logs are in the report of a test that fails."""
    keep = request.node.stash.setdefault(_daemons, [])
    with _factory(daemon_base, image_store, keep, daemon_settings) as make:
        yield make


@pytest.fixture
def daemon(daemon_factory: DaemonFactory) -> Daemon:
    """A started daemon with the test images, for this test alone."""
    return daemon_factory()


@pytest.fixture(scope="module")
def module_daemon(
    request: pytest.FixtureRequest, daemon_base: Path, image_store: Path, daemon_settings: dict[str, Any]
) -> Iterator[Daemon]:
    """A started daemon that the tests of a file share; each removes its own Pods (see ``shared_daemon``)."""
    keep = request.node.stash.setdefault(_daemons, [])
    with _factory(daemon_base, image_store, keep, daemon_settings) as make:
        yield make()


@pytest.fixture
def shared_daemon(module_daemon: Daemon) -> Iterator[Daemon]:
    """The file's daemon; its Pods are deleted, and leaks looked for, after each test."""
    yield module_daemon
    if not module_daemon.ready():
        module_daemon.environment.clear()
        module_daemon.start()
    module_daemon.delete_everything()
    problems = module_daemon.leaked()
    if problems:
        pytest.fail("left behind:\n  " + "\n  ".join(problems), pytrace=False)


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """The machine's mounts, netns, links, nft tables and cgroups are the same after the test. For tests of the kernel
    layers; not while something else makes such things on the machine."""
    before = leaks.Snapshot.take()
    yield
    left = leaks.Snapshot.take().beyond(before)
    if left:
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and report.when != "teardown":
        for node in (item, item.getparent(pytest.Module)):
            for daemon in node.stash.get(_daemons, []) if node is not None else ():
                report.sections.append((f"daemon {daemon.tag}", daemon.log_tail(200)))
    return report
