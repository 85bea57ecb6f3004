"""The rules between the API and the table: what creating, updating and deleting an object means.

:class:`Registry` applies defaults, validation and this version's limits, and keeps the metadata that belongs to the
server. Deleting is :mod:`podrt.store.deletion`'s.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from podrt.errors import AlreadyExistsError, Cause, ConflictError, ForbiddenError, NotFoundError
from podrt.model import defaults, object_defaults, support, validation
from podrt.model.base import format_time, now
from podrt.model.classes import PriorityClass, RuntimeClass
from podrt.model.kinds import Object, Resource, resource_of
from podrt.model.meta import DeleteOptions, ObjectMeta
from podrt.model.namespace import Namespace
from podrt.model.pod import Pod
from podrt.model.scheduling import Binding
from podrt.model.status import PodCondition
from podrt.model.validation.resize import resized
from podrt.store.accounts import AccountKeeper
from podrt.store.admission import Admission, admitted
from podrt.store.class_admission import first_priority_classes, first_runtime_classes
from podrt.store.deletion import Deleter, Deletion
from podrt.store.namespaces import first_namespaces
from podrt.store.refusals import check_version, precondition, refuse_invalid
from podrt.store.store import Store

T = TypeVar("T", bound=Object)

NAME_TRIES = 8
"""How often a generated name that is taken is drawn again."""


class Registry:
    """Objects with their rules. All writes of the API go through it; ``store`` is for reading, watching and status."""

    def __init__(self, store: Store, *, selinux: bool = False) -> None:
        """Create the first namespaces where they are missing, and go on with unfinished namespace deletions.
        ``selinux``: whether this node's kernel has it."""
        self.store = store
        self._admission = Admission(store)
        self._selinux = selinux
        for priority_class in first_priority_classes():
            if store.find(PriorityClass, "", priority_class.metadata.name) is None:
                self.create(priority_class)
        if not store.count(RuntimeClass):
            for runtime_class in first_runtime_classes():
                self.create(runtime_class)
        for namespace in first_namespaces():
            if store.find(Namespace, "", namespace) is None:
                self.create(Namespace(metadata=ObjectMeta(name=namespace)))
        self._deleter = Deleter(store)
        self._accounts = AccountKeeper(store, self.create)

    def publish_certificate(self, certificate: str) -> None:
        """Tell all namespaces of the certificate (PEM) by which clients know the API's TLS door."""
        self._accounts.publish(certificate)

    # Creating

    def create(self, obj: T, *, dry_run: bool = False) -> T:
        """Store a new object after defaults and validation.

        Raises InvalidError with all causes, NotFoundError (no such namespace), ForbiddenError (namespace being
        deleted, limits or quota of the namespace), AlreadyExistsError.
        """
        resource = resource_of(obj)
        obj = self._in_namespace(resource, obj)
        for attempt in range(1, NAME_TRIES + 1):
            new = self._prepared(resource, obj)
            try:
                new = self._admission.defaulted(new, obj)
            except ForbiddenError:
                # What is plainly wrong is better to know than what it can't be had for.
                refuse_invalid(resource, new.metadata, self._create_causes(obj, new))
                raise
            refuse_invalid(resource, new.metadata, self._create_causes(obj, new))
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
        return causes + support.unsupported_in(new, selinux=self._selinux)

    # Updating

    def update(self, obj: T, *, dry_run: bool = False) -> T:
        """Replace an object, but for its status and what of its metadata is the server's.

        ``metadata.resourceVersion``, if set, must be the stored one. Raises NotFoundError, ConflictError, InvalidError.
        """
        resource = resource_of(obj)
        old = self.store.get(type(obj), obj.metadata.namespace, obj.metadata.name)
        check_version(resource, old, obj.metadata.resource_version)
        if obj.metadata.uid and obj.metadata.uid != old.metadata.uid:
            raise precondition(resource, old, "UID", obj.metadata.uid, old.metadata.uid)
        new = self._merged(old, obj)
        self._admission.check_update(new)
        causes = validation.validate_update(new, old) + support.unsupported_in(new, selinux=self._selinux)
        refuse_invalid(resource, new.metadata, causes)
        if dry_run:
            return new
        stored = self.store.update(new)
        if self._deleter.finished(stored):
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
            new = defaults.pod(admitted(replace(new, status=old.status), old))  # type: ignore[union-attr, arg-type]
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

    def update_status(self, obj: T, *, dry_run: bool = False) -> T:
        """Replace an object's status and nothing else. Raises NotFoundError, ConflictError, InvalidError."""
        resource = resource_of(obj)
        old = self.store.get(type(obj), obj.metadata.namespace, obj.metadata.name)
        check_version(resource, old, obj.metadata.resource_version)
        if obj.metadata.uid and obj.metadata.uid != old.metadata.uid:
            raise precondition(resource, old, "UID", obj.metadata.uid, old.metadata.uid)
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
        check_version(resource, old, sent.metadata.resource_version)
        if sent.metadata.uid and sent.metadata.uid != old.metadata.uid:
            raise precondition(resource, old, "UID", sent.metadata.uid, old.metadata.uid)
        return old

    def _change_spec(self, new: Pod, old: Pod, causes: list[Cause], *, dry_run: bool) -> Pod:
        refuse_invalid(resource_of(old), new.metadata, [*causes, *support.unsupported(new.spec, selinux=self._selinux)])
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

    def bind_as_asked(self, namespace: str, name: str, binding: Binding, *, dry_run: bool = False) -> Pod:
        """Place a Pod where a scheduler of the user's wants it.

        Raises NotFoundError, InvalidError, ConflictError (it has a place, is being deleted or has scheduling gates).
        """
        pod = self.store.get(Pod, namespace, name)
        refuse_invalid(resource_of(pod), pod.metadata, validation.validate_binding(binding, pod), "Binding")
        if pod.metadata.deletion_timestamp is not None:
            raise ConflictError(f"pod {name} is being deleted, cannot be assigned to a host")
        if pod.spec.node_name:
            raise ConflictError(f'pod {name} is already assigned to node "{pod.spec.node_name}"')
        if pod.spec.scheduling_gates:
            raise ConflictError(f"pod {name} has non-empty .spec.schedulingGates")
        if binding.metadata.uid and binding.metadata.uid != pod.metadata.uid:
            raise precondition(resource_of(pod), pod, "UID", binding.metadata.uid, pod.metadata.uid)
        annotations = {**pod.metadata.annotations, **binding.metadata.annotations}
        spec = replace(pod.spec, node_name=binding.target.name)
        placed = PodCondition(type="PodScheduled", status="True", last_transition_time=format_time(now()))
        others = tuple(one for one in pod.status.conditions if one.type != "PodScheduled")
        status = replace(pod.status, conditions=(*others, placed))
        new = replace(pod, metadata=replace(pod.metadata, annotations=annotations), spec=spec, status=status)
        return new if dry_run else self.store.update(new)

    # Deleting: see Deleter

    def delete(
        self,
        kind: str | type[Object],
        namespace: str,
        name: str,
        options: DeleteOptions | None = None,
        *,
        dry_run: bool = False,
    ) -> Deletion:
        """Delete an object, or ask for it to be deleted. Errors as of :meth:`Deleter.delete`."""
        return self._deleter.delete(kind, namespace, name, options, dry_run=dry_run)

    def release(self, obj: Object, finalizer: str) -> None:
        """Take a finalizer away; an object that is being deleted goes with its last one."""
        self._deleter.release(obj, finalizer)

    def finalize_pod(self, namespace: str, name: str, uid: str) -> bool:
        """The node agent's last word on a Pod; whether the object is gone. Raises ConflictError."""
        return self._deleter.finalize_pod(namespace, name, uid)
