"""The wire form of mount operations and the table of mounts."""

from __future__ import annotations

import json

import pytest

from podrt.linux import mount, mount_console, mount_context, mount_cover, mount_nodes
from podrt.linux.mount_table import parse_mountinfo

EXAMPLES = [
    mount.Propagation("/", 0x84000),
    mount.Overlay("/t", ("/a", "/b"), "/u", "/w", ("metacopy=off",), (1, 2)),
    mount.Root("/t", 4),
    mount.FileSystem("/proc", "proc", "proc", 14, ("hidepid=2",)),
    mount.BindTree("/data", 0, False, True, True, 0x80000),
    mount_nodes.Directory("/x", 0o700),
    mount_nodes.File("/x/y", 0o600, "text"),
    mount_nodes.Symlink("/dev/fd", "/proc/self/fd"),
    mount_nodes.DeviceNode("/dev/null", "c", 1, 3),
    mount_cover.Mask("/proc/kcore"),
    mount_cover.ReadOnly("/proc/sys"),
    mount_cover.ReadOnlyRoot(),
    mount_console.Console(),
    mount.Pivot("/t"),
]


@pytest.mark.parametrize("operation", EXAMPLES, ids=lambda operation: type(operation).__name__)
def test_wire_form_survives_json(operation: mount_context.Operation) -> None:
    assert mount.decode(json.loads(json.dumps(mount.encode(operation)))) == operation
    assert operation.describe()


def test_every_operation_has_an_example() -> None:
    assert {type(example).__name__ for example in EXAMPLES} == set(mount.OPERATIONS)


@pytest.mark.parametrize("wire", [[], ["Chroot", "/"], ["Mask"], ["Mask", "/a", "/b"]])
def test_decode_refuses_what_is_no_operation(wire: list[str]) -> None:
    with pytest.raises(ValueError, match="mount operation"):
        mount.decode(wire)


def test_operations_without_a_root_fail_clearly() -> None:
    with pytest.raises(OSError, match="no root"):
        mount_nodes.Directory("/x").execute(mount_context.Context())


def test_parse_mountinfo() -> None:
    text = (
        "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"
        "37 35 0:41 / /with\\040space\\134 rw shared:7 - tmpfs none rw\n"
    )
    first, second = parse_mountinfo(text)
    assert (first.id, first.parent, first.root, first.path, first.fstype) == (36, 35, "/mnt1", "/mnt2", "ext3")
    assert not first.shared
    assert second.path == "/with space\\"
    assert second.shared
