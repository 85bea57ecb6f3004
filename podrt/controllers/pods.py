"""What controllers ask of a Pod, and how one is made from a template. Pure functions."""

from __future__ import annotations

import hashlib
import math
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from podrt.model.base import parse_time
from podrt.model.defaults import NAME_ALPHABET
from podrt.model.kinds import Object
from podrt.model.meta import ObjectMeta, OwnerReference
from podrt.model.pod import Pod, PodTemplateSpec
from podrt.model.status import PodCondition

NEVER = math.inf


def owner_reference(owner: Object) -> OwnerReference:
    """A controller's reference, as it stands in what it makes."""
    return OwnerReference(
        api_version=owner.api_version,
        kind=owner.kind,
        name=owner.metadata.name,
        uid=owner.metadata.uid,
        controller=True,
        block_owner_deletion=True,
    )


def pod_of(owner: Object, template: PodTemplateSpec, *, name: str = "", labels: dict[str, str] | None = None) -> Pod:
    """A Pod of ``template``, owned by ``owner``; without ``name`` the server makes one from the owner's."""
    given = template.metadata
    metadata = ObjectMeta(
        name=name,
        generate_name="" if name else f"{owner.metadata.name}-",
        namespace=owner.metadata.namespace,
        labels={**given.labels, **(labels or {})},
        annotations=given.annotations,
        finalizers=given.finalizers,
        owner_references=(owner_reference(owner),),
    )
    return Pod(metadata=metadata, spec=template.spec)


def template_hash(value: Any, collisions: int = 0) -> str:
    """A short name for a template: the same for equal templates, in letters that make no words."""
    data = msgspec.json.encode(value, order="deterministic") + (str(collisions).encode() if collisions else b"")
    digest = int.from_bytes(hashlib.sha256(data).digest()[:8])
    letters = []
    for _ in range(10):
        digest, index = divmod(digest, len(NAME_ALPHABET))
        letters.append(NAME_ALPHABET[index])
    return "".join(letters)


def condition(pod: Pod, kind: str) -> PodCondition | None:
    return next((entry for entry in pod.status.conditions if entry.type == kind), None)


def is_finished(pod: Pod) -> bool:
    return pod.status.phase in ("Succeeded", "Failed")


def is_active(pod: Pod) -> bool:
    """Neither finished nor being deleted."""
    return not is_finished(pod) and pod.metadata.deletion_timestamp is None


def is_ready(pod: Pod) -> bool:
    ready = condition(pod, "Ready")
    return ready is not None and ready.status == "True"


def ready_since(pod: Pod) -> float:
    """Unix time of becoming ready; ``NEVER`` if it is not."""
    ready = condition(pod, "Ready")
    if ready is None or ready.status != "True":
        return NEVER
    return parse_time(ready.last_transition_time).timestamp() if ready.last_transition_time else 0.0


def available_in(pod: Pod, min_ready: int, now: float) -> float:
    """Seconds until a Pod counts as available: 0 if it does, ``NEVER`` if it is not ready."""
    if not is_ready(pod) or pod.metadata.deletion_timestamp is not None:
        return NEVER
    return 0.0 if min_ready == 0 else max(0.0, ready_since(pod) + min_ready - now)


def restarts(pod: Pod) -> int:
    return max((status.restart_count for status in pod.status.container_statuses), default=0)


class Counts(NamedTuple):
    """How many of some Pods are in which state; ``again``: seconds until one becomes available, or None."""

    total: int
    ready: int
    available: int
    again: float | None


def count(pods: list[Pod], min_ready: int, now: float) -> Counts:
    """Of active Pods."""
    waits = [available_in(pod, min_ready, now) for pod in pods]
    later = [wait for wait in waits if 0 < wait < NEVER]
    return Counts(len(pods), sum(map(is_ready, pods)), sum(wait == 0 for wait in waits), min(later, default=None))


def with_owner(metadata: ObjectMeta, owner: Object) -> ObjectMeta:
    """Adopted: ``owner`` is its controller."""
    kept = tuple(entry for entry in metadata.owner_references if entry.uid != owner.metadata.uid)
    return replace(metadata, owner_references=(*kept, owner_reference(owner)))


def without_owner(metadata: ObjectMeta, uid: str) -> ObjectMeta:
    kept = tuple(entry for entry in metadata.owner_references if entry.uid != uid)
    return replace(metadata, owner_references=kept)
