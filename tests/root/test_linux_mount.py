"""Mount operations carried out for real, each list in a process and mount namespace of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podrt.linux import mount_table

PRELUDE = """
import errno, json, os, stat, sys
from podrt.linux import abi, inroot, libc, mount, mount_table
from podrt.linux.mount import BindTree, FileSystem, Overlay, Pivot, Propagation, Root
from podrt.linux.mount_console import Console, open_terminal
from podrt.linux.mount_context import Context
from podrt.linux.mount_cover import Mask, ReadOnly, ReadOnlyRoot
from podrt.linux.mount_nodes import DeviceNode, Directory, File, Symlink
root = sys.argv[1]
libc.unshare(abi.CLONE_NEWNS)
libc.mount(None, "/", flags=abi.MS_REC | abi.MS_PRIVATE)
context = Context()
def run(*operations):
    for operation in operations:
        mount.decode(json.loads(json.dumps(mount.encode(operation)))).execute(context)
def failure(*operations):
    try:
        run(*operations)
    except OSError as error:
        return errno.errorcode[error.errno]
    return ""
result = None
"""


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A directory on which an overlay's upper directory may be."""
    base = Path("/var/tmp") / f"podrt-mount-{os.getpid()}-{tmp_path.name}"
    base.mkdir(parents=True)
    yield base
    assert not mount_table.mount_points(base), "a mount was left in the host's namespace"
    shutil.rmtree(base)


