"""Unpacking layers: what is kept, which compressions are read, and what is refused as broken."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import struct
import tarfile
from pathlib import Path

import pytest
import zstandard

from podrt.errors import ImageError
from podrt.image.unpack import Limits, Unpacked, unpack

Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, data: bytes = b"", **fields: object) -> Entry:
    info = tarfile.TarInfo(name)
    info.uid, info.gid, info.mode, info.size = os.getuid(), os.getgid(), 0o644, len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def directory(name: str, **fields: object) -> Entry:
    return entry(name, **({"type": tarfile.DIRTYPE, "mode": 0o755} | fields))


def make_tar(*entries: Entry) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def run(target: Path, data: bytes, **limits: int) -> Unpacked:
    target.mkdir(exist_ok=True)
    return unpack(io.BytesIO(data), target, base=True, limits=Limits(**limits) if limits else None)


def test_contents_modes_and_times_are_kept(tmp_path: Path) -> None:
    data = make_tar(
        directory("d", mode=0o751, mtime=1_000_000_000),
        entry("d/setuid", b"hello", mode=0o4711, pax_headers={"mtime": "1234567890.123456789"}),
        entry("d/link", type=tarfile.SYMTYPE, linkname="/no/where", mtime=7),
        entry("d/fifo", type=tarfile.FIFOTYPE, mode=0o622),
        entry("d/hard", type=tarfile.LNKTYPE, linkname="./d/setuid"),
        entry("/absolute", b"inside"),
    )
    found = run(tmp_path / "t", data)
    tree = tmp_path / "t"
    setuid = os.lstat(tree / "d/setuid")
    assert stat.S_IMODE(setuid.st_mode) == 0o4711
    assert setuid.st_mtime_ns == 1_234_567_890_123_456_789
    assert setuid.st_nlink == 2 and os.path.samefile(tree / "d/setuid", tree / "d/hard")
    assert (tree / "d/setuid").read_bytes() == b"hello"
    assert os.readlink(tree / "d/link") == "/no/where"
    assert os.lstat(tree / "d/link").st_mtime == 7
    assert stat.S_ISFIFO(os.lstat(tree / "d/fifo").st_mode)
    assert stat.S_IMODE(os.lstat(tree / "d/fifo").st_mode) == 0o622
    assert stat.S_IMODE(os.lstat(tree / "d").st_mode) == 0o751
    assert os.lstat(tree / "d").st_mtime == 1_000_000_000
    assert (tree / "absolute").read_bytes() == b"inside"
    assert found == Unpacked(f"sha256:{hashlib.sha256(data).hexdigest()}", 11, 6, len(data))


def test_the_root_keeps_its_mode_but_can_be_passed_through(tmp_path: Path) -> None:
    run(tmp_path / "t", make_tar(directory("./", mode=0o1700, mtime=5)))
    found = os.stat(tmp_path / "t")
    assert stat.S_IMODE(found.st_mode) == 0o1755
    assert found.st_mtime == 5


def test_user_attributes_are_kept_bytes_for_bytes(tmp_path: Path) -> None:
    value = b"a\nb\x00\xff\xfe=7"
    text = value.decode("utf-8", "surrogateescape")
    archive = make_tar(entry("f", b"x", pax_headers={"SCHILY.xattr.user.podrt": text}))
    try:
        run(tmp_path / "t", archive)
        assert os.getxattr(tmp_path / "t/f", "user.podrt") == value
    except OSError as error:
        pytest.skip(f"no user attributes here: {error}")


def test_holes_stay_holes(tmp_path: Path) -> None:
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
    archive = tmp_path / "a.tar"
    assert os.system(f"tar -C {tmp_path} -cSf {archive} --owner={os.getuid()} --group={os.getgid()} sparse") == 0
    found = run(tmp_path / "t", archive.read_bytes())
    result = os.stat(tmp_path / "t/sparse")
    assert result.st_size == (64 << 20) + 3
    assert result.st_blocks * 512 < 1 << 20
    assert found.size < 1 << 20
    assert (tmp_path / "t/sparse").read_bytes() == source.read_bytes()


def test_pax_sparse_maps_are_read(tmp_path: Path) -> None:
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        for position in (0, 1 << 20, 9 << 20):
            file.seek(position)
            file.write(os.urandom(5000))
    archive = tmp_path / "a.tar"
    options = f"--format=pax -cSf {archive} --owner={os.getuid()} --group={os.getgid()}"
    assert os.system(f"tar -C {tmp_path} {options} sparse") == 0
    run(tmp_path / "t", archive.read_bytes())
    assert (tmp_path / "t/sparse").read_bytes() == source.read_bytes()


def _gzip_members(data: bytes) -> bytes:
    return gzip.compress(data[:700]) + gzip.compress(data[700:])


def _zstd_skippable(data: bytes) -> bytes:
    skippable = struct.pack("<II", 0x184D2A50, 8) + b"chunked!"
    frames = [zstandard.compress(data[:700]), skippable, zstandard.compress(data[700:])]
    return skippable + b"".join(frames) + skippable


@pytest.mark.parametrize(
    "compress",
    [bytes, gzip.compress, zstandard.compress, _gzip_members, _zstd_skippable],
    ids=["plain", "gzip", "zstd", "gzip-members", "zstd-skippable-frames"],
)
def test_compressions_are_told_by_magic(tmp_path: Path, compress: object) -> None:
    assert callable(compress)
    data = make_tar(entry("f", os.urandom(3_000_000)), entry("g", b"2"))
    found = run(tmp_path / "t", compress(data))
    assert found.diff_id == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert (tmp_path / "t/g").read_bytes() == b"2"


def test_later_entries_replace_earlier_ones_of_another_kind(tmp_path: Path) -> None:
    data = make_tar(
        directory("a"),
        entry("a/below", b"1"),
        entry("a", b"file now"),
        entry("b", b"1"),
        directory("b"),
        entry("b/below", b"2"),
        directory("b", mode=0o700),
        entry("c", b"1", mode=0o600),
        entry("c", b"22", mode=0o640),
    )
    run(tmp_path / "t", data)
    assert (tmp_path / "t/a").read_bytes() == b"file now"
    assert (tmp_path / "t/b/below").read_bytes() == b"2"
    assert stat.S_IMODE(os.stat(tmp_path / "t/b").st_mode) == 0o700
    assert (tmp_path / "t/c").read_bytes() == b"22"


def test_links_inside_the_layer_lead_inside(tmp_path: Path) -> None:
    data = make_tar(
        directory("usr/lib"),
        entry("lib", type=tarfile.SYMTYPE, linkname="/usr/lib"),
        entry("up", type=tarfile.SYMTYPE, linkname="../../../usr"),
        entry("lib/a", b"1"),
        entry("up/lib/b", b"2"),
    )
    run(tmp_path / "t", data)
    assert sorted(os.listdir(tmp_path / "t/usr/lib")) == ["a", "b"]


def test_whiteouts_in_the_lowest_layer_leave_nothing(tmp_path: Path) -> None:
    run(tmp_path / "t", make_tar(entry("a/.wh.b"), entry("a/.wh..wh..opq"), entry(".wh..wh.plnk/1"), entry("c", b"")))
    assert os.listdir(tmp_path / "t") == ["c"]


def test_an_empty_archive_is_a_layer(tmp_path: Path) -> None:
    assert run(tmp_path / "t", bytes(1024)).entries == 0


WHOLE = make_tar(entry("a", b"x" * 5000), entry("b", b"y" * 5000))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a tar archive"),
        (b"hello, world" * 100, "not a tar archive"),
        (WHOLE[:3000], "cut short in the middle of a file"),
        (WHOLE[: 512 + 5120 + 200], "damaged or cut short"),
        (WHOLE[:5632] + b"\x01" + WHOLE[5633:], "damaged or cut short"),
        (gzip.compress(WHOLE)[:-20], "gzip data is corrupt or cut short"),
        (gzip.compress(WHOLE)[:60] + b"\xff\xff\xff" + gzip.compress(WHOLE)[63:], "gzip data is corrupt"),
        (b"BZh91AY" + WHOLE, "bzip2"),
        (b"\xfd7zXZ\x00" + WHOLE, "xz"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 50, "zstd data is corrupt"),
    ],
)
def test_broken_archives_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        run(tmp_path / "t", data)


def test_a_cut_zstd_frame_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        run(tmp_path / "t", zstandard.compress(make_tar(entry("a", os.urandom(500_000))))[:-100_000])


def test_unknown_entry_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="type b'Q'"):
        run(tmp_path / "t", make_tar(entry("a", type=b"Q")))


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "x", "99999999999999999999"])
def test_impossible_times_do_no_harm(tmp_path: Path, text: str) -> None:
    run(tmp_path / "t", make_tar(entry("a", b"1", pax_headers={"mtime": text})))
    assert (tmp_path / "t/a").read_bytes() == b"1"
