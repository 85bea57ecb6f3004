"""``cp``: hostile archives (CVE-2018-15664, CVE-2019-11246, CVE-2019-1002101), and copies through a fake exec."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from podrt.cli.cmd_cp import Place, parse_place
from podrt.cli.errors import CliError
from podrt.cli.main import cli
from podrt.cli.safetar import pack, unpack
from tests.unit.test_cli_support import FakeServer, Request, client, server
from tests.unit.test_cli_websocket import SUCCESS, Peer, failure, upgrade

__all__ = ["client", "server"]

Entry = tuple[str, bytes, str, bytes]


def archive(*entries: Entry) -> io.BytesIO:
    """Entries (name, type, link, content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, link, content in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = link
            info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    return buffer


def file(name: str, content: bytes = b"x") -> Entry:
    return (name, tarfile.REGTYPE, "", content)


def folder(name: str) -> Entry:
    return (name, tarfile.DIRTYPE, "", b"")


def link(name: str, target: str) -> Entry:
    return (name, tarfile.SYMTYPE, target, b"")


def unpacked(tmp_path: Path, *entries: Entry) -> list[str]:
    """Unpack remote directory ``src`` to ``tmp_path/dest``; the warnings."""
    warnings: list[str] = []
    (tmp_path / "secret").write_text("untouched")
    unpack(archive(*entries), "src", str(tmp_path / "dest"), warnings.append)
    return warnings


def test_a_tree_is_unpacked(tmp_path: Path) -> None:
    warnings = unpacked(
        tmp_path, folder("./src"), file("src/a", b"1"), folder("src/d"), file("src/d/b", b"2"), link("src/l", "d/b")
    )
    assert not warnings
    dest = tmp_path / "dest"
    assert (dest / "a").read_bytes() == b"1"
    assert (dest / "l").read_bytes() == b"2"
    assert oct((dest / "a").stat().st_mode & 0o777) == oct(0o644 & ~_umask())


def test_hard_links_within_the_tree_are_copied(tmp_path: Path) -> None:
    """tar sends the content of a file of several names once; the other names are links to the first."""
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest" / "before").write_text("not the archive's")
    hard = ("src/d/b", tarfile.LNKTYPE, "src/a", b"")
    theirs = ("src/c", tarfile.LNKTYPE, "src/before", b"")
    warnings = unpacked(tmp_path, folder("src"), file("src/a", b"1"), folder("src/d"), hard, theirs)
    dest = tmp_path / "dest"
    assert (dest / "d" / "b").read_bytes() == b"1" and (dest / "d" / "b").samefile(dest / "a")
    assert not (dest / "c").exists()
    assert warnings == ["skipping c: a hard link to 'src/before', which is not copied"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    "entries",
    [
        (folder("src"), file("src/../secret")),
        (folder("src"), file("../secret")),
        (folder("src"), file("/secret")),
        (folder("src"), file("src/../../secret")),
        (folder("src"), link("src/up", ".."), file("src/up/secret")),
        (folder("src"), link("src/up", "d/../.."), file("src/up/secret")),
        (folder("src"), link("src/secret2", "../secret"), file("src/secret2")),
        (folder("src"), ("src/hard", tarfile.LNKTYPE, "../secret", b""), file("src/hard")),
        (folder("src"), file("srcx/secret")),
    ],
)
def test_cve_2018_15664_2019_11246_no_entry_leads_outside(tmp_path: Path, entries: tuple[Entry, ...]) -> None:
    before = sorted(os.listdir(tmp_path))
    try:
        unpacked(tmp_path, *entries)
    except CliError as error:
        assert "can't write" in str(error)
    assert (tmp_path / "secret").read_text() == "untouched"
    assert set(os.listdir(tmp_path)) - {"secret", "dest"} == set(before)


def test_absolute_and_outward_links_are_skipped_with_a_warning(tmp_path: Path) -> None:
    warnings = unpacked(tmp_path, folder("src"), link("src/abs", "/etc/passwd"), link("src/up", "../secret"))
    assert len(warnings) == 2
    assert os.listdir(tmp_path / "dest") == []


def test_a_link_planted_at_the_destination_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest" / "d").symlink_to(outside)
    (tmp_path / "dest" / "f").symlink_to(tmp_path / "secret")
    with pytest.raises(CliError, match=r"can't write d/evil"):
        unpacked(tmp_path, folder("src"), file("src/f", b"new"), file("src/d/evil"))
    assert (tmp_path / "secret").read_text() == "untouched"
    assert (tmp_path / "dest" / "f").read_bytes() == b"new"
    assert not (tmp_path / "dest" / "f").is_symlink()
    assert os.listdir(outside) == []


def test_devices_and_fifos_are_not_made(tmp_path: Path) -> None:
    kinds = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
    warnings = unpacked(tmp_path, folder("src"), *((f"src/n{i}", kind, "", b"") for i, kind in enumerate(kinds)))
    assert len(warnings) == 3
    assert os.listdir(tmp_path / "dest") == []


def test_set_id_bits_are_dropped(tmp_path: Path) -> None:
    info = tarfile.TarInfo("src")
    info.mode = 0o6755
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(info, io.BytesIO())
    buffer.seek(0)
    unpack(buffer, "src", str(tmp_path / "f"), pytest.fail)
    assert (tmp_path / "f").stat().st_mode & 0o7000 == 0


def test_one_file_to_a_name_or_into_a_directory(tmp_path: Path) -> None:
    unpack(archive(file("./hosts", b"h")), "hosts", str(tmp_path / "copy"), pytest.fail)
    assert (tmp_path / "copy").read_bytes() == b"h"
    unpack(archive(file("./hosts", b"h")), "hosts", str(tmp_path), pytest.fail)
    assert (tmp_path / "hosts").read_bytes() == b"h"


@pytest.mark.parametrize("data", [b"not a tar" * 100, b"x"])
def test_a_broken_archive_is_an_error_of_the_user(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CliError, match="broken"):
        unpack(io.BytesIO(data), "src", str(tmp_path / "d"), pytest.fail)


def test_a_cut_archive_is_an_error(tmp_path: Path) -> None:
    whole = archive(folder("src"), file("src/a", b"y" * 100_000)).getvalue()
    with pytest.raises(CliError, match=r"broken|unexpected"):
        unpack(io.BytesIO(whole[:50_000]), "src", str(tmp_path / "d"), pytest.fail)


def test_pack_and_unpack_again(tmp_path: Path) -> None:
    source = tmp_path / "s"
    (source / "d").mkdir(parents=True)
    (source / "d" / "f").write_text("text")
    (source / "l").symlink_to("d/f")
    buffer = io.BytesIO()
    pack(buffer, str(source), "./top")
    buffer.seek(0)
    unpack(buffer, "top", str(tmp_path / "t"), pytest.fail)
    assert (tmp_path / "t" / "l").read_text() == "text"
    assert (tmp_path / "t" / "l").is_symlink()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("web:/tmp/x", Place("ns", "web", "/tmp/x")),
        ("other/web:x", Place("other", "web", "x")),
        ("./a:b", Place("", "", "./a:b")),
        ("/abs:x", Place("", "", "/abs:x")),
        ("plain", Place("", "", "plain")),
        ("a/b/c:d", Place("", "", "a/b/c:d")),
    ],
)
def test_places(text: str, place: Place) -> None:
    assert parse_place(text, "ns") == place


