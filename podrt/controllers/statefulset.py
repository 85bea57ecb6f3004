"""The StatefulSet controller: Pods with names of their own, made and removed in order, each with its own claims."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from podrt.controllers import revisions as history
from podrt.controllers import statefulset_rules as rules
from podrt.controllers.base import Controller
from podrt.controllers.pods import with_owner
from podrt.controllers.statefulset_rules import Revisions
from podrt.errors import AlreadyExistsError, ConflictError, PodrtError
from podrt.model.apps import ControllerRevision, StatefulSet
from podrt.model.meta import DeleteOptions, OwnerReference, Preconditions
from podrt.model.pod import Pod, PodTemplateSpec
from podrt.model.storage import PersistentVolumeClaim


class StatefulSets(Controller[StatefulSet]):
    kind = StatefulSet
    component = "statefulset-controller"
    owns = (Pod, ControllerRevision)

    def sync(self, obj: StatefulSet) -> float | None:
        pods = [
            pod
            for pod in self.claim(Pod, obj, obj.spec.selector)
            if rules.ordinal(obj.metadata.name, pod.metadata.name) >= 0
        ]
        if obj.metadata.deletion_timestamp is not None:
            return self._tell_last(obj, pods)
        known = self.claim(ControllerRevision, obj, obj.spec.selector)
        revisions = self._revisions(obj, known)
        obj = self.store.get(StatefulSet, obj.metadata.namespace, obj.metadata.name)
        todo = rules.plan(obj, pods, revisions, self.parts.clock())
        try:
            for pod in todo.delete:
                if pod.metadata.name in todo.scaled_away:
                    self._hand_claims(obj, pod)
                self._delete(obj, pod)
            for number, revision in todo.create:
                self._create(obj, number, revision)
        finally:
            pods = self.index.controlled(Pod, obj)
            now = rules.plan(obj, pods, revisions, self.parts.clock())
            self.set_status(obj, now.status)
        self._forget_revisions(obj, pods, {now.status.current_revision, now.status.update_revision})
        return now.again

    def _tell_last(self, obj: StatefulSet, pods: list[Pod]) -> float | None:
        """A set that is being deleted makes nothing any more, revisions neither."""
        revisions = Revisions(obj.status.current_revision, obj.status.update_revision)
        self.set_status(obj, rules.plan(obj, pods, revisions, self.parts.clock()).status)
        return None

    # Revisions

    def _revisions(self, obj: StatefulSet, known: list[ControllerRevision]) -> Revisions:
        chosen = history.choose(obj, known)
        update = chosen.revision
        if chosen.made:
            try:
                update = self.registry.create(update)
            except AlreadyExistsError:
                collided = replace(obj.status, collision_count=(obj.status.collision_count or 0) + 1)
                self.set_status(obj, collided)
                raise
        elif chosen.number != update.revision:
            number = chosen.number
            update = self.store.modify(
                ControllerRevision,
                obj.metadata.namespace,
                update.metadata.name,
                lambda old: history.renumbered(old, number),
            )
        names = {entry.metadata.name for entry in known}
        current = obj.status.current_revision
        return Revisions(current if current in names else update.metadata.name, update.metadata.name)

    def _template(self, obj: StatefulSet, revision: str) -> PodTemplateSpec:
        found = self.store.find(ControllerRevision, obj.metadata.namespace, revision)
        if found is None or found.data == history.data_of(obj.spec.template):
            return obj.spec.template
        try:
            return history.template_from(found)
        except msgspec.ValidationError as error:
            raise ConflictError(f"controllerrevision {revision} can't be read: {error}; delete it") from error

    def _forget_revisions(self, obj: StatefulSet, pods: list[Pod], live: set[str]) -> None:
        used = live | {rules.revision_of(pod) for pod in pods}
        known = self.index.controlled(ControllerRevision, obj)
        for entry in history.surplus(known, used, obj.spec.revision_history_limit):
            self.delete(entry)

    # Pods and claims

    def _create(self, obj: StatefulSet, number: int, revision: str) -> None:
        pod = rules.pod(obj, number, revision, self._template(obj, revision))
        name, about = pod.metadata.name, obj.metadata.name
        try:
            self._make_claims(obj, number)
            self.registry.create(pod)
        except PodrtError as error:
            message = f"create Pod {name} in StatefulSet {about} failed error: {error}"
            self.recorder.record(obj, "Warning", "FailedCreate", message)
            raise
        message = f"create Pod {name} in StatefulSet {about} successful"
        self.recorder.record(obj, "Normal", "SuccessfulCreate", message)

    def _delete(self, obj: StatefulSet, pod: Pod) -> None:
        options = DeleteOptions(propagation_policy="Background", preconditions=Preconditions(uid=pod.metadata.uid))
        self.registry.delete(Pod, pod.metadata.namespace, pod.metadata.name, options)
        message = f"delete Pod {pod.metadata.name} in StatefulSet {obj.metadata.name} successful"
        self.recorder.record(obj, "Normal", "SuccessfulDelete", message)

    def _make_claims(self, obj: StatefulSet, number: int) -> None:
        retention = obj.spec.persistent_volume_claim_retention_policy
        for claim in rules.claims(obj, number):
            if retention is not None and retention.when_deleted == "Delete":
                claim = replace(claim, metadata=with_owner(claim.metadata, obj))
            old = self.store.find(PersistentVolumeClaim, claim.metadata.namespace, claim.metadata.name)
            if old is None:
                self.registry.create(claim)
                name, about = claim.metadata.name, obj.metadata.name
                message = f"create Claim {name} Pod {about}-{number} in StatefulSet {about} success"
                self.recorder.record(obj, "Normal", "SuccessfulCreate", message)
            elif old.metadata.deletion_timestamp is not None or any(
                owner.kind == "Pod" for owner in old.metadata.owner_references
            ):
                raise ConflictError(f"claim {old.metadata.name} is being deleted: its pod waits for a new one")

    def _hand_claims(self, obj: StatefulSet, pod: Pod) -> None:
        """With whenScaled: Delete the claims of a Pod that is scaled away go after it."""
        retention = obj.spec.persistent_volume_claim_retention_policy
        if retention is None or retention.when_scaled != "Delete":
            return
        number = rules.ordinal(obj.metadata.name, pod.metadata.name)
        owner = OwnerReference(api_version="v1", kind="Pod", name=pod.metadata.name, uid=pod.metadata.uid)
        for claim in rules.claims(obj, number):
            place = (PersistentVolumeClaim, claim.metadata.namespace, claim.metadata.name)
            if self.store.find(*place) is not None:
                self.store.modify(
                    *place,
                    lambda old: replace(old, metadata=replace(old.metadata, owner_references=(owner,))),
                )
