"""The Job controller: runs Pods until enough of them succeeded, and counts each exactly once."""

from __future__ import annotations

from msgspec.structs import replace

from podrt.controllers import job_rules as rules
from podrt.controllers.base import BURST, SOON, Controller
from podrt.controllers.index import controller_of
from podrt.controllers.pods import pod_of
from podrt.controllers.queue import Key
from podrt.model.base import parse_time
from podrt.model.batch import COMPLETION_INDEX, INDEX_FAILURES, TRACKING, Job
from podrt.model.container import Container, EnvVar, EnvVarSource, ObjectFieldSelector
from podrt.model.meta import DeleteOptions, Preconditions
from podrt.model.pod import Pod
from podrt.store.watch import Change

_INDEX_VARIABLE = "JOB_COMPLETION_INDEX"


class Jobs(Controller[Job]):
    kind = Job
    component = "job-controller"

    def all(self) -> None:
        super().all()
        for pod in self.store.list(Pod).items:
            if TRACKING in pod.metadata.finalizers:
                self._wake_owner(pod)

    def on_change(self, change: Change) -> None:
        super().on_change(change)
        if isinstance(change.new, Pod) and TRACKING in change.new.metadata.finalizers:
            self._wake_owner(change.new)
        if isinstance(change.old, Job) and change.new is None:
            for obj in self.index.dependents(change.old.metadata.uid):
                if isinstance(obj, Pod) and TRACKING in obj.metadata.finalizers:
                    self.registry.release(obj, TRACKING)

    def _wake_owner(self, pod: Pod) -> None:
        """A Pod that no Job is there to count any more loses its finalizer."""
        owner = controller_of(pod.metadata)
        job = self.store.find(Job, pod.metadata.namespace, owner.name) if owner is not None else None
        if owner is not None and owner.kind == "Job" and job is not None and job.metadata.uid == owner.uid:
            self.add(pod.metadata.namespace, owner.name)
        elif pod.metadata.deletion_timestamp is not None or owner is None or job is None:
            self.parts.queue.add(Key(self.resource.name, pod.metadata.namespace, f"/{pod.metadata.name}"))

    def gone(self, key: Key) -> None:
        name = key.name.removeprefix("/")
        if name == key.name:
            return
        pod = self.store.find(Pod, key.namespace, name)
        if pod is not None:
            self.registry.release(pod, TRACKING)

    def sync(self, obj: Job) -> float | None:
        pods = self.claim(Pod, obj, obj.spec.selector)
        if rules.finished(obj) is not None:
            return self._after(obj, pods)
        noted, release = rules.count(obj, pods)
        obj = self.set_status(obj, noted)
        for pod in release:
            self.registry.release(pod, TRACKING)
        status = rules.settle(obj, noted)
        pods = self.index.controlled(Pod, obj)
        todo = rules.plan(obj, status, pods, self.parts.clock())
        if obj.metadata.deletion_timestamp is not None:
            self.set_status(obj, todo.status)
            return None
        # The start is stored before the first Pod, so that the clock of the deadline never begins twice.
        self._events(obj, todo)
        obj = self.set_status(obj, todo.status)
        return self._act(obj, todo)

    def _act(self, obj: Job, todo: rules.Plan) -> float | None:
        for pod in todo.delete[:BURST]:
            if todo.quiet:
                # Not a failure: it is not to be counted.
                self.registry.release(pod, TRACKING)
            self.delete_pod(obj, pod)
        if todo.delete:
            return SOON if len(todo.delete) > BURST else todo.again
        done = self.create_pods(obj, (self._pod(obj, new) for new in todo.create))
        if rules.finished(obj) is not None:
            return SOON
        return todo.again if done else SOON

    def _events(self, obj: Job, todo: rules.Plan) -> None:
        for kind, level in (("Complete", "Normal"), ("Failed", "Warning")):
            now = rules.condition(todo.status, kind)
            if now is not None and rules.condition(obj.status, kind) is None:
                reason, text = ("Completed", "Job completed") if kind == "Complete" else (now.reason, now.message)
                self.recorder.record(obj, level, reason, text)
        before, after = (rules.condition(status, "Suspended") for status in (obj.status, todo.status))
        if before is None and after is not None:
            self.recorder.record(obj, "Normal", "Suspended", "Job suspended")
        elif before is not None and after is None:
            self.recorder.record(obj, "Normal", "Resumed", "Job resumed")

    def _after(self, obj: Job, pods: list[Pod]) -> float | None:
        """The Job is over: nothing of it stays held, and it goes when its time to live is up."""
        for pod in pods:
            self.registry.release(pod, TRACKING)
        told, ttl = rules.finished(obj), obj.spec.ttl_seconds_after_finished
        if told is None or ttl is None or obj.metadata.deletion_timestamp is not None:
            return None
        ended = parse_time(told.last_transition_time).timestamp() if told.last_transition_time else 0.0
        left = ended + ttl - self.parts.clock()
        if left > 0:
            return left
        options = DeleteOptions(propagation_policy="Foreground", preconditions=Preconditions(uid=obj.metadata.uid))
        self.registry.delete(Job, obj.metadata.namespace, obj.metadata.name, options)
        return None

    def _pod(self, obj: Job, new: rules.New) -> Pod:
        pod = pod_of(obj, obj.spec.template)
        metadata = replace(pod.metadata, finalizers=(*pod.metadata.finalizers, TRACKING))
        if new.number < 0:
            return replace(pod, metadata=metadata)
        index = str(new.number)
        notes = {**metadata.annotations, COMPLETION_INDEX: index}
        if obj.spec.backoff_limit_per_index is not None:
            notes[INDEX_FAILURES] = str(new.failures)
        metadata = replace(
            metadata,
            generate_name=f"{obj.metadata.name}-{index}-",
            labels={**metadata.labels, COMPLETION_INDEX: index},
            annotations=notes,
        )
        spec = replace(
            pod.spec,
            hostname=pod.spec.hostname or f"{obj.metadata.name}-{index}",
            containers=tuple(map(_with_index, pod.spec.containers)),
            init_containers=tuple(map(_with_index, pod.spec.init_containers)),
        )
        return replace(pod, metadata=metadata, spec=spec)


def _with_index(container: Container) -> Container:
    if any(variable.name == _INDEX_VARIABLE for variable in container.env):
        return container
    path = f"metadata.annotations['{COMPLETION_INDEX}']"
    source = EnvVarSource(field_ref=ObjectFieldSelector(api_version="v1", field_path=path))
    return replace(container, env=(*container.env, EnvVar(name=_INDEX_VARIABLE, value_from=source)))
