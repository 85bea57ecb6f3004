"""Deployment: how many replicas each of its ReplicaSets is to have, at any moment of a rollout. Pure functions.

The bounds hold over the Pods that are there, not only over what the sets ask for: a set counts with the larger of the
two towards the surge, and with the smaller of available Pods and replicas towards availability, so that the order in
which ReplicaSets act on their new numbers can't break either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from podrt.model.apps import DESIRED_REPLICAS, MAX_REPLICAS, REVISION, TEMPLATE_HASH, Deployment, ReplicaSet
from podrt.model.intorstr import scaled
from podrt.model.pod import PodTemplateSpec


class Member(NamedTuple):
    """One ReplicaSet as a rollout sees it."""

    set: ReplicaSet
    replicas: int
    """What it asks for."""
    pods: int
    """Active Pods that it has now."""
    available: int
    """Of those, the available ones."""

    @property
    def name(self) -> str:
        return self.set.metadata.name

    @property
    def weight(self) -> int:
        """Towards the surge."""
        return max(self.replicas, self.pods)

    @property
    def serving(self) -> int:
        """Available Pods that stay when it has come to its replicas: it deletes those that are not ready first."""
        return min(self.replicas, self.available)

    def scaled(self, replicas: int) -> Member:
        return self._replace(replicas=replicas)


class Bounds(NamedTuple):
    """Pods above, and available Pods below, the number of replicas."""

    surge: int
    unavailable: int


def bounds(deployment: Deployment) -> Bounds:
    """Of a rolling update; surge rounds up, unavailable down, and if both are 0, one may be unavailable."""
    replicas, rolling = deployment.spec.replicas or 0, deployment.spec.strategy.rolling_update
    if deployment.spec.strategy.type != "RollingUpdate" or rolling is None:
        return Bounds(0, 0)
    surge = scaled(0 if rolling.max_surge is None else rolling.max_surge, replicas, round_up=True)
    unavailable = scaled(0 if rolling.max_unavailable is None else rolling.max_unavailable, replicas, round_up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return Bounds(surge, min(unavailable, replicas))


def encoded_template(template: PodTemplateSpec) -> bytes:
    """For comparing templates: without the label with the hash."""
    labels = {key: value for key, value in template.metadata.labels.items() if key != TEMPLATE_HASH}
    bare = replace(template, metadata=replace(template.metadata, labels=labels))
    return msgspec.json.encode(bare, order="deterministic")


def revision_of(replicas: ReplicaSet) -> int:
    text = replicas.metadata.annotations.get(REVISION, "0")
    return int(text) if text.isascii() and text.isdigit() else 0


def find_new(deployment: Deployment, sets: list[ReplicaSet]) -> ReplicaSet | None:
    """The set of the deployment's template; the oldest, should there be several."""
    wanted = encoded_template(deployment.spec.template)
    return next((entry for entry in by_age(sets) if encoded_template(entry.spec.template) == wanted), None)


def by_age(sets: list[ReplicaSet]) -> list[ReplicaSet]:
    """Oldest first."""
    return sorted(sets, key=lambda entry: (entry.metadata.creation_timestamp or "", entry.metadata.name))


def size_notes(deployment: Deployment) -> dict[str, str]:
    """What a ReplicaSet notes of its deployment's size when it is scaled."""
    replicas = deployment.spec.replicas or 0
    return {DESIRED_REPLICAS: str(replicas), MAX_REPLICAS: str(replicas + bounds(deployment).surge)}


def scaling_event(deployment: Deployment, members: list[Member]) -> bool:
    """Whether the deployment's size changed since its sets were last scaled."""
    wanted = str(deployment.spec.replicas or 0)
    return any(
        member.replicas > 0 and member.set.metadata.annotations.get(DESIRED_REPLICAS, wanted) != wanted
        for member in members
    )


def rolled(deployment: Deployment, new: Member, old: list[Member]) -> dict[str, int]:
    """Replicas of each set after one step of a rolling update; sets that stay as they are are left out.

    ``old`` is ordered oldest first. The new set grows first, and if it does, that is the whole step.
    """
    replicas, limits = deployment.spec.replicas or 0, bounds(deployment)
    grown = _new_replicas(replicas, limits, new, old)
    if grown != new.replicas:
        return {new.name: grown}
    return _shrink_old(replicas, limits, new, old)


