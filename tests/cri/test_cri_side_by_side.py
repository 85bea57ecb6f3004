"""One daemon, two doors: Pods made through the API and sandboxes made through the CRI don't see or touch each other."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import DaemonFactory
from tests.framework import leaks
from tests.framework.cri import SLEEP, CriClient, refused, sandbox
from tests.framework.daemon import Daemon
from tests.framework.pods import container, pod, status

NAMES = ("one", "two", "three")


class World:
    """Three Pods through the API, and three sandboxes of the same names with a container each through the CRI."""

    def __init__(self, daemon: Daemon, client: CriClient) -> None:
        self.daemon, self.client = daemon, client
        for name in NAMES:
            daemon.apply(pod(name, container(command=list(SLEEP)), terminationGracePeriodSeconds=0))
        self.sandboxes: dict[str, str] = {}
        self.containers: dict[str, str] = {}
        for name in NAMES:
            config = sandbox(name, labels={"app": name})
            self.sandboxes[name] = client.run_sandbox(config)
            self.containers[name] = client.run(self.sandboxes[name], config)
        self.pods = {name: daemon.wait_for(name, "Running") for name in NAMES}
        self.processes = self.running()

    def api_container(self, name: str) -> str:
        """The id of a Pod's container, as the CRI would call it."""
        return str(status(self.pods[name])["containerID"]).rpartition("//")[2]

    def check_cri(self) -> None:
        """The CRI has exactly its own, and all of it runs."""
        assert {one.id for one in self.client.sandboxes()} == set(self.sandboxes.values())
        assert {one.id for one in self.client.containers()} == set(self.containers.values())
        for name in NAMES:
            assert self.client.sandbox_status(self.sandboxes[name]).state == 0
            assert self.client.exec(self.containers[name], "echo", name) == (0, f"{name}\n", "")

    def check_api(self) -> None:
        """The API has exactly its own, and nothing of it was started anew."""
        assert sorted(found["metadata"]["name"] for found in self.daemon.pods()) == sorted(NAMES)
        for name in NAMES:
            found = self.daemon.wait_for(name, "Running")
            assert status(found)["containerID"] == status(self.pods[name])["containerID"]
            assert status(found)["restartCount"] == 0
            assert found["status"]["podIP"] == self.pods[name]["status"]["podIP"]

    def running(self) -> set[int]:
        return {process.pid for process in leaks.processes_below(self.daemon.config.cgroup_root)}

    def check_processes(self) -> None:
        assert self.running() == self.processes


@pytest.fixture
def world(daemon: Daemon) -> Any:
    with CriClient(daemon.config.cri_socket) as client:
        yield World(daemon, client)


def test_each_sees_its_own(world: World) -> None:
    world.check_cri()
    world.check_api()
    addresses = {world.client.sandbox_status(one).network.ip for one in world.sandboxes.values()}
    addresses |= {found["status"]["podIP"] for found in world.pods.values()}
    assert len(addresses) == 2 * len(NAMES)
    stats = world.client.call("ListContainerStats").stats
    assert {one.attributes.id for one in stats} == set(world.containers.values())
    stats = world.client.call("ListPodSandboxStats").stats
    assert {one.attributes.id for one in stats} == set(world.sandboxes.values())


def test_the_api_s_containers_do_not_exist_for_the_cri(world: World) -> None:
    client, foreign = world.client, world.api_container("one")
    for method, fields in (
        ("ContainerStatus", {}),
        ("ContainerStats", {}),
        ("StartContainer", {}),
        ("ExecSync", {"cmd": ["true"]}),
        ("Exec", {"cmd": ["true"], "stdout": True}),
        ("Attach", {"stdout": True}),
        ("ReopenContainerLog", {}),
        ("UpdateContainerResources", {"linux": {"cpu_shares": 2}}),
    ):
        with refused("NOT_FOUND"):
            client.call(method, container_id=foreign, **fields)
    # What is gone is stopped and removed: these succeed, and do nothing.
    client.stop(foreign)
    client.remove(foreign)
    for sandbox_id in (path.name for path in (world.daemon.config.run_dir / "sandboxes").iterdir()):
        if sandbox_id.removesuffix(".json") not in world.sandboxes.values():
            client.stop_sandbox(sandbox_id.removesuffix(".json"))
            client.remove_sandbox(sandbox_id.removesuffix(".json"))
            with refused("NOT_FOUND"):
                client.create(sandbox_id.removesuffix(".json"), sandbox("one"))
    world.check_api()
    world.check_cri()
    world.check_processes()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_both_live_on_when_the_daemon_is_started_anew(world: World, how: str) -> None:
    if how == "stop":
        world.daemon.stop()
    else:
        world.daemon.kill()
    world.check_processes()
    world.daemon.start()
    world.check_cri()
    world.check_api()
    world.check_processes()


def test_both_live_on_when_the_supervisor_is_killed(world: World) -> None:
    world.daemon.kill_supervisor()
    world.check_cri()
    world.check_api()
    world.daemon.restart()
    world.check_cri()
    world.check_api()


def test_deleting_all_pods_leaves_the_sandboxes(world: World) -> None:
    for name in NAMES:
        world.daemon.delete(name, grace=0)
    world.check_cri()
    world.daemon.restart()
    assert world.daemon.pods() == []
    world.check_cri()


def test_removing_all_sandboxes_leaves_the_pods(world: World) -> None:
    world.client.clear()
    assert world.client.sandboxes() == world.client.containers() == []
    world.check_api()
    world.daemon.restart()
    assert world.client.sandboxes() == []
    world.check_api()


def test_a_daemon_without_the_cri_leaves_its_sandboxes_alone(daemon_factory: DaemonFactory) -> None:
    """The socket was turned off, and on again later: what was made through it is still there."""
    daemon = daemon_factory()
    with CriClient(daemon.config.cri_socket) as client:
        world = World(daemon, client)
        text = daemon.config_file.read_text()
        daemon.stop()
        daemon.config_file.write_text(
            "\n".join(line for line in text.splitlines() if not line.startswith("cri_socket"))
        )
        daemon.start()
        world.check_api()
        world.check_processes()
        daemon.stop()
        daemon.config_file.write_text(text)
        daemon.start()
        world.check_cri()
        world.check_api()
