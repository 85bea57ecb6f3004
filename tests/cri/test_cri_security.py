"""Namespaces, users, capabilities and filters, as the security contexts of the CRI ask for them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cri_api.v1 import api_pb2 as api

from podrt.engine import idranges
from podrt.linux import selinux
from tests.framework.cri import CriClient, container, refused, sandbox
from tests.framework.daemon import Daemon
from tests.framework.pods import TOOLS

POD, CONTAINER, NODE, TARGET = api.POD, api.CONTAINER, api.NODE, api.TARGET


def box_of(cri: CriClient, handler: str = "", **context: Any) -> tuple[str, Any]:
    config = sandbox(
        linux=api.LinuxPodSandboxConfig(security_context=api.LinuxSandboxSecurityContext(**context)), hostname="inside"
    )
    return cri.run_sandbox(config, handler=handler), config


def secured(name: str = "main", **context: Any) -> Any:
    return container(
        name, linux=api.LinuxContainerConfig(security_context=api.LinuxContainerSecurityContext(**context))
    )


def options(**fields: Any) -> dict[str, Any]:
    return {"namespace_options": api.NamespaceOption(**fields)}


def sh(cri: CriClient, unit: str, script: str) -> str:
    code, out, err = cri.exec(unit, "sh", "-c", script)
    assert code == 0, (out, err)
    return out.strip()


def run(cri: CriClient, **context: Any) -> str:
    box, config = box_of(cri)
    return cri.run(box, config, secured(**context))


# -- namespaces


def test_a_shared_pid_namespace(cri: CriClient) -> None:
    box, config = box_of(cri, **options(pid=POD))
    one, two = (cri.run(box, config, secured(name, **options(pid=POD))) for name in ("one", "two"))
    assert sh(cri, one, "readlink /proc/self/ns/pid") == sh(cri, two, "readlink /proc/self/ns/pid")
    assert sh(cri, one, "cat /proc/1/comm") == "pause"
    own = cri.run(box, config, secured("own", **options(pid=CONTAINER)))
    assert sh(cri, own, "cat /proc/1/comm") == "sleep"
    host = cri.run(box, config, secured("host", **options(pid=NODE)))
    assert sh(cri, host, "readlink /proc/self/ns/pid") == os.readlink("/proc/self/ns/pid")
    assert cri.sandbox_status(box).linux.namespaces.options.pid == POD


def test_a_pid_namespace_each(cri: CriClient) -> None:
    box, config = box_of(cri, **options(pid=CONTAINER))
    one = cri.run(box, config, secured("one", **options(pid=CONTAINER)))
    target = cri.run(box, config, secured("two", **options(pid=TARGET, target_id=one)))
    assert sh(cri, one, "cat /proc/1/comm") == "sleep"
    assert sh(cri, target, "readlink /proc/1/ns/pid") == sh(cri, one, "readlink /proc/1/ns/pid")
    other, other_config = box_of(cri, **options(pid=CONTAINER))
    for wrong in ({"target_id": target[:-1] + "x"}, {"target_id": "0" * 64}):
        with refused("NOT_FOUND"):
            cri.create(box, config, secured("three", **options(pid=TARGET, **wrong)))
    with refused("INVALID_ARGUMENT", "does not run in this sandbox"):
        cri.create(other, other_config, secured("three", **options(pid=TARGET, target_id=one)))
    with refused("INVALID_ARGUMENT", "no PID namespace to share"):
        cri.create(box, config, secured("four", **options(pid=POD)))


def test_the_host_s_namespaces(cri: CriClient) -> None:
    box, config = box_of(cri, **options(pid=NODE, ipc=NODE, network=NODE))
    unit = cri.run(box, config, secured(**options(pid=NODE, ipc=NODE, network=NODE)))
    for kind in ("pid", "ipc", "net", "uts"):
        assert sh(cri, unit, f"readlink /proc/self/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")
    assert sh(cri, unit, "hostname") == os.uname().nodename
    assert cri.sandbox_status(box).network.ip == ""


def test_namespaces_of_its_own(cri: CriClient) -> None:
    box, config = box_of(cri)
    one, two = cri.run(box, config, secured("one")), cri.run(box, config, secured("two"))
    for kind in ("ipc", "net", "uts"):
        assert sh(cri, one, f"readlink /proc/self/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
        assert sh(cri, one, f"readlink /proc/self/ns/{kind}") == sh(cri, two, f"readlink /proc/self/ns/{kind}")
    assert sh(cri, one, "hostname; cat /etc/hostname; grep -o inside /etc/hosts | sort -u").split() == ["inside"] * 3


def test_sysctls(cri: CriClient) -> None:
    names = {"net.core.somaxconn": "77", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "20"}
    config = sandbox(linux=api.LinuxPodSandboxConfig(sysctls=names))
    unit = cri.run(cri.run_sandbox(config), config)
    script = "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shm_rmid_forced /proc/sys/fs/mqueue/msg_max"
    assert sh(cri, unit, script).split() == ["77", "1", "20"]
    for name in ("kernel.core_pattern", "vm.swappiness", "kernel.shm+x", "../x"):
        with refused("INVALID_ARGUMENT", "sysctl"):
            cri.run_sandbox(linux=api.LinuxPodSandboxConfig(sysctls={name: "1"}))


def test_names(cri: CriClient) -> None:
    dns = api.DNSConfig(servers=["192.0.2.1"], searches=["a.example", "b.example"], options=["ndots:3"])
    config = sandbox(dns_config=dns)
    unit = cri.run(cri.run_sandbox(config), config)
    lines = sh(cri, unit, "sort -r /etc/resolv.conf").splitlines()
    assert lines == ["search a.example b.example", "options ndots:3", "nameserver 192.0.2.1"]


# -- user namespaces


def mapped(host_id: int, mode: int = POD, length: int = 65_536) -> dict[str, Any]:
    rows = [api.IDMapping(host_id=host_id, container_id=0, length=length)] if mode == POD else []
    return options(userns_options=api.UserNamespace(mode=mode, uids=rows, gids=rows))


def test_a_user_namespace_that_the_kubelet_chose(cri: CriClient, tmp_path: Path) -> None:
    host_id = 7 * 65_536
    box, config = box_of(cri, **mapped(host_id))
    tmp_path.chmod(0o755)
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", 5, 6)
    rows = [api.IDMapping(host_id=host_id, container_id=0, length=65_536)]
    spec = secured(**mapped(host_id))
    spec.mounts.add(host_path=str(tmp_path), container_path="/mapped", uidMappings=rows, gidMappings=rows)
    spec.mounts.add(host_path=str(tmp_path), container_path="/plain")
    unit = cri.run(box, config, spec)
    assert sh(cri, unit, "cat /proc/self/uid_map").split() == ["0", str(host_id), "65536"]
    assert sh(cri, unit, "stat -c %u:%g /mapped/file") == "5:6"
    assert sh(cri, unit, "stat -c %u:%g /plain/file") == "65534:65534"
    assert sh(cri, unit, "stat -c %u /bin /etc/hosts").split() == ["0", "0"]
    told = cri.sandbox_status(box).linux.namespaces.options.userns_options
    assert told.mode == POD and list(told.uids) == list(told.gids) == rows


def test_what_is_no_user_namespace(cri: CriClient) -> None:
    for mode in (CONTAINER, TARGET):
        with refused("UNIMPLEMENTED", "userns_options: mode"):
            box_of(cri, **options(userns_options=api.UserNamespace(mode=mode)))
    rows = [api.IDMapping(host_id=1 << 20, container_id=0, length=10)] * 2
    with refused("INVALID_ARGUMENT", "exactly one mapping"):
        box_of(cri, **options(userns_options=api.UserNamespace(mode=POD, uids=rows, gids=rows)))
    rows = [api.IDMapping(host_id=1 << 20, container_id=1, length=10)]
    with refused("INVALID_ARGUMENT", "id 0 of the container must be mapped"):
        box_of(cri, **options(userns_options=api.UserNamespace(mode=POD, uids=rows, gids=rows)))
    box, config = box_of(cri, **mapped(0, NODE))
    unit = cri.run(box, config, secured(**mapped(0, NODE)))
    assert sh(cri, unit, "readlink /proc/self/ns/user") == os.readlink("/proc/self/ns/user")


def test_the_handler_with_user_namespaces(cri: CriClient, shared_daemon: Daemon, tmp_path: Path) -> None:
    ranges = set()
    for number in range(2):
        box, config = box_of(cri, "podrt-userns", **mapped(0, NODE))
        spec = secured(**mapped(0, NODE))
        spec.mounts.add(host_path=str(tmp_path), container_path="/data")
        unit = cri.run(box, config, spec)
        assert cri.sandbox_status(box).runtime_handler == "podrt-userns"
        inside, outside, count = sh(cri, unit, "cat /proc/self/uid_map").split()
        assert (inside, count) == ("0", str(idranges.RANGE))
        ranges.add(outside)
        sh(cri, unit, f"touch /data/{number}")
        assert (tmp_path / str(number)).stat().st_uid == 0
    assert len(ranges) == 2
    with refused("INVALID_ARGUMENT", "no runtime handler 'other'"):
        box_of(cri, "other")


# -- users


def test_users_and_groups(cri: CriClient) -> None:
    unit = run(
        cri,
        run_as_user=api.Int64Value(value=1234),
        run_as_group=api.Int64Value(value=2345),
        supplemental_groups=[5, 7000],
    )
    assert sh(cri, unit, "id -u; id -g; id -G").split() == ["1234", "2345", "2345", "5", "7000"]
    told = cri.status(unit).user.linux
    assert (told.uid, told.gid, list(told.supplemental_groups)) == (1234, 2345, [2345, 5, 7000])
    unit = run(cri, run_as_username="nobody")
    assert sh(cri, unit, "id -un") == "nobody"
    with refused("INVALID_ARGUMENT", "run_as_group: needs"):
        run(cri, run_as_group=api.Int64Value(value=1))


@pytest.mark.parametrize(("policy", "extra"), [(api.Merge, True), (api.Strict, False)])
def test_groups_of_the_image(cri: CriClient, policy: int, extra: bool) -> None:
    """root is in group 0 and others of the image's /etc/group."""
    box, config = box_of(cri)
    spec = secured(supplemental_groups=[4321], supplemental_groups_policy=policy)
    spec.image.image = TOOLS
    unit = cri.run(box, config, spec)
    groups = set(sh(cri, unit, "id -G").split())
    named = {
        line.split(":")[2]
        for line in sh(cri, unit, "cat /etc/group").splitlines()
        if "root" in line.split(":")[3].split(",")
    }
    assert "4321" in groups
    assert groups == {"0", "4321"} | (named if extra else set())


