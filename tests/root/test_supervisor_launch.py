"""What the child does between fork and exec, seen from inside the container it becomes."""

from __future__ import annotations

import asyncio
import errno
import os
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from podrt.errors import LaunchError
from podrt.linux import caps, mount, mount_nodes, mount_table
from podrt.supervisor.protocol import Credentials, LaunchSpec, Stdio
from tests.framework.supervisor import PATH, SupervisorBox

# What it is already: a write that isn't refused must do the machine no harm.
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern").read_text().strip()


@pytest_asyncio.fixture
async def box() -> AsyncIterator[SupervisorBox]:
    made = SupervisorBox()
    await made.start()
    yield made
    problems = await made.destroy()
    assert not problems, "\n".join(problems)


async def test_namespaces_are_new_and_names_are_set(box: SupervisorBox) -> None:
    kinds = ("mnt", "pid", "cgroup", "net", "uts", "ipc")
    script = (
        "hostname; " + "; ".join(f"readlink /proc/self/ns/{kind}" for kind in kinds) + "; echo $$; cat /proc/1/comm"
    )
    out = (await box.run("c", script, hostname="web-0", loopback_up=True)).splitlines()
    assert out[0] == "web-0"
    for kind, link in zip(kinds, out[1:7], strict=True):
        assert link.startswith(f"{kind}:") and link != os.readlink(f"/proc/self/ns/{kind}")
    assert out[7:] == ["1", "sh"]


async def test_exit_code_and_signal_are_true(box: SupervisorBox) -> None:
    await box.run("seven", "exit 7")
    assert (box.exits["seven"].code, box.exits["seven"].signal) == (7, 0)
    launched = await box.launch(box.script("killed", "exec sleep 60"))
    os.kill(launched.pid, 9)
    record = await box.ended("killed")
    assert (record.code, record.signal, record.known) == (0, 9, True)


async def test_only_three_descriptors_default_signals_and_a_session_of_its_own(box: SupervisorBox) -> None:
    program = (
        "import os,signal;"
        "print(sorted(int(f) for f in os.listdir('/proc/self/fd'))[:4]);"
        "s=open('/proc/self/status').read();"
        "print([l.split()[1] for l in s.splitlines() if l.startswith(('SigBlk','SigIgn'))]);"
        "print(os.getsid(0)==os.getpid())"
    )
    await box.launch(box.spec("c", "/usr/bin/python3", "-S", "-c", program))
    await box.ended("c")
    fds, signals, session = box.output("c").splitlines()
    assert fds == "[0, 1, 2, 3]", "3 is the directory that is being listed"
    # Python itself ignores SIGPIPE and SIGXFSZ; 32 and 33 are the C library's own, which it lets nobody change.
    blocked, ignored = eval(signals)
    assert int(blocked, 16) == 0
    assert int(ignored, 16) & ~((1 << 12) | (1 << 24) | (1 << 31) | (1 << 32)) == 0
    assert session == "True"


@pytest.mark.parametrize(
    ("user", "extra", "expected"),
    [
        ("0", (), "uid=0 gid=0 groups=0"),
        ("1234", (), "uid=1234 gid=0 groups=0"),
        ("1234:99", (7,), "uid=1234 gid=99 groups=99,7"),
        ("worker", (), "uid=1500 gid=1600 groups=1600,1700"),
        ("worker:crew", (5,), "uid=1500 gid=1700 groups=1700,5"),
        ("1500", (), "uid=1500 gid=1600 groups=1600,1700"),
    ],
)
async def test_users_come_from_the_image(box: SupervisorBox, user: str, extra: tuple[int, ...], expected: str) -> None:
    etc = box.upper("c") / "etc"
    etc.mkdir()
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\n\nbroken\nworker:x:1500:1600::/home/w:/bin/sh\n")
    (etc / "group").write_text("root:x:0:\nteam:x:1600:\ncrew:x:1700:someone,worker\n")
    spec = box.script(
        "c",
        'echo "uid=$(id -u) gid=$(id -g) groups=$(id -G | tr " " ,)"; echo $HOME',
        user=user,
        credentials={"extra_gids": extra},
    )
    launched = await box.launch(spec)
    await box.ended("c")
    got, home = box.output("c").splitlines()
    assert got.split(" groups=")[0] == expected.split(" groups=")[0]
    assert set(got.split("=")[-1].split(",")) == set(expected.split("=")[-1].split(","))
    assert home == ("/home/w" if user in ("worker", "worker:crew", "1500") else "/root" if user == "0" else "/")
    assert (launched.uid, launched.gid) == (int(got.split("uid=")[1].split()[0]), int(got.split("gid=")[1].split()[0]))


