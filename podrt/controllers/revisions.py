"""Revisions of a StatefulSet's or DaemonSet's template: one ControllerRevision for each, numbered, the latest in use.

Their data is the strategic merge patch that brings the template back, which is what ``rollout undo`` sends.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from podrt.controllers.pods import owner_reference, template_hash
from podrt.model.apps import REVISION_HASH, ControllerRevision, DaemonSet, StatefulSet
from podrt.model.meta import ObjectMeta
from podrt.model.pod import PodTemplateSpec


class Chosen(NamedTuple):
    """The revision of the present template. ``made``: it is not stored yet; ``number``: what it must be stored with."""

    revision: ControllerRevision
    made: bool
    number: int


def data_of(template: PodTemplateSpec) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(template))
    return {"spec": {"template": document | {"$patch": "replace"}}}


def template_from(revision: ControllerRevision) -> PodTemplateSpec:
    """The template that a revision keeps. Raises msgspec.ValidationError if it is none."""
    document = dict(((revision.data or {}).get("spec") or {}).get("template") or {})
    document.pop("$patch", None)
    return msgspec.convert(document, PodTemplateSpec)


def by_number(revisions: list[ControllerRevision]) -> list[ControllerRevision]:
    return sorted(revisions, key=lambda entry: (entry.revision, entry.metadata.creation_timestamp or ""))


def choose(owner: StatefulSet | DaemonSet, revisions: list[ControllerRevision]) -> Chosen:
    """The revision of the owner's template: an old one with a new number, or a new one. Pure."""
    data = data_of(owner.spec.template)
    ordered = by_number(revisions)
    highest = ordered[-1].revision if ordered else 0
    for entry in reversed(ordered):
        if entry.data == data:
            return Chosen(entry, False, entry.revision if entry is ordered[-1] else highest + 1)
    digest = template_hash(data, owner.status.collision_count or 0)
    metadata = ObjectMeta(
        name=f"{owner.metadata.name}-{digest}",
        namespace=owner.metadata.namespace,
        labels={**owner.spec.template.metadata.labels, REVISION_HASH: digest},
        annotations={
            key: value
            for key, value in owner.metadata.annotations.items()
            if key != "kubectl.kubernetes.io/last-applied-configuration"
        },
        owner_references=(owner_reference(owner),),
    )
    return Chosen(ControllerRevision(metadata=metadata, data=data, revision=highest + 1), True, highest + 1)


def surplus(revisions: list[ControllerRevision], live: set[str], limit: int | None) -> list[ControllerRevision]:
    """Revisions beyond the history limit, oldest first; ``live`` names those in use."""
    if limit is None:
        return []
    idle = [entry for entry in by_number(revisions) if entry.metadata.name not in live]
    return idle[: max(0, len(idle) - limit)]


def renumbered(revision: ControllerRevision, number: int) -> ControllerRevision:
    return replace(revision, revision=number)