# -- privileges


def capabilities(cri: CriClient, unit: str) -> int:
    return int(sh(cri, unit, "grep CapEff /proc/self/status").split()[1], 16)


def test_capabilities(cri: CriClient) -> None:
    box, config = box_of(cri)

    def of(name: str, **fields: Any) -> int:
        return capabilities(cri, cri.run(box, config, secured(name, capabilities=api.Capability(**fields))))

    net_admin, chown = 1 << 12, 1 << 0
    plain = of("plain")
    assert plain & chown and not plain & net_admin
    assert of("more", add_capabilities=["NET_ADMIN"]) == plain | net_admin
    assert of("prefixed", add_capabilities=["CAP_NET_ADMIN"]) == plain | net_admin
    assert of("less", drop_capabilities=["CHOWN"]) == plain & ~chown
    assert of("none", drop_capabilities=["ALL"]) == 0
    assert of("one", drop_capabilities=["ALL"], add_capabilities=["CHOWN"]) == chown
    assert of("all", add_capabilities=["ALL"]) & net_admin
    with refused("INVALID_ARGUMENT", "NO_SUCH"):
        of("unknown", add_capabilities=["NO_SUCH"])


def test_ambient_capabilities(cri: CriClient) -> None:
    unit = run(
        cri,
        run_as_user=api.Int64Value(value=99),
        capabilities=api.Capability(add_ambient_capabilities=["NET_BIND_SERVICE"]),
    )
    assert capabilities(cri, unit) == 1 << 10