@pytest.mark.parametrize(
    ("changes", "step", "number", "text"),
    [
        ({"argv": ("no-such-program",)}, "exec", errno.ENOENT, '"no-such-program": executable file not found in $PATH'),
        ({"argv": ("/no/such",)}, "exec", errno.ENOENT, 'exec: "/no/such": stat /no/such: no such file or directory'),
        ({"argv": ("/etc/passwd",)}, "exec", errno.EACCES, 'exec: "/etc/passwd": permission denied'),
        ({"argv": ("/etc",)}, "exec", errno.EACCES, 'exec: "/etc": permission denied'),
        ({"user": "nobody-here"}, "user", 0, 'user: no user "nobody-here" in the image\'s /etc/passwd'),
        ({"user": "0:nogroup-here"}, "user", 0, 'user: no group "nogroup-here" in the image\'s /etc/group'),
        ({"credentials": {"non_root": True}}, "user", 0, "runAsNonRoot"),
        ({"cwd": "/etc/passwd/x"}, "cwd", errno.ENOTDIR, "cwd: /etc/passwd/x"),
        ({"rlimits": (("NOSUCH", 1, 1),)}, "rlimit", errno.EINVAL, "unknown resource limit NOSUCH"),
        ({"cgroup_tasks": ("/no/tasks",)}, "cgroup", errno.ENOENT, "/no/tasks"),
        ({"operations": [mount.FileSystem("/x", "nosuchfs", "x", 0, ())]}, "mount", errno.ENODEV, "/x"),
        ({"sysctls": (("kernel/core_pattern", CORE_PATTERN),)}, "sysctl", errno.EPERM, "kernel/core_pattern"),
        ({"sysctls": (("net/../kernel/core_pattern", CORE_PATTERN),)}, "sysctl", errno.EPERM, "core_pattern"),
    ],
)
async def test_a_failed_launch_names_its_step_and_leaves_nothing(
    box: SupervisorBox, changes: dict[str, object], step: str, number: int, text: str
) -> None:
    with pytest.raises(LaunchError) as caught:
        await box.launch(box.spec("c", *changes.pop("argv", ("true",)), **changes))  # type: ignore[misc,arg-type]
    assert caught.value.step == step
    assert caught.value.errno == number
    assert text in str(caught.value)
    assert box.children() == [] and "c" not in box.client.processes
    # The id is free again.
    await box.run("c", "true")


async def test_not_executable_format_and_missing_interpreter(box: SupervisorBox) -> None:
    upper = box.upper("c")
    (upper / "garbage").write_bytes(b"\x7fELF nonsense")
    (upper / "script").write_text("#!/no/interpreter\n")
    for name in ("garbage", "script"):
        (upper / name).chmod(0o755)
    with pytest.raises(LaunchError, match="exec format error"):
        await box.launch(box.spec("c", "/garbage"))
    with pytest.raises(LaunchError, match="interpreter or loader is missing"):
        await box.launch(box.spec("c", "/script"))


async def test_path_of_the_container_decides(box: SupervisorBox) -> None:
    tools = box.upper("c") / "opt" / "tools"
    tools.mkdir(parents=True)
    (tools / "hello").write_text("#!/bin/sh\necho from tools $0\n")
    (tools / "hello").chmod(0o755)
    await box.launch(box.spec("c", "hello", env=("PATH=/nowhere:/opt/tools", "A=b=c")))
    await box.ended("c")
    assert box.output("c") == "from tools /opt/tools/hello\n"


