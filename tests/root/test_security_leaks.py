"""Nothing of a Pod that is gone stays in the daemon or the supervisor: no descriptor, thread, child or memory."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.framework.client import ApiError
from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import container, pod

WAVES = int(os.environ.get("PODRT_LEAK_WAVES", "4"))
PODS = 10


class Usage(NamedTuple):
    """What a process holds. Descriptors by what they are, numbers left out."""

    descriptors: Counter[str]
    threads: int
    rss_kib: int
    children: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        found: Counter[str] = Counter()
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found[re.sub(r"[0-9a-f]{12,}|\d+", "N", os.readlink(entry))] += 1
            except FileNotFoundError:
                continue
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        children = sum(
            len(task.joinpath("children").read_text().split()) for task in Path(f"/proc/{pid}/task").iterdir()
        )
        return cls(found, int(status["Threads"]), int(status["VmRSS"].split()[0]), children)


def wave(daemon: Daemon, number: int) -> None:
    """Ten Pods of each way to end: running, ended, failed, exec'd into, one that can't start, deleted in the middle."""
    names = [f"w{number}-{index}" for index in range(PODS)]
    for index, name in enumerate(names):
        scripts = {0: "exit 0", 1: "exit 3", 2: "echo hello; kill -9 $$"}
        body = container("main", scripts.get(index, ""))
        if index == 3:
            body["command"] = ["/no/such/file"]
        if index == 4:
            body |= {"tty": True, "stdin": True}
        if index == 5:
            body["workingDir"] = "/proc/self/fd/7"
        host = {"hostPort": 20000 + number % 100, "containerPort": 80}
        more = {"shareProcessNamespace": True} if index == 6 else {}
        if index == 7:
            body["ports"] = [host]
        daemon.apply(pod(name, body, restartPolicy="Never", **more))
        if index == 8:
            daemon.delete(name, grace=0, wait=False)
    daemon.wait_for(names[9], "Running")
    daemon.wait_for(names[4], "Running")
    daemon.exec(names[9], "true")
    daemon.exec(names[9], "false", check=False)
    daemon.exec(names[4], "sleep", "0")
    for name in names:
        try:
            daemon.delete(name, grace=0, wait=False)
        except ApiError as error:
            assert error.code == 404
    eventually(lambda: not daemon.pods(), 60)


def test_many_pods_leave_nothing_in_the_processes(daemon: Daemon) -> None:
    # The first waves fill caches and pools.
    for number in range(2):
        wave(daemon, number)

    def settled() -> tuple[Usage, Usage]:
        eventually(lambda: Usage.of(daemon.supervisor_pid).children == 0)
        return Usage.of(daemon.pid), Usage.of(daemon.supervisor_pid)

    before = settled()
    for number in range(2, 2 + WAVES):
        wave(daemon, number)

    def same() -> bool:
        return all(now.descriptors == then.descriptors for now, then in zip(settled(), before, strict=True))

    try:
        eventually(same, 10)
    except AssertionError:
        grown = [now.descriptors - then.descriptors for now, then in zip(settled(), before, strict=True)]
        assert grown == [Counter(), Counter()], "descriptors that were left"
    after = settled()
    print(
        f"{WAVES * PODS} Pods: daemon {before[0][1:]} -> {after[0][1:]}, supervisor {before[1][1:]} -> {after[1][1:]}"
    )
    for then, now in zip(before, after, strict=True):
        assert now.rss_kib - then.rss_kib < 4096 + 40 * WAVES * PODS, "memory that was left"
