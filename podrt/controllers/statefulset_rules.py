"""StatefulSet: names, order, updates. Pure functions of the set, its Pods, its revisions and the time."""

from __future__ import annotations

import re
from typing import NamedTuple

from msgspec.structs import replace

from podrt.controllers.pods import NEVER, available_in, is_finished, is_ready, pod_of
from podrt.model.apps import POD_INDEX, POD_NAME, REVISION_HASH, StatefulSet, StatefulSetStatus
from podrt.model.intorstr import scaled
from podrt.model.pod import Pod, PodTemplateSpec
from podrt.model.storage import PersistentVolumeClaim
from podrt.model.volume import PersistentVolumeClaimVolumeSource, Volume

_ORDINAL = re.compile(r"(.*)-([0-9]{1,9})")


class Revisions(NamedTuple):
    """Names of the revision that the set comes from, and of the one that it goes to."""

    current: str
    update: str


class Plan(NamedTuple):
    """``create``: (ordinal, revision) each; ``delete``: Pods; ``scaled_away``: those of them that are not wanted any
    more; ``again``: seconds until a Pod becomes available.
    """

    create: tuple[tuple[int, str], ...]
    delete: tuple[Pod, ...]
    scaled_away: frozenset[str]
    status: StatefulSetStatus
    again: float | None


def ordinal(name: str, pod: str) -> int:
    """The ordinal of a Pod of set ``name``; -1 if its name is another's."""
    match = _ORDINAL.fullmatch(pod)
    if match is None or match.group(1) != name or str(int(match.group(2))) != match.group(2):
        return -1
    return int(match.group(2))


def revision_of(pod: Pod) -> str:
    """The revision that a Pod was made of."""
    return pod.metadata.labels.get(REVISION_HASH, "")


def wanted_ordinals(value: StatefulSet) -> range:
    start = value.spec.ordinals.start if value.spec.ordinals is not None else 0
    return range(start, start + (value.spec.replicas or 0))


def partition(value: StatefulSet) -> int:
    rolling = value.spec.update_strategy.rolling_update
    return (rolling.partition or 0) if rolling is not None else 0


def new_revision(value: StatefulSet, number: int, revisions: Revisions) -> str:
    """The revision that a Pod is made of: below the partition the current one."""
    if value.spec.update_strategy.type == "RollingUpdate":
        start = wanted_ordinals(value).start
        if number < start + partition(value):
            return revisions.current
    return revisions.update


def plan(value: StatefulSet, pods: list[Pod], revisions: Revisions, now: float) -> Plan:
    """One step: what to make and delete now."""
    name, wanted = value.metadata.name, wanted_ordinals(value)
    by_ordinal = {number: pod for pod in pods if (number := ordinal(name, pod.metadata.name)) >= 0}
    condemned = sorted((number for number in by_ordinal if number not in wanted), reverse=True)
    waits = {number: available_in(pod, value.spec.min_ready_seconds, now) for number, pod in by_ordinal.items()}
    later = [wait for wait in waits.values() if 0 < wait < NEVER]
    again = min(later, default=None)
    create: list[tuple[int, str]] = []
    delete: list[Pod] = []
    away: list[Pod] = []
    if value.metadata.deletion_timestamp is None:
        settled = _fill(value, by_ordinal, waits, revisions, create, delete)
        if settled:
            settled = _shrink(value, condemned, by_ordinal, waits, away)
        if settled:
            delete += _update(value, by_ordinal, waits, revisions)
    status = _status(value, by_ordinal, waits, revisions)
    names = frozenset(pod.metadata.name for pod in away)
    return Plan(tuple(create), (*delete, *away), names, status, again)


def _ordered(value: StatefulSet) -> bool:
    return value.spec.pod_management_policy != "Parallel"


def _fill(
    value: StatefulSet,
    pods: dict[int, Pod],
    waits: dict[int, float],
    revisions: Revisions,
    create: list[tuple[int, str]],
    delete: list[Pod],
) -> bool:
    """Missing Pods from the lowest on. False: nothing else may be done now."""
    ordered = _ordered(value)
    for number in wanted_ordinals(value):
        pod = pods.get(number)
        if pod is None:
            create.append((number, new_revision(value, number, revisions)))
        elif is_finished(pod) and pod.metadata.deletion_timestamp is None:
            # It is made anew, under the same name, once it is gone.
            delete.append(pod)
        elif waits[number] == 0:
            continue
        if ordered:
            return False
    return not create and not delete


