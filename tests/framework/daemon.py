"""A real daemon of its own: own directories, bridge, subnets, nft table, cgroups. ``conftest.py`` has the factory.

Nothing of it is shared with another daemon on the machine, and :meth:`Daemon.destroy` says what it left behind.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from podrt.config import Config
from tests.framework import leaks, probes
from tests.framework.client import ApiError, Client, Object, path_of
from tests.framework.images import REPOSITORY
from tests.framework.lease import SubnetLease
from tests.framework.patience import scaled

T = TypeVar("T")
_numbers = itertools.count()


def new_tag() -> str:
    """At most 8 letters, unique among the test processes of this machine that live now."""
    return f"t{os.getpid() % 2**20:x}{next(_numbers) % 256:02x}"


def eventually(check: Callable[[], T], timeout: float = 20.0, what: str = "", every: float = 0.02) -> T:
    """Call ``check`` until it returns something true, and return that.

    Raises AssertionError that says ``what`` and the last value after ``timeout`` seconds.
    """
    timeout = scaled(timeout)
    deadline = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or check}; last seen: {value!r}")
        time.sleep(every)


def write_toml(path: Path, config: Config) -> None:
    """Write every field of ``config`` as the daemon's configuration file."""
    lines = []
    for name in Config.__dataclass_fields__:
        value = getattr(config, name)
        lines.append(f"{name} = {value}" if isinstance(value, int) else f'{name} = "{value}"')
    path.write_text("\n".join(lines) + "\n")


