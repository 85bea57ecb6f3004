"""Attacks on the machine through Pods, each named after the advisory that it follows; see design.md, "The child between
fork and exec". Those on a single launch are in test_supervisor_security.py."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.framework.client import ApiError
from tests.framework.daemon import Daemon, eventually
from tests.framework.pods import TOOLS, container, pod, status, terminated
from tests.unit.test_image_store import Layout, named
from tests.unit.test_image_unpack import entry, make_tar

CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")


def tool(name: str = "main", script: str = "", **fields: Any) -> dict[str, Any]:
    return container(name, script, image=TOOLS, **fields)


@pytest.fixture(scope="module")
def lived_in(module_daemon: Daemon) -> Daemon:
    """A daemon with a running Pod ``box`` of two containers, the second with a terminal."""
    shared = [{"name": "shared", "mountPath": "/shared"}]
    module_daemon.apply(
        pod(
            "box",
            tool("main", volumeMounts=shared),
            tool("typed", tty=True, volumeMounts=shared),
            volumes=[{"name": "shared", "emptyDir": {}}],
        )
    )
    module_daemon.wait_for("box", "Running")
    return module_daemon


@pytest.fixture
def daemon(lived_in: Daemon) -> Iterator[Daemon]:
    """The same, for a test with Pods of its own."""
    yield lived_in
    for found in lived_in.pods():
        if found["metadata"]["name"] != "box":
            lived_in.delete(found["metadata"]["name"], grace=0)


def run(daemon: Daemon, name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Run a Pod to its end."""
    daemon.apply(pod(name, *containers, restartPolicy="Never", **spec))
    return daemon.wait_for(name, lambda found: found["status"]["phase"] in ("Succeeded", "Failed"))


