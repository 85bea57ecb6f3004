"""Launches that are wrong in ways which no daemon of ours asks for: the supervisor answers, and stays one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from podrt.errors import LaunchError
from podrt.linux import abi, libc, mount, mount_table
from podrt.supervisor import setup
from podrt.supervisor.processes import Process
from podrt.supervisor.protocol import LaunchSpec, ProcessRecord, Stdio
from tests.framework.patience import scaled
from tests.framework.supervisor import SupervisorBox


@pytest_asyncio.fixture
async def box() -> AsyncIterator[SupervisorBox]:
    made = SupervisorBox()
    await made.start()
    yield made
    problems = await made.destroy()
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("kind", ["user", "pid", "net"])
async def test_a_descriptor_that_is_missing(box: SupervisorBox, kind: str) -> None:
    """It fails in the supervisor, in the making of its child, or in the child: always with an answer, and no child
    goes on as a second supervisor."""
    spec = LaunchSpec("c", "container", join=((kind, 99),), argv=("true",), stdio=Stdio("null"))
    with pytest.raises(LaunchError):
        await asyncio.wait_for(box.client.launch(spec), scaled(10))
    assert box.children() == []
    assert await box.run("after", "echo here") == "here\n"


def test_the_pidfd_of_an_adopted_process_is_the_one_held() -> None:
    """Someone else reaps it, so its number may be another process's by the time that a new daemon says hello."""
    here, parent = os.pidfd_open(os.getpid()), 0
    one = Process(ProcessRecord("c", "container", 1, 1), Stdio("null"), None)
    one.pidfd = here
    try:
        parent = one.open_pidfd()
        found = Path(f"/proc/self/fdinfo/{parent}").read_text()
        assert f"Pid:\t{os.getpid()}\n" in found
    finally:
        one.close()
        os.close(parent)


@pytest.mark.parametrize("link", ["/proc", "proc/sys", "/sneaky"])
async def test_an_image_whose_dev_is_a_link_into_procfs(box: SupervisorBox, link: str) -> None:
    """The tmpfs of /dev would hide the masked paths, and be what is masked."""
    (box.upper("c") / "dev").symlink_to(link)
    (box.upper("c") / "sneaky").symlink_to("/proc/fs")
    with pytest.raises(LaunchError) as caught:
        await box.launch(box.script("c", "mount"))
    assert caught.value.step == "mount" and caught.value.errno == errno.EPERM


@pytest.mark.parametrize(("number", "fatal"), [(errno.ENOSYS, False), (errno.EDQUOT, True), (errno.ENOMEM, True)])
def test_no_container_goes_on_with_the_keyring_of_the_supervisor(
    monkeypatch: pytest.MonkeyPatch, number: int, fatal: bool
) -> None:
    """Containers can use up the quota of keys that all of one uid share."""

    def fail() -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(libc, "keyctl_join_session", fail)
    with pytest.raises(OSError) if fatal else contextlib.nullcontext():
        setup.join_keyring()


@pytest.mark.parametrize("propagation", ["MS_SHARED", "MS_SLAVE", "MS_PRIVATE"])
async def test_mounts_of_a_container_reach_the_host_only_where_asked(box: SupervisorBox, propagation: str) -> None:
    """What a container mounts in a volume shows on the host with mountPropagation Bidirectional alone, what is
    mounted by the host in the container with HostToContainer too."""
    kind = getattr(abi, propagation)
    source = box.root / "source"
    for path in (source / "inside", source / "outside"):
        path.mkdir(parents=True)
    libc.mount(str(source), str(source), flags=abi.MS_BIND)
    libc.mount(None, str(source), flags=abi.MS_SHARED)
    try:
        tree = mount_table.clone_tree(source)
        mount_table.set_tree(tree, propagation=kind)
        try:
            script = (
                "mount -t tmpfs x /volume/inside && touch /volume/inside/file && echo made; read x; ls /volume/outside;"
                " umount /volume/inside"
            )
            operations = [mount.BindTree("/volume", 0, True, False, False, kind)]
            spec = box.script(
                "c",
                script,
                operations=operations,
                credentials={"bounding": ("CAP_SYS_ADMIN",)},
                stdio=box.fifos("c", stdin=True),
            )
            await box.launch(spec, [tree])
        finally:
            os.close(tree)
        await box.eventually(lambda: "made" in box.output("c"), "the mount")
        assert (source / "inside" / "file").exists() == (propagation == "MS_SHARED")
        libc.mount("tmpfs", str(source / "outside"), "tmpfs")
        (source / "outside" / "seen").touch()
        stdin = await box.client.attach("c", stdin=True)
        assert stdin is not None
        os.write(stdin, b"\n")
        os.close(stdin)
        await box.ended("c")
        assert ("seen" in box.output("c")) == (propagation != "MS_PRIVATE")
    finally:
        for path in (source / "outside", source):
            with contextlib.suppress(OSError):
                libc.umount2(str(path), abi.MNT_DETACH)
