"""Deployment: counts and conditions, and whether a rollout progresses. Pure functions."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from podrt.controllers.deployment_rules import Member, bounds
from podrt.model.apps import Deployment, DeploymentCondition, DeploymentStatus
from podrt.model.base import format_time, parse_time

AVAILABLE, PROGRESSING, FAILURE = "Available", "Progressing", "ReplicaFailure"
NEW_CREATED = "NewReplicaSetCreated"
UPDATED = "ReplicaSetUpdated"
NEW_AVAILABLE = "NewReplicaSetAvailable"
DEADLINE = "ProgressDeadlineExceeded"
PAUSED, RESUMED = "DeploymentPaused", "DeploymentResumed"


class Told(NamedTuple):
    """The status, and the seconds until the deadline must be looked at (None: not)."""

    status: DeploymentStatus
    again: float | None


def status(deployment: Deployment, new: Member | None, old: list[Member], ready: int, now: float) -> Told:
    """The status of a deployment. ``ready`` counts the ready Pods of all its sets."""
    members = [*old, *([new] if new is not None else [])]
    available = sum(member.available for member in members)
    total = sum(member.pods for member in members)
    asked = sum(member.replicas for member in members)
    counts = replace(
        deployment.status,
        observed_generation=deployment.metadata.generation,
        replicas=total,
        updated_replicas=new.pods if new is not None else 0,
        ready_replicas=ready,
        available_replicas=available,
        unavailable_replicas=max(0, asked - available),
        terminating_replicas=sum(member.set.status.terminating_replicas or 0 for member in members),
    )
    conditions = {entry.type: entry for entry in deployment.status.conditions}
    _set(conditions, _available(deployment, available), now)
    again = _progress(conditions, deployment, counts, new, now)
    failing = next((c for m in members for c in m.set.status.conditions if c.type == FAILURE), None)
    if failing is None:
        conditions.pop(FAILURE, None)
    else:
        told = DeploymentCondition(type=FAILURE, status="True", reason=failing.reason, message=failing.message)
        _set(conditions, told, now)
    return Told(replace(counts, conditions=tuple(conditions.values())), again)


def complete(deployment: Deployment, counts: DeploymentStatus) -> bool:
    """Every replica is of the new template and available, and none of an old one is left."""
    replicas = deployment.spec.replicas or 0
    return counts.updated_replicas == replicas and counts.replicas == replicas and counts.available_replicas == replicas


def _available(deployment: Deployment, available: int) -> DeploymentCondition:
    replicas = deployment.spec.replicas or 0
    if available >= replicas - bounds(deployment).unavailable:
        return DeploymentCondition(
            type=AVAILABLE,
            status="True",
            reason="MinimumReplicasAvailable",
            message="Deployment has minimum availability.",
        )
    return DeploymentCondition(
        type=AVAILABLE,
        status="False",
        reason="MinimumReplicasUnavailable",
        message="Deployment does not have minimum availability.",
    )


def _progress(
    conditions: dict[str, DeploymentCondition],
    deployment: Deployment,
    counts: DeploymentStatus,
    new: Member | None,
    now: float,
) -> float | None:
    deadline = deployment.spec.progress_deadline_seconds
    if deadline is None or deadline >= 2**31 - 1:
        conditions.pop(PROGRESSING, None)
        return None
    old = conditions.get(PROGRESSING)
    name = f'ReplicaSet "{new.name}"' if new is not None else f'Deployment "{deployment.metadata.name}"'
    if deployment.spec.paused:
        if old is None or old.reason not in (DEADLINE, PAUSED):
            _tell(conditions, "Unknown", PAUSED, "Deployment is paused", now)
        return None
    if old is not None and old.reason == PAUSED:
        _tell(conditions, "Unknown", RESUMED, "Deployment is resumed", now)
        old = conditions[PROGRESSING]
    if complete(deployment, counts) and new is not None:
        if old is None or old.reason != NEW_AVAILABLE or name not in old.message:
            _tell(conditions, "True", NEW_AVAILABLE, f"{name} has successfully progressed.", now)
        return None
    if old is None or (old.reason == NEW_AVAILABLE and name not in old.message):
        _tell(conditions, "True", NEW_CREATED, f"{_created(new, deployment)}", now)
        return float(deadline)
    if old.reason == NEW_AVAILABLE:
        # Complete once: what fails later is not a rollout.
        return None
    if _progressed(deployment.status, counts):
        _tell(conditions, "True", UPDATED, f"{name} is progressing.", now)
        return float(deadline)
    since = parse_time(old.last_update_time).timestamp() if old.last_update_time else now
    left = since + deadline - now
    if left <= 0 and old.reason != DEADLINE:
        _tell(conditions, "False", DEADLINE, f"{name} has timed out progressing.", now)
    return left if left > 0 else None


def _created(new: Member | None, deployment: Deployment) -> str:
    if new is None:
        return f'Deployment "{deployment.metadata.name}" is progressing.'
    return f'Created new replica set "{new.name}"'


def _progressed(before: DeploymentStatus, after: DeploymentStatus) -> bool:
    return (
        after.updated_replicas > before.updated_replicas
        or after.replicas - after.updated_replicas < before.replicas - before.updated_replicas
        or after.ready_replicas > before.ready_replicas
        or after.available_replicas > before.available_replicas
    )


def _tell(conditions: dict[str, DeploymentCondition], value: str, reason: str, message: str, now: float) -> None:
    told = DeploymentCondition(type=PROGRESSING, status=value, reason=reason, message=message)
    _set(conditions, told, now, update=True)


def _set(
    conditions: dict[str, DeploymentCondition], told: DeploymentCondition, now: float, *, update: bool = False
) -> None:
    """Put a condition in; its times move on only where it says something else (``update``: in any case)."""
    old, stamp = conditions.get(told.type), format_time(now)
    if old is not None and (old.status, old.reason, old.message) == (told.status, told.reason, told.message):
        if update:
            conditions[told.type] = replace(old, last_update_time=stamp)
        return
    turned = old.last_transition_time if old is not None and old.status == told.status else stamp
    conditions[told.type] = replace(told, last_update_time=stamp, last_transition_time=turned)