async def test_working_directory_is_made(box: SupervisorBox) -> None:
    out = await box.run("c", "pwd; ls -ld . | cut -d' ' -f1", cwd="/srv/deep/er")
    assert out == "/srv/deep/er\ndrwxr-xr-x\n"


async def test_limits_umask_and_oom_score(box: SupervisorBox) -> None:
    spec = box.script(
        "c",
        "ulimit -n; ulimit -c; umask; cat /proc/self/oom_score_adj",
        rlimits=(("NOFILE", 64, 128), ("CORE", 0, 0)),
        oom_score_adj=500,
        credentials={"umask": 0o27},
    )
    await box.launch(spec)
    await box.ended("c")
    assert box.output("c") == "64\n0\n0027\n500\n"


async def test_what_this_machine_refuses_is_a_warning(box: SupervisorBox) -> None:
    if "CAP_SYS_RESOURCE" in caps.current():
        pytest.skip("this machine lacks: a lack of CAP_SYS_RESOURCE")
    spec = box.script("c", "echo ran", rlimits=(("NOFILE", -1, -1),), oom_score_adj=-1000)
    launched = await box.launch(spec)
    await box.ended("c")
    assert box.output("c") == "ran\n"
    assert any("RLIMIT_NOFILE" in text for text in launched.warnings)
    assert any("oom_score_adj -1000" in text for text in launched.warnings)


async def test_capabilities_of_root_and_of_another_user(box: SupervisorBox) -> None:
    script = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status | cut -f2"
    three = ("CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE")
    mask, bind = f"{(1 << 0) | (1 << 5) | (1 << 10):016x}", f"{1 << 10:016x}"
    none = "0" * 16
    root = await box.run("root", script, credentials={"bounding": three})
    assert root.split() == [none, mask, mask, mask, none, "0"]
    user = await box.run("user", script, user="1000", credentials={"bounding": three, "no_new_privs": True})
    assert user.split() == [none, none, none, mask, none, "1"]
    ambient = {"bounding": three, "ambient": ("CAP_NET_BIND_SERVICE",)}
    raised = await box.run("ambient", script, user="1000", credentials=ambient)
    assert raised.split() == [bind, bind, bind, mask, bind, "0"]


async def test_seccomp_with_and_without_no_new_privs(box: SupervisorBox) -> None:
    # Load the number; mkdir and mkdirat (x86_64: 83, 258; aarch64 has only 34) -> EPERM; allow the rest.
    numbers = (83, 258) if os.uname().machine == "x86_64" else (34,)
    code = [struct.pack("HBBI", 0x20, 0, 0, 0)]
    code += [struct.pack("HBBI", 0x15, len(numbers) - index, 0, number) for index, number in enumerate(numbers)]
    code += [struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000), struct.pack("HBBI", 0x06, 0, 0, 0x00050000 | errno.EPERM)]
    fd = os.memfd_create("filter")
    os.write(fd, b"".join(code))
    try:
        for name, no_new_privs in (("with", True), ("without", False)):
            spec = box.script(
                name,
                "mkdir /tmp/x; grep ^Seccomp: /proc/self/status",
                credentials={"no_new_privs": no_new_privs},
                seccomp_fd=0,
            )
            await box.launch(spec, [fd])
            await box.ended(name)
            assert "Operation not permitted" in box.output(name, "stderr")
            assert box.output(name, "stdout").split() == ["Seccomp:", "2"]
    finally:
        os.close(fd)


async def test_standard_streams_can_be_reopened_by_an_ordinary_user(box: SupervisorBox) -> None:
    out = await box.run("c", "echo one > /proc/self/fd/1; echo two > /proc/self/fd/2", user="1234")
    assert out == "one\ntwo\n"


