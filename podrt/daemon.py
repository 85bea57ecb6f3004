"""``podrtd``: the composition root. Parts are made and wired here, started bottom up and closed top down; no logic.

One daemon runs for a run directory (flock(2) on its pid file). SIGTERM and SIGINT end it and leave the containers to
the supervisor. A task that dies of a bug ends the daemon with code 1, so that systemd starts it anew: what it did is in
records, and a fresh process that recovers is better understood than one that limps.

The environment variable PODRT_FAULT_AT names a step of the engine's undo stacks at which the daemon kills itself: tests
use it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from podrt import __version__, log
from podrt import config as configuration
from podrt.api.image_transfer import Transfer
from podrt.api.metrics import Metrics
from podrt.api.server import ApiServer
from podrt.api.system_info import SystemInfo
from podrt.config import Config
from podrt.controllers.manager import Controllers
from podrt.engine import undo
from podrt.engine.engine import Engine
from podrt.engine.supervisor import SupervisorClient
from podrt.errors import PodrtError, UnavailableError
from podrt.image.collect import ImageCollector, patterns
from podrt.image.registry_pull import Puller
from podrt.image.registry_push import Pusher
from podrt.image.registry_transport import Settings, Transport
from podrt.image.service import ImageStore
from podrt.linux import libc, mount_table, selinux
from podrt.linux.cgroup import Manager
from podrt.network.bridge import BridgeNetwork
from podrt.node.agent import Agent
from podrt.store.events import EventRecorder
from podrt.store.objects import Registry
from podrt.store.store import Store

logger = logging.getLogger("podrt.daemon")

_FAULT = "PODRT_FAULT_AT"
_OPEN_FILES = 1 << 20


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``podrtd``. Returns its exit code: 0 after a signal, 1 for a failure, 2 for a wrong call."""
    options = _parse(sys.argv[1:] if argv is None else argv)
    try:
        overrides = {"log_level": options.log_level} if options.log_level else {}
        config = configuration.load(options.config, overrides)
        log.setup(config.log_level)
    except (PodrtError, ValueError) as error:
        print(f"podrtd: {error}", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("podrtd: must be root: namespaces, mounts and cgroups are its work", file=sys.stderr)
        return 2
    try:
        _prepare_process()
        _make_directories(config)
        with _only_one(config.run_dir / "podrtd.pid"):
            return asyncio.run(_Daemon(config).run())
    except (PodrtError, OSError) as error:
        logger.critical("podrtd can't start: %s", error, exc_info=logger.isEnabledFor(logging.DEBUG))
        return 1


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="podrtd", description="The podrt daemon: runs Pods on this machine.")
    default = configuration.DEFAULT_CONFIG_FILE
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"TOML file (default {default}, which may be absent)"
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="overrides the file's")
    parser.add_argument("--version", action="version", version=f"podrtd {__version__}")
    return parser.parse_args(argv)


def _prepare_process() -> None:
    os.umask(0o022)
    os.chdir("/")
    # The threads here mostly wait for the kernel. One that is back must not wait the default 5 ms for the interpreter:
    # on the way of a Pod that is a quarter of its time.
    sys.setswitchinterval(0.0005)
    # Orphans of a dead supervisor become our children, so that their exit codes stay known.
    libc.set_subreaper()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    soft = _OPEN_FILES if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    undo.hook = _fault_hook()


def _fault_hook() -> Callable[[str], None] | None:
    wanted = os.environ.pop(_FAULT, "")
    if not wanted:
        return None
    logger.warning("%s is set: this daemon kills itself at %r", _FAULT, wanted)

    def strike(name: str) -> None:
        if name == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    return strike


def _make_directories(config: Config) -> None:
    """State and run directories may be passed through, not listed: a container's user may own files deep inside."""
    for path, mode in ((config.run_dir, 0o711), (config.state_dir, 0o711), (config.log_dir, 0o755)):
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    # Before the pid file and the socket are made in it.
    mount_table.make_runtime_mount(config.run_dir)
    config.netns_dir.mkdir(mode=0o755, parents=True, exist_ok=True)


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Hold the pid file's lock. Raises UnavailableError if another daemon does."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(fd, 32, 0).decode(errors="replace").strip()
            raise UnavailableError(f"another daemon (pid {pid}) uses {path.parent}") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        yield
        os.ftruncate(fd, 0)
    finally:
        os.close(fd)