def test_privileged(cri: CriClient) -> None:
    box, config = box_of(cri, privileged=True)
    unit = cri.run(box, config, secured(privileged=True, masked_paths=["/proc/kcore"], readonly_paths=["/proc/sys"]))
    sh(
        cri,
        unit,
        "ip link add dummy9 type dummy; test -c /dev/kmsg; mount -t tmpfs x /mnt; touch /proc/sys/kernel/x || true",
    )
    assert sh(cri, unit, "cat /proc/self/status | grep Seccomp:").split()[1] == "0"
    plain, plain_config = box_of(cri)
    with refused("INVALID_ARGUMENT", "the sandbox is not privileged"):
        cri.create(plain, plain_config, secured(privileged=True))
    unit = cri.run(plain, plain_config, secured())
    assert cri.exec(unit, "ip", "link", "add", "dummy9", "type", "dummy")[0] != 0


@pytest.mark.parametrize("wanted", [False, True])
def test_no_new_privileges(cri: CriClient, wanted: bool) -> None:
    unit = run(cri, no_new_privs=wanted, run_as_user=api.Int64Value(value=99))
    assert sh(cri, unit, "grep NoNewPrivs /proc/self/status").split()[1] == str(int(wanted))


@pytest.mark.parametrize("wanted", [False, True])
def test_a_read_only_root(cri: CriClient, wanted: bool) -> None:
    unit = run(cri, readonly_rootfs=wanted)
    assert (cri.exec(unit, "touch", "/new")[0] != 0) is wanted


