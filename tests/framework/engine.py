"""An engine in the test's own process: real supervisor, cgroups, network and images, in directories of its own.

:class:`Lab` owns it all. Leaving it removes every sandbox, ends the supervisor and checks that nothing is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from typing import Any

from podrt.config import Config
from podrt.engine.engine import PAUSE_BINARY, Engine
from podrt.engine.specs import ContainerSpec, ContainerStatus, NamespaceMode, SandboxSpec, SandboxStatus
from podrt.engine.supervisor import SupervisorClient
from podrt.image.service import ImageStore
from podrt.linux.cgroup import Manager
from podrt.network.bridge import BridgeNetwork
from tests.framework import images, leaks
from tests.framework.patience import scaled

TOOLS = "localhost/podrt/tools:latest"
BUSYBOX = "localhost/podrt/busybox:latest"


@cache
def build_pause() -> None:
    subprocess.run([PAUSE_BINARY.parent / "build"], check=True)


@cache
def image_store(base: Path) -> ImageStore:
    """One store for all tests of a session: loading takes longer than most of them."""
    store = ImageStore(base / "engine-images")
    archives = images.archives()
    for name in ("busybox", "tools"):
        store.load(archives[name])
    return store


def subnets() -> dict[str, str]:
    """Of the daemon's own kind, but hardly those of another test that runs now."""
    number = secrets.randbelow(250 * 64)
    return {
        "subnet_v4": f"10.{160 + number // 250}.{number % 250}.0/24",
        "subnet_v6": f"fd99:7064:{secrets.randbelow(65535):x}::/64",
    }


class Lab:
    """``engine`` is started. ``sandbox`` and ``run`` are short ways to make what most tests need."""

    def __init__(self, config: Config, store: ImageStore) -> None:
        self.config = config
        self.images = store
        self.base: leaks.Footprint | None = None
        self.engine = self._engine()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, base: Path, **settings: Any) -> AsyncIterator[Lab]:
        build_pause()
        root = Path(tempfile.mkdtemp(prefix="e", dir=base))
        root.chmod(0o755)
        config = Config.under(root, secrets.token_hex(3), netns_dir=root / "netns", **(subnets() | settings))
        lab = cls(config, image_store(base))
        network = BridgeNetwork(config)
        network.setup()
        try:
            await lab.engine.start()
            lab.base = leaks.Footprint.take(config)
            try:
                yield lab
            finally:
                await lab._finish()
        finally:
            network.teardown()
            for path in (config.netns_dir, config.run_dir):
                subprocess.run(("umount", path), capture_output=True)
            shutil.rmtree(root, ignore_errors=True)
            for hierarchy in Path("/sys/fs/cgroup").iterdir():
                with contextlib.suppress(OSError):
                    os.rmdir(hierarchy / config.cgroup_root.lstrip("/"))

    def _engine(self) -> Engine:
        config = self.config
        return Engine(config, self.images, BridgeNetwork(config), Manager(config.cgroup_root), SupervisorClient(config))

    async def _finish(self) -> None:
        for sandbox in self.engine.list_sandboxes():
            await self.engine.remove_sandbox(sandbox.id)
        problems = await self.left()
        await self.engine._machine.supervisor.shutdown()
        await self.engine.close()
        assert not problems, "left behind:\n" + "\n".join(problems)

    async def left(self) -> list[str]:
        """What there is beyond a fresh engine, after up to a second for the kernel to finish."""
        assert self.base is not None
        problems: list[str] = []
        for _ in range(round(scaled(50))):
            now = leaks.Footprint.take(self.config)
            # Logs stay by contract; the supervisor's own log is one file.
            problems = [
                line for line in now.beyond(self.base) if str(self.config.log_dir) not in line and ".log" not in line
            ]
            if not problems:
                break
            await asyncio.sleep(0.02)
        return problems

    async def restart(self) -> Engine:
        """Another engine on the same directories, as after a restart of the daemon."""
        await self.engine.close()
        self.engine = self._engine()
        await self.engine.start()
        return self.engine

    @property
    def supervisor_pid(self) -> int:
        return self.engine._machine.supervisor.pid

    async def sandbox(self, name: str = "pod", **fields: Any) -> SandboxStatus:
        values = {
            "name": name,
            "namespace": "default",
            "uid": f"{name}-{secrets.token_hex(4)}",
            "hostname": f"{name}-host",
            "log_directory": str(self.config.log_dir / name),
        }
        return await self.engine.run_sandbox(SandboxSpec(**(values | fields)))

    async def create(self, sandbox: SandboxStatus, name: str, *command: str, **fields: Any) -> str:
        values: dict[str, Any] = {"name": name, "image": TOOLS, "log_path": f"{name}/0.log"}
        if command:
            values["command"] = command
        return await self.engine.create_container(sandbox.id, ContainerSpec(**(values | fields)))

    async def run(self, sandbox: SandboxStatus, name: str, *command: str, **fields: Any) -> str:
        """Create and start; without a command it waits for ever."""
        container = await self.create(sandbox, name, *(command or ("testtool", "pause")), **fields)
        await self.engine.start_container(container)
        return container

    async def finished(self, sandbox: SandboxStatus, name: str, *command: str, **fields: Any) -> ContainerStatus:
        """Create, start and wait for its end."""
        container = await self.run(sandbox, name, *command, **fields)
        return await asyncio.wait_for(self.engine.wait_container(container), scaled(30))

    async def sh(self, container: str, script: str) -> str:
        """What a script prints in a container. Raises AssertionError if it fails."""
        result = await self.engine.exec_sync(container, ("sh", "-c", script), scaled(20))
        assert result.code == 0, result
        return result.stdout.decode()

    def log(self, container: str) -> str:
        """The text of its log; empty as long as there is none."""
        path = Path(self.engine.container_status(container).log_path)
        lines = path.read_text().splitlines() if path.exists() else []
        return "".join(line.split(" ", 3)[3] + "\n" for line in lines)


async def eventually(condition: Callable[[], Any], seconds: float = 10) -> Any:
    """The first true value of ``condition``, asked every 10 ms."""
    end = time.monotonic() + scaled(seconds)
    while True:
        value = condition()
        if value or time.monotonic() > end:
            assert value, "the condition never held"
            return value
        await asyncio.sleep(0.01)


__all__ = ["BUSYBOX", "TOOLS", "Lab", "NamespaceMode", "eventually"]