def _shrink(
    value: StatefulSet, condemned: list[int], pods: dict[int, Pod], waits: dict[int, float], away: list[Pod]
) -> bool:
    """Pods that are too many, from the highest on; in order, only one at a time."""
    ordered = _ordered(value)
    for number in condemned:
        if pods[number].metadata.deletion_timestamp is None:
            away.append(pods[number])
        if ordered:
            return False
    return not condemned


def _update(value: StatefulSet, pods: dict[int, Pod], waits: dict[int, float], revisions: Revisions) -> list[Pod]:
    """Pods of an old revision, from the highest ordinal down to the partition, as many as may be unavailable."""
    if value.spec.update_strategy.type != "RollingUpdate":
        return []
    limit = _max_unavailable(value)
    wanted = wanted_ordinals(value)
    unavailable = sum(waits.get(number, NEVER) != 0 for number in wanted)
    found: list[Pod] = []
    for number in reversed(wanted):
        if number < wanted.start + partition(value):
            break
        pod = pods.get(number)
        if pod is None:
            continue
        old = revision_of(pod) != revisions.update
        if old and pod.metadata.deletion_timestamp is None:
            already = waits[number] != 0
            if not already and unavailable >= limit:
                break
            found.append(pod)
            unavailable += not already
            if unavailable >= limit:
                break
        elif waits[number] != 0 and unavailable >= limit:
            break
    return found


def _max_unavailable(value: StatefulSet) -> int:
    rolling = value.spec.update_strategy.rolling_update
    if rolling is None or rolling.max_unavailable is None:
        return 1
    return max(1, scaled(rolling.max_unavailable, value.spec.replicas or 0, round_up=True))


def _status(
    value: StatefulSet, pods: dict[int, Pod], waits: dict[int, float], revisions: Revisions
) -> StatefulSetStatus:
    live = [pod for pod in pods.values() if not is_finished(pod)]
    steady = [pod for pod in live if pod.metadata.deletion_timestamp is None]
    current = sum(revision_of(pod) == revisions.current for pod in steady)
    updated = sum(revision_of(pod) == revisions.update for pod in steady)
    available = sum(wait == 0 for wait in waits.values())
    replicas = value.spec.replicas or 0
    status = replace(
        value.status,
        observed_generation=value.metadata.generation,
        replicas=len(live),
        ready_replicas=sum(is_ready(pod) for pod in steady),
        current_replicas=current,
        updated_replicas=updated,
        current_revision=revisions.current,
        update_revision=revisions.update,
        available_replicas=available,
    )
    done = updated == replicas and len(live) == replicas and available == replicas
    if done and value.spec.update_strategy.type == "RollingUpdate" and partition(value) == 0:
        status = replace(status, current_revision=revisions.update, current_replicas=updated)
    return status


def claim_name(value: StatefulSet, template: str, number: int) -> str:
    return f"{template}-{value.metadata.name}-{number}"


def claims(value: StatefulSet, number: int) -> list[PersistentVolumeClaim]:
    """The claims of one Pod, as they are made."""
    labels = value.spec.selector.match_labels if value.spec.selector is not None else {}
    return [
        replace(
            claim,
            metadata=replace(
                claim.metadata,
                name=claim_name(value, claim.metadata.name, number),
                namespace=value.metadata.namespace,
                labels={**claim.metadata.labels, **labels},
            ),
        )
        for claim in value.spec.volume_claim_templates
    ]


def pod(value: StatefulSet, number: int, revision: str, template: PodTemplateSpec) -> Pod:
    """The Pod of an ordinal: its name is also its host name, and its claims are its volumes."""
    name = f"{value.metadata.name}-{number}"
    labels = {POD_NAME: name, POD_INDEX: str(number), REVISION_HASH: revision}
    made = pod_of(value, template, name=name, labels=labels)
    volumes = {
        claim.metadata.name: Volume(
            name=claim.metadata.name,
            persistent_volume_claim=PersistentVolumeClaimVolumeSource(
                claim_name=claim_name(value, claim.metadata.name, number)
            ),
        )
        for claim in value.spec.volume_claim_templates
    }
    kept = tuple(volume for volume in made.spec.volumes if volume.name not in volumes)
    spec = replace(made.spec, hostname=name, subdomain=value.spec.service_name, volumes=(*kept, *volumes.values()))
    return replace(made, spec=spec)
