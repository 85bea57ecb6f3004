"""Fixtures of the VM tier: the podrt that systemd runs, Pods of a test's own on it, whether they ran on undisturbed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.framework import probes, system
from tests.framework.chatter import assert_whole, lines_flow, numbers
from tests.framework.client import ApiError
from tests.framework.daemon import eventually
from tests.framework.pods import restarts, status

Running = dict[str, tuple[str, int]]
"""Container id and restarts of Pods by name."""


class Installed(system.SystemDaemon):
    """Remembers the Pods of one test, so that those of another survive."""

    def __init__(self) -> None:
        super().__init__()
        self.mine: list[str] = []

    def apply(self, objects: Any) -> list[Any]:
        created = super().apply(objects)
        self.mine += [one["metadata"]["name"] for one in created]
        return created


@pytest.fixture
def installed() -> Iterator[Installed]:
    """The installed daemon, started; the Pods that the test made are deleted afterwards."""
    if not system.under_systemd():
        pytest.skip("this machine lacks: podrt as a unit of systemd (the VM has it: make test-vm)")
    daemon = Installed()
    daemon.start()
    yield daemon
    daemon.start()
    for name in daemon.mine:
        with contextlib.suppress(ApiError):
            daemon.delete(name, grace=0, wait=False)
    eventually(lambda: not any(daemon.exists(name) for name in daemon.mine), 60, "the test's Pods are gone")


@pytest.fixture
def cgroup_v2() -> None:
    if not probes.has_cgroup_v2_controller("memory"):
        pytest.skip("this machine lacks: cgroup v2 with its memory controller")


def running(daemon: Installed, names: list[str]) -> Running:
    """Container id and restarts of each."""
    return {name: (status(daemon.pod(name))["containerID"], restarts(daemon.pod(name))) for name in names}


def undisturbed(daemon: Installed, before: Running) -> None:
    """The same containers as before run, and not one line of theirs is missing or doubled."""
    assert running(daemon, list(before)) == before
    lines_flow(daemon, list(before))
    for name in before:
        assert_whole(numbers(daemon, name))
