"""Gives Pods their place on this node, or says why not. A Pod that doesn't fit is tried again when something changed.

What the placed Pods take is kept as sums, so that placing one costs the same with five hundred others. The decision is
in ``placement`` (pure); this module keeps the ledger and the queue, writes conditions and tells events.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from podrt.errors import PodrtError
from podrt.model.base import format_time
from podrt.model.meta import DeleteOptions
from podrt.model.node import Node
from podrt.model.pod import Pod
from podrt.model.status import PodCondition
from podrt.node import placement
from podrt.node.placement import Demand, Space
from podrt.store.events import EventRecorder
from podrt.store.objects import Registry

logger = logging.getLogger(__name__)


OURS = ("", "default-scheduler")
"""Pods of another schedulerName wait until that scheduler binds them."""


class Ledger:
    """The Pods that have a place here and what they take together. Finished Pods take nothing."""

    def __init__(self) -> None:
        self._pods: dict[str, Pod] = {}
        self.demands: dict[str, Demand] = {}
        self._amounts: dict[str, int] = {}
        self._repelling: set[str] = set()

    def note(self, pod: Pod) -> None:
        """A Pod of this node is there, or has changed."""
        uid = pod.metadata.uid
        if pod.status.phase in ("Succeeded", "Failed"):
            self.drop(uid)
            return
        known = self._pods.get(uid)
        self._pods[uid] = pod
        if known is not None and known.spec == pod.spec:
            return
        if known is not None:
            self._count(self.demands[uid], -1)
        self.demands[uid] = placement.demand(pod)
        self._count(self.demands[uid], 1)
        if placement.has_anti_affinity(pod):
            self._repelling.add(uid)

    def drop(self, uid: str) -> bool:
        """A Pod is gone; whether it took anything."""
        if self._pods.pop(uid, None) is None:
            return False
        self._count(self.demands.pop(uid), -1)
        self._repelling.discard(uid)
        return True

    def _count(self, demand: Demand, sign: int) -> None:
        for name, amount in demand.amounts.items():
            self._amounts[name] = self._amounts.get(name, 0) + sign * amount

    def space_for(self, pod: Pod, *, everyone: bool = False) -> Space:
        """What there is to know for placing ``pod``; ``everyone``: with all other Pods, as a preemption needs."""
        if everyone or placement.looks_at_pods(pod):
            pods = list(self._pods.values())
        else:
            pods = [self._pods[uid] for uid in self._repelling]
        ports = [port for demand in self.demands.values() for port in demand.ports]
        return Space(self._amounts, ports, len(self._pods), pods)


class Scheduler:
    """Places Pods. ``on_placed`` is called with each one that got its place, as it is stored then."""

    def __init__(
        self, registry: Registry, recorder: EventRecorder, node_name: str, on_placed: Callable[[Pod], None]
    ) -> None:
        self._registry = registry
        self._store = registry.store
        self._recorder = recorder
        self._node_name = node_name
        self._on_placed = on_placed
        self._ledger = Ledger()
        self._waiting: dict[str, tuple[str, str]] = {}
        self._told: dict[str, str] = {}

    def note(self, old: Pod | None, new: Pod | None) -> None:
        """Hear of every change of a Pod. One without a node is placed now if it fits."""
        if new is None:
            assert old is not None
            self._forget(old.metadata.uid)
            return
        uid = new.metadata.uid
        if new.spec.node_name == self._node_name:
            self._waiting.pop(uid, None)
            before = uid in self._ledger.demands
            self._ledger.note(new)
            if before and uid not in self._ledger.demands:
                self.retry()
        elif not new.spec.node_name and new.metadata.deletion_timestamp is None and new.spec.scheduler_name in OURS:
            self._waiting[uid] = (new.metadata.namespace, new.metadata.name)
            if old is None or old.spec != new.spec or old.metadata.labels != new.metadata.labels:
                self._try(new)

    def _forget(self, uid: str) -> None:
        self._waiting.pop(uid, None)
        self._told.pop(uid, None)
        if self._ledger.drop(uid):
            self.retry()

    def retry(self) -> None:
        """Something has changed: try those that wait, the most important first."""
        if not self._waiting:
            return
        found = [self._store.find(Pod, *key) for key in self._waiting.values()]
        pods = [pod for pod in found if pod is not None]
        pods.sort(key=lambda pod: (-(pod.spec.priority or 0), pod.metadata.creation_timestamp or ""))
        for pod in pods:
            if pod.metadata.uid in self._waiting:
                self._try(pod)

    def _try(self, pod: Pod) -> None:
        if pod.spec.scheduling_gates:
            gates = ", ".join(gate.name for gate in pod.spec.scheduling_gates)
            text = f"Scheduling is blocked due to non-empty scheduling gates: {gates}"
            self._refuse(pod, "SchedulingGated", text)
            return
        node = self._store.find(Node, "", self._node_name)
        if node is None:
            return
        wanted = placement.demand(pod)
        reasons = placement.unfit(pod, wanted, node, self._ledger.space_for(pod))
        if not reasons:
            self._place(pod)
            return
        space = self._ledger.space_for(pod, everyone=True)
        chosen = placement.victims(pod, wanted, node, space, self._ledger.demands)
        outcome = "Preemption is not helpful for scheduling."
        if chosen:
            outcome = f"{len(chosen)} Pods of lower priority make room."
        elif (pod.spec.priority or 0) > 0:
            outcome = "No preemption victims found for incoming pod."
        text = f"0/1 nodes are available: {', '.join(f'1 {reason}' for reason in reasons)}. "
        text += f"preemption: 0/1 nodes are available: 1 {outcome}"
        self._refuse(pod, "Unschedulable", text, self._node_name if chosen else "")
        for victim in chosen:
            self._evict(victim, pod)

    def _place(self, pod: Pod) -> None:
        uid = pod.metadata.uid
        self._waiting.pop(uid, None)
        self._told.pop(uid, None)
        spec = msgspec.structs.replace(pod.spec, node_name=self._node_name)
        placed = msgspec.structs.replace(pod, spec=spec)
        # The place is taken at once; it is stored with the worker's first status, one write instead of two.
        self._ledger.note(placed)
        self._on_placed(pod)

    def _refuse(self, pod: Pod, reason: str, message: str, nominated: str = "") -> None:
        if self._told.get(pod.metadata.uid) == message:
            return
        self._told[pod.metadata.uid] = message
        if reason == "Unschedulable":
            self._recorder.record(pod, "Warning", "FailedScheduling", message)

        def change(current: Pod) -> Pod:
            condition = PodCondition(
                type="PodScheduled",
                status="False",
                observed_generation=current.metadata.generation,
                last_transition_time=format_time(time.time()),
                reason=reason,
                message=message,
            )
            others = tuple(one for one in current.status.conditions if one.type != "PodScheduled")
            status = msgspec.structs.replace(
                current.status,
                phase="Pending",
                conditions=(*others, condition),
                nominated_node_name=nominated or current.status.nominated_node_name,
            )
            return msgspec.structs.replace(current, status=status)

        self._store.modify(Pod, pod.metadata.namespace, pod.metadata.name, change)

    def _evict(self, victim: Pod, pod: Pod) -> None:
        text = f"Preempted by pod {pod.metadata.uid} on node {self._node_name}"
        self._recorder.record(victim, "Normal", "Preempted", text)
        try:
            self._registry.delete(Pod, victim.metadata.namespace, victim.metadata.name, DeleteOptions())
        except PodrtError:
            logger.exception("pod %s/%s can't be preempted", victim.metadata.namespace, victim.metadata.name)