def as_nobody(*paths: Path) -> dict[str, str]:
    """What an unprivileged user of the host gets from looking at each path: "" or the error's name."""
    program = (
        "import errno, os, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for path in sys.argv[1:]:\n"
        "    try: os.stat(path); print(path, '')\n"
        "    except OSError as error: print(path, errno.errorcode[error.errno])\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, *map(str, paths)], capture_output=True, text=True, check=True, cwd="/"
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def test_cve_2019_5736_exec_of_the_runtime_itself(daemon: Daemon) -> None:
    """What the container finds behind /proc/self/exe of a process on its way in is a sealed copy."""
    before = hashlib.sha256(Path(sys.executable).read_bytes()).hexdigest()
    script = 'printf "#!/proc/self/exe\\n" > /bad; chmod +x /bad'
    daemon.exec("box", "sh", "-c", script, container="main")
    daemon.exec("box", "/bad", container="main", check=False)
    assert os.readlink(f"/proc/{daemon.supervisor_pid}/exe").startswith("/memfd:")
    assert hashlib.sha256(Path(sys.executable).read_bytes()).hexdigest() == before


def test_cve_2024_21626_working_directory(daemon: Daemon) -> None:
    """A working directory by descriptor: none of the numbers leads to a directory of the host."""
    containers = [
        tool(f"c{number}", "pwd -P; ls", workingDir=f"/proc/self/fd/{number}") for number in (0, 3, 5, 7, 8, 9, 10, 12)
    ]
    found = run(daemon, "cwd", *containers)
    refused = 0
    for one in containers:
        ended = terminated(found, one["name"])
        refused += ended.get("reason") == "StartError"
        if ended.get("reason") != "StartError":
            # The container's own directory of descriptors, which takes a number that is free.
            assert daemon.logs("cwd", one["name"]).startswith("/proc/")
    assert refused >= 4


def test_cve_2021_30465_volume_below_a_link_of_another(daemon: Daemon, tmp_path: Path) -> None:
    """CVE-2024-45310 too: what is made for a mount point is made in the container, and nothing is mounted elsewhere."""
    victim, data = tmp_path / "victim", tmp_path / "data"
    victim.mkdir()
    data.mkdir()
    (data / "link").symlink_to(victim)
    (data / "up").symlink_to("../" * 20 + str(victim))
    mounts = [
        {"name": "data", "mountPath": "/data"},
        {"name": "one", "mountPath": "/data/link/made"},
        {"name": "two", "mountPath": "/data/up/too"},
    ]
    found = run(
        daemon,
        "linked",
        tool(
            "main", f"touch /data/link/made/file {victim}/too/file; grep -c {victim} /proc/mounts", volumeMounts=mounts
        ),
        volumes=[
            {"name": "data", "hostPath": {"path": str(data)}},
            {"name": "one", "emptyDir": {}},
            {"name": "two", "emptyDir": {}},
        ],
    )
    assert terminated(found)["exitCode"] == 0, terminated(found)
    assert daemon.logs("linked") == "2\n"
    assert list(victim.iterdir()) == []
    assert str(victim) not in Path("/proc/self/mountinfo").read_text()


def test_cve_2025_31133_masked_and_read_only_paths(daemon: Daemon) -> None:
    """Also CVE-2022-0811's target and the rest of what leads from procfs to the host."""
    before = CORE_PATTERN.read_text()
    script = (
        "for f in /proc/kcore /proc/keys /proc/timer_list; do [ -e $f ] && stat -c %t:%T $f; done;"
        "for d in /proc/acpi /proc/scsi /sys/firmware; do [ -e $d ] && ls -A $d; done;"
        f"for f in {CORE_PATTERN} /proc/sysrq-trigger /proc/sys/kernel/modprobe /sys/kernel/uevent_helper"
        " /sys/fs/cgroup/*/release_agent /proc/irq/default_smp_affinity; do"
        " [ -e $f ] && (echo x > $f) 2>/dev/null && echo WROTE $f; done;"
        "umount /proc/kcore 2>/dev/null && echo UNMOUNTED; mount -o remount,rw /proc/sys 2>/dev/null && echo REMOUNTED;"
        "mount -t proc proc /mnt 2>/dev/null && echo MOUNTED; unshare -Ur true 2>/dev/null && echo UNSHARED; true"
    )
    for name in ("main", "typed"):
        out = daemon.exec("box", "sh", "-c", script, container=name)
        assert out.split() and set(out.split()) == {"1:3"}, out
    assert CORE_PATTERN.read_text() == before


def test_cve_2025_52565_console(daemon: Daemon) -> None:
    """/dev/console is the container's own terminal, and no more than that."""
    look = "stat -c %t /dev/console; grep ' /dev/console devpts ' /proc/mounts | wc -l; readlink /dev/console"
    assert daemon.exec("box", "sh", "-c", f"{look}; true", container="typed").split() == ["88", "1"]
    assert daemon.exec("box", "sh", "-c", "test -e /dev/console || echo none", container="main") == "none\n"


@pytest.mark.parametrize("path", ["/proc/self/attr", "/proc/sys/kernel", "/proc/1"])
def test_cve_2025_52881_volume_over_procfs(daemon: Daemon, path: str) -> None:
    mounts = [{"name": "data", "mountPath": path}]
    found = run(daemon, "covers", tool(volumeMounts=mounts), volumes=[{"name": "data", "emptyDir": {}}])
    assert terminated(found)["reason"] == "StartError" and "/proc" in terminated(found)["message"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel.core_pattern", "|/evil"),
        ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/evil #"),
        ("kernel.shm_rmid_forced", "1\nkernel.core_pattern=|/evil"),
        ("net.ipv4.ip_forward", "1;kernel.core_pattern=|/evil"),
        ("net/../kernel/core_pattern", "|/evil"),
        ("net.ipv4/../../kernel/core_pattern", "|/evil"),
        ("kernel.shm/../core_pattern", "|/evil"),
        ("kernel.shm_rmid_forced/../core_pattern", "|/evil"),
    ],
)
def test_cve_2022_0811_sysctl_injection(daemon: Daemon, name: str, value: str) -> None:
    """No name and no value of a sysctl reaches a setting of the machine."""
    before = CORE_PATTERN.read_text()
    body = pod("sysctl", tool(), securityContext={"sysctls": [{"name": name, "value": value}]})
    try:
        daemon.apply(body)
    except ApiError as error:
        assert error.code in (400, 422)
    else:

        def refused() -> bool:
            events = daemon.api("GET", "/api/v1/namespaces/default/events")["items"]
            return any(one["involvedObject"]["name"] == "sysctl" and one["type"] == "Warning" for one in events)

        eventually(refused)
        assert daemon.pod("sysctl")["status"]["phase"] in ("Pending", "Failed")
    assert CORE_PATTERN.read_text() == before