async def test_namespaces_are_made_reported_and_joined(box: SupervisorBox) -> None:
    kinds = ("net", "uts", "ipc")
    spec = LaunchSpec(
        "sandbox/namespaces",
        "namespaces",
        unshare=kinds,
        hostname="pod",
        sysctls=(("net/ipv4/ip_forward", "1"), ("kernel/shm_rmid_forced", "1")),
        loopback_up=True,
        report_namespaces=kinds,
    )
    made = await box.launch(spec)
    try:
        assert len(made.fds) == 3 and "sandbox/namespaces" not in box.client.processes
        join = tuple((kind, index) for index, kind in enumerate(kinds))
        script = (
            "hostname; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced; readlink /proc/self/ns/net"
        )
        await box.launch(box.script("c", script, join=join, unshare=("mnt", "pid", "cgroup")), made.fds)
        await box.ended("c")
        assert box.output("c").splitlines() == ["pod", "1", "1", f"net:[{os.fstat(made.fds[0]).st_ino}]"]
    finally:
        for fd in made.fds:
            os.close(fd)


async def test_shared_pid_namespace_and_its_end(box: SupervisorBox) -> None:
    pause = LaunchSpec(
        "sandbox/pause",
        "pause",
        unshare=("pid",),
        report_namespaces=("pid",),
        argv=("/bin/sleep", "60"),
        credentials=Credentials("65535", no_new_privs=True),
    )
    made = await box.launch(pause)
    fd = made.fds[0]
    try:
        spec = box.script("c", "cat /proc/1/comm; echo $$", join=(("pid", 0),), unshare=("mnt", "net"))
        await box.launch(spec, [fd])
        await box.ended("c")
        comm, pid = box.output("c").split()
        assert comm == "sleep" and int(pid) > 1
        os.kill(made.pid, 9)
        await box.ended("sandbox/pause")
        with pytest.raises(LaunchError, match="shared PID namespace has ended"):
            await box.launch(spec._replace(id="late"), [fd])
        # The supervisor itself is where it was.
        assert (await box.run("after", "echo $$")).strip() == "1"
    finally:
        os.close(fd)


async def _read_until(master: int, wanted: bytes) -> bytes:
    data = b""
    for _ in range(500):
        try:
            data += os.read(master, 4096)
        except (BlockingIOError, OSError):
            await asyncio.sleep(0.01)
        if wanted in data:
            return data
    raise AssertionError(f"no {wanted!r} in {data!r}")


async def test_terminal_of_a_container_is_logged_and_attached(box: SupervisorBox) -> None:
    spec = box.script(
        "c",
        "tty; stty size; ls -l /dev/console | cut -c1; read line; echo got $line; test -t 1 && echo yes",
        stdio=Stdio("terminal", columns=123, rows=45),
        terminal=True,
    )
    launched = await box.launch(spec)
    assert launched.terminal
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    stdin = await box.client.attach("c", stdin=True, stdout=writer)
    assert stdin is not None
    try:
        os.write(stdin, b"hello\n")
        await box.ended("c")
        lines = box.output("c").replace("\r", "").splitlines()
        # "hello" is also echoed by the terminal, at any place.
        assert {"/dev/pts/0", "45 123", "c", "got hello", "yes"} <= set(lines)
        assert b"got hello" in await _read_until(reader, b"yes")
    finally:
        for fd in (reader, stdin, *launched.fds):
            os.close(fd)


async def test_exec_joins_the_container_with_pipes_and_with_a_terminal(box: SupervisorBox) -> None:
    container = await box.launch(box.script("c", "exec sleep 60", hostname="inside"))
    kinds = ("mnt", "net", "uts", "ipc", "cgroup", "pid")
    namespaces = [os.open(f"/proc/{container.pid}/ns/{kind}", os.O_RDONLY) for kind in kinds]
    reader, writer = os.pipe()
    try:
        spec = LaunchSpec(
            "c/exec/1",
            "exec",
            join=tuple((kind, index) for index, kind in enumerate(kinds)),
            stdio=Stdio("fds", None, 6, 6),
            argv=("sh", "-c", "hostname; pwd; tr '\\0' ' ' </proc/1/cmdline; exit 5"),
            env=(PATH,),
            cwd="/usr",
        )
        await box.launch(spec, [*namespaces, writer])
        os.close(writer)
        record = await box.ended("c/exec/1")
        assert record.code == 5
        assert os.read(reader, 4096).decode().split() == ["inside", "/usr", "sleep", "60"]
        await box.client.forget("c/exec/1")
        spec = spec._replace(
            id="c/exec/2", stdio=Stdio("terminal", columns=90, rows=30), argv=("sh", "-c", "stty size; tty; read x")
        )
        made = await box.launch(spec, namespaces)
        data = await _read_until(made.fds[0], b"pts")
        assert b"30 90" in data
        os.write(made.fds[0], b"\n")
        await box.ended("c/exec/2")
        os.close(made.fds[0])
    finally:
        for fd in (reader, *namespaces):
            os.close(fd)
        os.kill(container.pid, 9)
    await box.ended("c")


