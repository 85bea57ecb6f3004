"""Either process may be killed at any time and nothing is lost: containers, exit codes, log lines."""

from __future__ import annotations

import itertools
import re
import time

import pytest

from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import COUNTER, container, pod, restarts, status, terminated

LINE = re.compile(r"line (\d+)")


def numbers(daemon: Daemon, name: str, container_name: str = "main") -> list[int]:
    return [int(found) for found in LINE.findall(daemon.logs(name, container_name))]


def assert_whole(found: list[int], doubles: int = 0) -> None:
    """0, 1, 2 ... with none missing; at most ``doubles`` stretches written twice."""
    assert found, "no lines at all"
    steps = [after - before for before, after in itertools.pairwise(found)]
    jumps = [step for step in steps if step != 1]
    assert found[0] == 0
    assert all(jump <= 0 for jump in jumps), f"lines are missing: {[j for j in jumps if j > 1]}"
    assert len(jumps) <= doubles, f"lines were written twice {len(jumps)} times"
    assert sorted(set(found)) == list(range(max(found) + 1))


def container_ids(daemon: Daemon) -> dict[str, str]:
    return {found["metadata"]["name"]: status(found)["containerID"] for found in daemon.pods()}


def chatter(daemon: Daemon, count: int) -> list[str]:
    names = [f"chatter-{index}" for index in range(count)]
    for name in names:
        daemon.apply(pod(name, container(script=COUNTER)))
    for name in names:
        daemon.wait_for(name, "Running", 60)
    for name in names:
        eventually(lambda name=name: len(numbers(daemon, name)) > 5)  # type: ignore[misc]
    return names


def lines_flow(daemon: Daemon, names: list[str]) -> None:
    """Every counter goes on counting."""
    before = {name: len(numbers(daemon, name)) for name in names}
    eventually(lambda: all(len(numbers(daemon, name)) > before[name] for name in names), 30)


def test_kill_the_daemon_under_twenty_chattering_pods(daemon: Daemon) -> None:
    names = chatter(daemon, 20)
    daemon.apply(pod("ends", container(script="sleep 3; exit 42"), restartPolicy="Never"))
    daemon.wait_for("ends", "Running")
    before = container_ids(daemon)
    daemon.kill()
    time.sleep(3.5)
    daemon.start()
    assert container_ids(daemon) == before
    assert terminated(daemon.wait_for("ends", "Failed"))["exitCode"] == 42
    lines_flow(daemon, names)
    for name in names:
        assert restarts(daemon.pod(name)) == 0
        assert_whole(numbers(daemon, name))


def test_kill_the_supervisor_under_twenty_chattering_pods(daemon: Daemon) -> None:
    names = chatter(daemon, 20)
    daemon.apply(pod("ends", container(script="sleep 3; exit 42"), restartPolicy="Never"))
    daemon.wait_for("ends", "Running")
    before = container_ids(daemon)
    daemon.kill_supervisor()
    assert terminated(daemon.wait_for("ends", "Failed"))["exitCode"] == 42
    assert container_ids(daemon) == before
    lines_flow(daemon, names)
    for name in names:
        assert restarts(daemon.pod(name)) == 0
        assert_whole(numbers(daemon, name), doubles=1)
    # The new supervisor starts containers and hears of their ends.
    daemon.apply(pod("after", container(script="exit 5"), restartPolicy="Never"))
    assert terminated(daemon.wait_for("after", "Failed"))["exitCode"] == 5


def test_kill_both(daemon: Daemon) -> None:
    names = chatter(daemon, 5)
    before = container_ids(daemon)
    daemon.kill_supervisor()
    daemon.kill()
    time.sleep(0.5)
    daemon.start()
    assert container_ids(daemon) == before
    lines_flow(daemon, names)
    for name in names:
        assert restarts(daemon.pod(name)) == 0
        assert_whole(numbers(daemon, name), doubles=1)
    assert daemon.exec(names[0], "echo", "here") == "here\n"


def test_a_container_that_ends_while_both_are_dead_is_not_taken_for_running(daemon: Daemon) -> None:
    daemon.apply(pod("short", container(script="sleep 2; exit 3"), restartPolicy="Never"))
    daemon.wait_for("short", "Running")
    daemon.kill()
    daemon.kill_supervisor()
    time.sleep(3)
    daemon.start()
    found = daemon.wait_for("short", "Failed")
    # Nobody was there to hear its exit code.
    assert terminated(found)["reason"] in ("ContainerStatusUnknown", "Error")


def test_the_daemon_killed_again_and_again_loses_no_line(daemon: Daemon) -> None:
    names = chatter(daemon, 3)
    for _ in range(4):
        daemon.kill()
        daemon.start()
        daemon.kill_supervisor()
        lines_flow(daemon, names)
    for name in names:
        assert restarts(daemon.pod(name)) == 0
        assert_whole(numbers(daemon, name), doubles=4)


def test_a_clean_restart_leaves_everything_running(daemon: Daemon) -> None:
    names = chatter(daemon, 3)
    before = container_ids(daemon)
    daemon.restart()
    assert container_ids(daemon) == before
    lines_flow(daemon, names)
    for name in names:
        assert_whole(numbers(daemon, name))


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
def test_after_a_reboot_pods_come_back_by_their_restart_policy(daemon: Daemon, policy: str) -> None:
    daemon.apply(pod("runs", restartPolicy=policy))
    daemon.apply(pod("done", container(script="exit 0"), restartPolicy="Never"))
    daemon.wait_for("runs", "Running")
    daemon.wait_for("done", "Succeeded")
    uid = daemon.pod("runs")["metadata"]["uid"]
    daemon.reboot()
    if policy == "Never":
        found = daemon.wait_for("runs", "Failed")
        assert terminated(found)["reason"] == "ContainerStatusUnknown"
    else:
        found = daemon.wait_for("runs", lambda found: restarts(found) == 1 and "running" in status(found)["state"])
        assert daemon.exec("runs", "echo", "back") == "back\n"
    assert found["metadata"]["uid"] == uid
    assert daemon.pod("done")["status"]["phase"] == "Succeeded"
