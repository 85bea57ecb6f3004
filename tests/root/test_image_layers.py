"""Layers on the real kernel: whiteouts as overlayfs reads them, devices, capabilities, owners, a full disk, kill -9."""

from __future__ import annotations

import io
import os
import shlex
import signal
import stat
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from podrt.image.archive import Candidate, LayerSource
from podrt.image.service import ImageStore
from podrt.image.types import Image
from tests.framework.probes import can_bind_mount, can_mknod, can_overlay, needs
from tests.unit.test_image_store import Layout, named
from tests.unit.test_image_unpack import Entry, directory, entry, make_tar

NAME = "localhost/stack:1"
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageStore]:
    made = ImageStore(tmp_path_factory.mktemp("store"))
    yield made
    made.close()


def load(store: ImageStore, *layers: list[Entry]) -> Image:
    layout = Layout()
    layout.add(layout.image(*(make_tar(*entries) for entries in layers)), **named(NAME))
    return store.load(io.BytesIO(layout.tar()))[0]


def in_overlay(store: ImageStore, image: Image, script: str) -> str:
    """What ``script`` prints in the merged tree of an image's layers, read-only, in a mount namespace of its own."""
    layers = ":".join(map(str, [*store.layers(image), store.root / "staging"]))
    mount = f"mount -t overlay overlay -o lowerdir={shlex.quote(layers)} /mnt && cd /mnt && {script}"
    result = subprocess.run(("unshare", "-m", "sh", "-ec", mount), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def tree_of(store: ImageStore, *layers: list[Entry]) -> list[str]:
    """Paths of the merged tree."""
    image = load(store, *layers)
    found = in_overlay(store, image, "find . -mindepth 1 | sort").split()
    return [path[2:] for path in found if len(path) < 30]  # not the staging directory's


overlay = needs(can_overlay("/var/tmp") and can_mknod(), "overlay mounts")


@overlay
def test_a_whiteout_hides_the_file_below(store: ImageStore) -> None:
    assert tree_of(store, [entry("a"), entry("b")], [entry(".wh.a"), entry("c")]) == ["b", "c"]


@overlay
def test_a_whiteout_hides_the_directory_below(store: ImageStore) -> None:
    base = [directory("d"), directory("d/e"), entry("d/e/f"), entry("d/g")]
    assert tree_of(store, base, [directory("d"), entry("d/.wh.e")]) == ["d", "d/g"]


@overlay
def test_an_opaque_directory_hides_what_was_in_it(store: ImageStore) -> None:
    upper = [directory("d"), entry("d/new"), entry("d/.wh..wh..opq")]
    assert tree_of(store, [directory("d"), entry("d/old")], upper) == ["d", "d/new"]


@overlay
@pytest.mark.parametrize("order", [1, -1])
def test_a_directory_removed_and_made_anew_hides_what_was_in_it(store: ImageStore, order: int) -> None:
    upper = [*[entry(".wh.d"), directory("d")][::order], entry("d/new")]
    assert tree_of(store, [directory("d"), entry("d/old")], upper) == ["d", "d/new"]


@overlay
def test_a_file_removed_and_made_anew_is_there(store: ImageStore) -> None:
    image = load(store, [entry("f", b"old")], [entry(".wh.f"), entry("f", b"new")])
    assert in_overlay(store, image, "cat f") == "new"


@overlay
def test_a_whiteout_in_the_lowest_layer_is_not_seen(store: ImageStore) -> None:
    assert tree_of(store, [directory("d"), entry("d/.wh.x"), entry("d/y")]) == ["d", "d/y"]


@overlay
def test_three_layers_bring_back_what_the_second_hid(store: ImageStore) -> None:
    assert tree_of(store, [entry("a", b"1")], [entry(".wh.a")], [entry("a", b"3")]) == ["a"]


@overlay
def test_forged_overlay_attributes_hide_nothing(store: ImageStore) -> None:
    headers = {"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.redirect": "/x"}
    upper = [directory("d", pax_headers=headers)]
    assert tree_of(store, [directory("d"), entry("d/old")], upper) == ["d", "d/old"]


@needs(can_mknod(), "device nodes")
def test_of_devices_only_harmless_ones_are_made(store: ImageStore) -> None:
    devices = [
        entry("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
        entry("mem", type=tarfile.CHRTYPE, devmajor=1, devminor=1),
        entry("sda", type=tarfile.BLKTYPE, devmajor=8, devminor=0),
    ]
    [layer] = store.layers(load(store, devices))
    assert os.listdir(layer) == ["null"]
    found = os.lstat(layer / "null")
    assert stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3) and stat.S_IMODE(found.st_mode) == 0o666


def test_owners_setuid_and_file_capabilities_are_kept(store: ImageStore, tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep
    headers = {"SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape")}
    entries = [
        entry("ping", b"x", uid=1234, gid=4321, mode=0o6755, pax_headers=headers),
        entry("link", type=tarfile.SYMTYPE, linkname="x", uid=7, gid=8),
        directory("home", uid=1000, gid=1000, mode=0o700),
    ]
    image = load(store, entries)
    [layer] = store.layers(image)
    found = os.lstat(layer / "ping")
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 4321, 0o6755)
    assert os.getxattr(layer / "ping", "security.capability") == capability
    assert (os.lstat(layer / "link").st_uid, os.lstat(layer / "link").st_gid) == (7, 8)
    assert os.lstat(layer / "home").st_uid == 1000
    again = ImageStore(tmp_path / "again").import_rootfs(layer, NAME)
    copy = ImageStore(tmp_path / "again").layers(again)[0]
    assert os.getxattr(copy / "ping", "security.capability") == capability
    assert os.lstat(copy / "ping").st_mode == found.st_mode