async def test_standard_input_with_and_without_once(box: SupervisorBox) -> None:
    await box.launch(box.script("once", "cat; echo end", stdio=box.fifos("once", stdin=True, once=True)))
    stdin = await box.client.attach("once", stdin=True)
    assert stdin is not None
    os.write(stdin, b"text\n")
    os.close(stdin)
    await box.eventually(lambda: box.output("once") == "text\n", "the text")
    assert "once" not in box.exits, "closing the client's end must not be an end of file"
    await box.client.close_stdin("once")
    await box.ended("once")
    assert box.output("once") == "text\nend\n"
    held = await box.launch(box.script("held", "cat", stdio=box.fifos("held", stdin=True)))
    for line in (b"first\n", b"second\n"):
        stdin = await box.client.attach("held", stdin=True)
        assert stdin is not None
        os.write(stdin, line)
        os.close(stdin)
    await box.eventually(lambda: box.output("held") == "first\nsecond\n", "both lines")
    os.kill(held.pid, 9)
    await box.ended("held")


async def test_user_namespace(box: SupervisorBox) -> None:
    rows = ((0, 200000, 65536),)
    spec = LaunchSpec(
        "sandbox/namespaces",
        "namespaces",
        unshare=("user", "net", "uts", "ipc"),
        uid_map=rows,
        gid_map=rows,
        hostname="mapped",
        sysctls=(("net/ipv4/ip_forward", "1"),),
        loopback_up=True,
        report_namespaces=("user", "net", "uts", "ipc"),
    )
    made = await box.launch(spec)
    user, *others = made.fds
    upper = box.upper("c")
    tree = mount_table.clone_tree("/", recursive=False)
    try:
        mount_table.set_tree(tree, idmap_userns_fd=user)
        root, _ = box.overlay("c")
        for part in ("upper", "work"):
            os.chown(root.parent / part, 200000, 200000)
        operations = [
            mount.Overlay(str(root), (), str(upper), str(root.parent / "work"), (), (4,)),
            mount_nodes.Directory("/made", 0o755),
            mount.FileSystem("/proc", "proc", "proc", 0, ()),
            mount.Pivot(str(root)),
        ]
        container = box.script(
            "c",
            "id -u; cat /proc/self/uid_map; stat -c %u /made; touch /mine && stat -c %u /mine; pwd; stat -c %u .;"
            " umount /proc || echo locked; echo again >/proc/self/fd/1",
            join=(("user", 0), ("net", 1), ("uts", 2), ("ipc", 3)),
            unshare=("mnt", "pid", "cgroup"),
            uid_map=rows,
            gid_map=rows,
            mounts=tuple(mount.encode(operation) for operation in operations),
            cwd="/new/dir",
        )
        launched = await box.launch(container, [user, *others, tree])
        assert launched.uid == 0
        await box.ended("c")
        out = box.output("c", "stdout").split()
        assert out == ["0", "0", "200000", "65536", "0", "0", "/new/dir", "0", "locked", "again"]
        assert (upper / "mine").stat().st_uid == 200000
    finally:
        for fd in (*made.fds, tree):
            os.close(fd)


async def test_orphans_of_the_host_pid_namespace_are_reaped(box: SupervisorBox) -> None:
    spec = box.script("c", "(sleep 0.2; exit 3) & echo done", unshare=("mnt",))
    await box.launch(spec)
    await box.ended("c")
    await box.eventually(lambda: not box.children(), "no child, zombie or not")


