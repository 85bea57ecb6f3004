"""Confinement by AppArmor: podrt's own profile, a profile of the machine's, and none."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from podrt.linux import apparmor
from tests.framework.daemon import eventually
from tests.framework.pods import container, pod, status
from tests.vm.conftest import Installed

LOCAL = "podrt-test-no-hosts"


@pytest.fixture(autouse=True)
def enforced() -> None:
    if not apparmor.enabled():
        pytest.skip("this machine lacks: a kernel that enforces AppArmor")


@pytest.fixture
def local_profile() -> Iterator[str]:
    """A profile that denies reading one file."""
    text = f"profile {LOCAL} flags=(attach_disconnected) {{ file, capability, signal, deny /etc/group r, }}\n"
    subprocess.run(("apparmor_parser", "--replace", "--skip-cache"), input=text.encode(), check=True)
    yield LOCAL
    subprocess.run(("apparmor_parser", "--remove", "--skip-cache"), input=text.encode(), check=True)


def confined_by(daemon: Installed, name: str) -> str:
    return daemon.exec(name, "cat", "/proc/1/attr/current").strip()


@pytest.mark.fields("spec.containers[].securityContext.appArmorProfile")
def test_a_container_is_confined_by_the_default_profile(installed: Installed) -> None:
    assert apparmor.DEFAULT in apparmor.loaded()
    caps = {"capabilities": {"add": ["SYS_ADMIN"]}}
    installed.apply(pod("default", container(securityContext=caps)))
    installed.wait_for("default", "Running")
    assert confined_by(installed, "default") == f"{apparmor.DEFAULT} (enforce)"
    assert installed.exec("default", "cat", "/proc/self/attr/current").strip() == f"{apparmor.DEFAULT} (enforce)"
    # Capabilities and the seccomp filter would let it: the profile does not.
    script = "mount -t tmpfs none /tmp 2>&1 || echo refused"
    assert "refused" in installed.exec("default", "sh", "-c", script)
    # Its own files, signals among its processes, and the host's signals are as ever.
    script = "echo x >/tmp/x; sleep 100 & kill -TERM $!; wait $!; cat /tmp/x"
    assert installed.exec("default", "sh", "-c", script) == "x\n"
    installed.delete("default")


def test_unconfined_and_privileged(installed: Installed) -> None:
    free = {"appArmorProfile": {"type": "Unconfined"}, "capabilities": {"add": ["SYS_ADMIN"]}}
    privileged = {"privileged": True}
    installed.apply(pod("free", container("free", securityContext=free), container("all", securityContext=privileged)))
    installed.wait_for("free", "Running")
    for name in ("free", "all"):
        assert installed.exec("free", "cat", "/proc/1/attr/current", container=name).strip() == "unconfined"
        installed.exec("free", "mount", "-t", "tmpfs", "none", "/tmp", container=name)


@pytest.mark.fields("spec.containers[].securityContext.appArmorProfile", "spec.securityContext.appArmorProfile")
def test_a_profile_of_the_machine(installed: Installed, local_profile: str) -> None:
    profile = {"type": "Localhost", "localhostProfile": local_profile}
    installed.apply(pod("local", securityContext={"appArmorProfile": profile}))
    installed.wait_for("local", "Running")
    assert confined_by(installed, "local") == f"{local_profile} (enforce)"
    assert "refused" in installed.exec("local", "sh", "-c", "cat /etc/group >/dev/null 2>&1 || echo refused")
    assert "root" in installed.exec("local", "cat", "/etc/passwd")


def test_a_profile_that_is_not_loaded_keeps_the_container_from_starting(installed: Installed) -> None:
    profile = {"type": "Localhost", "localhostProfile": "podrt-test-nowhere"}
    installed.apply(pod("missing", container(securityContext={"appArmorProfile": profile})))

    def refused() -> str:
        state = status(installed.pod("missing")).get("state", {})
        return str(state.get("waiting", {}).get("message", "")) + str(state.get("terminated", {}).get("message", ""))

    eventually(lambda: "apparmor" in refused().lower(), 30, "the reason names AppArmor")
