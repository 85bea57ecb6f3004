"""The ReplicaSet controller: keeps the number of Pods that each set asks for."""

from __future__ import annotations

from podrt.controllers.base import BURST, SOON, Controller
from podrt.controllers.pods import pod_of
from podrt.controllers.replicaset_rules import plan
from podrt.errors import PodrtError
from podrt.model.apps import ReplicaSet
from podrt.model.pod import Pod


class ReplicaSets(Controller[ReplicaSet]):
    kind = ReplicaSet
    component = "replicaset-controller"

    def sync(self, obj: ReplicaSet) -> float | None:
        pods = self.claim(Pod, obj, obj.spec.selector)
        todo = plan(obj, pods, self.parts.clock())
        more = False
        try:
            for pod in todo.delete[:BURST]:
                self.delete_pod(obj, pod)
            more = len(todo.delete) > BURST
            template = obj.spec.template
            more |= not self.create_pods(obj, (pod_of(obj, template) for _ in range(todo.create)))
        except PodrtError as error:
            self._tell(obj, str(error))
            raise
        again = self._tell(obj, "")
        return SOON if more else again

    def _tell(self, obj: ReplicaSet, failure: str) -> float | None:
        """The status as it is after the writes."""
        now = plan(obj, self.index.controlled(Pod, obj), self.parts.clock(), failure)
        self.set_status(obj, now.status)
        return now.again
