"""The attacks on a launch that design.md lists, each tried against a real supervisor and named after its advisory."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from podrt.errors import LaunchError
from podrt.linux import mount, mount_console, mount_cover, mount_nodes, mount_table
from podrt.supervisor import interpreter
from podrt.supervisor.protocol import LaunchSpec, Stdio
from tests.framework.supervisor import PATH, SupervisorBox

KINDS = ("mnt", "net", "uts", "ipc", "cgroup", "pid")


@pytest_asyncio.fixture
async def box() -> AsyncIterator[SupervisorBox]:
    made = SupervisorBox()
    await made.start()
    yield made
    problems = await made.destroy()
    assert not problems, "\n".join(problems)


def digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


OVERWRITE = """#!/proc/self/exe
import os, sys, time
exe = os.open("/proc/self/exe", os.O_RDONLY)
print("runs", os.readlink("/proc/self/exe"))
for path in ("/proc/self/exe", f"/proc/self/fd/{exe}"):
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
        try:
            os.write(os.open(path, flags), b"#!/evil")
            print("OVERWRITTEN")
        except OSError as error:
            print("refused", error.errno)
sys.stdout.flush()
if os.fork() == 0:
    # No process of the container runs it any more: only what other protection there is holds now.
    for _ in range(50):
        try:
            fd = os.open(f"/proc/self/fd/{exe}", os.O_WRONLY)
            os.write(fd, b"#!/evil")
            print("OVERWRITTEN")
        except OSError as error:
            last = error.errno
        time.sleep(0.005)
    print("at the end", last, flush=True)
    os._exit(0)
os.wait()
"""


async def test_cve_2019_5736_exe_overwrite(box: SupervisorBox) -> None:
    """A program of the image that is really the runtime's own executable tries to overwrite it."""
    before = digest(sys.executable)
    bad = box.upper("c") / "bad"
    bad.write_text(OVERWRITE)
    bad.chmod(0o755)
    await box.launch(box.spec("c", "/bad"))
    await box.ended("c")
    out = box.output("c")
    assert "runs /memfd:podrt-supervisor" in out, out
    assert "OVERWRITTEN" not in out and out.count("refused") == 6 and "at the end" in out
    assert digest(sys.executable) == before
    # The same from the host's side: it is a copy, and sealed for good.
    fd = os.open(f"/proc/{box.client.pid}/exe", os.O_RDONLY)
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        assert seals & fcntl.F_SEAL_WRITE and seals & fcntl.F_SEAL_SHRINK and seals & fcntl.F_SEAL_SEAL
    finally:
        os.close(fd)
    copy = interpreter.sealed_copy()
    try:
        with pytest.raises(PermissionError):
            os.write(copy, b"x")
        with pytest.raises(PermissionError):
            os.ftruncate(copy, 0)
    finally:
        os.close(copy)


@pytest.mark.parametrize("way", ["container", "link", "exec"])
async def test_cve_2024_21626_working_directory(box: SupervisorBox, way: str) -> None:
    """A working directory named by descriptor must not lead to a directory of the host."""
    refused = 0
    container = await box.launch(box.script("victim", "exec sleep 60"))
    namespaces = [os.open(f"/proc/{container.pid}/ns/{kind}", os.O_RDONLY) for kind in KINDS]
    host = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    reader, writer = os.pipe2(os.O_NONBLOCK)
    for number in range(3, 40):
        cwd = "/link" if way == "link" else f"/proc/self/fd/{number}"
        name = f"c{number}"
        (box.upper(name) / "link").symlink_to(f"/proc/self/fd/{number}")
        script = "pwd -P; ls -a"
        if way == "exec":
            spec = LaunchSpec(
                name,
                "exec",
                join=tuple((kind, index) for index, kind in enumerate(KINDS)),
                stdio=Stdio("fds", None, 7, None),
                argv=("sh", "-c", script),
                env=(PATH,),
                cwd=cwd,
            )
        else:
            spec = box.script(name, script, cwd=cwd)
        try:
            await box.launch(spec, [*namespaces, host, writer])
        except LaunchError as error:
            assert error.step == "cwd"
            refused += 1
            continue
        await box.ended(name)
        out = os.read(reader, 4096).decode() if way == "exec" else box.output(name)
        # A number that is free until the look-up itself takes it: the directory of descriptors, the container's own.
        assert out.startswith("/proc/") and "bin" not in out.split()
    assert refused >= 10
    for fd in (*namespaces, host, reader, writer):
        os.close(fd)
    os.kill(container.pid, signal.SIGKILL)
    await box.ended("victim")


