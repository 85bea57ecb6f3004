"""`make demo` and `make demo-down` as a user runs them, but in mount and network namespaces of their own.

There /run is empty, and /etc is an overlay with a configuration that names directories and a cgroup of its own; so the
demonstration finds a machine without podrt, and a podrt that runs on this machine isn't touched.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.framework import probes
from tests.framework.daemon import new_tag, remove_cgroups
from tests.framework.images import REPOSITORY
from tests.framework.leaks import cgroups, processes

SCRIPT = """
set -eu
mount --make-rprivate /
awk '$5 ~ "^/run(/|$)" { print $5 }' /proc/self/mountinfo | tac | xargs -r umount -l
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib/misc
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$WORK/upper,workdir=$WORK/work" /etc
mkdir -p /etc/podrt
cat >/etc/podrt/config.toml <<END
cgroup_root = "/podrt-$TAG"
state_dir = "/var/lib/misc/podrt"
log_dir = "/var/lib/misc/logs"
socket_group = "root"
END
ip link set lo up
packaging/demo
packaging/demo
packaging/demo-down
echo "left: $(ip -o link | grep -vc ' lo:') links, $(nft list tables | wc -l) tables"
find /run /var/lib/misc -mindepth 1 ! -path '/run/mount*' | sed 's/^/left: file /'
awk '$5 ~ "^/(run|var/lib/misc)/" { print "left: mount", $5 }' /proc/self/mountinfo
"""


@pytest.mark.timeout(300)
@pytest.mark.skipif(not probes.can_bind_mount(), reason="this machine lacks: mounts")
def test_demo_shows_the_pod_at_work_and_demo_down_leaves_nothing(daemon_base: Path) -> None:
    tag = new_tag()
    work = daemon_base / tag
    for name in ("upper", "work"):
        (work / name).mkdir(parents=True)
    environment = {**os.environ, "WORK": str(work), "TAG": tag, "PODRT_DEMO_DIR": str(work / "demo")}
    command = ["unshare", "--mount", "--net", "bash", "-c", SCRIPT]
    try:
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=280,
        )
        output = done.stdout + done.stderr
        assert done.returncode == 0, output
        assert "client got: hello from two-containers" in output
        assert any("two-containers" in line and "2/2" in line and "Running" in line for line in output.splitlines())
        assert "a daemon runs already" in output, "the second demo must find the first one's daemon"
        assert [line for line in output.splitlines() if line.startswith("left: ")] == ["left: 0 links, 0 tables"], (
            output
        )
        assert not cgroups(f"/podrt-{tag}")
        assert not [process for process in processes() if str(work) in process.command]
    finally:
        remove_cgroups(f"/podrt-{tag}")
