"""A world of objects in virtual time: the real store, registry and controllers, and a node that is a few lines long."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from podrt.controllers.manager import Controllers
from podrt.model import codec
from podrt.model.base import format_time
from podrt.model.kinds import Object
from podrt.model.node import Node
from podrt.model.pod import Pod
from podrt.model.status import (
    ContainerState,
    ContainerStateTerminated,
    ContainerStatus,
    PodCondition,
    PodStatus,
)
from podrt.store.objects import Registry
from podrt.store.store import Store
from podrt.store.watch import Change

NODE = "node-1"


class World:
    """``settle`` runs controllers and node until nothing moves; ``sleep`` moves the clock, timers included.

    Images named ``broken`` never become ready. ``watch`` functions are called after every write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = float(int(time.time()))
        self.store = Store(path)
        self.registry = Registry(self.store)
        self.running = True
        """Whether the node starts Pods and ends those that are deleted."""
        self.registry.create(Node(metadata=replace(Node().metadata, name=NODE)))
        self.controllers = self._start()

    def _start(self) -> Controllers:
        return Controllers(self.registry, clock=lambda: self.now)

    def restart(self) -> None:
        """As after kill -9: only what is in the file goes on."""
        self.store.close()
        self.store = Store(self.path)
        self.registry = Registry(self.store)
        self.controllers = self._start()

    def close(self) -> None:
        self.store.close()

    # Objects

    def apply(self, document: dict[str, Any]) -> Any:
        return self.registry.create(codec.decode_document(document).object)

    def change(self, kind: type[Any], name: str, **spec: Any) -> Any:
        old = self.store.get(kind, "default", name)
        return self.registry.update(replace(old, spec=replace(old.spec, **spec)))

    def get(self, kind: type[Any], name: str) -> Any:
        return self.store.find(kind, "default", name)

    def all(self, kind: type[Any]) -> list[Any]:
        return self.store.list(kind).items

    def pods(self) -> list[Pod]:
        return self.store.list(Pod).items

    def active(self) -> list[Pod]:
        return [
            pod
            for pod in self.pods()
            if pod.metadata.deletion_timestamp is None and pod.status.phase not in ("Succeeded", "Failed")
        ]

    def ready(self) -> list[Pod]:
        return [
            pod for pod in self.active() if any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions)
        ]

    def watch(self, callback: Any) -> None:
        def told(change: Change) -> None:
            callback()

        self.store.subscribe(told)

    # Time and work

    def control(self, steps: int = 10_000) -> int:
        """Run controllers alone. How many syncs there were."""
        done = 0
        while done < steps and self.controllers.queue.step():
            done += 1
        assert done < 10_000, "the controllers never come to rest"
        return done

    def node(self) -> bool:
        """One round of the node: start what waits, end what is deleted. Whether it did anything."""
        moved = False
        for pod in self.pods() if self.running else ():
            metadata = pod.metadata
            if metadata.deletion_timestamp is not None:
                if pod.status.phase not in ("Succeeded", "Failed"):
                    self.finish(pod, "Failed", 137)
                    moved = True
                if self.registry.finalize_pod(metadata.namespace, metadata.name, metadata.uid):
                    moved = True
            elif pod.status.phase == "Pending" and not any(c.image == "broken" for c in pod.spec.containers):
                self.run(pod)
                moved = True
        return moved

    def settle(self, rounds: int = 500) -> None:
        for _ in range(rounds):
            busy = self.control() > 0
            if not self.node() and not busy:
                return
        raise AssertionError("the world never comes to rest")

    def sleep(self, seconds: float) -> None:
        """Move the clock from timer to timer, settling at each."""
        end = self.now + seconds
        self.settle()
        while (wait := self.controllers.queue.next_due()) is not None and self.now + wait <= end:
            self.now += wait
            self.settle()
        self.now = end
        self.settle()

    # What the node says of a Pod

    def run(self, pod: Pod, restarts: int = 0) -> None:
        condition = PodCondition(type="Ready", status="True", last_transition_time=format_time(self.now))
        containers = tuple(
            ContainerStatus(name=c.name, ready=True, restart_count=restarts) for c in pod.spec.containers
        )
        status = PodStatus(phase="Running", conditions=(condition,), container_statuses=containers)
        placed = replace(pod, spec=replace(pod.spec, node_name=NODE), status=status)
        self.store.modify(Pod, pod.metadata.namespace, pod.metadata.name, lambda _: placed)

    def finish(self, pod: Pod, phase: str, code: int = 0) -> None:
        ended = ContainerStateTerminated(exit_code=code, finished_at=format_time(self.now))
        containers = tuple(
            ContainerStatus(name=c.name, state=ContainerState(terminated=ended)) for c in pod.spec.containers
        )
        status = PodStatus(phase=phase, container_statuses=containers)
        self.store.modify(Pod, pod.metadata.namespace, pod.metadata.name, lambda old: replace(old, status=status))


def template(image: str = "app:1", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": image}], **spec}}


def workload(kind: str, name: str = "web", image: str = "app:1", **spec: Any) -> dict[str, Any]:
    """A Deployment, ReplicaSet, StatefulSet or DaemonSet."""
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template(image), **spec},
    }


def job(name: str = "work", restart: str = "Never", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "template": {"spec": {"restartPolicy": restart, "containers": [{"name": "main", "image": "app:1"}]}},
            **spec,
        },
    }


def names(objects: list[Object]) -> list[str]:
    return [obj.metadata.name for obj in objects]