async def test_cve_2024_21626_leaked_descriptors(box: SupervisorBox) -> None:
    """No descriptor of the host survives into the container, an exec in it, or is seen by it in between."""
    host = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(host, True)
    script = "for f in /proc/self/fd/*; do echo ${f##*/} $(readlink $f); done"
    try:
        await box.launch(box.script("c", script), [host] * 20)
        await box.ended("c")
    finally:
        os.close(host)
    numbers = {line.split()[0] for line in box.output("c").splitlines()}
    # The shell opens one for the directory listing at most.
    assert {"0", "1", "2"} <= numbers and len(numbers) <= 4, box.output("c")
    assert not any(line.endswith(" /") for line in box.output("c").splitlines())


async def test_cve_2019_14271_nothing_is_loaded_from_the_image(box: SupervisorBox) -> None:
    """Modules and name service libraries of the image must not run in the runtime's child: each would leave a mark."""
    upper = box.upper("c")
    marks = "import os\nos.close(os.open('/LOADED', os.O_CREAT))\n"
    repository = Path(__file__).resolve().parents[2]
    libraries = [f"usr/lib/python3.{minor}" for minor in range(11, 15)]
    names = (
        "traceback.py",
        "socket.py",
        "pwd.py",
        "grp.py",
        "linecache.py",
        "encodings/idna.py",
        "encodings/latin_1.py",
    )
    for directory in (*libraries, str(repository).lstrip("/"), "."):
        for name in names:
            path = upper / directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(marks)
    etc = upper / "etc"
    etc.mkdir()
    (etc / "nsswitch.conf").write_text("passwd: evil\ngroup: evil\nhosts: evil\n")
    (etc / "passwd").write_text("w\u00f6rker:x:1500:1600::/home/w:/bin/sh\n")
    await box.launch(box.script("c", "id -u", user="w\u00f6rker", hostname="h\u00f6st".encode().decode("latin-1")[:3]))
    await box.ended("c")
    assert box.output("c") == "1500\n"
    for changes in ({"user": "n\u00f6body"}, {"cwd": "/etc/passwd/x"}, {"argv": ("n\u00f6-such",)}):
        with pytest.raises(LaunchError):
            await box.launch(
                box.script("c2", "true", lower=(upper, "/"), **changes)
                if "argv" not in changes
                else box.spec("c2", *changes["argv"], lower=(upper, "/"))
            )
    assert not (upper / "LOADED").exists() and not (box.upper("c2") / "LOADED").exists()


IMPORTS = """
import os, sys
from podrt.supervisor.child import forbid_imports
os.chdir(sys.argv[1])
sys.path.insert(0, "")
forbid_imports()
for name in ("evil", "colorsys", "encodings.idna"):
    try:
        __import__(name)
        print("imported", name)
    except ImportError:
        print("refused")
try:
    "x".encode("evil")
    print("imported a codec")
except LookupError:
    print("refused")
"""


def test_cve_2019_14271_imports_are_impossible(tmp_path: Path) -> None:
    """Whatever a child might ask for that is not loaded yet, it is refused: no file of the working directory, of the
    image's own Python, or of its codecs."""
    for name in ("evil.py", "encodings/evil.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("print('LOADED')\n")
    repository = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, str(tmp_path)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(repository)},
        timeout=20,
    )
    assert done.stdout.split() == ["refused"] * 4, done.stdout + done.stderr


@pytest.mark.parametrize("link", ["/", "../../../../../../..", "absolute"])
async def test_cve_2021_30465_mount_target_through_a_link(box: SupervisorBox, link: str) -> None:
    """A link in the image on the way to a mount point leads to a place in the image, never on the host."""
    victim = box.root / "victim"
    victim.mkdir()
    (box.upper("c") / "data").symlink_to(str(victim) if link == "absolute" else link + str(victim))
    source = box.root / "source"
    source.mkdir()
    (source / "hello").write_text("there")
    tree = mount_table.clone_tree(str(source))
    try:
        operation = mount.BindTree("/data/deep", 0, True, False, False, 0)
        spec = box.script("c", f"cat {victim}/deep/hello; cat /data/deep/hello", operations=[operation])
        await box.launch(spec, [tree])
        await box.ended("c")
    finally:
        os.close(tree)
    assert box.output("c") == "therethere"
    assert list(victim.iterdir()) == []


