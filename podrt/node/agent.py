"""The node agent: one worker for each Pod of this node, woken by the store and by the engine; nothing is polled.

It also answers what the API asks of running Pods (logs, exec, attach, port-forward, stats), keeps the Node object, and
clears away what has no Pod: sandboxes and directories whose Pod vanished while the daemon was down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import psutil

from podrt.config import Config
from podrt.engine.api import EngineApi, Session
from podrt.engine.logs import LogOptions, read_log
from podrt.engine.specs import ContainerState, EngineEvent, EventKind, SandboxState, Stats
from podrt.errors import ConflictError, NotFoundError, PodrtError
from podrt.image.registry_pull import Puller
from podrt.image.service import ImageStore
from podrt.model.kinds import Object
from podrt.model.node import ContainerImage, Node
from podrt.model.pod import Pod
from podrt.model.status import ContainerStatus
from podrt.node import convert, volumes
from podrt.node.claims import Claims
from podrt.node.context import Context
from podrt.node.node_status import MAX_IMAGES, NodeInfo
from podrt.node.order import containers
from podrt.node.pressure import Pressure
from podrt.node.qos import QosGroups
from podrt.node.scheduler import Scheduler
from podrt.node.static_pods import StaticPods
from podrt.node.taints import TaintEvictions
from podrt.node.tokens import Tokens
from podrt.node.volumes.token import Signer
from podrt.node.worker import PodWorker, uid_of
from podrt.store.events import EventRecorder
from podrt.store.objects import Registry
from podrt.store.watch import Change

logger = logging.getLogger(__name__)

SOURCES = ("configmaps", "secrets", "serviceaccounts", "persistentvolumeclaims")
"""What Pods are made of besides themselves."""
NODE_PERIOD = 60.0
"""Seconds between two updates of the Node object."""


class Agent:
    """Runs this node's Pods. ``await start()`` first, ``await close()`` last; containers outlive it."""

    def __init__(
        self,
        config: Config,
        registry: Registry,
        engine: EngineApi,
        images: ImageStore,
        recorder: EventRecorder,
        *,
        on_failure: Callable[[BaseException], None],
        puller: Puller | None = None,
    ) -> None:
        """``on_failure`` is told when a task of the agent died of a bug: the daemon then ends."""
        self._node = NodeInfo(config)
        self._claims = Claims(config.state_dir, registry, recorder)
        signer = Signer(
            config.state_dir / "service-account.key", f"https://kubernetes.default.svc.{config.cluster_domain}"
        )
        self._context = Context(
            config, registry, engine, images, recorder, self._node, puller, claims=self._claims, signer=signer
        )
        self.tokens = Tokens(registry.store, signer)
        self._config = config
        self._registry = registry
        self._engine = engine
        self._images = images
        self._recorder = recorder
        self._on_failure = on_failure
        scheduling = EventRecorder(registry.store, "default-scheduler", self._node.name, ttl=config.event_ttl)
        self._scheduler = Scheduler(registry, scheduling, self._node.name, self._add)
        self._static_pods = StaticPods(config.static_pod_dir, registry, recorder, self._node.name)
        self._pressure = Pressure(self._context, self._update_node)
        self._taints = TaintEvictions(registry, recorder)
        self._qos = QosGroups(engine, config.cgroup_root)
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._pods_of_boxes: dict[str, str] = {}
        self._service: list[asyncio.Task[None]] = []
        self._closing = False

    @property
    def node_name(self) -> str:
        return self._context.node_name

    async def start(self) -> None:
        """Register the node, clear away orphans, and start a worker for each stored Pod."""
        self._pressure.look()
        self._update_node()
        self._claims.start()
        store = self._registry.store
        pods = store.list(Pod).items
        await self._qos.start()
        await self._remove_orphans({pod.metadata.uid for pod in pods})
        self._subscription = store.subscribe(self._on_change, Pod)
        self._node_subscription = store.subscribe(self._on_node, Node)
        self._sources = [store.subscribe(self._on_source, kind) for kind in SOURCES]
        for pod in sorted(pods, key=lambda pod: not pod.spec.node_name):
            # Those that have their place first: the others have to fit beside them.
            self._scheduler.note(None, pod)
            self._qos.note(None, pod)
            if pod.spec.node_name:
                self._add(pod)
        self._service = [
            self._watched(self._follow_engine(), "engine events"),
            self._watched(self._keep_node(), "node status"),
            self._watched(self._static_pods.run(), "static Pods"),
            self._watched(self._qos.run(), "QoS groups"),
            self._watched(self._pressure.run(), "eviction"),
        ]

    async def close(self) -> None:
        """End all tasks. Pods run on."""
        self._closing = True
        self._taints.close()
        self._subscription.close()
        self._node_subscription.close()
        for source in self._sources:
            source.close()
        await self._claims.close()
        tasks = [*self._service, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._context.flush_events()

    def images_changed(self) -> None:
        """An image was loaded or tagged: Pods that wait for one try again."""
        for worker in self._workers.values():
            worker.image_loaded()

    # Workers

    def _on_change(self, change: Change) -> None:
        old, pod = change.old, change.new
        assert (old is None or isinstance(old, Pod)) and (pod is None or isinstance(pod, Pod))
        self._scheduler.note(old, pod)
        self._qos.note(old, pod)
        if old is not None and pod is not None and old.spec.tolerations != pod.spec.tolerations:
            self._taints.judge(pod, self._registry.store.find(Node, "", self.node_name))
        if pod is not None and pod.spec.node_name and (old is None or not old.spec.node_name):
            self._add(pod)
        if old is not None and (pod is None or pod.status.phase != old.status.phase or pod.spec is not old.spec):
            for other in self._workers.values():
                other.room_made()
        obj = change.object
        if (worker := self._workers.get(obj.metadata.uid)) is not None:
            worker.poke()
            if pod is not None and change.old is not None and _described(pod) != _described(change.old):
                worker.relabeled(obj)

    def _on_node(self, change: Change) -> None:
        """Labels, taints or capacity may let in what did not fit before; heartbeats don't."""
        old, new = change.old, change.new
        if not isinstance(old, Node) or not isinstance(new, Node) or _placing(old) != _placing(new):
            self._scheduler.retry()
        if isinstance(new, Node) and (not isinstance(old, Node) or old.spec.taints != new.spec.taints):
            self._taints.taints_changed(new)

    def _on_source(self, change: Change) -> None:
        """What volumes and variables are made of has changed."""
        for worker in self._workers.values():
            worker.source_changed(change.object)

    def _add(self, pod: Pod) -> None:
        if self._closing or pod.metadata.uid in self._workers or pod.spec.node_name not in ("", self.node_name):
            return
        worker = PodWorker(self._context, pod)
        self._workers[pod.metadata.uid] = worker
        self._taints.judge(pod, self._registry.store.find(Node, "", self.node_name))
        self._tasks[pod.metadata.uid] = self._watched(self._work(worker), f"pod {pod.metadata.name}")

    async def _work(self, worker: PodWorker) -> None:
        try:
            await worker.run()
        finally:
            self._taints.forget(worker.uid)
            self._workers.pop(worker.uid, None)
            self._tasks.pop(worker.uid, None)

    def _watched(self, coroutine: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine, name=what)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.critical("the task %r failed", task.get_name(), exc_info=error)
            self._on_failure(error)

    async def _follow_engine(self) -> None:
        queue = self._engine.subscribe()
        try:
            # What ended between the recovery and the subscription has been told to nobody.
            for worker in self._workers.values():
                worker.poke()
            while True:
                self._route(await queue.get())
        finally:
            self._engine.unsubscribe(queue)

    def _route(self, event: EngineEvent) -> None:
        uid = self._pods_of_boxes.get(event.sandbox_id)
        if uid is None:
            with contextlib.suppress(NotFoundError):
                box = self._engine.sandbox_status(event.sandbox_id)
                if box.spec.owner:
                    return
                uid = self._pods_of_boxes[event.sandbox_id] = uid_of(box)
        if event.kind is EventKind.SANDBOX_DELETED:
            self._pods_of_boxes.pop(event.sandbox_id, None)
        worker = self._workers.get(uid or "")
        if worker is None:
            return
        if event.kind is EventKind.WARNING:
            worker.warn(event)
        elif event.kind in (EventKind.CONTAINER_STOPPED, EventKind.SANDBOX_STOPPED, EventKind.SANDBOX_DELETED):
            worker.poke()

    async def _remove_orphans(self, known: set[str]) -> None:
        for box in self._engine.list_sandboxes():
            if not box.spec.owner and uid_of(box) not in known:
                logger.warning("sandbox %s belongs to no Pod: removing it", box.id)
                try:
                    await self._engine.remove_sandbox(box.id)
                except (PodrtError, OSError):
                    logger.exception("sandbox %s can't be removed", box.id)
        root = self._config.state_dir / "pods"
        for path in root.iterdir() if root.is_dir() else ():
            if path.name not in known:
                volumes.PodDirectory(self._config.state_dir, path.name).remove()

    # The node

    async def _keep_node(self) -> None:
        while True:
            await asyncio.sleep(NODE_PERIOD)
            self._update_node()
            self._recorder.prune()

    def _update_node(self) -> None:
        images = sorted(self._images.list(), key=lambda image: image.size, reverse=True)[:MAX_IMAGES]
        listed = tuple(ContainerImage(names=tuple(image.names), size_bytes=image.size) for image in images)
        store = self._registry.store
        old = store.find(Node, "", self.node_name)
        if old is None:
            self._registry.create(self._node.node(listed))
        else:
            store.modify(Node, "", self.node_name, lambda node: self._node.node(listed, node))

    # What the API asks

    def _status(self, pod: Pod, container: str) -> ContainerStatus | None:
        if container not in {spec.name for _, spec in containers(pod)}:
            raise NotFoundError(f"container {container} is not valid for pod {pod.metadata.name}")
        status = pod.status
        everything = (*status.init_container_statuses, *status.container_statuses, *status.ephemeral_container_statuses)
        return next((one for one in everything if one.name == container), None)

    def _running(self, pod: Pod, container: str) -> str:
        """The id of the container's running process. Raises NotFoundError, ConflictError."""
        self._status(pod, container)
        for box in self._context.sandboxes_of(pod.metadata.uid):
            for run in self._engine.list_containers(box.id):
                if run.spec.name == container and run.state is ContainerState.RUNNING:
                    return run.id
        raise ConflictError(f"container {container} of pod {pod.metadata.name} is not running")

    def logs(self, pod: Pod, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        """The container's log as text. Raises NotFoundError, ConflictError where there is none yet."""
        status = self._status(pod, container)
        attempt = status.restart_count if status is not None else 0
        if options.previous:
            if attempt == 0:
                raise ConflictError(
                    f'previous terminated container "{container}" in pod "{pod.metadata.name}" not found'
                )
            attempt -= 1
        path = Path(convert.log_directory(self._config, pod)) / container / f"{attempt}.log"
        if not path.exists():
            raise ConflictError(f'container "{container}" in pod "{pod.metadata.name}" {_why_no_log(status)}')
        return read_log(path, options, lambda: self._log_ended(pod.metadata.uid, container, attempt))

    def _log_ended(self, uid: str, container: str, attempt: int) -> bool:
        return not any(
            run.spec.name == container and run.spec.attempt == attempt and run.state is not ContainerState.EXITED
            for box in self._context.sandboxes_of(uid)
            for run in self._engine.list_containers(box.id)
        )

    async def exec(
        self, pod: Pod, container: str, argv: Sequence[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool
    ) -> Session:
        """Run a command in a container."""
        run = self._running(pod, container)
        return await self._engine.exec(run, argv, tty=tty, stdin=stdin, stdout=stdout, stderr=stderr)

    async def attach(self, pod: Pod, container: str, *, stdin: bool, stdout: bool, stderr: bool) -> Session:
        """Join the streams of a container's own process."""
        return await self._engine.attach(self._running(pod, container), stdin=stdin, stdout=stdout, stderr=stderr)

    async def port_forward(self, pod: Pod, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to localhost:``port`` inside the Pod. Raises ConflictError, OSError (ECONNREFUSED)."""
        for box in self._context.sandboxes_of(pod.metadata.uid):
            if box.state is SandboxState.READY:
                return await self._engine.connect_port(box.id, port)
        raise ConflictError(f"unable to forward port because pod is not running. Current status={pod.status.phase}")

    async def pod_stats(self, pod: Pod) -> dict[str, Stats]:
        """Usage by container name, of those that run."""
        found: dict[str, Stats] = {}
        for box in self._context.sandboxes_of(pod.metadata.uid):
            for run in self._engine.list_containers(box.id):
                if run.state is ContainerState.RUNNING:
                    found[run.spec.name] = await self._engine.container_stats(run.id)
        return found

    def node_stats(self) -> Stats:
        """Usage of the whole machine."""
        cpu, memory = psutil.cpu_times(), psutil.virtual_memory()
        busy = cpu.user + cpu.system + cpu.nice + cpu.irq + cpu.softirq
        used = memory.total - memory.available
        return Stats(
            at=time.time(),
            cpu_usage_ns=int(busy * 1e9),
            memory_usage=memory.used,
            memory_working_set=used,
            pids=len(psutil.pids()),
        )


def _why_no_log(status: ContainerStatus | None) -> str:
    """What keeps a container from having a log."""
    if status is not None and (ended := status.state.terminated) is not None:
        return f"did not start: {ended.message or ended.reason}"
    waiting = status.state.waiting if status is not None else None
    return f"is waiting to start: {waiting.reason if waiting is not None else 'ContainerCreating'}"


def _described(obj: Object) -> tuple[dict[str, str], dict[str, str]]:
    return obj.metadata.labels, obj.metadata.annotations


def _placing(node: Node) -> tuple[object, ...]:
    """All of a node that decides about placement."""
    return node.metadata.labels, node.spec, node.status.allocatable
