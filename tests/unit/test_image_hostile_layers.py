"""Layers made to do harm: each test tries one way out of the directory, or one way to exhaust the machine."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podrt.errors import ImageError
from podrt.image.archive import TarFiles
from podrt.image.unpack import Limits, unpack
from podrt.linux.removal import remove_tree
from tests.unit.test_image_unpack import Entry, directory, entry, make_tar


class World(NamedTuple):
    """A target to unpack into, and beside it what a hostile layer would like to reach."""

    target: Path
    outside: Path
    before: tuple[object, ...]

    def attack(self, *entries: Entry, limits: Limits | None = None, base: bool = False) -> None:
        unpack(io.BytesIO(make_tar(*entries)), self.target, base=base, limits=limits)

    def assert_untouched(self) -> None:
        assert look(self.outside) == self.before


def look(outside: Path) -> tuple[object, ...]:
    victim, found = os.stat(outside / "victim"), os.stat(outside)
    return (
        sorted(os.listdir(outside)),
        (outside / "victim").read_bytes(),
        (victim.st_mode, victim.st_uid, victim.st_mtime_ns, victim.st_nlink),
        (found.st_mode, found.st_uid, found.st_mtime_ns),
        sorted(os.listxattr(outside)),
        sorted(os.listdir(outside.parent)),
    )


@pytest.fixture
def world(tmp_path: Path) -> World:
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (outside / "victim").write_bytes(b"precious")
    return World(target, outside, look(outside))


def symlink(name: str, to: object) -> Entry:
    return entry(name, type=tarfile.SYMTYPE, linkname=str(to))


def hard_link(name: str, to: object) -> Entry:
    return entry(name, type=tarfile.LNKTYPE, linkname=str(to))


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "..", "a/..", "/../evil", "./../evil"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_dot_dot_in_a_name(world: World, name: str, kind: bytes) -> None:
    with pytest.raises(ImageError, match=r"'\.\.'"):
        world.attack(entry(name, type=kind, linkname="x"))
    world.assert_untouched()


def test_an_absolute_name_stays_inside(world: World) -> None:
    world.attack(entry(f"{world.outside}/evil", b"x"))
    assert (world.target / str(world.outside).lstrip("/") / "evil").read_bytes() == b"x"
    world.assert_untouched()


@pytest.mark.parametrize("form", ["absolute", "relative", "proc"])
def test_a_file_below_a_link_to_the_outside(world: World, form: str) -> None:
    ways = {"absolute": world.outside, "relative": "../" * 40 + str(world.outside)[1:], "proc": "/proc/self/root"}
    with pytest.raises(ImageError, match="leads nowhere"):
        world.attack(symlink("link", ways[form]), entry("link/evil", b"x"))
    world.assert_untouched()


def test_a_link_to_the_outside_leads_to_a_directory_of_that_name_inside(world: World) -> None:
    inside = str(world.outside).lstrip("/")
    world.attack(directory(inside), symlink("link", world.outside), entry("link/victim", b"x"))
    assert (world.target / inside / "victim").read_bytes() == b"x"
    world.assert_untouched()


def test_a_directory_that_becomes_a_link_after_it_was_used(world: World) -> None:
    with pytest.raises(ImageError):
        world.attack(
            directory("d"),
            entry("d/first", b"1"),
            symlink("d", world.outside),
            entry("d/evil", b"2"),
            directory("d/sub"),
        )
    world.assert_untouched()


def test_a_directory_entry_over_a_link_changes_no_mode_outside(world: World) -> None:
    world.attack(symlink("d", world.outside), directory("d", mode=0o7777, mtime=1))
    assert not (world.target / "d").is_symlink()
    world.assert_untouched()


def test_times_of_directories_are_not_set_through_links(world: World) -> None:
    world.attack(directory("d", mtime=1), symlink("d", world.outside))
    world.assert_untouched()


def test_times_of_directories_below_a_directory_that_became_a_link(world: World) -> None:
    (world.outside / "sub").mkdir()
    before = look(world.outside), os.stat(world.outside / "sub").st_mtime_ns
    world.attack(directory("d"), directory("d/sub", mtime=1), symlink("d", world.outside))
    assert (look(world.outside), os.stat(world.outside / "sub").st_mtime_ns) == before


def test_a_file_over_a_link_does_not_write_through_it(world: World) -> None:
    world.attack(symlink("f", world.outside / "victim"), entry("f", b"evil", mode=0o777))
    assert (world.target / "f").read_bytes() == b"evil"
    world.assert_untouched()


def test_a_fifo_over_a_link_does_not_change_the_target(world: World) -> None:
    world.attack(symlink("f", world.outside / "victim"), entry("f", type=tarfile.FIFOTYPE, mode=0o777))
    assert stat.S_ISFIFO(os.lstat(world.target / "f").st_mode)
    world.assert_untouched()


@pytest.mark.parametrize("form", ["absolute", "dots", "through"])
def test_a_hard_link_to_a_file_outside(world: World, form: str) -> None:
    victim = world.outside / "victim"
    to = {"absolute": victim, "dots": "../outside/victim", "through": "link/victim"}[form]
    with pytest.raises(ImageError):
        world.attack(symlink("link", world.outside), hard_link("h", to), entry("h", b"evil"))
    world.assert_untouched()


def test_a_hard_link_to_a_link_is_the_link_itself(world: World) -> None:
    world.attack(symlink("l", world.outside / "victim"), hard_link("h", "l"), entry("g", b"1"))
    assert os.readlink(world.target / "h") == str(world.outside / "victim")
    world.attack(entry("h", b"evil"))
    world.assert_untouched()


@pytest.mark.parametrize("to", ["", ".", "/", "d", "missing", "d/missing", "no/such"])
def test_a_hard_link_to_what_is_no_file(world: World, to: str) -> None:
    with pytest.raises(ImageError, match="hard link"):
        world.attack(directory("d"), hard_link("h", to))


def test_a_hard_link_onto_its_own_target_keeps_it(world: World) -> None:
    world.attack(entry("a", b"1"), hard_link("a", "a"), hard_link("b", "a"), hard_link("a", "b"))
    assert (world.target / "a").read_bytes() == b"1"


def test_a_hard_link_that_removes_its_own_target(world: World) -> None:
    with pytest.raises(ImageError, match="no such file"):
        world.attack(directory("d"), entry("d/f", b"1"), hard_link("d", "d/f"))


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "a/.wh..", "a/.wh..."])
def test_whiteouts_of_no_name(world: World, name: str) -> None:
    with pytest.raises(ImageError, match="hides no name"):
        world.attack(directory("a"), entry(name))
    world.assert_untouched()


@pytest.mark.parametrize("name", ["link/.wh.victim", "link/.wh..wh..opq"])
def test_whiteouts_through_a_link_to_the_outside(world: World, name: str) -> None:
    with pytest.raises(ImageError):
        world.attack(symlink("link", world.outside), entry(name))
    world.assert_untouched()


def test_an_entry_below_a_whiteout(world: World) -> None:
    with pytest.raises(ImageError, match="below a whiteout"):
        world.attack(entry(".wh.a/b", b"1"))


def test_a_hard_link_to_a_whiteout_name(world: World) -> None:
    with pytest.raises(ImageError):
        world.attack(hard_link("a", ".wh.b"))


def test_a_forged_overlay_whiteout_is_refused(world: World) -> None:
    with pytest.raises(ImageError, match="whiteout"):
        world.attack(entry("etc/shadow", type=tarfile.CHRTYPE, devmajor=0, devminor=0))


@pytest.mark.parametrize(
    ("kind", "major", "minor"),
    [(tarfile.BLKTYPE, 8, 0), (tarfile.CHRTYPE, 1, 1), (tarfile.CHRTYPE, 10, 200), (tarfile.BLKTYPE, 1, 3)],
)
def test_devices_of_the_host_are_left_out(world: World, kind: bytes, major: int, minor: int) -> None:
    world.attack(entry("disk", type=kind, devmajor=major, devminor=minor, mode=0o666), entry("after", b"1"))
    assert os.listdir(world.target) == ["after"]


def test_overlay_attributes_in_an_archive_are_dropped(world: World) -> None:
    forged = (
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "user.overlay.opaque",
        "trusted.x",
        "security.selinux",
    )
    headers = {f"SCHILY.xattr.{name}": "y" for name in forged}
    world.attack(directory("d", pax_headers=headers), entry("f", b"1", pax_headers=headers))
    for name in ("d", "f"):
        assert not {found for found in os.listxattr(world.target / name) if found != "security.selinux"}


def test_the_root_can_not_be_replaced(world: World) -> None:
    for name in (".", "/", "./", ""):
        with pytest.raises(ImageError):
            world.attack(symlink(name, world.outside))
    assert not world.target.is_symlink()


@pytest.mark.parametrize("uid", [-1, 2**32 - 1, 2**40])
def test_owners_that_mean_no_change(world: World, uid: int) -> None:
    with pytest.raises(ImageError, match="no user and group id"):
        world.attack(entry("f", b"1", uid=uid))


def test_names_that_are_too_long_or_too_deep(world: World) -> None:
    for name in ("x" * 300, "d/" * 300 + "f", "x/" + "y" * 5000):
        with pytest.raises(ImageError):
            world.attack(entry(name, b"1"))


def test_a_nul_byte_in_a_name(world: World) -> None:
    with pytest.raises(ImageError, match=r"NUL|ends"):
        world.attack(entry("a\0b", b"1", pax_headers={"path": "a\0b"}))


def test_a_link_loop(world: World) -> None:
    with pytest.raises(ImageError):
        world.attack(symlink("a", "b"), symlink("b", "a"), entry("a/f", b"1"))


def test_a_file_used_as_a_directory(world: World) -> None:
    with pytest.raises(ImageError):
        world.attack(entry("a", b"1"), entry("a/f", b"1"))


# Exhaustion


def test_a_decompression_bomb(world: World) -> None:
    bomb = gzip.compress(make_tar(entry("zeros", bytes(64 << 20))))
    with pytest.raises(ImageError, match="decompression bomb"):
        unpack(io.BytesIO(bomb), world.target, base=True, limits=Limits(max_bytes=4 << 20))
    assert os.stat(world.target / "zeros").st_size <= 4 << 20


def test_an_entry_bomb(world: World) -> None:
    with pytest.raises(ImageError, match="more than the 50 entries"):
        world.attack(*(directory(f"d{number}") for number in range(60)), limits=Limits(max_entries=50))


def test_a_header_that_claims_gigabytes(world: World) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 8 << 30
    with pytest.raises(ImageError, match="are believed"):
        unpack(io.BytesIO(header.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)), world.target, base=True)


def test_a_header_with_a_negative_size(world: World) -> None:
    started = time.monotonic()
    for kind in (tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, b"7", b"S"):
        header = tarfile.TarInfo("f")
        header.type = kind
        data = bytearray(header.tobuf(tarfile.GNU_FORMAT))
        data[124:136] = b"\xff" * 8 + (2**32 - 1024).to_bytes(4, "big")  # base 256: -1024
        data[148:156] = b" " * 8
        data[148:156] = b"%06o\0 " % sum(data[:512])
        with pytest.raises(ImageError):
            unpack(io.BytesIO(bytes(data) + bytes(2048)), world.target, base=True)
    assert time.monotonic() - started < 5


def test_a_sparse_file_of_a_petabyte_takes_no_space(world: World) -> None:
    headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 50), "GNU.sparse.name": "huge"}
    try:
        world.attack(entry("f", b"1", pax_headers=headers))
    except ImageError:
        return  # larger than this file system's files may be
    except OSError as error:
        pytest.fail(f"not told as an ImageError: {error!r}")
    assert os.stat(world.target / "huge").st_blocks < 100


@pytest.mark.parametrize("sparse_map", ["0,9999", "-5,1", "10,-1", "x,y", "99999999999999999999,1"])
def test_sparse_maps_that_point_elsewhere(world: World, sparse_map: str) -> None:
    headers = {"GNU.sparse.map": sparse_map, "GNU.sparse.size": "100", "GNU.sparse.name": "f"}
    with pytest.raises(ImageError):
        world.attack(entry("f", b"1", pax_headers=headers))


# Anything else


@settings(max_examples=150)
@given(position=st.integers(0, 10_000), replacement=st.binary(min_size=1, max_size=64))
def test_damaged_archives_end_in_an_image_error_or_stay_inside(
    tmp_path_factory: pytest.TempPathFactory, position: int, replacement: bytes
) -> None:
    parent = tmp_path_factory.mktemp("damaged")
    (parent / "t").mkdir()
    data = bytearray(
        make_tar(
            directory("d"),
            entry("d/f", b"x" * 700, pax_headers={"mtime": "1.5", "SCHILY.xattr.user.a": "b"}),
            entry("d/" + "n" * 120, b"y"),
            symlink("l", "/d"),
            entry("l/g", b"z"),
            hard_link("h", "d/f"),
            entry(".wh.x"),
        )
    )
    position %= len(data)
    data[position : position + len(replacement)] = replacement
    try:
        unpack(io.BytesIO(bytes(data)), parent / "t", base=True, limits=Limits(max_bytes=1 << 20))
    except ImageError:
        pass
    except PermissionError:
        assert os.geteuid() != 0
    assert os.listdir(parent) == ["t"]


def test_a_tree_too_deep_for_recursion_can_be_replaced_and_removed(world: World) -> None:
    """No entry has over 256 levels, but links in the layer add up; such a tree must not stay for ever."""
    chain = "/".join(["d"] * 250)
    entries = [directory("top"), directory(f"top/{chain}"), symlink("link0", f"top/{chain}")]
    for number in range(6):
        entries += [directory(f"link{number}/{chain}"), symlink(f"link{number + 1}", f"link{number}/{chain}")]
    world.attack(*entries, base=True)
    remove_tree(world.target)
    world.target.mkdir()
    world.attack(*entries, entry("top", data=b"a file"), base=True)
    assert (world.target / "top").read_bytes() == b"a file"
    world.assert_untouched()


@pytest.mark.parametrize("kind", [b"L", b"K", b"x"])
def test_headers_about_headers_about_headers(world: World, kind: bytes) -> None:
    """tarfile reads the entry that a header is about by recursion."""
    header = tarfile.TarInfo("long")
    content = b"12 path=abc\n" if kind == b"x" else b"abc\0"
    header.type, header.size = kind, len(content)
    archive = (header.tobuf() + content.ljust(512, b"\0")) * 3000 + make_tar(entry("f"))
    with pytest.raises(ImageError, match="corrupt"):
        unpack(io.BytesIO(archive), world.target, base=True)
    with pytest.raises(ImageError, match="image archive"):
        TarFiles(io.BytesIO(archive))