async def test_cve_2024_45310_mount_target_exchanged_meanwhile(box: SupervisorBox) -> None:
    """Someone who shares a volume exchanges a directory for a link to the host while mount points are made in it."""
    victim, volume, source = (box.root / name for name in ("victim", "volume", "source"))
    for path in (victim, volume / "real", source):
        path.mkdir(parents=True)
    (volume / "evil").symlink_to(victim)
    libc = ctypes.CDLL(None, use_errno=True)
    stop = threading.Event()

    def exchange() -> None:
        first, second = str(volume / "real").encode(), str(volume / "evil").encode()
        while not stop.is_set():
            libc.renameat2(-100, first, -100, second, 2)

    attacker = threading.Thread(target=exchange)
    attacker.start()
    outcomes = set()
    try:
        for number in range(40):
            trees = [mount_table.clone_tree(str(volume)), mount_table.clone_tree(str(source))]
            operations = [
                mount.BindTree("/volume", 0, True, False, False, 0),
                mount.BindTree("/volume/real/made", 1, True, False, False, 0),
                mount_nodes.File("/volume/real/file", 0o644, "x"),
            ]
            name = f"c{number}"
            try:
                await box.launch(box.script(name, "true", operations=operations), trees)
                await box.ended(name)
                outcomes.add("ran")
            except LaunchError as error:
                assert error.step == "mount"
                outcomes.add("refused")
            finally:
                for tree in trees:
                    os.close(tree)
            assert list(victim.iterdir()) == [], "something was made on the host"
    finally:
        stop.set()
        attacker.join()
    assert outcomes


async def test_cve_2025_31133_masked_paths(box: SupervisorBox) -> None:
    """/dev/null of the image is something else: a masked file still is the null device."""
    # What the attack would write to; it must do the machine no harm where it succeeds.
    target = Path("/proc/sys/kernel/printk_ratelimit_burst")
    value = target.read_text().strip()
    operations = [
        mount_cover.Mask("/proc/timer_list"),
        mount_cover.Mask("/etc"),
    ]
    root, standard = box.overlay("c")
    standard = [one for one in standard if not isinstance(one, mount_nodes.DeviceNode)]
    evil = mount_nodes.Symlink("/dev/null", str(target))
    mounts = [*standard, evil, *operations, mount.Pivot(str(root))]
    script = (
        f"stat -c %t:%T /proc/timer_list; ls /etc | wc -l; echo {int(value) + 1} >/proc/timer_list; readlink /dev/null"
    )
    await box.launch(box.script("c", script, mounts=tuple(mount.encode(one) for one in mounts)))
    await box.ended("c")
    assert box.output("c").split() == ["1:3", "0", str(target)]
    after = target.read_text().strip()
    target.write_text(value)
    assert after == value


async def test_cve_2025_52565_console(box: SupervisorBox) -> None:
    """/dev/console of the image is a link to a file of procfs: the terminal must not be mounted over that."""
    root, standard = box.overlay("c")
    # A file that every kernel has, unlike sysrq-trigger: else the attack would fail for that reason.
    evil = mount_nodes.Symlink("/dev/console", "/proc/uptime")
    mounts = [*standard, evil, mount_console.Console(), mount.Pivot(str(root))]
    encoded = tuple(mount.encode(one) for one in mounts)
    with pytest.raises(LaunchError) as caught:
        await box.launch(box.script("c", "true", stdio=Stdio("terminal"), terminal=True, mounts=encoded))
    assert caught.value.step == "mount" and "console" in str(caught.value)
    assert not any("uptime" in point.path for point in mount_table.mount_points("/proc"))


