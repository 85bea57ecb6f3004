"""The CRI's messages and the engine's specs, as tables: what is asked for, what is made of it, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cri_api.v1 import api_pb2 as api
from msgspec.structs import replace

from podrt.cri import convert
from podrt.cri.convert_container import container_spec, signal_name
from podrt.engine import idranges
from podrt.engine.specs import (
    ContainerSpec,
    IdMap,
    NamespaceMode,
    PortMapping,
    Propagation,
    Protocol,
    Resources,
    SandboxSpec,
    SeccompKind,
)
from podrt.errors import InvalidError, PodrtError, UnsupportedError
from podrt.linux.selinux import Defaults

MAPS = (IdMap(inside=0, outside=100_000, count=65_536),)


def sandbox_config(**fields: Any) -> Any:
    metadata = api.PodSandboxMetadata(name="p", namespace="ns", uid="u", attempt=3)
    return api.PodSandboxConfig(**({"metadata": metadata} | fields))


def linux(**fields: Any) -> dict[str, Any]:
    return {"linux": api.LinuxPodSandboxConfig(**fields)}


def security(**fields: Any) -> dict[str, Any]:
    return linux(security_context=api.LinuxSandboxSecurityContext(**fields))


def options(**fields: Any) -> dict[str, Any]:
    return security(namespace_options=api.NamespaceOption(**fields))


def users(mode: int = api.POD, uids: Any = None, gids: Any = None) -> dict[str, Any]:
    one = [api.IDMapping(container_id=0, host_id=100_000, length=65_536)]
    uids, gids = one if uids is None else uids, one if gids is None else gids
    return options(userns_options=api.UserNamespace(mode=mode, uids=uids, gids=gids))


def spec(handler: str = "", own: tuple[IdMap, ...] = (), **fields: Any) -> SandboxSpec:
    return convert.sandbox_spec(sandbox_config(**fields), handler, own)


def test_a_bare_sandbox() -> None:
    assert spec() == SandboxSpec(
        name="p", namespace="ns", uid="u", attempt=3, pid=NamespaceMode.POD, owner="cri", resources=Resources()
    )


def test_a_whole_sandbox() -> None:
    found = spec(
        hostname="h",
        log_directory="/logs",
        dns_config=api.DNSConfig(servers=["1.1.1.1"], searches=["a", "b"], options=["ndots:5"]),
        labels={"a": "b"},
        annotations={"c": "d"},
        port_mappings=[
            api.PortMapping(protocol=api.UDP, container_port=53, host_port=5353, host_ip="127.0.0.1"),
            api.PortMapping(container_port=80),
        ],
        linux=api.LinuxPodSandboxConfig(
            cgroup_parent="kubepods/pod1/",
            sysctls={"net.core.somaxconn": "1"},
            resources=api.LinuxContainerResources(cpu_quota=50_000, cpu_shares=512, memory_limit_in_bytes=1000),
            overhead=api.LinuxContainerResources(
                cpu_quota=10_000, cpu_period=50_000, cpu_shares=2, memory_limit_in_bytes=24
            ),
            security_context=api.LinuxSandboxSecurityContext(
                privileged=True, namespace_options=api.NamespaceOption(pid=api.CONTAINER, ipc=api.NODE)
            ),
        ),
    )
    assert (found.hostname, found.log_directory, found.labels, found.annotations) == (
        "h",
        "/logs",
        {"a": "b"},
        {"c": "d"},
    )
    assert (found.dns_servers, found.dns_searches, found.dns_options) == (("1.1.1.1",), ("a", "b"), ("ndots:5",))
    assert found.port_mappings == (
        PortMapping(container_port=53, host_port=5353, protocol=Protocol.UDP, host_ip="127.0.0.1"),
    )
    assert (found.cgroup_parent, found.sysctls, found.privileged) == (
        "/kubepods/pod1",
        {"net.core.somaxconn": "1"},
        True,
    )
    assert (found.network, found.pid, found.ipc) == (NamespaceMode.POD, NamespaceMode.CONTAINER, NamespaceMode.NODE)
    assert found.resources == Resources(cpu_quota=70_000, cpu_shares=514, memory_limit=1024)


def test_the_host_s_network_has_the_host_s_name_and_ports() -> None:
    ports = [api.PortMapping(container_port=80, host_port=8080)]
    found = spec(hostname="h", port_mappings=ports, **options(network=api.NODE))
    assert (found.network, found.hostname, found.port_mappings) == (NamespaceMode.NODE, "", ())


def test_user_namespaces() -> None:
    assert spec(**users()).uid_maps == spec(**users()).gid_maps == MAPS
    assert spec(**users(api.NODE, [], [])).uid_maps == ()
    own = idranges.maps(3)
    assert spec("podrt-userns", own).uid_maps == own
    assert spec("podrt-userns", own, **users(api.NODE, [], [])).gid_maps == own
    assert spec("podrt-userns", own, **users()).uid_maps == MAPS


def mapping(**fields: Any) -> list[Any]:
    return [api.IDMapping(**({"container_id": 0, "host_id": 7, "length": 1} | fields))]


WRONG_SANDBOXES: dict[str, tuple[Callable[[], SandboxSpec], type[PodrtError], str]] = {
    "no metadata": (
        lambda: convert.sandbox_spec(api.PodSandboxConfig(), ""),
        InvalidError,
        "config.metadata: required",
    ),
    "no uid": (
        lambda: spec(metadata=api.PodSandboxMetadata(name="p", namespace="n")),
        InvalidError,
        "config.metadata.uid",
    ),
    "handler": (lambda: spec("runc"), InvalidError, "podrt, podrt-userns"),
    "network CONTAINER": (lambda: spec(**options(network=api.CONTAINER)), InvalidError, "POD, NODE, not CONTAINER"),
    "pid TARGET": (lambda: spec(**options(pid=api.TARGET)), InvalidError, "not TARGET"),
    "ipc unknown": (lambda: spec(**options(ipc=17)), InvalidError, "not 17"),
    "users CONTAINER": (lambda: spec(**users(api.CONTAINER)), UnsupportedError, "mode CONTAINER"),
    "users TARGET": (lambda: spec(**users(api.TARGET)), UnsupportedError, "mode TARGET"),
    "users NODE with maps": (lambda: spec(**users(api.NODE)), InvalidError, "no mappings"),
    "no uids": (lambda: spec(**users(uids=[])), InvalidError, "uids: exactly one mapping is supported, not 0"),
    "two gids": (lambda: spec(**users(gids=mapping() * 2)), InvalidError, "gids: exactly one"),
    "no root": (lambda: spec(**users(uids=mapping(container_id=1))), InvalidError, "id 0 of the container"),
    "no length": (lambda: spec(**users(uids=mapping(length=0))), InvalidError, "id 0 of the container"),
    "beyond": (lambda: spec(**users(uids=mapping(host_id=2**32 - 1, length=2))), InvalidError, "ids end"),
    "port 70000": (
        lambda: spec(port_mappings=[api.PortMapping(container_port=1, host_port=70_000)]),
        InvalidError,
        "port_mappings\\[0\\]: ports are",
    ),
    "host ip": (
        lambda: spec(port_mappings=[api.PortMapping(container_port=1, host_port=1, host_ip="x")]),
        InvalidError,
        "'x' is not an address",
    ),
    "protocol": (
        lambda: spec(port_mappings=[api.PortMapping(container_port=1, host_port=1, protocol=9)]),
        InvalidError,
        "protocol: 9",
    ),
    "cgroup parent": (lambda: spec(**linux(cgroup_parent="/a/../b")), InvalidError, "cgroup_parent"),
}


@pytest.mark.parametrize("case", WRONG_SANDBOXES)
def test_wrong_sandboxes(case: str) -> None:
    make, kind, text = WRONG_SANDBOXES[case]
    with pytest.raises(kind, match=text):
        make()


@pytest.mark.parametrize(
    ("given", "path"), [("", ""), ("/", ""), ("a", "/a"), ("//a//b/", "/a/b"), ("/a.slice", "/a.slice")]
)
def test_cgroup_parents(given: str, path: str) -> None:
    assert spec(**linux(cgroup_parent=given)).cgroup_parent == path


def test_resources() -> None:
    given = api.LinuxContainerResources(
        cpu_period=50_000,
        cpu_quota=-1,
        cpu_shares=100,
        memory_limit_in_bytes=1 << 40,
        memory_swap_limit_in_bytes=1 << 41,
        oom_score_adj=-500,
        cpuset_cpus="0-1",
        cpuset_mems="0",
        hugepage_limits=[api.HugepageLimit(page_size="2MB", limit=0), api.HugepageLimit(page_size="1GB", limit=5)],
        unified={"memory.high": "10"},
    )
    wanted = Resources(
        cpu_period=50_000,
        cpu_quota=-1,
        cpu_shares=100,
        memory_limit=1 << 40,
        memory_swap=1 << 41,
        cpuset_cpus="0-1",
        cpuset_mems="0",
        hugepages={"2MB": 0, "1GB": 5},
        unified={"memory.high": "10"},
        oom_group=False,
    )
    assert convert.resources(given) == wanted
    assert convert.changed(wanted, api.LinuxContainerResources()) == wanted
    more = api.LinuxContainerResources(cpu_quota=7, unified={"memory.low": "1"}, cpuset_cpus="3")
    assert convert.changed(wanted, more) == replace(
        wanted, cpu_quota=7, unified={"memory.high": "10", "memory.low": "1"}, cpuset_cpus="3"
    )
    assert convert.changed(replace(wanted, pids_limit=9), more).pids_limit == 9


@pytest.mark.parametrize(
    ("memory", "swap", "given", "expected"),
    [
        (100, 100, api.LinuxContainerResources(memory_limit_in_bytes=200), 200),
        (100, 150, api.LinuxContainerResources(memory_limit_in_bytes=200), 250),
        (100, 0, api.LinuxContainerResources(memory_limit_in_bytes=200), 0),
        (100, -1, api.LinuxContainerResources(memory_limit_in_bytes=200), -1),
        (100, 150, api.LinuxContainerResources(cpu_shares=5), 150),
        (100, 100, api.LinuxContainerResources(memory_limit_in_bytes=200, memory_swap_limit_in_bytes=300), 300),
    ],
)
def test_swap_stays_on_top_of_memory(memory: int, swap: int, given: api.LinuxContainerResources, expected: int) -> None:
    """The kernel refuses a limit of both together that is below that of memory."""
    assert convert.changed(Resources(memory_limit=memory, memory_swap=swap), given).memory_swap == expected


def test_what_an_update_of_a_sandbox_does_not_set_stays() -> None:
    current = convert.pod_resources(
        api.LinuxContainerResources(
            cpu_period=50_000,
            cpu_quota=25_000,
            cpu_shares=512,
            memory_limit_in_bytes=64 << 20,
            memory_swap_limit_in_bytes=80 << 20,
            hugepage_limits=[api.HugepageLimit(page_size="2MB", limit=5)],
            unified={"memory.high": "10"},
        ),
        api.LinuxContainerResources(),
    )
    nothing = api.LinuxContainerResources()
    assert convert.pod_changed(current, nothing, nothing) == current
    # An overhead is a part of what is set, and nothing by itself.
    overhead = api.LinuxContainerResources(
        cpu_quota=10_000, cpu_period=100_000, cpu_shares=100, memory_limit_in_bytes=2 << 20
    )
    assert convert.pod_changed(current, nothing, overhead) == current
    memory = api.LinuxContainerResources(memory_limit_in_bytes=100 << 20, unified={"memory.low": "1"})
    assert convert.pod_changed(current, memory, overhead) == replace(
        current,
        memory_limit=102 << 20,
        memory_swap=118 << 20,
        unified={"memory.high": "10", "memory.low": "1"},
    )
    cpu = api.LinuxContainerResources(cpu_quota=30_000, cpu_shares=1000)
    assert convert.pod_changed(current, cpu, overhead) == replace(current, cpu_quota=35_000, cpu_shares=1100)


# -- containers


def container(box: SandboxSpec | None = None, **fields: Any) -> ContainerSpec:
    given = {"metadata": api.ContainerMetadata(name="c", attempt=2), "image": api.ImageSpec(image="img")} | fields
    return container_spec(api.ContainerConfig(**given), box or spec())


def context(**fields: Any) -> dict[str, Any]:
    return {"linux": api.LinuxContainerConfig(security_context=api.LinuxContainerSecurityContext(**fields))}


def test_a_whole_container() -> None:
    found = container(
        image=api.ImageSpec(image="sha256:1", user_specified_image="nginx"),
        command=["a"],
        args=["b", ""],
        working_dir="/w",
        envs=[api.KeyValue(key="A", value="1"), api.KeyValue(key="B", value="=")],
        labels={"l": "1"},
        annotations={"x": "2"},
        log_path="c/0.log",
        stdin=True,
        stdin_once=True,
        tty=True,
        stop_signal=api.SIGRTMINPLUS3,
        devices=[
            api.Device(host_path="/dev/null", container_path="/dev/n", permissions="r"),
            api.Device(host_path="/d"),
        ],
    )
    assert (found.name, found.attempt, found.image, found.user_image) == ("c", 2, "sha256:1", "nginx")
    assert (found.command, found.args, found.working_dir) == (("a",), ("b", ""), "/w")
    assert found.env == (("A", "1"), ("B", "="))
    assert (found.labels, found.annotations, found.log_path) == ({"l": "1"}, {"x": "2"}, "c/0.log")
    assert found.stdin and found.stdin_once and found.tty
    assert found.stop_signal == "SIGRTMIN+3"
    assert [(one.host_path, one.container_path, one.permissions) for one in found.devices] == [
        ("/dev/null", "/dev/n", "r"),
        ("/d", "/d", "rwm"),
    ]
    assert found.pid is None
    assert container(**context(namespace_options=api.NamespaceOption())).pid is NamespaceMode.POD


def test_security_of_a_container() -> None:
    found = container(
        **context(
            capabilities=api.Capability(
                add_capabilities=["SYS_TIME"], drop_capabilities=["ALL"], add_ambient_capabilities=["KILL"]
            ),
            run_as_user=api.Int64Value(value=0),
            run_as_group=api.Int64Value(value=7),
            readonly_rootfs=True,
            supplemental_groups=[1, 2],
            supplemental_groups_policy=api.Strict,
            no_new_privs=True,
            masked_paths=["/proc/a/", "/proc/a", "/b"],
            readonly_paths=["/proc/sys"],
            seccomp=api.SecurityProfile(profile_type=api.SecurityProfile.Localhost, localhost_ref="/x/y.json"),
            apparmor=api.SecurityProfile(profile_type=api.SecurityProfile.Localhost, localhost_ref="mine"),
        )
    ).security
    assert (found.user, found.group, found.supplemental_groups, found.merge_image_groups) == ("0", "7", (1, 2), False)
    assert (found.add_capabilities, found.drop_capabilities, found.add_ambient_capabilities) == (
        ("SYS_TIME",),
        ("ALL",),
        ("KILL",),
    )
    assert found.read_only_root and found.no_new_privs and not found.privileged
    assert (found.masked_paths, found.read_only_paths) == (("/proc/a", "/b"), ("/proc/sys",))
    assert (found.seccomp, found.seccomp_profile, found.apparmor) == (SeccompKind.LOCALHOST, "/x/y.json", "mine")


def test_what_a_kubelet_does_not_say_is_not_masked_and_not_filtered() -> None:
    found = container().security
    assert (found.masked_paths, found.read_only_paths, found.seccomp) == ((), (), SeccompKind.UNCONFINED)
    assert found.merge_image_groups and not found.user and not found.apparmor


POLICY = Defaults("system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0", usable=True)
FILE = POLICY.file.removesuffix("s0")


@pytest.mark.parametrize(
    ("asked", "own", "process", "file"),
    [
        ({}, {}, "system_u:system_r:container_t:s0:c1,c2", f"{FILE}s0:c1,c2"),
        ({"level": "s0:c7"}, {}, "system_u:system_r:container_t:s0:c7", f"{FILE}s0:c7"),
        ({"level": "s0:c7"}, {"type": "spc_t"}, "system_u:system_r:spc_t:s0:c7", f"{FILE}s0:c7"),
        ({}, {"level": "s0:c8"}, "system_u:system_r:container_t:s0:c8", f"{FILE}s0:c8"),
    ],
)
def test_selinux_labels(asked: dict[str, str], own: dict[str, str], process: str, file: str) -> None:
    config = sandbox_config(**security(selinux_options=api.SELinuxOption(**asked)))
    box = convert.sandbox_spec(config, "", (), POLICY, "s0:c1,c2")
    assert box.mount_label == FILE + (asked.get("level") or "s0:c1,c2")
    given = api.ContainerConfig(
        metadata=api.ContainerMetadata(name="c"),
        image=api.ImageSpec(image="i"),
        mounts=[
            api.Mount(container_path="/a", host_path="/a", selinux_relabel=True),
            api.Mount(container_path="/b", host_path="/b"),
        ],
        **context(selinux_options=api.SELinuxOption(**own)),
    )
    found = container_spec(given, box, POLICY)
    assert (found.security.process_label, found.security.mount_label) == (process, file)
    assert [mount.relabel for mount in found.mounts] == [True, False]


def test_no_selinux_label_with_the_host_s_processes_unless_it_is_asked_for() -> None:
    box = convert.sandbox_spec(sandbox_config(**options(pid=api.NODE)), "", (), POLICY, "s0:c1,c2")
    assert box.mount_label == ""
    given = api.ContainerConfig(metadata=api.ContainerMetadata(name="c"), image=api.ImageSpec(image="i"))
    assert container_spec(given, box, POLICY).security.process_label == ""
    given.MergeFrom(api.ContainerConfig(**context(selinux_options=api.SELinuxOption(type="spc_t"))))
    assert container_spec(given, box, POLICY).security.process_label == "system_u:system_r:spc_t:s0"


def profile(kind: Any, ref: str = "") -> Any:
    return api.SecurityProfile(profile_type=kind, localhost_ref=ref)


@pytest.mark.parametrize(
    ("fields", "kind", "path"),
    [
        ({"seccomp": profile(api.SecurityProfile.RuntimeDefault)}, SeccompKind.RUNTIME_DEFAULT, ""),
        ({"seccomp": profile(api.SecurityProfile.Unconfined)}, SeccompKind.UNCONFINED, ""),
        ({"seccomp": profile(api.SecurityProfile.Localhost, "localhost//a")}, SeccompKind.LOCALHOST, "/a"),
        ({"seccomp_profile_path": "unconfined"}, SeccompKind.UNCONFINED, ""),
        ({"seccomp_profile_path": "runtime/default"}, SeccompKind.RUNTIME_DEFAULT, ""),
        ({"seccomp_profile_path": "docker/default"}, SeccompKind.RUNTIME_DEFAULT, ""),
        ({"seccomp_profile_path": "localhost//a/b"}, SeccompKind.LOCALHOST, "/a/b"),
        (
            {"seccomp": profile(api.SecurityProfile.Unconfined), "seccomp_profile_path": "runtime/default"},
            SeccompKind.UNCONFINED,
            "",
        ),
    ],
)
def test_seccomp(fields: dict[str, Any], kind: SeccompKind, path: str) -> None:
    found = container(**context(**fields)).security
    assert (found.seccomp, found.seccomp_profile) == (kind, path)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"apparmor": profile(api.SecurityProfile.RuntimeDefault)}, "runtime/default"),
        ({"apparmor": profile(api.SecurityProfile.Unconfined)}, "unconfined"),
        ({"apparmor": profile(api.SecurityProfile.Localhost, "localhost/a")}, "a"),
        ({"apparmor_profile": "localhost/a"}, "a"),
        ({"apparmor_profile": "unconfined"}, "unconfined"),
        ({"apparmor_profile": "localhost/a", "apparmor": profile(api.SecurityProfile.Unconfined)}, "unconfined"),
    ],
)
def test_apparmor(fields: dict[str, Any], name: str) -> None:
    assert container(**context(**fields)).security.apparmor == name


@pytest.mark.parametrize(
    ("fields", "user", "group"),
    [
        ({}, "", ""),
        ({"run_as_user": api.Int64Value(value=5)}, "5", ""),
        ({"run_as_username": "web", "run_as_group": api.Int64Value(value=0)}, "web", "0"),
        ({"run_as_username": "web", "run_as_user": api.Int64Value(value=5)}, "web", ""),
    ],
)
def test_users(fields: dict[str, Any], user: str, group: str) -> None:
    found = container(**context(**fields)).security
    assert (found.user, found.group) == (user, group)


def test_mounts_in_a_user_namespace() -> None:
    one = api.IDMapping(container_id=0, host_id=100_000, length=65_536)
    box, own = spec(**users()), spec("podrt-userns", idranges.maps(1))

    def idmapped(sandbox: SandboxSpec, **fields: Any) -> bool:
        mounts = [api.Mount(host_path="/h", container_path="/c", **fields)]
        return container(sandbox, mounts=mounts).mounts[0].idmap

    assert idmapped(box, uidMappings=[one], gidMappings=[one])
    assert not idmapped(box)
    assert idmapped(own)
    for wrong in ({"uidMappings": [one]}, {"uidMappings": mapping(), "gidMappings": [one]}):
        with pytest.raises(InvalidError, match="the one mapping of the sandbox's"):
            idmapped(box, **wrong)


def test_a_mount() -> None:
    found = container(
        mounts=[
            api.Mount(host_path="/h", container_path="c/d/", readonly=True, propagation=api.PROPAGATION_BIDIRECTIONAL)
        ]
    ).mounts[0]
    assert (found.source, found.destination, found.read_only) == ("/h", "/c/d", True)
    assert (found.propagation, found.create) == (Propagation.BIDIRECTIONAL, True)


def test_the_user_namespace_of_a_container_is_its_sandboxs() -> None:
    box, own = spec(**users()), spec("podrt-userns", idranges.maps(1))
    same = users()["linux"].security_context.namespace_options
    none = api.NamespaceOption(userns_options=api.UserNamespace(mode=api.NODE))
    container(box, **context(namespace_options=same))
    container(own, **context(namespace_options=none))
    for sandbox, given in ((box, none), (spec(), same), (own, same)):
        with pytest.raises(InvalidError, match="must be those of the sandbox"):
            container(sandbox, **context(namespace_options=given))


WRONG_CONTAINERS: dict[str, tuple[dict[str, Any], type[PodrtError], str]] = {
    "no name": ({"metadata": api.ContainerMetadata()}, InvalidError, "metadata.name"),
    "no image": ({"image": api.ImageSpec()}, InvalidError, "image.image: required"),
    "CDI": ({"CDI_devices": [api.CDIDevice(name="v/d=x")]}, UnsupportedError, "v/d=x"),
    "NUL in argv": ({"args": ["a\0b"]}, InvalidError, "config.args"),
    "bad variable": ({"envs": [api.KeyValue(key="A=B")]}, InvalidError, "envs\\[0\\].key"),
    "nameless variable": ({"envs": [api.KeyValue(value="x")]}, InvalidError, "envs\\[0\\].key"),
    "NUL in a value": ({"envs": [api.KeyValue(key="A", value="\0")]}, InvalidError, "envs\\[0\\].value"),
    "oom score": (
        {"linux": api.LinuxContainerConfig(resources=api.LinuxContainerResources(oom_score_adj=1001))},
        InvalidError,
        "oom_score_adj",
    ),
    "stop signal": ({"stop_signal": 99}, InvalidError, "stop_signal: 99"),
    "privileged": (context(privileged=True), InvalidError, "the sandbox is not privileged"),
    "group alone": (context(run_as_group=api.Int64Value(value=1)), InvalidError, "needs run_as_user"),
    "negative user": (context(run_as_user=api.Int64Value(value=-1)), InvalidError, "-1 is not a uid"),
    "target": (context(namespace_options=api.NamespaceOption(pid=api.TARGET)), InvalidError, "target_id"),
    "pid": (context(namespace_options=api.NamespaceOption(pid=9)), InvalidError, "pid: 9"),
    "masked": (context(masked_paths=["proc"]), InvalidError, "masked_paths"),
    "read-only": (context(readonly_paths=["/a/../b"]), InvalidError, "readonly_paths"),
    "profile": (context(seccomp_profile_path="mine"), InvalidError, "'mine' is not a profile"),
    "relative profile": (
        context(seccomp=profile(api.SecurityProfile.Localhost, "a.json")),
        InvalidError,
        "must be an absolute path",
    ),
    "empty profile": (context(seccomp=profile(api.SecurityProfile.Localhost)), InvalidError, "is missing"),
    "empty apparmor": (context(apparmor=profile(api.SecurityProfile.Localhost)), InvalidError, "is missing"),
    "old apparmor": (context(apparmor_profile="mine"), InvalidError, "'mine' is not a profile"),
    "image and path": (
        {"mounts": [api.Mount(container_path="/c", host_path="/h", image=api.ImageSpec(image="i"))]},
        InvalidError,
        "both set",
    ),
    "image that spreads": (
        {
            "mounts": [
                api.Mount(
                    container_path="/c",
                    image=api.ImageSpec(image="i"),
                    propagation=api.PROPAGATION_HOST_TO_CONTAINER,
                )
            ]
        },
        InvalidError,
        "PROPAGATION_PRIVATE only",
    ),
}


@pytest.mark.parametrize("case", WRONG_CONTAINERS)
def test_wrong_containers(case: str) -> None:
    fields, kind, text = WRONG_CONTAINERS[case]
    with pytest.raises(kind, match=text):
        container(**fields)


@pytest.mark.parametrize("name", [name for name, _ in api.Signal.items() if name != "RUNTIME_DEFAULT"])
def test_every_signal_has_a_number(name: str) -> None:
    from podrt.cri.report import signal_number
    from podrt.engine.signals import parse

    text = signal_name(api.Signal.Value(name))
    same = {"SIGCLD": "SIGCHLD", "SIGIOT": "SIGABRT", "SIGPOLL": "SIGIO", "SIGUNUSED": "SIGSYS"}
    assert parse(text) > 0
    assert api.Signal.Name(signal_number(text)) == same.get(name, name)