def run(code: str, root: Path) -> Any:
    program = PRELUDE + textwrap.dedent(code) + "\nprint(json.dumps(result))"
    done = subprocess.run([sys.executable, "-c", program, str(root)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_whole_root(tree: Path) -> None:
    for name in ("upper", "work", "merged", *(f"layer{i}" for i in range(3))):
        (tree / name).mkdir()
    for i in range(3):
        (tree / f"layer{i}" / "who").write_text(str(i))
        (tree / f"layer{i}" / f"only{i}").write_text("")
    (tree / "volume").mkdir()
    (tree / "volume" / "v").write_text("volume")
    code = """
    tree = mount_table.clone_tree(root + "/volume")
    one = mount_table.clone_tree(root + "/volume/v", recursive=False)
    context.fds = [tree, one]
    run(
        Overlay(root + "/merged", tuple(root + f"/layer{i}" for i in range(3)), root + "/upper", root + "/work"),
        FileSystem("/proc", "proc", "proc", abi.MOUNT_ATTR_NOSUID | abi.MOUNT_ATTR_NODEV | abi.MOUNT_ATTR_NOEXEC),
        FileSystem("/dev", "tmpfs", "tmpfs", abi.MOUNT_ATTR_NOSUID, ("mode=755", "size=65536k")),
        FileSystem("/dev/pts", "devpts", "devpts", 0, ("newinstance", "ptmxmode=0666", "mode=0620")),
        DeviceNode("/dev/null", "c", 1, 3),
        Symlink("/dev/fd", "/proc/self/fd"),
        BindTree("/data/deep", 0, read_only=True),
        BindTree("/etc/hosts", 1, directory=False),
        Directory("/a/b", 0o750),
        File("/etc/hostname", 0o644, "me"),
        Mask("/proc/version"), Mask("/proc/acpi"), Mask("/proc/scsi"), Mask("/proc/irq"), Mask("/proc/bus"),
        Mask("/proc/nothing"),
        ReadOnly("/proc/sys"), ReadOnly("/proc/missing"),
    )
    master, context.console_fd = open_terminal(context.root_fd)
    run(Console(), ReadOnlyRoot(), Pivot(root + "/merged"))
    result = {
        "cwd": libc.getcwd(), "ls": sorted(os.listdir("/")), "who": open("/who").read(),
        "volume": open("/data/deep/v").read(), "hosts": open("/etc/hosts").read(),
        "console": os.fstat(context.console_fd).st_rdev == os.stat("/dev/console").st_rdev,
        "masked file": os.stat("/proc/version").st_rdev == os.makedev(1, 3),
        "masked": [os.listdir(f"/proc/{n}") for n in ("irq", "bus")],
        "b": oct(os.stat("/a/b").st_mode),
        "null": open("/dev/null").read(), "hostname": open("/etc/hostname").read(),
        "points": [p.path for p in mount_table.mount_points()],
    }
    def write(path):
        try:
            open(path, "w").close()
        except OSError as error:
            return errno.errorcode[error.errno]
    result["writes"] = [write(p) for p in ("/x", "/data/deep/x", "/proc/irq/x", "/proc/sys/kernel/panic", "/dev/x")]
    """
    result = run(code, tree)
    assert result["cwd"] == "/"
    assert result["who"] == "0"
    assert {"only0", "only1", "only2"} <= set(result["ls"])
    assert (result["volume"], result["hosts"], result["hostname"]) == ("volume", "volume", "me")
    assert result["console"] and result["masked file"]
    assert result["masked"] == [[], []]
    assert result["b"] == "0o40750"
    assert result["writes"] == ["EROFS", "EROFS", "EROFS", "EROFS", None]
    assert all(not path.startswith(str(tree)) for path in result["points"])


def test_cve_2021_30465_links_of_the_image_lead_nowhere_outside(tree: Path) -> None:
    """Absolute links, relative links upwards, links to nowhere, links of links: all end inside the root."""
    root, outside = tree / "root", tree / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "absolute").symlink_to(outside)
    (root / "upwards").symlink_to("../../../../../.." + str(outside))
    (root / "nowhere").symlink_to("/made/../made/here")
    (root / "loop").symlink_to("loop")
    code = """
    run(Root(root + "/root"))
    source = mount_table.clone_tree("/usr")
    context.fds = [source] + [mount_table.clone_tree("/usr") for _ in range(4)]
    run(
        Directory("/absolute/x"), Directory("/upwards/y"), File("/nowhere/z"), File("/../../../dotdot"),
        BindTree("/absolute/bind", 0),
    )
    result = [failure(Directory("/loop/x")), failure(Directory("/nowhere/z/file-is-no-directory"))]
    """
    assert run(code, tree) == ["ELOOP", "ENOTDIR"]
    assert list(outside.iterdir()) == []
    inside = root / str(outside).lstrip("/")
    assert sorted(path.name for path in inside.iterdir()) == ["bind", "x", "y"]
    assert (root / "made/here/z").is_file()
    assert (root / "dotdot").is_file()


def test_cve_2021_30465_a_link_exchanged_during_the_mount(tree: Path) -> None:
    """A neighbour swaps a directory for a link to the host all the time; nothing outside is ever mounted on."""
    (tree / "root/volume/target").mkdir(parents=True)
    (tree / "root/volume/link").symlink_to("/../../../../../../../../../var/tmp")
    code = """
    import ctypes
    run(Root(root + "/root"))
    pid = os.fork()
    if pid == 0:
        libc.prctl(abi.PR_SET_PDEATHSIG, 9)
        renameat2 = {"x86_64": 316}.get(os.uname().machine, 276)
        syscall = ctypes.CDLL(None).syscall
        a, b = (root + "/root/volume/target").encode(), (root + "/root/volume/link").encode()
        while True:
            syscall(renameat2, -100, a, -100, b, 2)
    failures = 0
    for _ in range(300):
        context.fds = [mount_table.clone_tree("/usr", recursive=False)]
        failures += bool(failure(BindTree("/volume/target/here", 0)))
        os.close(context.fds[0])
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    points = [p.path for p in mount_table.mount_points() if p.path.endswith("/here")]
    inside = [p for p in points if p.startswith(root + "/root/")]
    result = [failures < 300, len(points) > 0, points == inside]
    """
    assert run(code, tree) == [True, True, True]
    assert not Path("/var/tmp/here").exists()


def test_cve_2025_52881_proc_is_never_a_link_nor_a_target(tree: Path) -> None:
    (tree / "root/elsewhere").mkdir(parents=True)
    (tree / "root/proc").symlink_to("/elsewhere")
    code = """
    run(Root(root + "/root"))
    context.fds = [mount_table.clone_tree("/usr")]
    result = [failure(FileSystem("/proc", "proc", "proc"))]
    os.unlink(root + "/root/proc")
    run(FileSystem("/proc", "proc", "proc"), Directory("/elsewhere"))
    os.symlink("/proc", root + "/root/link")
    result += [failure(BindTree("/proc/self", 0)), failure(BindTree("/link/sys", 0)), failure(BindTree("/proc", 0))]
    result += [failure(Directory("/proc/self/root/x")), failure(Directory("/proc/self/cwd/x"))]
    """
    assert run(code, tree) == ["ELOOP", "EPERM", "EPERM", "EPERM", "ELOOP", "ELOOP"]


def test_cve_2025_31133_only_the_null_device_masks(tree: Path) -> None:
    (tree / "root").mkdir()
    (tree / "root" / "secret").write_text("secret")
    code = """
    run(Root(root + "/root"))
    open(root + "/notnull", "w").close()
    libc.mount(root + "/notnull", "/dev/null", flags=abi.MS_BIND)
    result = [failure(Mask("/secret")), open(root + "/root/secret").read()]
    libc.umount2("/dev/null")
    run(Mask("/secret"))
    result.append(open(root + "/root/secret").read())
    """
    assert run(code, tree) == ["ENODEV", "secret", ""]


def test_cve_2025_52565_the_console_is_the_peer_and_no_link(tree: Path) -> None:
    (tree / "root/dev").mkdir(parents=True)
    (tree / "root/dev/console").symlink_to("/target")
    (tree / "root/target").write_text("")
    (tree / "root/file").write_text("")
    code = """
    run(Root(root + "/root"), FileSystem("/dev/pts", "devpts", "devpts", 0, ("newinstance", "ptmxmode=0666")))
    master, context.console_fd = open_terminal(context.root_fd)
    result = [failure(Console())]
    context.console_fd = os.open(root + "/root/file", os.O_RDWR)
    os.unlink(root + "/root/dev/console")
    result.append(failure(Console()))
    """
    assert run(code, tree) == ["ELOOP", "ENOTTY"]


def test_device_nodes_and_links_that_are_something_else(tree: Path) -> None:
    (tree / "root/dev").mkdir(parents=True)
    (tree / "root/dev/null").write_text("")
    (tree / "root/dev/fd").write_text("")
    code = """
    run(Root(root + "/root"), DeviceNode("/dev/zero", "c", 1, 5, 0o640, 12, 34))
    found = os.stat(root + "/root/dev/zero")
    result = [
        failure(DeviceNode("/dev/null", "c", 1, 3)), failure(DeviceNode("/dev/zero", "c", 1, 5)),
        failure(DeviceNode("/dev/zero", "c", 1, 3)), failure(Symlink("/dev/fd", "/proc/self/fd")),
        found.st_uid, found.st_gid,
    ]
    """
    assert run(code, tree) == ["EEXIST", "", "EEXIST", "EEXIST", 12, 34]


def test_an_overlay_of_many_layers_on_old_kernels(tree: Path) -> None:
    """Without lowerdir+ the options must fit in a page: layers are named by descriptor."""
    for name in ("upper", "work", "merged"):
        (tree / name).mkdir()
    for i in range(200):
        (tree / f"a:rather,long-name-of-a-layer-{i:064}").mkdir()
        (tree / f"a:rather,long-name-of-a-layer-{i:064}" / f"f{i}").write_text("")
    code = """
    from podrt.linux import overlay
    overlay._by_layer = lambda lower, options: None
    layers = tuple(f"{root}/a:rather,long-name-of-a-layer-{i:064}" for i in range(200))
    run(Overlay(root + "/merged", layers, root + "/upper", root + "/work"), Directory("/new"))
    result = len(os.listdir(root + "/merged"))
    """
    assert run(code, tree) == 201


def test_an_overlay_of_idmapped_layers(tree: Path) -> None:
    for name in ("lower", "merged", "upper", "work"):
        (tree / name).mkdir(parents=True)
    (tree / "lower" / "file").write_text("")
    os.chown(tree / "lower" / "file", 5, 6)
    code = """
    r, w = os.pipe()
    pid, pidfd = libc.clone3(abi.CLONE_NEWUSER)
    if pid == 0:
        os.close(w)
        os.read(r, 1)
        os._exit(0)
    for name in ("uid_map", "gid_map"):
        open(f"/proc/{pid}/{name}", "w").write("0 100000 65536")
    user = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
    os.close(w)
    os.waitpid(pid, 0)
    context.fds = [mount_table.clone_tree(root + "/lower")]
    mount_table.set_tree(context.fds[0], idmap_userns_fd=user)
    run(Overlay(root + "/merged", (), root + "/upper", root + "/work", (), (0,)))
    found = os.stat(root + "/merged/file")
    os.chmod(root + "/merged/file", 0o600)
    inner = os.stat(root + "/upper/file")
    result = [found.st_uid, found.st_gid, inner.st_uid, inner.st_gid]
    """
    assert run(code, tree) == [100005, 100006, 100005, 100006]


def test_propagation_of_a_bind(tree: Path) -> None:
    (tree / "root").mkdir()
    (tree / "shared/sub").mkdir(parents=True)
    code = """
    libc.mount("tmpfs", root + "/shared", "tmpfs")
    os.mkdir(root + "/shared/sub")
    libc.mount(None, root + "/shared", flags=abi.MS_SHARED)
    context.fds = [mount_table.clone_tree(root + "/shared") for _ in range(3)]
    run(Root(root + "/root"), BindTree("/private", 0, propagation=abi.MS_PRIVATE),
        BindTree("/slave", 1, propagation=abi.MS_SLAVE), BindTree("/both", 2))
    libc.mount("tmpfs", root + "/shared/sub", "tmpfs")
    open(root + "/shared/sub/seen", "w").close()
    result = [os.listdir(f"{root}/root/{name}/sub") for name in ("private", "slave", "both")]
    """
    assert run(code, tree) == [[], ["seen"], ["seen"]]


def test_pins_and_private_mounts(tree: Path) -> None:
    (tree / "run").mkdir()
    code = """
    mount_table.make_private_mount(root + "/run")
    mount_table.make_private_mount(root + "/run")
    libc.unshare(abi.CLONE_NEWUTS)
    fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
    path = root + "/run/uts"
    mount_table.pin_namespace(fd, path)
    result = [os.stat(path).st_ino == os.fstat(fd).st_ino, [p.fstype for p in mount_table.mount_points(root)][1:]]
    try:
        mount_table.pin_namespace(fd, path)
    except FileExistsError:
        result.append("exists")
    mount_table.unpin(path)
    mount_table.unpin(path)
    result += [os.path.exists(path), len(mount_table.mount_points(root))]
    """
    assert run(code, tree) == [True, ["nsfs"], "exists", False, 1]


def test_a_mount_hidden_below_a_newer_one_is_not_taken_for_a_mount_point(tree: Path) -> None:
    (tree / "run/netns").mkdir(parents=True)
    code = """
    mount_table.make_shared_mount(root + "/run/netns")
    libc.mount("tmpfs", root + "/run", "tmpfs")
    os.mkdir(root + "/run/netns")
    mount_table.make_shared_mount(root + "/run/netns")
    mount_table.make_shared_mount(root + "/run/netns")
    points = [p for p in mount_table.mount_points(root) if p.path.endswith("/run/netns")]
    result = [len(points), points[-1].fstype, points[-1].shared]
    """
    assert run(code, tree) == [2, "tmpfs", True]


def test_the_runtime_directory_is_a_tmpfs_of_its_own(tree: Path) -> None:
    (tree / "disk").mkdir(mode=0o711)
    (tree / "disk/stale").touch()
    (tree / "memory").mkdir()
    code = """
    libc.mount("tmpfs", root + "/memory", "tmpfs")
    os.mkdir(root + "/memory/run", 0o711)
    open(root + "/memory/run/kept", "w").close()
    for path in (root + "/disk", root + "/memory/run"):
        mount_table.make_runtime_mount(path)
        mount_table.make_runtime_mount(path)
    result = [os.listdir(root + "/disk"), os.listdir(root + "/memory/run"), oct(os.stat(root + "/disk").st_mode)]
    result += [sorted((p.path.rpartition("/")[2], p.fstype, p.shared) for p in mount_table.mount_points(root))]
    """
    assert run(code, tree) == [
        [],
        ["kept"],
        "0o40711",
        [["disk", "tmpfs", False], ["memory", "tmpfs", False], ["run", "tmpfs", False]],
    ]