@pytest.mark.parametrize("target", ["/proc/self/attr", "/sneaky/attr", "/proc/sys"])
async def test_cve_2025_52881_procfs_writes(box: SupervisorBox, target: str) -> None:
    """A volume must not cover what the runtime writes to; and its writes are done on the host's own procfs anyway."""
    (box.upper("c") / "sneaky").symlink_to("/proc/self")
    source = box.root / "source"
    source.mkdir()
    tree = mount_table.clone_tree(str(source))
    try:
        with pytest.raises(LaunchError) as caught:
            operation = mount.BindTree(target, 0, True, False, False, 0)
            await box.launch(box.script("c", "true", operations=[operation]), [tree])
        assert caught.value.step == "mount"
    finally:
        os.close(tree)
    # A file system of the image's choice instead of /proc: the values arrive all the same.
    root, standard = box.overlay("fake")
    (box.upper("fake") / "proc" / "sys" / "net" / "ipv4").mkdir(parents=True)
    (box.upper("fake") / "proc" / "sys" / "net" / "ipv4" / "ip_forward").write_text("image")
    mounts = [one for one in standard if "/proc" not in one] + [mount.Pivot(str(root))]
    spec = box.script(
        "fake",
        "cat /proc/sys/net/ipv4/ip_forward; mount -t proc proc /mnt;"
        " cat /mnt/sys/net/ipv4/ip_forward /mnt/self/oom_score_adj",
        mounts=tuple(mount.encode(one) for one in mounts),
        sysctls=(("net/ipv4/ip_forward", "1"),),
        oom_score_adj=321,
        credentials={"bounding": ("CAP_SYS_ADMIN",)},
    )
    await box.launch(spec)
    await box.ended("fake")
    assert box.output("fake") == "image1\n321\n"


async def test_the_child_can_not_be_traced_by_the_container_it_joins(box: SupervisorBox) -> None:
    """A root of the container must not read the descriptors of a child on its way in."""
    watch = (
        "import os,time\n"
        "seen=set()\n"
        "print('ready', flush=True)\n"
        "end=time.time()+4\n"
        "while time.time()<end:\n"
        "    for pid in os.listdir('/proc'):\n"
        "        if pid.isdigit() and int(pid)>1:\n"
        "            try:\n"
        "                for fd in os.listdir(f'/proc/{pid}/fd'):\n"
        "                    if int(fd)>2: seen.add(os.readlink(f'/proc/{pid}/fd/{fd}'))\n"
        "            except OSError: pass\n"
        "print([name for name in sorted(seen) if 'ld.so.cache' not in name and '.so.' not in name])\n"
    )
    # After its exec the program opens its libraries, and may be seen to.
    container = await box.launch(
        box.spec("c", "/usr/bin/python3", "-S", "-c", watch, credentials={"bounding": ("CAP_DAC_OVERRIDE",)})
    )
    namespaces = [os.open(f"/proc/{container.pid}/ns/{kind}", os.O_RDONLY) for kind in KINDS]
    join = tuple((kind, index) for index, kind in enumerate(KINDS))
    host = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    await box.eventually(lambda: "ready" in box.output("c"), "the watcher")
    start, number = time.monotonic(), 0
    while time.monotonic() - start < 1.5:
        number += 1
        await box.launch(
            LaunchSpec(f"c/exec/{number}", "exec", join=join, argv=("true",), env=(PATH,)), [*namespaces, host]
        )
        await asyncio.sleep(0.01)
    assert number > 3
    for fd in (*namespaces, host):
        os.close(fd)
    await box.ended("c")
    assert box.output("c") == "ready\n[]\n"


async def test_cve_2020_15257_abstract_sockets(box: SupervisorBox) -> None:
    """A container in the host's network namespace must find no socket of the runtime's to talk to."""
    with open("/proc/net/unix") as file:
        assert not [line for line in file if "@" in line and "podrt" in line]
    out = await box.run("c", f"cat /proc/net/unix | grep {box.root.name} || echo none", unshare=("mnt", "pid"))
    assert "@" not in out
    mode = box.config.supervisor_socket.stat().st_mode
    assert mode & 0o777 == 0o600
    stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        os.setgid(1000)
        os.setuid(1000)
        try:
            stranger.connect(str(box.config.supervisor_socket))
            os._exit(1)
        except PermissionError:
            os._exit(0)
        finally:
            os._exit(2)
    stranger.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