@overlay
def test_other_users_reach_a_layer_through_a_mount_only(store: ImageStore) -> None:
    image = load(store, [directory("./", mode=0o700), entry("su", b"1", mode=0o4755)])
    [layer] = store.layers(image)
    as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat")
    assert in_overlay(store, image, shlex.join((*as_nobody, "/mnt/su"))) == "1"
    store.root.parent.chmod(0o755)
    denied = subprocess.run((*as_nobody, layer / "su"), capture_output=True, text=True)
    assert denied.returncode == 1 and "Permission denied" in denied.stderr


@needs(can_bind_mount(), "mounts")
@pytest.mark.parametrize("mebibytes", [5, 20], ids=["in-the-layer", "in-the-blob"])
def test_a_full_disk_is_told_and_leaves_nothing(mebibytes: int) -> None:
    script = """
        import io, os, sys
        from pathlib import Path
        from podrt.errors import ExhaustedError
        from podrt.image.service import ImageStore
        from tests.unit.test_image_unpack import entry, make_tar
        store = ImageStore(Path("/mnt/store"))
        small = store.import_rootfs(io.BytesIO(make_tar(entry("a", b"1"))), "localhost/small")
        before = os.statvfs("/mnt").f_bfree
        try:
            store.import_rootfs(io.BytesIO(make_tar(entry("big", bytes(int(sys.argv[1]) << 20)))), "localhost/big")
        except ExhaustedError as error:
            print(error)
        except OSError as error:
            print("OSError", error)
        store.prune()
        assert store.list() == [small]
        assert os.statvfs("/mnt").f_bfree == before, (os.statvfs("/mnt").f_bfree, before)
    """
    program = shlex.join([sys.executable, "-c", textwrap.dedent(script), str(mebibytes)])
    command = f"mount -t tmpfs -o size=8m tmpfs /mnt && {program}"
    result = subprocess.run(("unshare", "-m", "sh", "-ec", command), capture_output=True, text=True, cwd=REPOSITORY)
    assert result.returncode == 0, result.stderr
    assert "no space left" in result.stdout and "image prune" in result.stdout


