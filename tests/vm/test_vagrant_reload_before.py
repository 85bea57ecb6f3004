"""Makes the Pods that ``test_vagrant_reload_after.py`` looks for once the machine was started anew."""

from __future__ import annotations

import contextlib

from tests.framework.client import ApiError
from tests.framework.system import SystemDaemon
from tests.vm import reboot
from tests.vm.conftest import Installed


def test_pods_of_every_restart_policy_run_or_have_ended(installed: Installed) -> None:
    keep = SystemDaemon()  # these Pods outlive the test
    with contextlib.suppress(ApiError):  # there from the last time
        keep.apply(reboot.CLAIM)
    wanted = reboot.pods()
    for one in wanted:
        with contextlib.suppress(ApiError):
            keep.delete(one["metadata"]["name"], grace=0)
        keep.apply(one)
    uids = {}
    for name in (*reboot.COMES_BACK, "reboot-never"):
        uids[name] = keep.wait_for(name, "Running", 60)["metadata"]["uid"]
    for name, phase in reboot.STAYS_ENDED.items():
        uids[name] = keep.wait_for(name, phase, 60)["metadata"]["uid"]
    starts = {name: keep.exec(name, "cat", "/data/starts").splitlines() for name in reboot.WITH_DATA}
    assert starts["reboot-always"] == ["start"]
    assert all(starts.values())
    reboot.remember({"boot_id": reboot.boot_id(), "uids": uids, "starts": starts})
