"""The DaemonSet controller: one Pod on each node that it belongs to."""

from __future__ import annotations

from msgspec.structs import replace

from podrt.controllers import daemonset_rules as rules
from podrt.controllers import revisions as history
from podrt.controllers.base import Controller
from podrt.controllers.pods import pod_of
from podrt.errors import AlreadyExistsError
from podrt.model.apps import REVISION_HASH, TEMPLATE_GENERATION, ControllerRevision, DaemonSet
from podrt.model.node import Node
from podrt.model.pod import Pod
from podrt.store.watch import MODIFIED, Change

BACKOFF_FIRST = 1.0
BACKOFF_LAST = 900.0


class _Backoff:
    """How long a node's next Pod waits: 1 s after the first failure, doubling to 15 min; forgotten after twice that."""

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str], tuple[float, float]] = {}

    def wait(self, key: tuple[str, str], now: float) -> float:
        """Seconds until a failed Pod may be deleted; 0 means now, and counts."""
        delay, until = self._failures.get(key, (0.0, 0.0))
        if now < until:
            return until - now
        delay = BACKOFF_FIRST if not delay or now - until > 2 * BACKOFF_LAST else min(2 * delay, BACKOFF_LAST)
        self._failures[key] = (delay, now + delay)
        return 0.0


class DaemonSets(Controller[DaemonSet]):
    kind = DaemonSet
    component = "daemonset-controller"
    owns = (Pod, ControllerRevision)
    _backoff: _Backoff | None = None

    def on_change(self, change: Change) -> None:
        super().on_change(change)
        if isinstance(change.object, Node) and _matters(change):
            self.all()

    def sync(self, obj: DaemonSet) -> float | None:
        pods = self.claim(Pod, obj, obj.spec.selector)
        if obj.metadata.deletion_timestamp is not None:
            # It makes nothing any more, revisions neither.
            return None
        known = self.claim(ControllerRevision, obj, obj.spec.selector)
        update = self._revision(obj, known)
        obj = self.store.get(DaemonSet, obj.metadata.namespace, obj.metadata.name)
        nodes = self.store.list(Node).items
        todo = rules.plan(obj, pods, nodes, update, self.parts.clock())
        wait = self._clear_failed(obj, todo.failed)
        try:
            for pod in todo.delete:
                self.delete_pod(obj, pod)
            self.create_pods(obj, (self._pod(obj, node, update) for node in todo.create))
        finally:
            pods = self.index.controlled(Pod, obj)
            now = rules.plan(obj, pods, nodes, update, self.parts.clock())
            self.set_status(obj, now.status)
        used = {update} | {pod.metadata.labels.get(REVISION_HASH, "") for pod in pods}
        for entry in history.surplus(known, used, obj.spec.revision_history_limit):
            self.delete(entry)
        waits = [seconds for seconds in (wait, now.again) if seconds is not None]
        return min(waits, default=None)

    def _clear_failed(self, obj: DaemonSet, failed: tuple[Pod, ...]) -> float | None:
        self._backoff = self._backoff or _Backoff()
        waits: list[float] = []
        for pod in failed:
            wait = self._backoff.wait((obj.metadata.uid, pod.spec.node_name), self.parts.clock())
            if wait > 0:
                waits.append(wait)
                continue
            message = (
                f"Found {'failed' if pod.status.phase == 'Failed' else 'succeeded'} daemon pod "
                f"{pod.metadata.namespace}/{pod.metadata.name} on node {pod.spec.node_name}, will try to kill it"
            )
            reason = "FailedDaemonPod" if pod.status.phase == "Failed" else "SucceededDaemonPod"
            self.recorder.record(obj, "Warning", reason, message)
            self.delete_pod(obj, pod)
        return min(waits, default=None)

    def _pod(self, obj: DaemonSet, node: str, revision: str) -> Pod:
        labels = {
            REVISION_HASH: revision,
            "pod-template-generation": obj.metadata.annotations.get(TEMPLATE_GENERATION, "1"),
        }
        pod = pod_of(obj, obj.spec.template, labels=labels)
        return replace(pod, spec=replace(pod.spec, node_name=node, tolerations=rules.tolerations(pod.spec)))

    def _revision(self, obj: DaemonSet, known: list[ControllerRevision]) -> str:
        chosen = history.choose(obj, known)
        if chosen.made:
            try:
                return self.registry.create(chosen.revision).metadata.name
            except AlreadyExistsError:
                collided = replace(obj.status, collision_count=(obj.status.collision_count or 0) + 1)
                self.set_status(obj, collided)
                raise
        name = chosen.revision.metadata.name
        if chosen.number != chosen.revision.revision:
            number = chosen.number
            self.store.modify(
                ControllerRevision, obj.metadata.namespace, name, lambda old: history.renumbered(old, number)
            )
        return name


def _matters(change: Change) -> bool:
    """A node's heartbeat concerns no DaemonSet; its labels and taints do."""
    old, new = change.old, change.new
    if change.type != MODIFIED or not isinstance(old, Node) or not isinstance(new, Node):
        return True
    return old.metadata.labels != new.metadata.labels or old.spec != new.spec
