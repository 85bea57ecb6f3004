"""Users and groups as plain text: what a user string comes to with an image's files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podrt.supervisor import users
from podrt.supervisor.protocol import Credentials

PASSWD = users.parse_passwd(
    b"root:x:0:0:root:/root:/bin/sh\n"
    b"app:x:1000:1001:App:/home/app:/bin/sh\n"
    b"1234:x:55:56::/home/digits:\n"
    b"nohome:x:77:78::\n"
)
GROUP = users.parse_group(b"root:x:0:\nbin:x:1:root,daemon\napps:x:1001:\nextra:x:2000:app,other\n99:x:3000:app\n")


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, (0, 1), "/root"),
        ("0", 0, 0, (0, 1), "/root"),
        ("root", 0, 0, (0, 1), "/root"),
        ("app", 1000, 1001, (1001, 2000, 3000), "/home/app"),
        ("1000", 1000, 1001, (1001, 2000, 3000), "/home/app"),
        ("app:extra", 1000, 2000, (2000, 3000), "/home/app"),
        ("app:5", 1000, 5, (5, 2000, 3000), "/home/app"),
        ("app:99", 1000, 99, (99, 2000, 3000), "/home/app"),
        ("4000", 4000, 0, (0,), "/"),
        ("4000:4001", 4000, 4001, (4001,), "/"),
        ("1234", 1234, 0, (0,), "/"),
        ("nohome", 77, 78, (78,), "/"),
        (":extra", 0, 2000, (2000, 1), "/root"),
    ],
)
def test_resolve(user: str, uid: int, gid: int, groups: tuple[int, ...], home: str) -> None:
    assert users.resolve(Credentials(user), PASSWD, GROUP) == users.Identity(uid, gid, groups, home)


@pytest.mark.parametrize("user", ["1000", "1000:1000", "4294967295", "0:4294967295"])
def test_an_image_can_not_make_a_number_root(user: str) -> None:
    """runAsUser and runAsGroup are ids: accounts of that name are not asked (CVE-2024-40635 for those out of range)."""
    passwd = users.parse_passwd(b"1000:x:0:0::/root:/bin/sh\n4294967295:x:0:0::/root:/bin/sh\n")
    group = users.parse_group(b"1000:x:0:\n4294967295:x:0:\n")
    if "4294967295" in user:
        with pytest.raises(users.UserError):
            users.resolve(Credentials(user), passwd, group)
    else:
        found = users.resolve(Credentials(user), passwd, group)
        assert found.uid == 1000
        assert found.gid == (1000 if ":" in user else 0)


def test_extra_groups_and_policy() -> None:
    merged = users.resolve(Credentials("app", (7, 2000)), PASSWD, GROUP)
    assert merged.groups == (1001, 7, 2000, 3000)
    strict = users.resolve(Credentials("app", (7,), merge_image_groups=False), PASSWD, GROUP)
    assert strict.groups == (1001, 7)


def test_refusals_name_what_is_missing() -> None:
    with pytest.raises(users.UserError, match='no user "ghost" in the image\'s /etc/passwd'):
        users.resolve(Credentials("ghost"), PASSWD, GROUP)
    with pytest.raises(users.UserError, match='no group "ghosts" in the image\'s /etc/group'):
        users.resolve(Credentials("app:ghosts"), PASSWD, GROUP)
    with pytest.raises(users.UserError, match="runAsNonRoot"):
        users.resolve(Credentials("root", non_root=True), PASSWD, GROUP)
    with pytest.raises(users.UserError, match="no user"):
        users.resolve(Credentials("4294967295"), [], [])
    with pytest.raises(users.UserError, match="no user"):
        users.resolve(Credentials("-1"), [], [])


@given(st.binary(max_size=300))
def test_no_file_content_is_an_error(data: bytes) -> None:
    for entry in users.parse_passwd(data):
        assert 0 <= entry.uid < 2**32 - 1 and entry.name
    for group in users.parse_group(data):
        assert 0 <= group.gid < 2**32 - 1 and all(group.members)


@given(
    st.lists(
        st.sampled_from(["app:x:1000:1:g:/home:/sh", "", "#c", "a:b", ":x:1:1::/:", "x:x:-1:0::/:", "y:x:1e3:0::/:"])
    )
)
def test_malformed_lines_are_skipped(lines: list[str]) -> None:
    parsed = users.parse_passwd("\n".join(lines).encode())
    assert len(parsed) == lines.count("app:x:1000:1:g:/home:/sh")


def open_dir(path: Path) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY)


def test_files_are_read_inside_the_root_only(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "etc").mkdir(parents=True)
    outside.write_text("evil:x:0:0::/:/bin/sh\n")
    fd = open_dir(root)
    try:
        assert users.read_in_root(fd, "/etc/passwd") == b""
        (root / "etc/passwd").symlink_to("../../outside")
        assert users.read_in_root(fd, "/etc/passwd") == b""
        (root / "outside").write_text("inside")
        assert users.read_in_root(fd, "/etc/passwd") == b"inside"
        (root / "etc/group").symlink_to("/proc/self/status")
        assert users.read_in_root(fd, "/etc/group") == b""
    finally:
        os.close(fd)


def test_odd_files_do_not_hang_or_exhaust(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    fd = open_dir(tmp_path)
    try:
        os.mkfifo(tmp_path / "etc/passwd")
        with pytest.raises(users.UserError, match="not a regular file"):
            users.load(fd, Credentials("root"))
        (tmp_path / "etc/passwd").unlink()
        with open(tmp_path / "etc/passwd", "wb") as file:
            file.truncate(users.MAX_FILE + 1)
        with pytest.raises(users.UserError, match="larger than"):
            users.load(fd, Credentials("root"))
        (tmp_path / "etc/passwd").unlink()
        (tmp_path / "etc/passwd").mkdir()
        with pytest.raises(users.UserError, match="not a regular file"):
            users.load(fd, Credentials("root"))
    finally:
        os.close(fd)