class _Daemon:
    """All parts of one run."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stop: asyncio.Future[BaseException | None]

    async def run(self) -> int:
        """Start everything, wait for a signal or a failure, close everything. Returns the exit code."""
        loop = asyncio.get_running_loop()
        self._stop = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, None)
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            gc.collect()
            gc.freeze()
            notify = Notifier()
            notify.send("READY=1\nSTATUS=serving")
            watchdog = loop.create_task(notify.watchdog(), name="watchdog")
            error = await self._stop
            notify.send("STOPPING=1")
            watchdog.cancel()
        logger.info("ended%s; containers run on", " by a failure" if error else "")
        return 1 if error else 0

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        config = self._config
        store = Store(config.state_dir / "store.db")
        stack.callback(store.close)
        images = ImageStore(config.state_dir / "images")
        stack.callback(images.close)
        metrics = Metrics(store)
        cgroups = Manager(config.cgroup_root)
        supervisor = SupervisorClient(config)
        network = BridgeNetwork(config)
        engine = Engine(config, images, network, cgroups, supervisor)
        await asyncio.to_thread(network.setup)
        await engine.start()
        stack.push_async_callback(engine.close)

        transport = Transport(_registry_settings(config))
        stack.push_async_callback(transport.close)
        puller = Puller(images, transport)
        stack.push_async_callback(puller.close)
        # A kubelet looks after the disk itself, and knows better which images its Pods are about to use.
        high = 100 if config.cri_socket else config.image_gc_high
        collector = ImageCollector(images, high, config.image_gc_low, patterns(config.image_pinned))
        collecting = asyncio.get_running_loop().create_task(collector.run(), name="image collection")
        stack.callback(collecting.cancel)

        registry = Registry(store, selinux=selinux.enabled())
        node = config.node_name or socket.gethostname().lower()
        recorder = EventRecorder(store, host=node, ttl=config.event_ttl)
        agent = Agent(config, registry, metrics.timed(engine), images, recorder, on_failure=self._end, puller=puller)
        await agent.start()
        stack.push_async_callback(agent.close)
        if config.cri_socket:
            await _serve_cri(stack, config, metrics.timed(engine), images, puller)
        controllers = Controllers(registry, on_failure=self._end)
        await controllers.start()
        stack.push_async_callback(controllers.close)

        def machine() -> dict[str, Any]:
            return {
                "cgroupMode": cgroups.hierarchies.mode,
                "cgroupRoot": cgroups.root,
                "supervisorPid": supervisor.pid,
            }

        info = SystemInfo(config, store, images, machine)
        transfer = Transfer(puller, Pusher(images, transport), collector)
        server = ApiServer(config, registry, agent, images, info, metrics=metrics, transfer=transfer)
        await server.start()
        stack.push_async_callback(server.close)

    def _end(self, error: BaseException | None) -> None:
        if not self._stop.done():
            self._stop.set_result(error)


async def _serve_cri(
    stack: contextlib.AsyncExitStack, config: Config, engine: Engine, images: ImageStore, puller: Puller
) -> None:
    # grpc takes memory and time to import: only those pay for it who are under a kubelet.
    from podrt.cri.server import CriServer

    cri = CriServer(config, engine, images, puller)
    await cri.start()
    stack.push_async_callback(cri.close)


def _registry_settings(config: Config) -> Settings:
    files = (Path(config.registry_auth_file),) if config.registry_auth_file else None
    return Settings(config.registry_config_dir, files, config.registry_parallel)


class Notifier:
    """sd_notify(3): tells systemd that the daemon is ready and alive. Nothing without NOTIFY_SOCKET."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        self._period = 0.0
        if os.environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            self._period = int(os.environ.pop("WATCHDOG_USEC", "0")) / 2e6

    def send(self, text: str) -> None:
        if not self._address:
            return
        # A leading @ means the abstract namespace.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            try:
                sender.sendto(text.encode(), address)
            except OSError as error:
                logger.warning("systemd can't be told %r: %s", text, error)

    async def watchdog(self) -> None:
        """Say that the event loop turns, twice in each interval that systemd allows."""
        while self._period:
            self.send("WATCHDOG=1")
            await asyncio.sleep(self._period)


if __name__ == "__main__":
    sys.exit(main())