def test_cve_2022_23648_volumes_of_the_image(daemon: Daemon, tmp_path: Path) -> None:
    """Paths that an image gives (volumes, working directory) are never looked up on the host, nor copied from there."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("the host's secret")
    up = "/.." * 20 + str(secret)
    layout = Layout()
    config = {
        "config": {
            "Volumes": {up: {}, str(secret): {}, "../../etc": {}, "/proc/self/fd/3": {}},
            "WorkingDir": up,
            "Cmd": ["/bin/sh", "-c", "pwd; ls -A; cat key"],
        }
    }
    layer = make_tar(entry("bin/sh", _busybox(daemon), mode=0o755))
    layout.add(layout.image(layer, config=config), **named("localhost/evil:1"))
    archive = tmp_path / "evil.tar"
    archive.write_bytes(layout.tar())
    daemon.cli("image", "load", "-i", str(archive))
    found = run(daemon, "volumes", {"name": "main", "image": "localhost/evil:1"})
    assert "secret" not in daemon.logs("volumes").replace(str(secret), ""), daemon.logs("volumes")
    assert status(found)["state"]["terminated"]["exitCode"] != 0
    assert (secret / "key").read_text() == "the host's secret" and len(list(secret.iterdir())) == 1


def test_cve_2020_15257_abstract_sockets(daemon: Daemon) -> None:
    """Who shares the host's network sees its abstract sockets; none is podrt's, and the others are out of reach."""
    found = run(daemon, "net", tool(script="cat /proc/net/unix; id -u"), hostNetwork=True)
    text = daemon.logs("net")
    assert terminated(found)["exitCode"] == 0 and "/supervisor.sock" in text and "/podrt.sock" in text
    assert not [line for line in text.splitlines() if " @" in line and ("podrt" in line or daemon.tag in line)]
    assert daemon.config.supervisor_socket.stat().st_mode & 0o777 == 0o600
    assert daemon.config.socket.stat().st_mode & 0o007 == 0
    assert (daemon.config.state_dir / "store.db").stat().st_mode & 0o077 == 0


def test_cve_2021_41091_files_of_containers_are_out_of_reach_of_other_users(daemon: Daemon) -> None:
    """A container's setuid file must not be a way to root for a user of the host who knows the container's id."""
    script = "for d in / /shared /dev/shm; do echo x > $d/setuid; chmod 4755 $d/setuid; done"
    daemon.exec("box", "sh", "-c", script, container="main")
    found = daemon.pod("box")
    identity = status(found)["containerID"].partition("://")[2]
    config = daemon.config
    paths = [
        config.state_dir / "containers" / identity / "upper" / "setuid",
        config.state_dir
        / "pods"
        / found["metadata"]["uid"]
        / "volumes"
        / "kubernetes.io~empty-dir"
        / "shared"
        / "setuid",
        *(config.run_dir / "sandboxes").glob("*/shm/setuid"),
        *list((config.state_dir / "images" / "layers").glob("*/bin"))[:1],
        *(config.run_dir / "containers").glob("*/state.json"),
        *(config.run_dir / "sandboxes").glob("*/state.json"),
    ]
    assert len(paths) >= 7 and all(path.exists() for path in paths)
    # The directory itself may be passed through, for the API's socket: it is not just the test's that is closed.
    config.run_dir.parent.chmod(0o711)
    assert as_nobody(config.run_dir) == {str(config.run_dir): ""}
    assert set(as_nobody(*paths).values()) == {"EACCES"}, as_nobody(*paths)


def test_a_tree_without_end_is_removed_with_its_pod(daemon: Daemon) -> None:
    """Directories nested deeper than any stack or path: the Pod can be deleted all the same, and nothing stays."""
    nest = (
        "import os\nfor top in ('/', '/shared'):\n    os.chdir(top)\n    for _ in range(1300):\n"
        "        os.mkdir('d'); os.chdir('d')\n"
    )
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    image = "localhost/podrt/python:latest"
    body = {"name": "main", "image": image, "command": ["python3", "-c", nest], "volumeMounts": mounts}
    found = run(daemon, "deep", body, volumes=[{"name": "shared", "emptyDir": {}}])
    assert terminated(found)["exitCode"] == 0, daemon.logs("deep")
    identity = status(found)["containerID"].partition("://")[2]
    uid = found["metadata"]["uid"]
    daemon.delete("deep", grace=0)
    assert not (daemon.config.state_dir / "containers" / identity).exists()
    assert not (daemon.config.state_dir / "pods" / uid).exists()


def test_the_image_can_not_make_a_number_root(daemon: Daemon, tmp_path: Path) -> None:
    """runAsUser and runAsGroup are ids, whatever the image's accounts are called."""
    layout = Layout()
    layer = make_tar(
        entry("bin/sh", _busybox(daemon), mode=0o755),
        entry("etc/passwd", b"1000:x:0:0::/:/bin/sh\n"),
        entry("etc/group", b"2000:x:0:\n"),
    )
    layout.add(layout.image(layer), **named("localhost/numbers:1"))
    (tmp_path / "image.tar").write_bytes(layout.tar())
    daemon.cli("image", "load", "-i", str(tmp_path / "image.tar"))
    body = {
        "name": "main",
        "image": "localhost/numbers:1",
        "command": [
            "/bin/sh",
            "-c",
            "while read a b; do case $a in Uid:|Gid:) echo $a $b;; esac; done </proc/self/status",
        ],
        "securityContext": {"runAsUser": 1000, "runAsGroup": 2000},
    }
    found = run(daemon, "numbers", body)
    assert terminated(found)["exitCode"] == 0
    assert [line.split()[:2] for line in daemon.logs("numbers").splitlines()] == [["Uid:", "1000"], ["Gid:", "2000"]]