POD = "/api/v1/namespaces/default/pods/web"


def with_shell(server: FakeServer, root: Path) -> None:
    """A pod whose exec really runs the command on this machine, in ``root``."""
    server.routes["GET", POD] = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c"}]}}

    def serve(peer: Peer, request: Request) -> None:
        command = [value for key, value in request.query if key == "command"]
        process = subprocess.Popen(
            command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdin and process.stdout and process.stderr
        stdin = process.stdin

        def feed() -> None:
            while (message := peer.receive()) is not None and message != b"\xff\x00":
                stdin.write(message[1:])
            stdin.close()

        if request.param("stdin"):
            feeder = threading.Thread(target=feed)
            feeder.start()
            feeder.join()
        else:
            stdin.close()
        try:
            while data := process.stdout.read(8192):
                peer.send(b"\x01" + data)
        except OSError:
            process.kill()
        errors = process.stderr.read()
        process.stdout.close()
        process.stderr.close()
        code = process.wait()
        if errors:
            peer.send(b"\x02" + errors)
        peer.finish(failure(code) if code else SUCCESS)

    server.routes["GET", POD + "/exec"] = upgrade(serve)


def cp(server: FakeServer, *args: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["--socket", server.path, "cp", *args], prog_name="podrt")
    return result.exit_code, result.output


def test_copies_both_ways(server: FakeServer, tmp_path: Path) -> None:
    remote, local = tmp_path / "remote", tmp_path / "local"
    (remote / "data").mkdir(parents=True)
    (remote / "data" / "big").write_bytes(os.urandom(3_000_000))
    local.mkdir()
    with_shell(server, remote)
    assert cp(server, f"web:{remote}/data", str(local / "got")) == (0, "")
    assert (local / "got" / "big").read_bytes() == (remote / "data" / "big").read_bytes()
    assert cp(server, str(local / "got"), f"web:{remote}") == (0, "")
    assert (remote / "got" / "big").read_bytes() == (remote / "data" / "big").read_bytes()
    assert cp(server, str(local / "got" / "big"), f"web:{remote}/renamed") == (0, "")
    assert (remote / "renamed").stat().st_size == 3_000_000
    assert cp(server, "web:renamed", str(local)) == (0, "")
    assert (local / "renamed").stat().st_size == 3_000_000


def test_what_does_not_exist(server: FakeServer, tmp_path: Path) -> None:
    with_shell(server, tmp_path)
    code, output = cp(server, "web:nothing", str(tmp_path / "x"))
    assert code != 0
    assert "copying failed" in output
    code, output = cp(server, str(tmp_path / "nothing"), "web:/tmp/x")
    assert (code, output) == (1, f"error: {tmp_path}/nothing doesn't exist in local filesystem\n")
    assert cp(server, "a", "b")[0] == 2
    assert cp(server, "web:a", "web:b")[0] == 2


def test_a_destination_that_cannot_be_written_ends_the_copy(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(2_000_000))
    (tmp_path / "afile").write_text("x")
    with_shell(server, tmp_path)
    code, output = cp(server, "web:big", str(tmp_path / "afile" / "x"))
    assert code == 1
    assert "Not a directory" in output
