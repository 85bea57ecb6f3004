"""A daemon in miniature that kills itself at a named step: ``python -m tests.framework.engine_fault <JSON>``.

It runs an engine through the whole life of a sandbox with one container. ``step`` names the checkpoint at which it
dies by SIGKILL, as PODRT_FAULT_AT does to podrtd; without one it lists every checkpoint on stdout."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from podrt.config import Config
from podrt.engine import undo
from podrt.engine.engine import Engine
from podrt.engine.specs import ContainerSpec, NamespaceMode, SandboxSpec
from podrt.engine.supervisor import SupervisorClient
from podrt.image.service import ImageStore
from podrt.linux.cgroup import Manager
from podrt.network.bridge import BridgeNetwork


async def life(engine: Engine, log_directory: str) -> None:
    """Every verb that has steps, once."""
    spec = SandboxSpec(
        name="pod", namespace="default", uid="fault", log_directory=log_directory, pid=NamespaceMode.POD, hostname="h"
    )
    sandbox = await engine.run_sandbox(spec)
    container = ContainerSpec(
        name="c", image="localhost/podrt/tools:latest", command=("testtool", "pause"), log_path="c/0.log"
    )
    first = await engine.create_container(sandbox.id, container)
    await engine.start_container(first)
    await engine.remove_container(first)
    await engine.start_container(await engine.create_container(sandbox.id, container))
    await engine.remove_sandbox(sandbox.id)


async def main(arguments: dict[str, Any]) -> None:
    root = Path(arguments["root"])
    config = Config.under(root, arguments["tag"], netns_dir=root / "netns", **arguments["settings"])
    step, skip = arguments.get("step", ""), arguments.get("skip", 0)
    network = BridgeNetwork(config)
    network.setup()
    engine = Engine(
        config, ImageStore(Path(arguments["store"])), network, Manager(config.cgroup_root), SupervisorClient(config)
    )
    await engine.start()

    def announce(name: str) -> None:
        nonlocal skip
        print(name, flush=True)
        if name == step:
            if not skip:
                os.kill(os.getpid(), signal.SIGKILL)
            skip -= 1

    undo.hook = announce
    await life(engine, str(config.log_dir / "pod"))
    await engine._machine.supervisor.shutdown()
    await engine.close()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
