"""The mount plan of a container: what is there, in which order, and what each variation changes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from podrt.engine.rootfs import MASKED_PATHS, READ_ONLY_PATHS, Bind, Hierarchy, Node, Plan, Request, plan
from podrt.engine.specs import Mount, Propagation
from podrt.errors import InvalidError
from podrt.linux import abi, mount_console, mount_cover, mount_nodes
from podrt.linux import mount as ops

REQUEST = Request(
    name="c",
    root="/state/c/root",
    layers=("/layers/top", "/layers/base"),
    upper="/state/c/upper",
    work="/state/c/work",
    shm="/run/s/shm",
)


def make(**changes: Any) -> Plan:
    return plan(dataclasses.replace(REQUEST, **changes))


def targets(result: Plan) -> list[str]:
    return [operation.target for operation in result.operations if hasattr(operation, "target")]


def bind(destination: str, source: str = "/src", *, directory: bool = True, **fields: Any) -> Bind:
    return Bind(mount=Mount(source=source, destination=destination, **fields), directory=directory)


def of(result: Plan, kind: type) -> list[Any]:
    return [operation for operation in result.operations if isinstance(operation, kind)]


def file_system(result: Plan, target: str) -> Any:
    return next(operation for operation in of(result, ops.FileSystem) if operation.target == target)


def test_every_operation_survives_the_wire() -> None:
    result = make(
        terminal=True,
        binds=(bind("/data"),),
        read_only_root=True,
        devices=(Node(path="/dev/fuse", kind="c", major=10, minor=229),),
        hierarchies=(Hierarchy(name="cpu", fstype="cgroup", options=("cpu",)),),
    )
    assert [ops.decode(ops.encode(operation)) for operation in result.operations] == result.operations


def test_order_from_root_to_pivot() -> None:
    result = make()
    kinds = [type(operation) for operation in result.operations]
    assert kinds[0] is ops.Propagation
    assert result.operations[1] == ops.Overlay(REQUEST.root, REQUEST.layers, REQUEST.upper, REQUEST.work)
    assert kinds[-1] is ops.Pivot
    # Masks lie on the mounts that they hide things of.
    assert max(index for index, kind in enumerate(kinds) if kind is ops.FileSystem) < kinds.index(mount_cover.Mask)


def test_standard_mounts_and_their_attributes() -> None:
    result = make()
    plain = abi.MOUNT_ATTR_NOSUID | abi.MOUNT_ATTR_NODEV | abi.MOUNT_ATTR_NOEXEC
    assert file_system(result, "/proc").attrs == plain
    assert file_system(result, "/sys").attrs == plain | abi.MOUNT_ATTR_RDONLY
    assert file_system(result, "/dev/mqueue").attrs == plain
    assert "gid=5" in file_system(result, "/dev/pts").options
    assert targets(result).index("/dev") < targets(result).index("/dev/shm")
    assert {node.path for node in of(result, mount_nodes.DeviceNode)} == {
        f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")
    }
    assert [source.path for source in result.sources] == ["/run/s/shm"]


def test_masked_and_read_only_paths() -> None:
    result = make()
    assert tuple(operation.path for operation in of(result, mount_cover.Mask)) == MASKED_PATHS
    assert tuple(operation.path for operation in of(result, mount_cover.ReadOnly)) == READ_ONLY_PATHS
    unmasked = make(unmasked_proc=True)
    assert all(operation.path.startswith("/sys") for operation in of(unmasked, mount_cover.Mask))
    assert of(unmasked, mount_cover.ReadOnly) == []


def test_privileged() -> None:
    result = make(privileged=True, hierarchies=(Hierarchy(name="", fstype="cgroup2"),))
    assert of(result, mount_cover.Mask) == of(result, mount_cover.ReadOnly) == []
    assert not file_system(result, "/sys").attrs & abi.MOUNT_ATTR_RDONLY
    assert not file_system(result, "/sys/fs/cgroup").attrs & abi.MOUNT_ATTR_RDONLY


def test_read_only_root_comes_last_before_the_pivot() -> None:
    result = make(read_only_root=True, files=(bind("/etc/hosts", "/run/hosts", directory=False),))
    assert isinstance(result.operations[-2], mount_cover.ReadOnlyRoot)
    assert next(source for source in result.sources if source.path == "/run/hosts").read_only
    assert of(make(), mount_cover.ReadOnlyRoot) == []


def test_cgroup_mounts_of_each_layout() -> None:
    unified = make(hierarchies=(Hierarchy(name="", fstype="cgroup2"),))
    assert file_system(unified, "/sys/fs/cgroup").fstype == "cgroup2"
    hybrid = make(
        hierarchies=(
            Hierarchy(name="cpu", fstype="cgroup", options=("cpu",)),
            Hierarchy(name="unified", fstype="cgroup2"),
        )
    )
    assert file_system(hybrid, "/sys/fs/cgroup").fstype == "tmpfs"
    assert file_system(hybrid, "/sys/fs/cgroup/cpu").options == ("cpu",)
    assert file_system(hybrid, "/sys/fs/cgroup/unified").fstype == "cgroup2"


def test_a_cgroup_may_be_bound_instead_of_mounted() -> None:
    hierarchy = Hierarchy(name="cpu", fstype="cgroup", options=("cpu",), source="/sys/fs/cgroup/cpu/podrt/c")
    result = make(hierarchies=(hierarchy,))
    bound = next(operation for operation in of(result, ops.BindTree) if operation.target == "/sys/fs/cgroup/cpu")
    source = result.sources[bound.fd]
    assert (source.path, source.read_only, source.plain) == (hierarchy.source, True, True)
    assert not make(hierarchies=(hierarchy,), privileged=True).sources[bound.fd].read_only


def test_binds_are_sorted_by_depth_and_keep_their_order() -> None:
    result = make(binds=(bind("/a/b", "/1"), bind("/a", "/2"), bind("/c", "/3")))
    order = [target for target in targets(result) if target in ("/a", "/a/b", "/c")]
    assert order == ["/a", "/c", "/a/b"]
    opened = {operation.target: result.sources[operation.fd].path for operation in of(result, ops.BindTree)}
    assert opened == {"/a/b": "/1", "/a": "/2", "/c": "/3", "/dev/shm": "/run/s/shm"}


def test_bind_attributes_go_to_the_source() -> None:
    result = make(
        binds=(
            bind("/ro", "/1", read_only=True),
            bind("/rro", "/2", recursive_read_only=True),
            bind("/shared", "/3", propagation=Propagation.BIDIRECTIONAL),
        )
    )
    by_path = {source.path: source for source in result.sources}
    assert (by_path["/1"].read_only, by_path["/1"].recursive_read_only) == (True, False)
    assert (by_path["/2"].read_only, by_path["/2"].recursive_read_only) == (True, True)
    assert by_path["/3"].propagation is Propagation.BIDIRECTIONAL
    assert not any(source.idmap for source in result.sources)


@pytest.mark.parametrize("destination", ["/dev/shm", "/proc", "/sys", "/dev", "/sys/fs/cgroup", "/dev/pts"])
def test_a_spec_mount_replaces_the_standard_one(destination: str) -> None:
    result = make(binds=(bind(destination),), hierarchies=(Hierarchy(name="", fstype="cgroup2"),))
    assert targets(result).count(destination) == 1
    assert any(operation.target == destination for operation in of(result, ops.BindTree))


def test_the_hosts_dev_gets_no_nodes_or_links_and_has_its_own_pts() -> None:
    result = make(binds=(bind("/dev"), bind("/dev/mine")))
    assert of(result, mount_nodes.DeviceNode) == of(result, mount_nodes.Symlink) == []
    assert {one for one in targets(result) if one.startswith("/dev")} == {"/dev", "/dev/mine"}


def test_files_give_way_to_the_specs_mounts() -> None:
    files = (bind("/etc/hosts", "/run/hosts", directory=False), bind("/etc/hostname", "/run/name", directory=False))
    result = make(files=files, binds=(bind("/etc/hosts", "/mine", directory=False),))
    opened = {operation.target: result.sources[operation.fd].path for operation in of(result, ops.BindTree)}
    assert opened["/etc/hosts"] == "/mine"
    assert opened["/etc/hostname"] == "/run/name"


def test_terminal_and_host_ipc() -> None:
    assert len(of(make(terminal=True), mount_console.Console)) == 1
    assert of(make(), mount_console.Console) == []
    assert "/dev/shm" not in targets(make(shm=""))


def test_user_namespace() -> None:
    result = make(
        user_namespace=True,
        root_uid=100_000,
        root_gid=200_000,
        tty_gid=200_005,
        binds=(bind("/data", "/1"), bind("/raw", "/2", idmap=False)),
        devices=(Node(path="/dev/fuse", kind="c", major=10, minor=229, gid=3),),
    )
    overlay = result.operations[1]
    assert [result.sources[index].path for index in overlay.lower_fds] == list(REQUEST.layers)
    assert (overlay.upper, overlay.work) == (REQUEST.upper, REQUEST.work)
    assert all(result.sources[index].idmap for index in overlay.lower_fds)
    by_path = {source.path: source for source in result.sources}
    assert by_path["/1"].idmap
    assert not by_path["/2"].idmap
    assert {"uid=100000", "gid=200000"} <= set(file_system(result, "/dev").options)
    assert "gid=200005" in file_system(result, "/dev/pts").options
    nodes = {node.path: node for node in of(result, mount_nodes.DeviceNode)}
    assert (nodes["/dev/null"].uid, nodes["/dev/null"].gid) == (100_000, 200_000)
    assert (nodes["/dev/fuse"].uid, nodes["/dev/fuse"].gid) == (100_000, 200_003)


@pytest.mark.parametrize("destination", ["/", "//", "a", "", "/a/", "/a/../b", "/..", "/a//b", "/a\0"])
def test_bad_destinations(destination: str) -> None:
    with pytest.raises(InvalidError, match="container c: mount 0"):
        make(binds=(bind(destination),))


def test_two_mounts_onto_one_destination() -> None:
    with pytest.raises(InvalidError, match="two mounts have the destination /a"):
        make(binds=(bind("/a", "/1"), bind("/a", "/2")))