def test_a_kill_in_the_middle_of_a_load_leaves_the_store_whole(tmp_path: Path) -> None:
    """At 25 moments of a load: what the next start finds is the image, whole, or nothing at all."""
    layout = Layout()
    layers = [make_tar(*(entry(f"d{n}/f{i}", os.urandom(2000)) for i in range(400))) for n in range(3)]
    layout.add(layout.image(*layers), **named(NAME))
    archive = tmp_path / "a.tar"
    archive.write_bytes(layout.tar())
    root = tmp_path / "store"
    program = (
        "import sys; from pathlib import Path; from podrt.image.service import ImageStore\n"
        "store = ImageStore(Path(sys.argv[1])); print('go', flush=True); store.load(Path(sys.argv[2])); print('done')"
    )
    whole = ImageStore(tmp_path / "whole")
    started = time.monotonic()
    whole.load(archive)
    duration = time.monotonic() - started
    whole.close()
    outcomes = []
    for attempt in range(25):
        command = (sys.executable, "-c", program, str(root), str(archive))
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as loading:
            assert loading.stdout is not None and loading.stdout.readline() == b"go\n"
            time.sleep(attempt / 20 * duration)
            loading.send_signal(signal.SIGKILL)
        store = ImageStore(root)
        found = store.list()
        outcomes.append(len(found))
        left = [path.name for path in (root / "layers").iterdir()] + list(store.blobs.digests())
        if not found:
            assert left == [] and not list((root / "staging").glob("*/*"))
        else:
            assert [len(os.listdir(layer)) for layer in store.layers(found[0])] == [1, 1, 1]
            assert all(len(os.listdir(next(layer.iterdir()))) == 400 for layer in store.layers(found[0]))
            store.remove(NAME)
        store.close()
    assert 0 in outcomes


def test_layers_from_a_source_that_fails_midway_leave_nothing(store: ImageStore) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 2000:
                raise ConnectionResetError("the registry went away")
            return super().read(1000)

    layer = make_tar(entry("a", bytes(5000)))
    layout = Layout()
    layout.image(layer)
    config = next(data for data in layout.files.values() if b"rootfs" in data)
    source = LayerSource(lambda: Failing(layer), "", len(layer), "application/vnd.oci.image.layer.v1.tar")
    with pytest.raises(ConnectionResetError):
        store.install(Candidate(config, None, (source,)))
    assert store.list() == [] and store.usage() == (0, 0, 0, 0, 0)
    assert not list((store.root / "staging").glob("*/*"))


@pytest.mark.parametrize(
    ("name", "command", "expected"),
    [
        ("busybox", "id -u user && wget --help 2>&1 | head -1", "1000\nBusyBox"),
        ("nginx", "nginx -v 2>&1 && test -L /var/log/nginx/access.log && echo linked", "nginx version"),
        ("python", "python3 -c 'import ssl, sqlite3, ctypes, lzma, asyncio; print(6 * 7)'", "42\n"),
        ("tools", "testtool fork 3 && curl --version | head -1 && ip -V && socat -V | head -1", "forked 3: all\ncurl"),
    ],
)
def test_the_images_of_the_recipes_work(
    store: ImageStore, image_archives: dict[str, Path], name: str, command: str, expected: str
) -> None:
    [image] = store.load(image_archives[name])
    assert image.names == (f"localhost/podrt/{name}:latest",)
    [layer] = store.layers(image)
    environment = dict(variable.split("=", 1) for variable in image.config.env)
    result = subprocess.run(("chroot", layer, "sh", "-c", command), capture_output=True, text=True, env=environment)
    assert result.stdout.startswith(expected), result


def test_a_recipe_built_twice_gives_the_same_bytes(tmp_path: Path, image_archives: dict[str, Path]) -> None:
    archive = image_archives["busybox"]
    packages = tmp_path / ".cache"
    packages.mkdir()
    (packages / "packages").symlink_to(archive.parent / ".cache/packages")
    built = subprocess.run((REPOSITORY / "images/build", "--out", tmp_path, "busybox"), capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "busybox.tar").read_bytes() == archive.read_bytes()
