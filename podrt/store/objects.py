"""The rules between the API and the table: what creating, updating and deleting an object means.

:class:`Registry` applies defaults, validation and this version's limits, keeps the metadata that belongs to the server,
and does graceful deletion. Deleting a Pod that has a node only *asks*: deletionTimestamp and the grace period are set,
and the node agent calls :meth:`Registry.finalize_pod` once nothing of it is left on the machine. That holds for a
forced deletion (grace 0) too, unlike in a cluster: store and agent are one process here, so a name is never free while
its old Pod still has an address.
"""

from __future__ import annotations

import datetime
import logging
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from podrt.errors import AlreadyExistsError, Cause, ConflictError, ForbiddenError, InvalidError, NotFoundError
from podrt.model import defaults, object_defaults, support, validation
from podrt.model.base import format_time, now, parse_time
from podrt.model.batch import Job
from podrt.model.kinds import BY_NAME, Object, Resource, resource_of
from podrt.model.meta import DeleteOptions, ObjectMeta
from podrt.model.namespace import Namespace
from podrt.model.node import Node
from podrt.model.pod import Pod
from podrt.model.validation.resize import resized
from podrt.store.accounts import AccountKeeper
from podrt.store.admission import Admission
from podrt.store.namespaces import PROTECTED, NamespaceReaper, first_namespaces
from podrt.store.store import Store

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=Object)

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
PROPAGATION = {"Foreground": FOREGROUND, "Orphan": ORPHAN}
"""Policy of a deletion to the finalizer that stands for it."""
NAME_TRIES = 8
"""How often a generated name that is taken is drawn again."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """What came of a delete: the object as it is now or was last, and whether it is gone already."""

    object: Object
    gone: bool


class Registry:
    """Objects with their rules. All writes of the API go through it; ``store`` is for reading, watching and status."""

    def __init__(self, store: Store) -> None:
        """Create the first namespaces where they are missing, and go on with unfinished namespace deletions."""
        self.store = store
        self._admission = Admission(store)
        for namespace in first_namespaces():
            if store.find(Namespace, "", namespace) is None:
                self.create(Namespace(metadata=ObjectMeta(name=namespace)))
        self._reaper = NamespaceReaper(store, self._delete_content)
        self._accounts = AccountKeeper(store, self.create)

    # Creating

    def create(self, obj: T, *, dry_run: bool = False) -> T:
        """Store a new object after defaults and validation.

        Raises InvalidError with all causes, NotFoundError (no such namespace), ForbiddenError (namespace being
        deleted, limits or quota of the namespace), AlreadyExistsError.
        """
        resource = resource_of(obj)
        obj = self._in_namespace(resource, obj)
        for attempt in range(1, NAME_TRIES + 1):
            new = self._admission.defaulted(self._prepared(resource, obj))
            _refuse_invalid(resource, new.metadata, self._create_causes(obj, new))
            try:
                if self.store.find(type(new), new.metadata.namespace, new.metadata.name) is not None:
                    raise AlreadyExistsError(self._exists_message(resource, new))
                self._admission.check(new)
                return new if dry_run else self.store.create(new)
            except AlreadyExistsError:
                if obj.metadata.name or attempt == NAME_TRIES:
                    raise
        raise AssertionError("unreachable")

    def _exists_message(self, resource: Resource, obj: Object) -> str:
        old = self.store.get(type(obj), obj.metadata.namespace, obj.metadata.name)
        if old.metadata.deletion_timestamp is not None:
            return f'object is being deleted: {resource.qualified} "{obj.metadata.name}" already exists'
        return f'{resource.qualified} "{obj.metadata.name}" already exists'

    def _in_namespace(self, resource: Resource, obj: T) -> T:
        name = obj.metadata.namespace
        if not resource.namespaced:
            return obj
        if not name:
            name = "default"
            obj = replace(obj, metadata=replace(obj.metadata, namespace=name))
        namespace = self.store.find(Namespace, "", name)
        if namespace is None:
            raise NotFoundError(f'namespaces "{name}" not found: create it first')
        if namespace.metadata.deletion_timestamp is not None:
            raise ForbiddenError(
                f'{resource.qualified} "{obj.metadata.name or obj.metadata.generate_name}" is forbidden: '
                f"unable to create new content in namespace {name} because it is being terminated"
            )
        return obj

    def _prepared(self, resource: Resource, obj: T) -> T:
        new: Any = replace(obj, metadata=defaults.new_metadata(obj.metadata, int(resource.generation)))
        if isinstance(new, Pod):
            new = defaults.new_pod_status(defaults.pod(new))
        elif isinstance(new, Namespace):
            new = defaults.namespace(replace(new, status=Namespace().status))
        else:
            new = object_defaults.with_defaults(object_defaults.fresh_status(new))
        prepared: T = new
        return prepared

    def _create_causes(self, sent: Object, new: Object) -> list[Cause]:
        causes = []
        if sent.metadata.resource_version:
            message = "Forbidden: resourceVersion should not be set on objects to be created"
            causes.append(Cause("metadata.resourceVersion", message, "FieldValueForbidden"))
        causes += validation.validate(new)
        return causes + support.unsupported_in(new)

    # Updating

    def update(self, obj: T, *, dry_run: bool = False) -> T:
        """Replace an object, but for its status and what of its metadata is the server's.

        ``metadata.resourceVersion``, if set, must be the stored one. Raises NotFoundError, ConflictError, InvalidError.
        """
        resource = resource_of(obj)
        old = self.store.get(type(obj), obj.metadata.namespace, obj.metadata.name)
        _check_version(resource, old, obj.metadata.resource_version)
        if obj.metadata.uid and obj.metadata.uid != old.metadata.uid:
            raise _precondition(resource, old, "UID", obj.metadata.uid, old.metadata.uid)
        new = self._merged(old, obj)
        causes = validation.validate_update(new, old) + support.unsupported_in(new)
        _refuse_invalid(resource, new.metadata, causes)
        if dry_run:
            return new
        stored = self.store.update(new)
        if self._finished(stored):
            return self.store.delete(type(stored), stored.metadata.namespace, stored.metadata.name)
        return stored

    def _merged(self, old: T, obj: T) -> T:
        sent, kept = obj.metadata, old.metadata
        metadata = replace(
            sent,
            uid=kept.uid,
            creation_timestamp=sent.creation_timestamp or kept.creation_timestamp,
            generate_name=kept.generate_name,
            resource_version=kept.resource_version,
            deletion_timestamp=kept.deletion_timestamp,
            deletion_grace_period_seconds=kept.deletion_grace_period_seconds,
            generation=kept.generation,
            self_link="",
        )
        new: Any = replace(obj, metadata=metadata)
        if isinstance(new, Pod):
            new = defaults.pod(replace(new, status=old.status))  # type: ignore[union-attr]
        elif isinstance(new, Namespace):
            new = defaults.namespace(replace(new, status=old.status))  # type: ignore[union-attr]
        elif isinstance(new, object_defaults.WITH_STATUS):
            new = object_defaults.with_defaults(replace(new, status=old.status))  # type: ignore[union-attr]
        else:
            new = object_defaults.with_defaults(new)
        spec = getattr(new, "spec", None)
        if (
            spec is not None
            and kept.generation
            and msgspec.json.encode(spec) != msgspec.json.encode(getattr(old, "spec", None))
        ):
            new = replace(new, metadata=replace(metadata, generation=kept.generation + 1))
        merged: T = new
        return merged

    def _finished(self, obj: Object) -> bool:
        """Whether nothing keeps an object that is being deleted. Pods on a node and namespaces are ended elsewhere."""
        if obj.metadata.deletion_timestamp is None or obj.metadata.finalizers or isinstance(obj, Namespace):
            return False
        return not (isinstance(obj, Pod) and self._on_a_node(obj))

    def _on_a_node(self, pod: Pod) -> bool:
        """Whether some agent has the last word on a Pod. None has if its node does not exist, but others do.

        Before any node is registered nothing is known, and the Pod waits for its agent.
        """
        name = pod.spec.node_name
        return bool(name) and (self.store.find(Node, "", name) is not None or not self.store.count(Node))

    def update_status(self, obj: T, *, dry_run: bool = False) -> T:
        """Replace an object's status and nothing else. Raises NotFoundError, ConflictError, InvalidError."""
        resource = resource_of(obj)
        old = self.store.get(type(obj), obj.metadata.namespace, obj.metadata.name)
        _check_version(resource, old, obj.metadata.resource_version)
        if obj.metadata.uid and obj.metadata.uid != old.metadata.uid:
            raise _precondition(resource, old, "UID", obj.metadata.uid, old.metadata.uid)
        if not hasattr(obj, "status"):
            raise NotFoundError(f"{resource.qualified} have no status subresource")
        new = replace(old, status=obj.status)
        return new if dry_run else self.store.update(new)

    def update_ephemeral_containers(self, sent: Pod, *, dry_run: bool = False) -> Pod:
        """Add debugging containers to a Pod; nothing else of what was sent counts. Errors as of :meth:`update`."""
        old = self._addressed(sent)
        spec = replace(old.spec, ephemeral_containers=sent.spec.ephemeral_containers)
        new = defaults.pod(replace(old, spec=spec))
        causes = validation.validate_ephemeral_containers(new, old)
        return self._change_spec(new, old, causes, dry_run=dry_run)

    def resize(self, sent: Pod, *, dry_run: bool = False) -> Pod:
        """Ask for other resources of a Pod's containers; nothing else of what was sent counts.

        Errors as of :meth:`update`, and ForbiddenError: limits or quota of the namespace.
        """
        old = self._addressed(sent)
        new = defaults.pod(resized(old, sent))
        causes = validation.validate_resize(new, old)
        if not causes:
            self._admission.check_resize(new, old)
        return self._change_spec(new, old, causes, dry_run=dry_run)

    def _addressed(self, sent: Pod) -> Pod:
        """The stored Pod that a request is about."""
        old = self.store.get(Pod, sent.metadata.namespace, sent.metadata.name)
        resource = resource_of(old)
        _check_version(resource, old, sent.metadata.resource_version)
        if sent.metadata.uid and sent.metadata.uid != old.metadata.uid:
            raise _precondition(resource, old, "UID", sent.metadata.uid, old.metadata.uid)
        return old

    def _change_spec(self, new: Pod, old: Pod, causes: list[Cause], *, dry_run: bool) -> Pod:
        _refuse_invalid(resource_of(old), new.metadata, [*causes, *support.unsupported(new.spec)])
        if new.spec == old.spec:
            return old
        new = replace(new, metadata=replace(old.metadata, generation=old.metadata.generation + 1))
        return new if dry_run else self.store.update(new)

    def bind(self, namespace: str, name: str, node_name: str) -> Pod:
        """Place a Pod on a node. Raises NotFoundError, ConflictError if it is on one already."""
        pod = self.store.get(Pod, namespace, name)
        if pod.spec.node_name and pod.spec.node_name != node_name:
            raise ConflictError(f'pod "{name}" is already assigned to node "{pod.spec.node_name}"')
        return self.store.update(replace(pod, spec=replace(pod.spec, node_name=node_name)))

    # Deleting

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
        old = self.store.get(kind if isinstance(kind, str) else _plural(kind), namespace, name)
        resource = resource_of(old)
        _refuse_invalid(resource, old.metadata, validation.validate_delete_options(options), "DeleteOptions")
        _check_preconditions(resource, old, options)
        if isinstance(old, Namespace) and name in PROTECTED:
            raise ForbiddenError(f'namespaces "{name}" is forbidden: this namespace may not be deleted')
        if dry_run:
            return Deletion(old, gone=False)
        if isinstance(old, Pod):
            return self._delete_pod(old, options)
        if isinstance(old, Namespace):
            return self._delete_namespace(old)
        old = self._with_propagation(old, options)
        if old.metadata.finalizers:
            return Deletion(self._mark(old, 0), gone=False)
        return Deletion(self.store.delete(resource.name, namespace, name), gone=True)

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
        return self.store.update(replace(old, metadata=replace(old.metadata, finalizers=finalizers)))

    def release(self, obj: T, finalizer: str) -> None:
        """Take a finalizer away; an object that is being deleted goes with its last one."""
        old = self.store.find(type(obj), obj.metadata.namespace, obj.metadata.name)
        if old is None or old.metadata.uid != obj.metadata.uid or finalizer not in old.metadata.finalizers:
            return
        kept = tuple(name for name in old.metadata.finalizers if name != finalizer)
        new = self.store.update(replace(old, metadata=replace(old.metadata, finalizers=kept)))
        if self._finished(new):
            self.store.delete(resource_of(new).name, new.metadata.namespace, new.metadata.name)

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
            gone = self.store.delete(Pod, pod.metadata.namespace, pod.metadata.name)
            return Deletion(gone, gone=True)
        return Deletion(self._mark(pod, grace), gone=False)

    def _delete_namespace(self, namespace: Namespace) -> Deletion:
        terminating = replace(namespace, status=replace(namespace.status, phase="Terminating"))
        marked = self._mark(self.store.update(terminating), 0)
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
        return self.store.update(replace(obj, metadata=marked))

    def finalize_pod(self, namespace: str, name: str, uid: str) -> bool:
        """The node agent's last word on a Pod: nothing of it is left on the machine.

        True if the object is gone (or is another Pod by now); False while finalizers keep it, and then to be called
        again when they change. Raises ConflictError if nobody asked for its deletion.
        """
        pod = self.store.find(Pod, namespace, name)
        if pod is None or pod.metadata.uid != uid:
            return True
        if pod.metadata.deletion_timestamp is None:
            raise ConflictError(f'pod "{name}" is not being deleted')
        if pod.metadata.finalizers:
            if pod.metadata.deletion_grace_period_seconds:
                self._mark(pod, 0)
            return False
        self.store.delete(Pod, namespace, name)
        return True


