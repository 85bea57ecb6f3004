"""Trees unpacked here against the same images unpacked by skopeo and umoci: names, modes, owners, times, attributes,
hard links."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from podrt.image.manifest import OCI_LAYER
from podrt.image.service import ImageStore
from tests.framework.probes import can_mknod, can_overlay, needs
from tests.unit.test_image_store import Layout, named
from tests.unit.test_image_unpack import Entry, directory, entry, make_tar

pytestmark = [
    needs(bool(shutil.which("skopeo") and shutil.which("umoci")), "skopeo and umoci"),
    needs(can_overlay("/var/tmp") and can_mknod(), "overlay mounts"),
]

NAME = "localhost/compared:1"
CAPABILITY = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00".decode("latin-1")


def attributes(**values: str) -> dict[str, str]:
    return {f"SCHILY.xattr.{key.replace('__', '.')}": value for key, value in values.items()}


def owned(name: str, data: bytes = b"x", uid: int = 0, gid: int = 0, **fields: Any) -> Entry:
    return entry(name, data, uid=uid, gid=gid, **({"mtime": 1_600_000_000} | fields))


def folder(name: str, **fields: Any) -> Entry:
    return directory(name, **({"uid": 0, "gid": 0, "mtime": 1_500_000_000} | fields))


def link(name: str, target: str, kind: bytes, **fields: Any) -> Entry:
    return owned(name, b"", type=kind, linkname=target, **fields)


def all_kinds() -> list[bytes]:
    """Owners, modes with setuid and sticky, times with fractions, links, FIFOs, odd names."""
    return [
        make_tar(
            folder("bin"),
            owned("bin/su", b"setuid", mode=0o4755),
            owned("bin/sg", b"setgid", uid=3, gid=42, mode=0o2711),
            folder("tmp", mode=0o1777),
            folder("home"),
            folder("home/user", uid=1000, gid=1000, mode=0o700),
            owned("home/user/precise", b"t", uid=1000, gid=1000, pax_headers={"mtime": "1600000000.123456789"}),
            owned("old", b"", mtime=0),
            link("bin/sh", "su", tarfile.SYMTYPE, uid=7, gid=8),
            link("dangling", "/nowhere/../at/all", tarfile.SYMTYPE),
            link("hard", "bin/su", tarfile.LNKTYPE, mode=0o4755),
            owned("fifo", b"", type=tarfile.FIFOTYPE, mode=0o640),
            owned("näme with späce\n", b"", mode=0o600),
            folder("a" * 200),
            owned("a" * 200 + "/" + "b" * 200, b"long"),
            owned("empty", b"", mode=0),
            owned("big", os.urandom(3_000_000)),
        )
    ]


def whiteouts() -> list[bytes]:
    """Files, directories and whole trees that upper layers hide, and directories that are made anew."""
    base = make_tar(
        folder("a"),
        folder("a/b"),
        owned("a/b/c"),
        owned("a/d"),
        folder("e"),
        owned("e/f"),
        folder("g"),
        folder("g/h"),
        owned("g/h/i"),
        owned("file"),
        folder("was-dir"),
        owned("was-dir/x"),
    )
    middle = make_tar(
        owned(".wh.file", b""),
        folder("a"),
        owned("a/.wh.b", b""),
        folder("e", mode=0o711),
        owned("e/.wh..wh..opq", b""),
        owned("e/new"),
        folder("g"),
        folder("g/h"),
        owned("g/h/.wh..wh..opq", b""),
    )
    top = make_tar(
        folder("a"),
        folder("a/b", mode=0o750),
        owned("a/b/again"),
        owned("file", b"back"),
        owned(".wh.was-dir", b""),
        owned("g/h/late"),
    )
    return [base, middle, top]


def attributes_and_links() -> list[bytes]:
    """File capabilities, user attributes, and hard links across directories, within a layer and over one."""
    caps = attributes(security__capability=CAPABILITY)
    base = make_tar(
        folder("usr"),
        folder("usr/bin"),
        owned("usr/bin/ping", b"ping", mode=0o755, pax_headers=caps),
        folder("opt"),
        link("opt/ping", "usr/bin/ping", tarfile.LNKTYPE, mode=0o755),
        folder("opt/deep"),
        link("opt/deep/ping", "opt/ping", tarfile.LNKTYPE, mode=0o755),
        owned("note", b"n", pax_headers=attributes(user__comment="wörds")),
        folder("dir", pax_headers=attributes(user__of__directory="yes")),
    )
    upper = make_tar(
        folder("opt"),
        owned("opt/first", b"two names", uid=5),
        folder("srv"),
        link("srv/second", "opt/first", tarfile.LNKTYPE, uid=5),
        owned("usr/bin/arping", b"a", mode=0o755, pax_headers=caps),
    )
    return [base, upper]


def many() -> list[bytes]:
    """130 layers: each adds a file, every third removes one of an earlier layer, every fifth changes a mode."""
    layers = []
    for number in range(130):
        entries = [folder("d", mtime=1_500_000_000 + number), owned(f"d/{number}", str(number).encode())]
        if number % 3 == 2:
            entries.append(owned(f"d/.wh.{number - 2}", b""))
        if number % 5 == 4:
            entries.append(owned("changing", b"c", mode=0o600 + number % 64, mtime=1_600_000_000 + number))
        layers.append(make_tar(*entries))
    return layers


MADE: dict[str, Callable[[], list[bytes]]] = {
    "all-kinds": all_kinds,
    "whiteouts": whiteouts,
    "attributes": attributes_and_links,
    "130-layers": many,
}


class Packed(Layout):
    """A layout whose layers say how they are packed, as umoci goes by that."""

    def __init__(self, layers: list[bytes], kind: str) -> None:
        super().__init__()
        self._kind = kind
        pack = zstandard.compress if kind == "zstd" else lambda data: gzip.compress(data, 1)
        self.add(self.image(*layers, pack=pack), **named(NAME))

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        return super().blob(data, f"{media_type}+{self._kind}" if media_type == OCI_LAYER else media_type)


@pytest.mark.parametrize("what", [*MADE, "busybox", "tools", "zstd"])
def test_the_tree_is_that_of_umoci(what: str, tmp_path: Path, image_archives: dict[str, Path]) -> None:
    archive = image_archives.get(what)
    if archive is None:
        layers = MADE.get(what, all_kinds)()
        archive = tmp_path / "image.tar"
        archive.write_bytes(Packed(layers, "zstd" if what == "zstd" else "gzip").tar())
    store = ImageStore(tmp_path / "store")
    try:
        (image,) = store.load(archive)
        ours = in_overlay([*store.layers(image), store.staging], tmp_path)
    finally:
        store.close()
    if what == "zstd":  # this umoci knows no zstd: the same layers, packed otherwise, are its model
        archive.write_bytes(Packed(layers, "gzip").tar())
    theirs = by_umoci(archive, tmp_path)
    shutil.rmtree(tmp_path / "bundle")
    assert len(ours) > 5
    different = {path: (ours.get(path), theirs.get(path)) for path in ours.keys() | theirs.keys()}
    assert {path: pair for path, pair in different.items() if pair[0] != pair[1]} == {}


def by_umoci(archive: Path, tmp_path: Path) -> dict[str, Any]:
    layout, bundle = tmp_path / "oci", tmp_path / "bundle"
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    run("skopeo", "--policy", str(policy), "copy", "-q", f"oci-archive:{archive}", f"oci:{layout}:x")
    run("umoci", "unpack", "--image", f"{layout}:x", str(bundle))
    return json.loads(run("python3", "-c", LOOK, str(bundle / "rootfs")))  # type: ignore[no-any-return]


def in_overlay(layers: list[Path], tmp_path: Path) -> dict[str, Any]:
    """The merged tree of layers, the uppermost first, seen in a mount namespace of its own."""
    script = tmp_path / "mount.py"
    script.write_text(
        "import sys\nfrom podrt.linux.overlay import mount_overlay\n"
        "mount_overlay('/mnt', sys.argv[2:], [])\nsys.argv[1:] = ['/mnt']\n" + LOOK
    )
    import sys

    command = ["unshare", "-m", "--propagation", "private", sys.executable, str(script), "", *map(str, layers)]
    return json.loads(run(*command))  # type: ignore[no-any-return]


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{' '.join(command[:3])}: {done.stderr}"
    return done.stdout


LOOK = """
import hashlib, json, os, stat, sys
root = sys.argv[1]
found, inodes = {}, {}
for where, directories, files in os.walk(root):
    for path in [where] + [os.path.join(where, n) for n in files] + [
        os.path.join(where, n) for n in directories if os.path.islink(os.path.join(where, n))
    ]:
        s = os.lstat(path)
        name = os.path.relpath(path, root)
        if len(name) == 32 and not name.strip("0123456789abcdef-"):
            continue
        entry = {"mode": oct(s.st_mode), "owner": [s.st_uid, s.st_gid]}
        if name != ".":
            entry["mtime"] = s.st_mtime_ns
        if stat.S_ISLNK(s.st_mode):
            entry["target"] = os.readlink(path)
        elif stat.S_ISREG(s.st_mode):
            entry["content"] = hashlib.sha256(open(path, "rb").read()).hexdigest()
            if s.st_nlink > 1:
                inodes.setdefault(s.st_ino, []).append(name)
        names = os.listxattr(path, follow_symlinks=False)
        entry["xattrs"] = {
            n: os.getxattr(path, n, follow_symlinks=False).hex() for n in names if not n.startswith("trusted.overlay")
            and not n.startswith("user.rootlesscontainers")
        }
        found[name] = entry
for names in inodes.values():
    for name in names:
        found[name]["links"] = sorted(names)
print(json.dumps(found))
"""