def test_masked_and_read_only_paths(cri: CriClient) -> None:
    box, config = box_of(cri)
    unit = cri.run(
        box, config, secured("m", masked_paths=["/proc/uptime", "/etc", "/no/such"], readonly_paths=["/proc/sys"])
    )
    assert sh(cri, unit, "cat /proc/uptime; ls /etc") == ""
    assert cri.exec(unit, "sh", "-c", "echo 1 > /proc/sys/kernel/shm_rmid_forced")[0] != 0
    bare = cri.run(box, config, secured("bare"))
    assert sh(cri, bare, "head -c 1 /proc/uptime; ls /etc | head -1") != ""
    sh(cri, bare, "echo 1 > /proc/sys/kernel/shm_rmid_forced")


def test_seccomp(cri: CriClient, tmp_path: Path) -> None:
    box, config = box_of(cri)
    profile = tmp_path / "profile.json"
    rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71}]
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))

    def mode(unit: str) -> str:
        return sh(cri, unit, "grep Seccomp: /proc/self/status").split()[1]

    kinds = api.SecurityProfile
    for name, fields, filtered in (
        ("nothing", {}, "0"),
        ("unconfined", {"seccomp": kinds(profile_type=kinds.Unconfined)}, "0"),
        ("default", {"seccomp": kinds(profile_type=kinds.RuntimeDefault)}, "2"),
        ("old default", {"seccomp_profile_path": "runtime/default"}, "2"),
        ("local", {"seccomp": kinds(profile_type=kinds.Localhost, localhost_ref=str(profile))}, "2"),
        ("old local", {"seccomp_profile_path": f"localhost/{profile}"}, "2"),
    ):
        unit = cri.run(box, config, secured(name, **fields))
        assert mode(unit) == filtered, name
        code, _, err = cri.exec(unit, "mkdir", "/tmp/new")
        assert ("Protocol error" in err and code) if "local" in name else code == 0, (name, err)
    missing = kinds(profile_type=kinds.Localhost, localhost_ref=str(tmp_path / "none.json"))
    with refused("INVALID_ARGUMENT", "none.json"):
        cri.create(box, config, secured("missing", seccomp=missing))
    privileged, its_config = box_of(cri, privileged=True)
    local = kinds(profile_type=kinds.Localhost, localhost_ref=str(profile))
    unit = cri.run(privileged, its_config, secured(privileged=True, seccomp=local))
    assert mode(unit) == "0"


@pytest.mark.skipif(selinux.enabled(), reason="this kernel has SELinux")
def test_selinux_options_have_no_effect_where_there_is_none(cri: CriClient) -> None:
    label = api.SELinuxOption(type="spc_t")
    box, config = box_of(cri, selinux_options=label)
    unit = cri.run(box, config, secured(selinux_options=label))
    assert cri.status(unit).state == api.CONTAINER_RUNNING


@pytest.mark.skipif(not selinux.enabled(), reason="this machine lacks: a kernel with SELinux")
def test_selinux_labels(cri: CriClient, tmp_path: Path) -> None:
    known = selinux.defaults()
    assert known is not None and known.usable
    process, file = (":".join((*label.split(":")[:3], "s0:c8,c9")) for label in (known.process, known.file))
    for name in ("mine", "plain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    before = os.getxattr(tmp_path / "plain" / "file", selinux.ATTRIBUTE)
    mounts = [
        api.Mount(container_path="/mine", host_path=str(tmp_path / "mine"), selinux_relabel=True),
        api.Mount(container_path="/plain", host_path=str(tmp_path / "plain")),
    ]
    asked_for = {"selinux_options": api.SELinuxOption(level="s0:c8,c9"), **options(pid=CONTAINER)}
    box, config = box_of(cri, **asked_for)
    asked = secured(**asked_for)
    asked.mounts.extend(mounts)
    unit = cri.run(box, config, asked)
    assert sh(cri, unit, "cat /proc/1/attr/current").strip("\0") == process
    for _ in range(2):
        assert sh(cri, unit, "cat /proc/self/attr/current").strip("\0") == process
    assert os.getxattr(tmp_path / "mine" / "file", selinux.ATTRIBUTE).rstrip(b"\0").decode() == file
    assert os.getxattr(tmp_path / "plain" / "file", selinux.ATTRIBUTE) == before


def test_apparmor_is_refused_where_there_is_none(cri: CriClient) -> None:
    if Path("/sys/module/apparmor/parameters/enabled").exists():
        pytest.skip("this machine has AppArmor")
    profile = api.SecurityProfile(profile_type=api.SecurityProfile.Localhost, localhost_ref="mine")
    with refused("UNIMPLEMENTED", "AppArmor"):
        run(cri, apparmor=profile)