def _new_replicas(replicas: int, limits: Bounds, new: Member, old: list[Member]) -> int:
    if new.replicas >= replicas:
        return replicas
    room = replicas + limits.surge - new.weight - sum(member.weight for member in old)
    return new.replicas + max(0, min(room, replicas - new.replicas))


def _shrink_old(replicas: int, limits: Bounds, new: Member, old: list[Member]) -> dict[str, int]:
    least = replicas - limits.unavailable
    total = new.replicas + sum(member.replicas for member in old)
    room = total - least - (new.replicas - new.serving)
    if room <= 0:
        return {}
    result: dict[str, int] = {}
    shrunk: list[Member] = []
    for member in old:
        # Pods that are not available serve nobody: they go first, from the oldest set on.
        away = min(room, member.replicas - member.serving)
        room -= away
        if away:
            result[member.name] = member.replicas - away
        shrunk.append(member.scaled(member.replicas - away))
    spare = new.serving + sum(member.serving for member in shrunk) - least
    for member in shrunk:
        away = max(0, min(spare, room, member.replicas))
        spare -= away
        room -= away
        if away:
            result[member.name] = member.replicas - away
    return result


def proportional(deployment: Deployment, new: Member | None, old: list[Member]) -> dict[str, int]:
    """Replicas of each set after the deployment's size changed, or while it is paused: no rollout, only growth.

    One active set takes all. In the middle of a rollout each takes its share, the rest goes to the largest.
    """
    replicas = deployment.spec.replicas or 0
    members = [*old, *([new] if new is not None else [])]
    active = [member for member in members if member.replicas > 0]
    if len(active) <= 1:
        only = active[0] if active else new or (max(old, key=lambda m: revision_of(m.set)) if old else None)
        return {} if only is None or only.replicas == replicas else {only.name: replicas}
    if new is not None and new.replicas == replicas and new.available >= replicas and new in active:
        return {member.name: 0 for member in old if member.replicas}
    if deployment.spec.strategy.type != "RollingUpdate":
        return {}
    allowed = replicas + bounds(deployment).surge if replicas > 0 else 0
    return _shares(allowed, active, allowed - sum(member.replicas for member in active), deployment)


def _shares(allowed: int, active: list[Member], change: int, deployment: Deployment) -> dict[str, int]:
    # Larger ones first; of equal ones the newer when growing, the older when shrinking.
    order = sorted(active, key=lambda m: (m.set.metadata.creation_timestamp or "", m.name), reverse=change > 0)
    order.sort(key=lambda m: -m.replicas)
    left, sizes = change, {}
    for member in order:
        before = _annotated(member.set.metadata.annotations) or deployment.status.replicas or member.replicas
        share = round(member.replicas * allowed / before) - member.replicas if before else 0
        if allowed == 0:
            share = -member.replicas
        share = max(0, min(share, left)) if change > 0 else min(0, max(share, left))
        sizes[member.name] = member.replicas + share
        left -= share
    for member in order:
        if left == 0:
            break
        take = max(left, -sizes[member.name])
        sizes[member.name] += take
        left -= take
    return {member.name: sizes[member.name] for member in active if sizes[member.name] != member.replicas}


def _annotated(values: Mapping[str, str]) -> int:
    text = values.get(MAX_REPLICAS, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def recreated(deployment: Deployment, new: Member | None, old: list[Member]) -> dict[str, int]:
    """Recreate: the old sets to nothing; the new one only once no Pod of theirs is left (``pods`` must count those
    being deleted, too).
    """
    shrink = {member.name: 0 for member in old if member.replicas}
    if shrink or any(member.pods for member in old) or new is None:
        return shrink
    replicas = deployment.spec.replicas or 0
    return {} if new.replicas == replicas else {new.name: replicas}


def history_surplus(deployment: Deployment, old: list[Member]) -> list[ReplicaSet]:
    """Old, empty sets beyond revisionHistoryLimit, lowest revision first."""
    limit = deployment.spec.revision_history_limit
    if limit is None:
        return []
    empty = [
        member.set
        for member in old
        if not member.replicas and not member.pods and member.set.metadata.deletion_timestamp is None
    ]
    surplus = len(empty) - limit
    return sorted(empty, key=revision_of)[:surplus] if surplus > 0 else []
