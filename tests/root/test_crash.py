"""Either process may be killed at any time and nothing is lost: containers, exit codes, log lines."""

from __future__ import annotations

import time

import pytest

from tests.framework.chatter import assert_whole, chatter, container_ids, lines_flow, numbers
from tests.framework.daemon import Daemon
from tests.framework.pods import container, pod, restarts, status, terminated


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