def _busybox(daemon: Daemon) -> bytes:
    """A shell without libraries, from the test images' layers."""
    for layer in (daemon.config.state_dir / "images" / "layers").iterdir():
        if (layer / "bin/busybox").is_file():
            return (layer / "bin/busybox").read_bytes()
    raise AssertionError("no test image has /bin/busybox")


def test_what_containers_write_takes_no_room_of_the_runtime(daemon: Daemon) -> None:
    """Every file that is mounted into a container for writing lies on the disk: the run directory is memory."""
    run_device = os.stat(daemon.config.run_dir).st_dev
    script = (
        "for f in /etc/hosts /etc/hostname /etc/resolv.conf /dev/termination-log; do"
        " head -c 200000 /dev/zero >> $f; stat -c '%n %d %s' $f; done"
    )
    lines = daemon.exec("box", "sh", "-c", script, container="typed").splitlines()
    assert len(lines) == 4
    for line in lines:
        name, device, size = line.split()
        assert int(size) >= 200000 and int(device) != run_device, name


def test_a_secret_that_nests_too_deeply(daemon: Daemon) -> None:
    """The document of an imagePullSecret comes from outside, and is read by a decoder that recurses."""
    pid = daemon.pid
    document = b'{"auths":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "deep"},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": base64.b64encode(document).decode()},
    }
    daemon.api("POST", "/api/v1/namespaces/default/secrets", secret)
    body = container("main", image="127.0.0.1:1/none:1")
    daemon.apply(pod("pulls", body, imagePullSecrets=[{"name": "deep"}]))
    daemon.wait_for("pulls", lambda found: "Pull" in str(status(found)["state"].get("waiting", {}).get("reason")))
    assert daemon.pid == pid and daemon.ready()
