"""podrtd under systemd: readiness, watchdog, and restarts under running Pods."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.framework.chatter import chatter
from tests.framework.daemon import eventually
from tests.framework.images import REPOSITORY
from tests.framework.patience import scaled
from tests.framework.pods import container, pod, restarts, status, terminated
from tests.framework.system import UNIT, show, systemctl
from tests.vm.conftest import Installed, running, undisturbed


def test_the_unit_is_enabled_and_tells_systemd_when_it_is_ready(installed: Installed) -> None:
    assert show("UnitFileState") == "enabled"
    assert show("Type") == "notify"
    assert (show("ActiveState"), show("SubState")) == ("active", "running")
    assert show("StatusText") == "serving"
    assert int(show("MainPID")) == installed.info["pid"]
    assert show("WatchdogUSec") not in ("", "0", "infinity")


def test_restart_with_ten_chattering_pods_loses_no_line_and_restarts_no_container(installed: Installed) -> None:
    before = running(installed, chatter(installed, 10))
    pid = installed.info["pid"]
    installed.restart()
    assert installed.info["pid"] != pid
    undisturbed(installed, before)


def test_stop_then_start(installed: Installed) -> None:
    before = running(installed, chatter(installed, 2))
    installed.apply(pod("ends", container(script="sleep 4; exit 42"), restartPolicy="Never"))
    installed.wait_for("ends", "Running")
    supervisor = installed.info["supervisorPid"]
    assert installed.stop() == 0
    assert show("ActiveState") == "inactive"
    assert not installed.config.socket.exists() or not installed.ready()
    assert Path(f"/proc/{supervisor}").exists()
    installed.start()
    assert installed.info["supervisorPid"] == supervisor
    undisturbed(installed, before)
    assert terminated(installed.wait_for("ends", "Failed"))["exitCode"] == 42


def test_kill_9_is_answered_by_a_start(installed: Installed) -> None:
    before = running(installed, chatter(installed, 2))
    pid = int(show("MainPID"))
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: int(show("MainPID")) not in (0, pid) and installed.ready(), 60, "systemd starts it again")
    undisturbed(installed, before)


def test_the_watchdog_ends_a_daemon_that_hangs(installed: Installed) -> None:
    before = running(installed, chatter(installed, 1))
    directory = Path(f"/run/systemd/system/{UNIT}.d")
    directory.mkdir(parents=True, exist_ok=True)
    seconds = round(scaled(4))
    (directory / "watchdog.conf").write_text(f"[Service]\nWatchdogSec={seconds}\nTimeoutAbortSec=2\n")
    try:
        systemctl("daemon-reload")
        installed.restart()
        pid, count = int(show("MainPID")), int(show("NRestarts"))
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: int(show("NRestarts")) > count, 20, "systemd restarts it")
        eventually(installed.ready, 60, "the API answers")
        assert int(show("MainPID")) != pid
    finally:
        shutil.rmtree(directory)
        systemctl("daemon-reload")
        installed.restart()
    undisturbed(installed, before)


def test_upgrade_by_reinstall_leaves_pods_running(installed: Installed, tmp_path: Path) -> None:
    before = running(installed, chatter(installed, 2))
    checkout = tmp_path / "podrt"
    keep_out = shutil.ignore_patterns("__pycache__", ".*", "images", "docs")
    shutil.copytree(REPOSITORY, checkout, ignore=keep_out, symlinks=True)
    version = checkout / "podrt" / "__init__.py"
    old = str(installed.info["version"])
    version.write_text(version.read_text().replace(f'"{old}"', f'"{old}+upgraded"'))
    command = ("packaging/install",)
    done = subprocess.run(command, cwd=checkout, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    eventually(installed.ready, 60, "the API answers")
    assert installed.info["version"] == f"{old}+upgraded"
    undisturbed(installed, before)
    installed.apply(pod("new"))
    installed.wait_for("new", "Running")


def test_stopping_the_pods_ends_them_all_and_they_come_back(installed: Installed) -> None:
    """What a shutdown does, in time: the first process of this container ignores SIGTERM."""
    installed.apply(pod("stubborn", container(script="trap '' TERM; while :; do sleep 1; done")))
    installed.wait_for("stubborn", "Running")
    supervisor = installed.info["supervisorPid"]
    systemctl("stop", "podrt-pods.service")
    assert show("ActiveState") == "inactive"
    assert not Path(f"/proc/{supervisor}").exists()
    assert not (Path("/sys/fs/cgroup/podrt/cgroup.procs").read_text())
    assert "populated 0" in Path("/sys/fs/cgroup/podrt/cgroup.events").read_text()
    systemctl("start", "podrt-pods.service")
    installed.start()
    installed.wait_for("stubborn", lambda found: restarts(found) == 1 and "running" in status(found)["state"], 60)
