"""What ``vagrant up`` leaves in the machine, and that provisioning may be repeated under running Pods."""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.framework.chatter import chatter
from tests.framework.cri import CriClient
from tests.framework.patience import scaled
from tests.framework.system import show
from tests.vm.conftest import Installed, running, undisturbed

PROVISION = Path("/vagrant/vagrant/provision")
FILES = ("/etc/podrt/config.toml", "/etc/crictl.yaml", "/home/vagrant/.kube/config")


@pytest.fixture(autouse=True)
def by_vagrant(installed: Installed) -> None:
    if not PROVISION.exists():
        pytest.skip("this machine lacks: a checkout in /vagrant")


def as_vagrant(*command: str) -> str:
    """What a command prints in a new session of the user that ``vagrant ssh`` gives. Raises AssertionError."""
    done = subprocess.run(
        ("su", "-", "vagrant", "-c", shlex.join(command)), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_user_of_vagrant_ssh_has_podrt_kubectl_and_the_examples(installed: Installed) -> None:
    assert "podrt" in as_vagrant("id", "-nG").split()
    config = os.stat("/home/vagrant/.kube/config")
    assert (config.st_uid, config.st_mode & 0o777) == (pwd.getpwnam("vagrant").pw_uid, 0o600)
    installed.mine.append("two-containers")
    as_vagrant("podrt", "apply", "-f", "examples/two-containers.yaml")
    found = installed.wait_for("two-containers", "Running")
    assert "two-containers" in as_vagrant("podrt", "get", "pods")
    # Stock kubectl, with the kubeconfig at its usual place.
    kubectl = str(Path(sys.executable).with_name("kubectl"))
    address = as_vagrant(kubectl, "get", "pods", "two-containers", "-o", "jsonpath={.status.podIP}")
    assert address == found["status"]["podIP"]


def test_crictl_and_a_kubelet_find_the_runtime(installed: Installed) -> None:
    settings = yaml.safe_load(Path("/etc/crictl.yaml").read_text())
    assert settings["runtime-endpoint"] == settings["image-endpoint"] == f"unix://{installed.config.cri_socket}"
    with CriClient(installed.config.cri_socket) as cri:
        assert cri.call("Version").runtime_name == "podrt"
        conditions = {one.type: one.status for one in cri.call("Status").status.conditions}
        assert conditions["RuntimeReady"] and conditions["NetworkReady"]
        found = {tag for image in cri.call("ListImages").images for tag in image.repo_tags}
        assert "localhost/podrt/busybox:latest" in found


def test_provisioning_again_changes_nothing_and_disturbs_no_pod(installed: Installed) -> None:
    before = running(installed, chatter(installed, 2))
    files = {name: (Path(name).read_bytes(), os.stat(name).st_mtime_ns) for name in FILES}
    pid = installed.info["pid"]
    done = subprocess.run(
        (str(PROVISION),), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=scaled(100)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Loaded image" not in done.stdout  # they are there
    assert {name: (Path(name).read_bytes(), os.stat(name).st_mtime_ns) for name in FILES} == files
    # The daemon was restarted (an upgrade is the same as this), and nobody noticed.
    assert installed.info["pid"] != pid
    assert show("ActiveState") == "active"
    undisturbed(installed, before)