class Daemon:
    """One podrtd and its supervisor. ``start`` and ``stop`` may be called any number of times."""

    def __init__(
        self, root: Path, image_store: Path | None = None, *, cri: bool | None = None, **settings: Any
    ) -> None:
        """``cri``: serve the CRI as well. Unless said, the environment variable PODRT_TEST_CRI=1 asks for it: the
        whole root tier must pass so, too."""
        self.root = root
        self.tag = new_tag()
        self.lease = SubnetLease()
        defaults = {
            "netns_dir": root / "netns",
            "socket_group": "root",
            "subnet_v4": self.lease.v4,
            "subnet_v6": self.lease.v6,
            "node_name": f"node-{self.tag}",
            "log_level": "debug",
        }
        if os.environ.get("PODRT_TEST_CRI") == "1" if cri is None else cri:
            defaults["cri_socket"] = str(root / "run" / "cri.sock")
        self.config = Config.under(root, self.tag, **(defaults | settings))
        self.config_file = root / "config.toml"
        self.log_file = root / "podrtd.log"
        self.environment: dict[str, str] = {}
        """Added to the environment of the next start (fault injection)."""
        self.process: subprocess.Popen[bytes] | None = None
        self.client = Client(self.config.socket)
        self.base: leaks.Footprint | None = None
        """What there was before the first Pod."""
        root.mkdir(parents=True, exist_ok=True)
        write_toml(self.config_file, self.config)
        if image_store is not None:
            from tests.framework.images import copy_store

            copy_store(image_store, self.config.state_dir / "images")

    # ---- processes

    def start(self, timeout: float = 20.0) -> None:
        """Start podrtd and return when its API answers. Raises AssertionError with the log's end if it doesn't."""
        assert self.process is None or self.process.poll() is not None, "the daemon runs already"
        script = Path(sys.executable).with_name("podrtd")
        command = [str(script)] if script.exists() else [sys.executable, "-m", "podrt.daemon"]
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                [*command, "--config", str(self.config_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=REPOSITORY,
                env=os.environ | self.environment,
                start_new_session=True,
            )
        timeout = scaled(timeout)
        deadline = time.monotonic() + timeout
        while not self.ready():
            code = self.process.poll()
            assert code is None, f"podrtd exited with {code} at its start:\n{self.log_tail()}"
            assert time.monotonic() < deadline, f"podrtd is not ready after {timeout:g} s:\n{self.log_tail()}"
            time.sleep(0.01)
        if self.base is None:
            self.base = leaks.Footprint.take(self.config)

    def ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.client.raw("GET", "/readyz", timeout=5)[0] == 200
        return False

    @property
    def pid(self) -> int:
        return int((self.config.run_dir / "podrtd.pid").read_text())

    @property
    def supervisor_pid(self) -> int:
        return int((self.config.run_dir / "supervisor.pid").read_text())

    def stop(self, timeout: float = 20.0) -> int:
        """SIGTERM: the daemon ends, containers run on. Returns its exit code."""
        return self.kill(signal.SIGTERM, timeout)

    def kill(self, number: int = signal.SIGKILL, timeout: float = 20.0) -> int:
        """Send a signal to the daemon and wait for its end. Returns the exit code, negative for a signal."""
        assert self.process is not None, "the daemon was never started"
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(scaled(timeout))

    def kill_supervisor(self, number: int = signal.SIGKILL, timeout: float = 20.0) -> int:
        """Send a signal to the supervisor and wait until it is gone. Returns the pid it had."""
        pid = self.supervisor_pid
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, number)
            eventually(lambda: _gone(pid), timeout, f"the supervisor {pid} ends")
        finally:
            os.close(descriptor)
        return pid

    def restart(self) -> None:
        self.stop()
        self.start()

    # ---- requests

    def api(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """One request over the unix socket; decoded JSON back. Raises ApiError."""
        return self.client.request(method, path, body, **options)

    def cli(
        self, *args: str, input: str | bytes | None = None, check: bool = True, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run ``podrt ARGS`` against this daemon. With ``check`` an exit code other than 0 is an AssertionError."""
        text = input.decode() if isinstance(input, bytes) else input
        result = subprocess.run(
            [*cli_command(), *args],
            input=text or "",
            capture_output=True,
            text=True,
            timeout=scaled(timeout),
            env=self.cli_env,
        )
        if check and result.returncode:
            output = result.stdout + result.stderr
            raise AssertionError(f"podrt {' '.join(args)} exited with {result.returncode}:\n{output}")
        return result

    @property
    def cli_env(self) -> dict[str, str]:
        return {**os.environ, "PODRT_SOCKET": str(self.config.socket), "NO_COLOR": "1", "COLUMNS": "200"}

    def apply(self, objects: str | Path | Mapping[str, Any]) -> list[Object]:
        """Create what a YAML text, a file or an object says, through the API. Returns what the server stored."""
        if isinstance(objects, Mapping):
            documents: list[Any] = [objects]
        else:
            documents = list(yaml.safe_load_all(objects.read_text() if isinstance(objects, Path) else objects))
        created = []
        for document in documents:
            if document:
                namespace = document.get("metadata", {}).get("namespace", "default")
                created.append(self.api("POST", path_of(document["kind"], "", namespace), document))
        return created

    def pod(self, name: str, namespace: str = "default") -> Object:
        pod: Object = self.api("GET", path_of("Pod", name, namespace))
        return pod

    def pods(self, namespace: str = "") -> list[Object]:
        items: list[Object] = self.api("GET", path_of("Pod", "", namespace) if namespace else "/api/v1/pods")["items"]
        return items

    def exists(self, name: str, namespace: str = "default") -> bool:
        try:
            self.pod(name, namespace)
        except ApiError as error:
            if error.code != 404:
                raise
            return False
        return True

    def wait_for(
        self,
        name: str,
        condition: str | Callable[[Object], Any],
        timeout: float = 30.0,
        namespace: str = "default",
    ) -> Object:
        """Wait for a Pod, and return it: ``condition`` is a phase (``Running``), a condition (``Ready``,
        ``condition=Ready``), ``deleted``, or a function of the Pod.

        ``Running`` also waits until every container runs: the phase is Running as soon as one does.
        """
        seen: Object = {}
        timeout = scaled(timeout)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                seen = self.pod(name, namespace)
            except ApiError as error:
                if error.code != 404:
                    raise
                if condition == "deleted":
                    return seen
            else:
                if _holds(seen, condition):
                    return seen
            time.sleep(0.02)
        status = seen.get("status", "the Pod does not exist")
        raise AssertionError(f"Pod {name}: not {condition} within {timeout:g} s; status: {status}\n{self.log_tail()}")

    def logs(self, name: str, container: str = "", namespace: str = "default", **query: Any) -> str:
        """What ``GET .../log`` answers; ``query`` are its parameters (previous, tailLines, timestamps...)."""
        parameters = {key: str(value).lower() if isinstance(value, bool) else value for key, value in query.items()}
        if container:
            parameters["container"] = container
        path = path_of("Pod", name, namespace, "log")
        path += "?" + "&".join(f"{key}={value}" for key, value in parameters.items())
        code, data = self.client.raw("GET", path)
        if code >= 400:
            raise ApiError("GET", path, code, data.decode(errors="replace"))
        return data.decode(errors="replace")

    def delete(self, name: str, namespace: str = "default", grace: int | None = None, wait: bool = True) -> None:
        """Delete a Pod; ``grace`` seconds instead of the Pod's own. Waits until it is gone."""
        query = "" if grace is None else f"?gracePeriodSeconds={grace}"
        self.api("DELETE", path_of("Pod", name, namespace) + query)
        if wait:
            self.wait_for(name, "deleted", 60.0, namespace)

    def exec(self, pod: str, *command: str, container: str = "", check: bool = True, input: str = "") -> str:
        """Run a command in a container through the CLI; returns its stdout."""
        where = ("-c", container) if container else ()
        interactive = ("-i",) if input else ()
        return self.cli("exec", *interactive, pod, *where, "--", *command, check=check, input=input).stdout

    # ---- the machine

    def cgroups(self, controller: str = "") -> list[str]:
        """Directories of this daemon's cgroups, in every hierarchy or in that of one controller (v2: the only one)."""
        mounts = probes.cgroup_mounts()
        chosen = [mounts[controller]] if controller in mounts else mounts.values()
        found = []
        for mount in chosen:
            top = mount / self.config.cgroup_root.lstrip("/")
            found += [str(path) for path, _, _ in os.walk(top)]
        return found

    def reboot(self) -> None:
        """What a reboot does: every process ends, nothing is mounted, /run is empty, links and cgroups are gone."""
        # The daemon first: it would start another supervisor at once, which the sweep may not see yet.
        self.kill()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            self.kill_supervisor()
        self._sweep()
        for path in (self.config.run_dir, self.config.netns_dir):
            shutil.rmtree(path, ignore_errors=True)
        self.start()

    # ---- the end

    def delete_everything(self, timeout: float = 60.0) -> None:
        """Delete all workloads, then all Pods without grace and what came through the CRI; wait until all are gone."""
        for kind in ("CronJob", "Job", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"):
            collection = path_of(kind, "")
            group, _, plural = collection.partition("/namespaces/default")
            for owner in self.api("GET", group + plural)["items"]:
                metadata = owner["metadata"]
                with contextlib.suppress(ApiError):
                    path = path_of(kind, metadata["name"], metadata["namespace"])
                    self.api("DELETE", path + "?propagationPolicy=Background")
        for pod in self.pods():
            metadata = pod["metadata"]
            with contextlib.suppress(ApiError):
                self.delete(metadata["name"], metadata["namespace"], grace=0, wait=False)
        if self.config.cri_socket:
            from tests.framework.cri import CriClient

            with CriClient(self.config.cri_socket, timeout) as client:
                client.clear()
        eventually(lambda: not self.pods(), timeout, "all Pods are gone")

    def leaked(self, timeout: float = 3.0) -> list[str]:
        """What is left after all Pods are gone; what is being torn down has ``timeout`` seconds to go."""
        assert self.base is not None, "the daemon was never started"
        deadline = time.monotonic() + scaled(timeout)
        while True:
            left = leaks.Footprint.take(self.config).beyond(self.base)
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.1)

    def destroy(self) -> list[str]:
        """Delete all Pods, look for leaks, end both processes, remove what a daemon keeps by design (bridge, table,
        cgroups, directories). Returns what should not have been there."""
        problems: list[str] = []
        try:
            if self.base is not None:  # else it never came to serve
                problems = self._wind_down()
        finally:
            self._purge()
            self.lease.release()
        return problems

    def _wind_down(self) -> list[str]:
        problems = []
        try:
            if self.process is not None and self.process.poll() is not None:
                self.environment.clear()
                self.start()
            self.delete_everything()
            problems += self.leaked()
            code = self.stop()
            if code != 0:
                problems.append(f"podrtd exited with {code} on SIGTERM")
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                self.kill_supervisor(timeout=10)  # SIGTERM is not for it: it outlives a clumsy `kill`
        except Exception as error:
            problems.append(f"teardown: {type(error).__name__}: {error}")
        problems += [f"process after the end: {process}" for process in self._own_processes()]
        return problems

    def _own_processes(self) -> Iterator[leaks.Process]:
        inside = {process.pid for process in leaks.processes_below(self.config.cgroup_root)}
        for process in leaks.processes():
            if process.pid in inside or str(self.root) + "/" in process.command:
                yield process

    def _purge(self) -> None:
        """Take everything of this daemon off the machine, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._sweep()
        shutil.rmtree(self.root, ignore_errors=True)

    def _sweep(self) -> None:
        """End its processes; remove its mounts, links, nft table and cgroups."""
        for _ in range(50):
            left = list(self._own_processes())
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            if not left:
                break
            time.sleep(0.05)
        for point in reversed([p for p in leaks.mount_points() if p.startswith(f"{self.root}/")]):
            _quietly("umount", "-l", point)
        for port in leaks.bridge_ports(self.config.bridge):
            _quietly("ip", "link", "del", port)
        if self.config.bridge in leaks.links():
            _quietly("ip", "link", "del", self.config.bridge)
        for table in leaks.nft_tables():
            if table.split()[1] == self.config.nft_table:
                _quietly("nft", "delete", "table", *table.split())
        remove_cgroups(self.config.cgroup_root)

    def log_tail(self, lines: int = 60) -> str:
        """The end of the daemon's (and supervisor's) output."""
        texts = []
        for path in (self.log_file, *sorted(self.config.run_dir.glob("*.log"))):
            with contextlib.suppress(OSError):
                tail = path.read_text(errors="replace").splitlines()[-lines:]
                texts.append(f"--- {path.name}\n" + "\n".join(tail))
        return "\n".join(texts)


def cli_command() -> list[str]:
    """How this environment runs ``podrt``."""
    script = Path(sys.executable).with_name("podrt")
    return [str(script)] if script.exists() else [sys.executable, "-m", "podrt.cli.main"]


def remove_cgroups(path: str) -> None:
    """Remove ``path`` and all beneath it in every hierarchy."""
    for mount in probes.cgroup_mounts().values():
        top = mount / path.lstrip("/")
        for directory, _, _ in os.walk(top, topdown=False, onerror=lambda error: None):
            with contextlib.suppress(OSError):
                os.rmdir(directory)


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _holds(pod: Object, condition: str | Callable[[Object], Any]) -> bool:
    if callable(condition):
        return bool(condition(pod))
    status = pod.get("status", {})
    if condition in ("Pending", "Succeeded", "Failed", "Unknown"):
        return bool(status.get("phase") == condition)
    if condition == "Running":
        states = [c.get("state", {}) for c in status.get("containerStatuses", ())]
        wanted = len(pod["spec"]["containers"])
        return status.get("phase") == "Running" and len(states) == wanted and all("running" in s for s in states)
    name = condition.removeprefix("condition=")
    return any(c["type"] == name and c["status"] == "True" for c in status.get("conditions", ()))


def _quietly(*command: str) -> None:
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