async def test_exec_in_a_user_namespace(box: SupervisorBox) -> None:
    """The namespaces of the container belong to the user namespace; the streams can be reopened by its users."""
    rows = ((0, 300000, 65536),)
    spec = LaunchSpec(
        "s/namespaces",
        "namespaces",
        unshare=("user", "net"),
        uid_map=rows,
        gid_map=rows,
        report_namespaces=("user", "net"),
    )
    made = await box.launch(spec)
    tree = mount_table.clone_tree("/", recursive=False)
    root, standard = box.overlay("c")
    for part in ("upper", "work"):
        os.chown(root.parent / part, 300000, 300000)
    namespaces: list[int] = []
    try:
        mount_table.set_tree(tree, idmap_userns_fd=made.fds[0])
        overlay = mount.Overlay(str(root), (), str(root.parent / "upper"), str(root.parent / "work"), (), (2,))
        operations = [overlay, *standard[1:3], mount.Pivot(str(root))]
        container = await box.launch(
            box.script(
                "c",
                "exec sleep 60",
                join=(("user", 0), ("net", 1)),
                unshare=("mnt", "pid", "cgroup"),
                uid_map=rows,
                gid_map=rows,
                mounts=tuple(mount.encode(operation) for operation in operations),
            ),
            [*made.fds, tree],
        )
        kinds = ("user", "net", "uts", "ipc", "pid", "cgroup", "mnt")
        namespaces = [os.open(f"/proc/{container.pid}/ns/{kind}", os.O_RDONLY) for kind in kinds]
        reader, writer = os.pipe()
        for number, user in enumerate(("0", "1000")):
            run = LaunchSpec(
                f"c/exec/{number}",
                "exec",
                join=tuple((kind, index) for index, kind in enumerate(kinds)),
                uid_map=rows,
                gid_map=rows,
                stdio=Stdio("fds", None, 7, 7),
                credentials=Credentials(user, bounding=("CAP_CHOWN",)),
                argv=("sh", "-c", "id -u; cut -d' ' -f8- /proc/self/uid_map | tr -s ' '; echo again >/proc/self/fd/1"),
                env=(PATH,),
            )
            await box.launch(run, [*namespaces, writer])
            assert (await box.ended(f"c/exec/{number}")).code == 0
            out = os.read(reader, 4096).decode().split()
            assert out[0] == user and out[-1] == "again" and "300000" in out
        os.close(reader)
        os.close(writer)
        os.kill(container.pid, 9)
        await box.ended("c")
    finally:
        for fd in (*made.fds, tree, *namespaces):
            os.close(fd)


@pytest.mark.parametrize("way", ["descriptor", "file"])
async def test_cgroups_are_entered_before_their_namespace_is_made(box: SupervisorBox, way: str) -> None:
    """That of cgroup2 by clone3 with the directory's descriptor, one of v1 by writing to tasks."""
    kind = "cgroup2" if way == "descriptor" else "cgroup"
    points = [point for point in mount_table.mount_points("/sys/fs/cgroup") if point.fstype == kind]
    if not points:
        pytest.skip(f"this machine lacks: a mounted {kind} hierarchy")
    group = Path(points[0].path) / f"podrt-{box.root.name[-8:]}"
    group.mkdir()
    fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    try:
        how = {"cgroup_fd": 0} if way == "descriptor" else {"cgroup_tasks": (str(group / "tasks"),)}
        launched = await box.launch(box.script("c", "grep ^0: /proc/self/cgroup; exec sleep 60", **how), [fd])
        # The shell may have begun its grep.
        assert str(launched.pid) in (group / "cgroup.procs").read_text().split()
        await box.eventually(lambda: box.output("c") == "0::/\n", "the container's own view of its cgroup")
        os.kill(launched.pid, 9)
        await box.ended("c")
        with pytest.raises(LaunchError) as caught:
            await box.launch(box.spec("d", "/no/such", **how), [fd])
        assert caught.value.errno == errno.ENOENT
        assert (group / "cgroup.procs").read_text() == "", "a failed launch is out of its cgroup when it is told"
    finally:
        os.close(fd)
        group.rmdir()
