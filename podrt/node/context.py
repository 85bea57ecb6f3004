"""What all workers of a node share: the parts they call, the node's own facts, and the event queue."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import psutil
from msgspec.structs import replace

from podrt.config import Config
from podrt.engine import idranges, labels
from podrt.engine.api import EngineApi
from podrt.engine.specs import SandboxStatus
from podrt.image.registry_pull import Puller
from podrt.image.service import ImageStore
from podrt.linux.selinux import defaults as selinux_defaults
from podrt.model.base import format_time
from podrt.model.pod import Pod
from podrt.model.status import PodCondition
from podrt.node import resources
from podrt.node.node_status import NodeInfo
from podrt.node.order import containers
from podrt.node.status import NodeFacts
from podrt.store.events import EventRecorder
from podrt.store.objects import Registry
from podrt.store.store import Store

if TYPE_CHECKING:
    from podrt.node.claims import Claims
    from podrt.node.volumes.token import Signer

EVENT_DELAY = 0.05
"""Seconds that events wait for each other: they must not stand between a Pod and its start."""


class PendingEvent(NamedTuple):
    pod: Pod
    type: str
    reason: str
    message: str
    container: str


class Context:
    """Shared by the workers; owns no task."""

    def __init__(
        self,
        config: Config,
        registry: Registry,
        engine: EngineApi,
        images: ImageStore,
        recorder: EventRecorder,
        node: NodeInfo,
        puller: Puller | None = None,
        *,
        claims: Claims,
        signer: Signer,
    ) -> None:
        self.config = config
        self.registry = registry
        self.store: Store = registry.store
        self.engine = engine
        self.images = images
        self.claims = claims
        self.signer = signer
        self.puller = puller
        self.node = node
        self.node_name = node.name
        self.node_memory = psutil.virtual_memory().total
        self.selinux = selinux_defaults()
        self._recorder = recorder
        self._events: deque[PendingEvent] = deque()
        self._flushing: asyncio.TimerHandle | None = None

    def node_facts(self) -> NodeFacts:
        return NodeFacts(self.node.addresses())

    def allocatable(self) -> Mapping[str, str]:
        """The node's allocatable resources, as quantities."""
        return self.node.allocatable()

    def page_sizes(self) -> tuple[str, ...]:
        """The sizes of the node's huge pages."""
        return resources.page_sizes(self.allocatable())

    def sandboxes_of(self, uid: str) -> list[SandboxStatus]:
        """The engine's sandboxes of one Pod that the API made (not those of the CRI)."""
        return [box for box in self.engine.list_sandboxes(uid) if not box.spec.owner]

    def id_slot(self, uid: str) -> int:
        """A free id range for the Pod of ``uid``. Others hold ranges, too: the sandboxes of the CRI."""
        return idranges.choose(uid, idranges.taken(box.spec for box in self.engine.list_sandboxes()))

    def selinux_level(self, pod: Pod) -> str:
        """The Pod's SELinux level: as it says, as its sandbox has it, or one that no other sandbox has."""
        if self.selinux is None:
            return ""
        context = pod.spec.security_context
        if context is not None and context.se_linux_options is not None and context.se_linux_options.level:
            return context.se_linux_options.level
        taken: dict[str, str] = {}
        for box in self.engine.list_sandboxes():
            taken[box.spec.uid] = labels.level_of(box.spec.mount_label)
        return taken.pop(pod.metadata.uid, "") or labels.level(pod.metadata.uid, frozenset(taken.values()))

    def remove_pod(self, pod: Pod) -> bool:
        """The last step of a deletion; False while finalizers keep the object."""
        return self.registry.finalize_pod(pod.metadata.namespace, pod.metadata.name, pod.metadata.uid)

    def fail(self, pod: Pod, reason: str, message: str, *, told: str = "", disrupted: bool = False) -> None:
        """End a Pod for good: phase Failed, and a Warning with ``reason`` (``told``: its text, if not ``message``).

        ``disrupted``: with the condition DisruptionTarget, by which controllers see that it was not the Pod's own end.
        """

        def change(current: Pod) -> Pod:
            status = current.status
            if current.metadata.uid != pod.metadata.uid or status.phase in ("Succeeded", "Failed"):
                return current
            kept = tuple(one for one in status.conditions if one.type != "DisruptionTarget" or not disrupted)
            target = PodCondition(
                type="DisruptionTarget",
                status="True",
                observed_generation=current.metadata.generation,
                last_transition_time=format_time(time.time()),
                reason="TerminationByKubelet",
                message=message,
            )
            conditions = (*kept, target) if disrupted else kept
            status = replace(status, phase="Failed", reason=reason, message=message, conditions=conditions)
            return replace(current, status=status)

        self.event(pod, "Warning", reason, told or message)
        self.store.modify(Pod, pod.metadata.namespace, pod.metadata.name, change)

    def event(self, pod: Pod, type_: str, reason: str, message: str, container: str = "") -> None:
        """Record an event about a Pod, or about one of its containers, a moment later."""
        self._events.append(PendingEvent(pod, type_, reason, message, container))
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(EVENT_DELAY, self.flush_events)

    def flush_events(self) -> None:
        """Write the events that wait."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        while self._events:
            event = self._events.popleft()
            field = _field_path(event.pod, event.container) if event.container else ""
            self._recorder.record(event.pod, event.type, event.reason, event.message, field_path=field)


def _field_path(pod: Pod, name: str) -> str:
    """Where a container is in its Pod's spec, as events name it: ``spec.containers{name}``."""
    field = next((role.field for role, spec in containers(pod) if spec.name == name), "containers")
    return f"spec.{field}{{{name}}}"
