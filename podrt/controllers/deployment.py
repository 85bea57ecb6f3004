"""The Deployment controller: one ReplicaSet for each template, grown and shrunk within the bounds of the strategy."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from podrt.controllers import deployment_rules as rules
from podrt.controllers.base import Controller
from podrt.controllers.deployment_rules import Member
from podrt.controllers.deployment_status import status
from podrt.controllers.index import controller_of
from podrt.controllers.pods import count, is_active, is_finished, owner_reference, template_hash
from podrt.errors import PodrtError
from podrt.model.apps import (
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    REVISION,
    REVISION_HISTORY,
    TEMPLATE_HASH,
    Deployment,
    ReplicaSet,
    ReplicaSetSpec,
)
from podrt.model.meta import LabelSelector, ObjectMeta
from podrt.model.pod import Pod
from podrt.store.watch import Change

_NOT_COPIED = frozenset(
    {"kubectl.kubernetes.io/last-applied-configuration", REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS}
)


class Deployments(Controller[Deployment]):
    kind = Deployment
    component = "deployment-controller"
    owns = (ReplicaSet,)

    def on_change(self, change: Change) -> None:
        super().on_change(change)
        if change.resource != "pods":
            return
        # A deployment counts the Pods themselves: they may change and come back before their set has counted them.
        owner = controller_of(change.object.metadata)
        if owner is not None and owner.kind == "ReplicaSet":
            entry = self.store.find(ReplicaSet, change.object.metadata.namespace, owner.name)
            above = controller_of(entry.metadata) if entry is not None else None
            if above is not None and above.kind == "Deployment":
                self.add(change.object.metadata.namespace, above.name)

    def sync(self, obj: Deployment) -> float | None:
        sets = self.claim(ReplicaSet, obj, obj.spec.selector)
        if obj.metadata.deletion_timestamp is None:
            obj = self._roll(obj, sets)
            sets = self.index.controlled(ReplicaSet, obj)
        return self._tell(obj, sets)

    def _roll(self, obj: Deployment, sets: list[ReplicaSet]) -> Deployment:
        """One step towards the template and the number of replicas."""
        new = rules.find_new(obj, sets)
        if not obj.spec.paused:
            if new is None:
                obj, new = self._create(obj, sets)
                if new is None:
                    return obj
            obj = self._mark_revision(obj, new, sets)
        current, old = self._members(obj)
        resized = rules.scaling_event(obj, [*old, *([current] if current is not None else [])])
        if obj.spec.paused or resized:
            change = rules.proportional(obj, current, old)
            self._scale(obj, change)
            if resized:
                self._note_size(obj)
        elif obj.spec.strategy.type == "Recreate":
            self._scale(obj, rules.recreated(obj, current, old))
        elif current is not None:
            self._scale(obj, rules.rolled(obj, current, old))
        _, old = self._members(obj)
        for surplus in rules.history_surplus(obj, old):
            self.delete(surplus)
        return obj

    def _members(self, obj: Deployment) -> tuple[Member | None, list[Member]]:
        """(the set of the present template, the others from the oldest on)."""
        sets = self.index.controlled(ReplicaSet, obj)
        new = rules.find_new(obj, sets)
        others = [entry for entry in rules.by_age(sets) if new is None or entry.metadata.uid != new.metadata.uid]
        return (None if new is None else self._member(obj, new)), [self._member(obj, entry) for entry in others]

    def _member(self, obj: Deployment, entry: ReplicaSet) -> Member:
        pods = self.index.controlled(Pod, entry)
        counts = count(list(filter(is_active, pods)), obj.spec.min_ready_seconds, self.parts.clock())
        there = counts.total
        if obj.spec.strategy.type == "Recreate":
            # Nothing of the old template may run beside the new one, not even what is about to end.
            there = sum(not is_finished(pod) for pod in pods)
        return Member(entry, entry.spec.replicas or 0, there, counts.available)

    def _create(self, obj: Deployment, sets: list[ReplicaSet]) -> tuple[Deployment, ReplicaSet | None]:
        """The set of a new template, still empty. Its name is made from the template: it is never made twice."""
        digest = template_hash(rules.encoded_template(obj.spec.template).decode(), obj.status.collision_count or 0)
        name = f"{obj.metadata.name}-{digest}"
        existing = self.store.find(ReplicaSet, obj.metadata.namespace, name)
        if existing is not None:
            mine = controller_of(existing.metadata)
            if mine is None or mine.uid != obj.metadata.uid or existing not in sets:
                collided = replace(obj.status, collision_count=(obj.status.collision_count or 0) + 1)
                return self.set_status(obj, collided), None
        template = obj.spec.template
        labels = {**template.metadata.labels, TEMPLATE_HASH: digest}
        selector = obj.spec.selector or LabelSelector()
        new = ReplicaSet(
            metadata=ObjectMeta(
                name=name,
                namespace=obj.metadata.namespace,
                labels=labels,
                annotations=_copied(obj) | rules.size_notes(obj),
                owner_references=(owner_reference(obj),),
            ),
            spec=ReplicaSetSpec(
                replicas=0,
                min_ready_seconds=obj.spec.min_ready_seconds,
                selector=replace(selector, match_labels={**selector.match_labels, TEMPLATE_HASH: digest}),
                template=replace(template, metadata=replace(template.metadata, labels=labels)),
            ),
        )
        try:
            return obj, self.registry.create(new)
        except PodrtError as error:
            self.recorder.record(
                obj, "Warning", "ReplicaSetCreateError", f'Failed to create new replica set "{name}": {error}'
            )
            raise

    def _mark_revision(self, obj: Deployment, new: ReplicaSet, sets: list[ReplicaSet]) -> Deployment:
        """The set of the present template has the highest revision, and the deployment says which that is."""
        highest = max((rules.revision_of(entry) for entry in sets if entry.metadata.uid != new.metadata.uid), default=0)
        revision = rules.revision_of(new)
        notes = {**new.metadata.annotations, **_copied(obj)}
        if revision <= highest:
            if revision:
                history = [part for part in notes.get(REVISION_HISTORY, "").split(",") if part]
                notes[REVISION_HISTORY] = ",".join([*history, str(revision)])
            revision = highest + 1
            notes[REVISION] = str(revision)
        if notes != new.metadata.annotations or new.spec.min_ready_seconds != obj.spec.min_ready_seconds:
            self._update_set(new, notes, new.spec.replicas or 0, obj.spec.min_ready_seconds)
        if obj.metadata.annotations.get(REVISION) == str(revision):
            return obj
        marked = {**obj.metadata.annotations, REVISION: str(revision)}

        def change(old: Deployment) -> Deployment:
            return replace(old, metadata=replace(old.metadata, annotations=marked))

        return self.store.modify(Deployment, obj.metadata.namespace, obj.metadata.name, change)

    def _scale(self, obj: Deployment, change: dict[str, int]) -> None:
        for name, replicas in change.items():
            old = self.store.get(ReplicaSet, obj.metadata.namespace, name)
            before = old.spec.replicas or 0
            notes = {**old.metadata.annotations, **rules.size_notes(obj)}
            self._update_set(old, notes, replicas, old.spec.min_ready_seconds)
            word = "up" if replicas > before else "down"
            message = f"Scaled {word} replica set {name} from {before} to {replicas}"
            self.recorder.record(obj, "Normal", "ScalingReplicaSet", message)

    def _note_size(self, obj: Deployment) -> None:
        for entry in self.index.controlled(ReplicaSet, obj):
            if entry.spec.replicas:
                notes = {**entry.metadata.annotations, **rules.size_notes(obj)}
                self._update_set(entry, notes, entry.spec.replicas, entry.spec.min_ready_seconds)

    def _update_set(self, entry: ReplicaSet, notes: dict[str, str], replicas: int, min_ready: int) -> None:
        def change(old: ReplicaSet) -> ReplicaSet:
            spec = replace(old.spec, replicas=replicas, min_ready_seconds=min_ready)
            generation = old.metadata.generation + (spec != old.spec)
            return replace(old, spec=spec, metadata=replace(old.metadata, annotations=notes, generation=generation))

        self.store.modify(ReplicaSet, entry.metadata.namespace, entry.metadata.name, change)

    def _tell(self, obj: Deployment, sets: list[ReplicaSet]) -> float | None:
        new, old = self._members(obj)
        pods = [pod for entry in sets for pod in self.index.controlled(Pod, entry) if is_active(pod)]
        counts = count(pods, obj.spec.min_ready_seconds, self.parts.clock())
        told = status(obj, new, old, counts.ready, self.parts.clock())
        self.set_status(obj, told.status)
        waits: list[Any] = [wait for wait in (told.again, counts.again) if wait is not None]
        return min(waits, default=None)


def _copied(obj: Deployment) -> dict[str, str]:
    return {key: value for key, value in obj.metadata.annotations.items() if key not in _NOT_COPIED}
