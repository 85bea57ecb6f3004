"""Pods whose images come from a registry: policies, events, back-off, secrets, a mirror of docker.io, many layers."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import DaemonFactory
from tests.framework import registry as registries
from tests.framework.daemon import Daemon, eventually
from tests.framework.patience import scaled
from tests.framework.pods import HELLO_JOB
from tests.framework.probes import needs
from tests.framework.registry import PASSWORD, USER, cutting_proxy, docker_registry

pytestmark = needs(registries.available(), "docker-registry")

BUSYBOX = "localhost/podrt/busybox:latest"


def pod(name: str, image: str, policy: str = "", **spec: Any) -> dict[str, Any]:
    container = {"name": "c", "image": image, "command": ["sleep", "1000"]}
    if policy:
        container["imagePullPolicy"] = policy
    fields = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": fields | spec}


def waiting(found: dict[str, Any]) -> dict[str, str]:
    statuses = found.get("status", {}).get("containerStatuses") or [{}]
    state: dict[str, str] = statuses[0].get("state", {}).get("waiting") or {}
    return state


def messages(daemon: Daemon, name: str, reason: str = "") -> list[str]:
    events = daemon.api("GET", "/api/v1/namespaces/default/events")["items"]
    return [
        f"{event['reason']}: {event['message']}"
        for event in events
        if event["involvedObject"]["name"] == name and reason in ("", event["reason"])
    ]


def configure(daemon: Daemon, domain: str, text: str) -> None:
    directory = daemon.config.registry_config_dir / domain
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "hosts.toml").write_text(text)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="module")
def pushed(module_daemon: Daemon, registry: str) -> str:
    """An image that the registry has."""
    name = f"{registry}/library/busybox:1.28"
    module_daemon.cli("image", "push", BUSYBOX, name)
    return name


def test_a_pod_pulls_its_image(shared_daemon: Daemon, pushed: str) -> None:
    daemon = shared_daemon
    daemon.cli("image", "rm", pushed, check=False)
    daemon.apply(pod("puller", pushed))
    daemon.wait_for("puller", "Running")
    eventually(lambda: messages(daemon, "puller", "Started"), what="events")
    assert f'Pulling: Pulling image "{pushed}"' in messages(daemon, "puller")
    (text,) = messages(daemon, "puller", "Pulled")
    assert text.startswith(f'Pulled: Successfully pulled image "{pushed}" in ') and "Image size: " in text
    daemon.apply(pod("second", pushed))
    daemon.wait_for("second", "Running")
    eventually(lambda: messages(daemon, "second", "Pulled"), what="events")
    assert messages(daemon, "second", "Pulled") == [f'Pulled: Container image "{pushed}" already present on machine'], (
        "IfNotPresent asks nobody"
    )


@pytest.mark.fields("spec.containers[].imagePullPolicy")
def test_always_asks_and_fails_where_nobody_answers(shared_daemon: Daemon, pushed: str) -> None:
    daemon = shared_daemon
    daemon.apply(pod("always", pushed, "Always"))
    daemon.wait_for("always", "Running")
    nowhere = "127.0.0.1:1/x/y:1"
    daemon.cli("image", "tag", BUSYBOX, nowhere)
    daemon.apply(pod("present", nowhere, "IfNotPresent"))
    daemon.wait_for("present", "Running")
    daemon.apply(pod("unreachable", nowhere, "Always"))
    daemon.wait_for("unreachable", lambda p: waiting(p).get("reason") == "ErrImagePull")
    found = daemon.wait_for("unreachable", lambda p: waiting(p).get("reason") == "ImagePullBackOff")
    assert "can't be reached" in waiting(found)["message"]
    assert waiting(found)["message"].startswith(f'Back-off pulling image "{nowhere}": ErrImagePull: ')
    eventually(lambda: messages(daemon, "unreachable", "BackOff"), what="events")
    told = messages(daemon, "unreachable")
    assert f'BackOff: Back-off pulling image "{nowhere}"' in told
    assert "Failed: Error: ErrImagePull" in told and "Failed: Error: ImagePullBackOff" in told
    assert any(text.startswith(f'Failed: Failed to pull image "{nowhere}"') for text in told)


def test_local_names_are_taken_as_they_are(shared_daemon: Daemon) -> None:
    daemon = shared_daemon
    daemon.apply(pod("local", BUSYBOX, "Always"))
    daemon.wait_for("local", "Running")
    daemon.apply(pod("absent", "localhost/none:1", "Always"))
    found = daemon.wait_for("absent", lambda p: waiting(p).get("reason") == "ErrImagePull")
    assert "never pulled" in waiting(found)["message"]


def test_the_job_runs_as_it_stands_with_a_mirror_of_docker_io(
    shared_daemon: Daemon, registry: str, pushed: str
) -> None:
    configure(shared_daemon, "docker.io", f'[host."http://{registry}"]\n')
    shared_daemon.cli("apply", "-f", "-", input=HELLO_JOB)
    name = eventually(shared_daemon.pods)[0]["metadata"]["name"]
    shared_daemon.wait_for(name, "Running")
    assert eventually(lambda: shared_daemon.logs(name)) == "Hello, Kubernetes!\n"


@pytest.mark.fields("spec.imagePullSecrets")
def test_image_pull_secrets(shared_daemon: Daemon, tmp_path: Path) -> None:
    daemon = shared_daemon
    with docker_registry(tmp_path / "registry", basic=True) as address:
        daemon.cli("image", "push", "--creds", f"{USER}:{PASSWORD}", BUSYBOX, f"{address}/private:1")
        daemon.apply(pod("denied", f"{address}/private:1"))
        found = daemon.wait_for("denied", lambda p: waiting(p).get("reason") == "ErrImagePull")
        assert "imagePullSecrets" in waiting(found)["message"]
        document = json.dumps({"auths": {address: {"username": USER, "password": PASSWORD}}})
        daemon.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "login"},
                "type": "kubernetes.io/dockerconfigjson",
                "data": {".dockerconfigjson": base64.b64encode(document.encode()).decode()},
            }
        )
        daemon.apply(pod("allowed", f"{address}/private:1", imagePullSecrets=[{"name": "login"}]))
        daemon.wait_for("allowed", "Running")


def test_a_pod_can_be_deleted_while_its_image_comes(shared_daemon: Daemon, registry: str, pushed: str) -> None:
    daemon = shared_daemon
    with cutting_proxy(registry, 2000) as (proxy, _):  # each connection breaks off early: the pull goes on for long
        configure(daemon, "slow.example", f'server = "http://{proxy}"\n')
        # An image of its own, since the layers of one that is here would not be fetched.
        daemon.cli("image", "import", "/usr/share/doc", "localhost/slow:1", "--cmd", "/x", timeout=120)
        daemon.cli("image", "push", "localhost/slow:1", f"{registry}/slow:1")
        daemon.cli("image", "rm", "localhost/slow:1")
        daemon.apply(pod("slow", "slow.example/slow:1"))
        eventually(lambda: messages(daemon, "slow", "Pulling"), what="the pull begins")
        start = time.monotonic()
        daemon.delete("slow", grace=0)
        assert time.monotonic() - start < scaled(5)


def test_pull_and_push_by_command(shared_daemon: Daemon, registry: str, pushed: str) -> None:
    daemon = shared_daemon
    daemon.cli("image", "rm", pushed, check=False)
    text = daemon.cli("image", "pull", pushed).stdout
    assert text.startswith(f"Pulled image: {pushed} (sha256:")
    assert pushed in daemon.cli("image", "ls", "-o", "name").stdout
    usage = daemon.cli("image", "df").stdout
    assert "pinned" in usage and pushed in usage
    failed = daemon.cli("image", "pull", f"{registry}/none:1", check=False)
    assert failed.returncode == 1 and "not found" in failed.stderr


def test_an_image_of_130_layers_runs(daemon_factory: DaemonFactory, tmp_path: Path) -> None:
    from tests.framework.layered import many_layers

    daemon = daemon_factory()
    archive = many_layers(daemon.root / "busybox.tar", daemon, 130)
    daemon.cli("image", "load", "-i", str(archive))
    name = "localhost/many:1"
    daemon.apply(pod("many", name))
    daemon.apply(pod("many-userns", name, hostUsers=False))
    for one in ("many", "many-userns"):
        daemon.wait_for(one, "Running")
        assert daemon.exec(one, "cat", "/layers/0", "/layers/77", "/layers/129") == "0\n77\n129\n"
        assert daemon.exec(one, "sh", "-c", "ls /layers | wc -l").strip() == "130"