def _plural(kind: type[Object]) -> str:
    return next(name for name, resource in BY_NAME.items() if resource.struct is kind)


def _refuse_invalid(resource: Resource, metadata: ObjectMeta, causes: list[Cause], kind: str = "") -> None:
    if causes:
        raise invalid(kind or resource.kind, metadata.name or metadata.generate_name, causes)


def invalid(kind: str, name: str, causes: list[Cause]) -> InvalidError:
    """The error of an object with these causes, in Kubernetes' words."""
    texts = [f"{cause.field}: {cause.message}" for cause in causes]
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    return InvalidError(f'{kind} "{name}" is invalid: {text}', causes)


def _check_version(resource: Resource, old: Object, version: str) -> None:
    if version and version != old.metadata.resource_version:
        raise ConflictError(
            f'Operation cannot be fulfilled on {resource.qualified} "{old.metadata.name}": '
            "the object has been modified; please apply your changes to the latest version and try again"
        )


def _check_preconditions(resource: Resource, old: Object, options: DeleteOptions) -> None:
    wanted = options.preconditions
    if wanted is None:
        return
    if wanted.uid is not None and wanted.uid != old.metadata.uid:
        raise _precondition(resource, old, "UID", wanted.uid, old.metadata.uid)
    if wanted.resource_version is not None and wanted.resource_version != old.metadata.resource_version:
        raise _precondition(resource, old, "ResourceVersion", wanted.resource_version, old.metadata.resource_version)


def _precondition(resource: Resource, old: Object, what: str, wanted: str, found: str) -> ConflictError:
    return ConflictError(
        f'Operation cannot be fulfilled on {resource.qualified} "{old.metadata.name}": Precondition failed: '
        f"{what} in precondition: {wanted}, {what} in object meta: {found}"
    )
