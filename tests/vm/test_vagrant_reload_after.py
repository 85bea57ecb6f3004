"""After a real reboot (``vagrant reload``): every Pod that should run runs, with its data; what had ended stays so."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tests.framework.daemon import eventually
from tests.framework.patience import scaled
from tests.framework.pods import restarts, terminated
from tests.framework.system import show
from tests.vm import reboot
from tests.vm.conftest import Installed


@pytest.fixture
def known() -> dict[str, Any]:
    """What was so before. Without it nothing was rebooted, and the tests here must not pass for that."""
    if not reboot.KNOWN.exists():
        pytest.skip("this machine was not rebooted by vagrant/test")
    found = reboot.remembered()
    assert found["boot_id"] != reboot.boot_id(), "the machine was not started anew"
    return found


def test_the_daemon_was_started_at_boot_and_pods_came_back_within_a_minute(
    installed: Installed, known: dict[str, Any]
) -> None:
    assert show("UnitFileState") == "enabled"
    eventually(installed.ready, 60, "the API answers")
    started = []
    for name in reboot.COMES_BACK:
        found = installed.wait_for(name, "Running", 60)
        assert found["metadata"]["uid"] == known["uids"][name]
        for one in found["status"]["containerStatuses"]:
            assert one["restartCount"] == 1, found["status"]
            started.append(datetime.fromisoformat(one["state"]["running"]["startedAt"]).timestamp())
    # systemd heard that the API is up in this second; tests begin later than that, when ssh answers.
    up = int(show("ActiveEnterTimestamp").removeprefix("@"))
    print(f"the last Pod started {max(started) - up:.0f} s after the API was up")
    assert max(started) - up < scaled(60)


def test_volumes_are_there(installed: Installed, known: dict[str, Any]) -> None:
    for name in reboot.WITH_DATA:
        installed.wait_for(name, "Running", 60)
        starts = installed.exec(name, "cat", "/data/starts").splitlines()
        assert starts == [*known["starts"][name], "start"], name


def test_what_had_ended_stays_ended(installed: Installed, known: dict[str, Any]) -> None:
    for name, phase in reboot.STAYS_ENDED.items():
        found = installed.pod(name)
        assert (found["status"]["phase"], found["metadata"]["uid"]) == (phase, known["uids"][name])
        assert restarts(found) == 0
    assert terminated(installed.pod("reboot-failed"))["exitCode"] == 3


def test_a_pod_that_is_never_restarted_has_failed(installed: Installed, known: dict[str, Any]) -> None:
    found = installed.wait_for("reboot-never", "Failed", 60)
    assert found["metadata"]["uid"] == known["uids"]["reboot-never"]
    assert restarts(found) == 0
