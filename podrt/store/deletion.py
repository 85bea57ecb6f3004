"""Deleting objects: preconditions, propagation, finalizers, the grace of Pods, and emptying namespaces.

Deleting a Pod that has a node only *asks*: deletionTimestamp and the grace period are set, and the node agent calls
:meth:`Deleter.finalize_pod` once nothing of it is left on the machine. That holds for a forced deletion (grace 0) too,
unlike in a cluster: store and agent are one process here, so a name is never free while its old Pod still has an
address.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TypeVar

from msgspec.structs import replace

from podrt.errors import ConflictError, ForbiddenError
from podrt.model import validation
from podrt.model.base import format_time, now, parse_time
from podrt.model.batch import Job
from podrt.model.classes import SYSTEM_PRIORITIES, PriorityClass
from podrt.model.kinds import Object, resource_of, resource_of_struct
from podrt.model.meta import DeleteOptions
from podrt.model.namespace import Namespace
from podrt.model.node import Node
from podrt.model.pod import Pod
from podrt.store.namespaces import PROTECTED, NamespaceReaper
from podrt.store.refusals import check_preconditions, refuse_invalid
from podrt.store.store import Store

T = TypeVar("T", bound=Object)

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
PROPAGATION = {"Foreground": FOREGROUND, "Orphan": ORPHAN}
"""Policy of a deletion to the finalizer that stands for it."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """What came of a delete: the object as it is now or was last, and whether it is gone already."""

    object: Object
    gone: bool


class Deleter:
    """The end of objects. Unfinished deletions of namespaces go on at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reaper = NamespaceReaper(store, self._delete_content)

    def finished(self, obj: Object) -> bool:
        """Whether nothing keeps an object that is being deleted. Pods on a node and namespaces are ended elsewhere."""
        if obj.metadata.deletion_timestamp is None or obj.metadata.finalizers or isinstance(obj, Namespace):
            return False
        return not (isinstance(obj, Pod) and self._on_a_node(obj))

    def _on_a_node(self, pod: Pod) -> bool:
        """Whether some agent has the last word on a Pod. None has if its node does not exist, but others do.

        Before any node is registered nothing is known, and the Pod waits for its agent.
        """
        name = pod.spec.node_name
        return bool(name) and (self._store.find(Node, "", name) is not None or not self._store.count(Node))

    def delete(
        self,
        kind: str | type[Object],
        namespace: str,
        name: str,
        options: DeleteOptions | None = None,
        *,
        dry_run: bool = False,
    ) -> Deletion:
        """Delete an object, or ask for it to be deleted.

        A grace period can be shortened by deleting again, never lengthened. Raises NotFoundError, ConflictError (a
        precondition fails), ForbiddenError (a namespace that must stay), InvalidError.
        """
        options = options or DeleteOptions()
        old = self._store.get(kind if isinstance(kind, str) else resource_of_struct(kind).name, namespace, name)
        resource = resource_of(old)
        refuse_invalid(resource, old.metadata, validation.validate_delete_options(options), "DeleteOptions")
        check_preconditions(resource, old, options)
        if isinstance(old, Namespace) and name in PROTECTED:
            raise ForbiddenError(f'namespaces "{name}" is forbidden: this namespace may not be deleted')
        if isinstance(old, PriorityClass) and name in SYSTEM_PRIORITIES:
            what = f'{resource.qualified} "{name}" is forbidden'
            raise ForbiddenError(f"{what}: this is a system priority class and cannot be deleted")
        if dry_run:
            return Deletion(old, gone=False)
        if isinstance(old, Pod):
            return self._delete_pod(old, options)
        if isinstance(old, Namespace):
            return self._delete_namespace(old)
        old = self._with_propagation(old, options)
        if old.metadata.finalizers:
            return Deletion(self._mark(old, 0), gone=False)
        return Deletion(self._store.delete(resource.name, namespace, name), gone=True)

    def _with_propagation(self, old: T, options: DeleteOptions) -> T:
        """Foreground and orphan are finalizers, which the garbage collector takes away once they are fulfilled."""
        policy = options.propagation_policy
        if policy is None and options.orphan_dependents is not None:
            policy = "Orphan" if options.orphan_dependents else "Background"
        if policy is None:
            # Kubernetes' default of batch/v1 Jobs is an old one; kubectl always names a policy.
            policy = "Orphan" if isinstance(old, Job) else "Background"
        wanted = PROPAGATION.get(policy)
        kept = tuple(name for name in old.metadata.finalizers if name not in PROPAGATION.values())
        finalizers = (*kept, wanted) if wanted else kept
        if finalizers == old.metadata.finalizers:
            return old
        return self._store.update(replace(old, metadata=replace(old.metadata, finalizers=finalizers)))

    def release(self, obj: T, finalizer: str) -> None:
        """Take a finalizer away; an object that is being deleted goes with its last one."""
        old = self._store.find(type(obj), obj.metadata.namespace, obj.metadata.name)
        if old is None or old.metadata.uid != obj.metadata.uid or finalizer not in old.metadata.finalizers:
            return
        kept = tuple(name for name in old.metadata.finalizers if name != finalizer)
        new = self._store.update(replace(old, metadata=replace(old.metadata, finalizers=kept)))
        if self.finished(new):
            self._store.delete(resource_of(new).name, new.metadata.namespace, new.metadata.name)

    def _delete_pod(self, pod: Pod, options: DeleteOptions) -> Deletion:
        grace = options.grace_period_seconds
        if grace is None:
            grace = pod.spec.termination_grace_period_seconds
        if grace is None:
            grace = 30
        if grace < 0:
            grace = 1
        waits = self._on_a_node(pod)
        if not waits or pod.status.phase in ("Succeeded", "Failed"):
            grace = 0
        if not waits and not pod.metadata.finalizers:
            gone = self._store.delete(Pod, pod.metadata.namespace, pod.metadata.name)
            return Deletion(gone, gone=True)
        return Deletion(self._mark(pod, grace), gone=False)

    def _delete_namespace(self, namespace: Namespace) -> Deletion:
        terminating = replace(namespace, status=replace(namespace.status, phase="Terminating"))
        marked = self._mark(self._store.update(terminating), 0)
        gone = self._reaper.reap(namespace.metadata.name)
        return Deletion(marked, gone=gone)

    def _delete_content(self, obj: Object) -> None:
        if isinstance(obj, Pod) and obj.metadata.deletion_timestamp is not None:
            return
        options = DeleteOptions(propagation_policy="Background")
        self.delete(resource_of(obj).name, obj.metadata.namespace, obj.metadata.name, options)

    def _mark(self, obj: T, grace: int) -> T:
        """Set or shorten the time of deletion."""
        metadata = obj.metadata
        if metadata.deletion_timestamp is None:
            deadline = now() + datetime.timedelta(seconds=min(grace, 10**9))
            generation = metadata.generation + 1 if metadata.generation else 0
        else:
            before = metadata.deletion_grace_period_seconds or 0
            if grace >= before:
                return obj
            asked = parse_time(metadata.deletion_timestamp) - datetime.timedelta(seconds=min(before, 10**9))
            deadline = max(asked + datetime.timedelta(seconds=grace), asked)
            generation = metadata.generation
        marked = replace(
            metadata,
            deletion_timestamp=format_time(deadline),
            deletion_grace_period_seconds=grace,
            generation=generation,
        )
        return self._store.update(replace(obj, metadata=marked))

    def finalize_pod(self, namespace: str, name: str, uid: str) -> bool:
        """The node agent's last word on a Pod: nothing of it is left on the machine.

        True if the object is gone (or is another Pod by now); False while finalizers keep it, and then to be called
        again when they change. Raises ConflictError if nobody asked for its deletion.
        """
        pod = self._store.find(Pod, namespace, name)
        if pod is None or pod.metadata.uid != uid:
            return True
        if pod.metadata.deletion_timestamp is None:
            raise ConflictError(f'pod "{name}" is not being deleted')
        if pod.metadata.finalizers:
            if pod.metadata.deletion_grace_period_seconds:
                self._mark(pod, 0)
            return False
        self._store.delete(Pod, namespace, name)
        return True
