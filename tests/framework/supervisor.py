"""A supervisor of a test's own with containers on an overlay of the host's root: no daemon, no images, no network."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from podrt.config import Config
from podrt.engine.supervisor import Launched, SupervisorClient
from podrt.linux import abi, caps, libc, mount, mount_console, mount_nodes
from podrt.supervisor.protocol import Credentials, LaunchSpec, Log, ProcessRecord, Stdio
from tests.framework.patience import scaled

PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"


class SupervisorBox:
    """Owns a tmpfs with everything of the supervisor in it; :meth:`destroy` kills what runs and removes all."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="podrt-sup-", dir="/var/tmp"))
        libc.mount("tmpfs", str(self.root), "tmpfs")
        self.config = Config.under(self.root, "sup", netns_dir=self.root / "netns")
        self.config.run_dir.mkdir()
        self.exits: dict[str, ProcessRecord] = {}
        self.warnings: list[tuple[str, str]] = []
        self.client = self.new_client()
        self.supervisors: set[int] = set()
        self.pids: dict[str, int] = {}

    def new_client(self) -> SupervisorClient:
        client = SupervisorClient(self.config)
        client.on_exit = lambda record: self.exits.__setitem__(record.id, record)
        client.on_warning = lambda identity, message: self.warnings.append((identity, message))
        return client

    async def start(self) -> None:
        await self.client.start()
        self.supervisors.add(self.client.pid)

    # -- specs

    def overlay(self, name: str, lower: Sequence[Path | str] = ("/",)) -> tuple[Path, list[Any]]:
        """Directories and first operations of a root file system called ``name``, on top of ``lower``."""
        base = self.root / "containers" / name
        for part in ("upper", "work", "root"):
            (base / part).mkdir(parents=True, exist_ok=True)
        root = base / "root"
        return root, [
            mount.Overlay(str(root), tuple(str(path) for path in lower), str(base / "upper"), str(base / "work")),
            mount.FileSystem("/proc", "proc", "proc", 0, ()),
            mount.FileSystem("/dev", "tmpfs", "tmpfs", 0, ("mode=755",)),
            mount_nodes.DeviceNode("/dev/null", "c", 1, 3, 0o666, 0, 0),
            mount.FileSystem("/dev/pts", "devpts", "devpts", 0, ("newinstance", "ptmxmode=0666", "mode=0620")),
        ]

    def upper(self, name: str) -> Path:
        """What the container ``name`` has written, or what a test puts into its image beforehand."""
        path = self.root / "containers" / name / "upper"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def fifos(self, name: str, stdin: bool = False, once: bool = False) -> Stdio:
        base = self.root / "containers" / name
        base.mkdir(parents=True, exist_ok=True)
        return Stdio("fifo", str(base / "stdin") if stdin else None, str(base / "stdout"), str(base / "stderr"), once)

    def spec(
        self,
        name: str,
        *argv: str,
        operations: Sequence[Any] = (),
        lower: Sequence[Path | str] = ("/",),
        user: str = "0",
        credentials: dict[str, Any] | None = None,
        **fields: Any,
    ) -> LaunchSpec:
        """A container of five new namespaces; ``operations`` follow the standard mounts."""
        root, standard = self.overlay(name, lower)
        mounts = [*standard, *operations, mount_console.Console(), mount.Pivot(str(root))]
        given = Credentials(user, bounding=caps.resolve((), ()))._replace(**(credentials or {}))
        values: dict[str, Any] = {
            "unshare": ("mnt", "pid", "cgroup", "net", "uts", "ipc"),
            "mounts": tuple(mount.encode(operation) for operation in mounts),
            "root": str(root),
            "stdio": self.fifos(name),
            "log": Log(str(self.log_path(name)), 0, 5),
            "credentials": given,
            "env": (PATH,),
            "argv": argv,
        }
        return LaunchSpec(name, "container", **(values | fields))

    def script(self, name: str, text: str, **options: Any) -> LaunchSpec:
        """:meth:`spec` of a shell script."""
        return self.spec(name, "sh", "-c", text, **options)

    # -- running

    async def launch(self, spec: LaunchSpec, fds: Sequence[int] = ()) -> Launched:
        """Launch and close what the engine would keep, but for a terminal's master."""
        launched = await self.client.launch(spec, fds)
        self.pids[spec.id] = launched.pid
        os.close(launched.pidfd)
        if not launched.terminal and spec.kind == "container":
            for fd in launched.fds:
                os.close(fd)
        return launched

    async def run(self, name: str, text: str, **options: Any) -> str:
        """Run a shell script to its end; returns what it wrote, as the log has it."""
        await self.launch(self.script(name, text, **options))
        await self.ended(name)
        return self.output(name)

    async def ended(self, name: str, timeout: float = 20.0) -> ProcessRecord:
        """The exit record of ``name``, once its exit was told."""
        await self.eventually(lambda: name in self.exits, f"the end of {name}", timeout)
        return self.exits[name]

    async def eventually(self, check: Any, what: str, timeout: float = 20.0) -> None:
        timeout = scaled(timeout)
        deadline = time.monotonic() + timeout
        while not check():
            assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
            await asyncio.sleep(0.01)

    def log_path(self, name: str) -> Path:
        return self.root / f"{name}.log"

    def records(self, name: str) -> list[tuple[str, str, str]]:
        """(stream, tag, text) of every record in the log."""
        lines = self.log_path(name).read_text().splitlines() if self.log_path(name).exists() else []
        return [(stream, tag, text) for _, stream, tag, text in (line.split(" ", 3) for line in lines)]

    def output(self, name: str, stream: str = "") -> str:
        """The text that the log holds, partial records joined."""
        parts = [(tag, text) for name_, tag, text in self.records(name) if stream in ("", name_)]
        return "".join(text + ("\n" if tag == "F" else "") for tag, text in parts)

    def children(self) -> list[int]:
        """The supervisor's children, zombies too."""
        return [
            int(pid) for pid in Path(f"/proc/{self.client.pid}/task/{self.client.pid}/children").read_text().split()
        ]

    # -- the end

    async def destroy(self) -> list[str]:
        """Kill everything; returns what was left behind that a supervisor's end should not leave."""
        try:
            return await self._end()
        finally:
            libc.umount2(str(self.root), abi.MNT_DETACH)
            shutil.rmtree(self.root)

    async def _end(self) -> list[str]:
        problems = []
        for known in list(self.client.processes.values()):
            if not known.record.exited:
                self.pids[known.record.id] = known.record.pid
        for identity, pid in self.pids.items():
            if identity not in self.exits:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + scaled(10)
        while time.monotonic() < deadline:
            try:
                await self.client.shutdown()
                break
            except Exception as error:
                last = error
                await asyncio.sleep(0.05)
        else:
            problems.append(f"the supervisor would not end: {last}")
            await self.client.close()
        log = self.config.run_dir / "supervisor.log"
        text = log.read_text() if log.exists() else ""
        if "Traceback" in text or "internal error" in text:
            problems.append(f"the supervisor complained:\n{text}")
        for pid in self.supervisors:
            # A client that was closed reaps no more; the supervisor is this process's child all the same.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            if Path(f"/proc/{pid}").exists():
                problems.append(f"supervisor {pid} still runs")
        return problems
