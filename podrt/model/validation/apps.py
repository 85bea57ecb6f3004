"""Deployment, ReplicaSet, StatefulSet, DaemonSet, ControllerRevision."""

from __future__ import annotations

from msgspec.structs import replace

from podrt.model.apps import ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet
from podrt.model.names import dns_subdomain_errors
from podrt.model.validation.causes import Causes
from podrt.model.validation.meta import object_meta
from podrt.model.validation.storage import claim_spec
from podrt.model.validation.template import (
    always_restarted,
    count_or_percent,
    is_zero,
    pod_template,
    selector,
    selector_update,
)

_STRATEGIES = ("OnDelete", "RollingUpdate")
STATEFUL_FIELDS = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


def deployment(value: Deployment) -> Causes:
    causes, spec = Causes(), value.spec
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=True)
    causes.at_least("spec.replicas", spec.replicas, 0)
    selector(causes, spec.selector, spec.template, "deployment")
    pod_template(causes, "spec.template", spec.template)
    always_restarted(causes, spec.template, "Deployment")
    _deployment_strategy(causes, value)
    causes.at_least("spec.minReadySeconds", spec.min_ready_seconds, 0)
    causes.at_least("spec.revisionHistoryLimit", spec.revision_history_limit, 0)
    causes.at_least("spec.progressDeadlineSeconds", spec.progress_deadline_seconds, 0)
    if spec.progress_deadline_seconds is not None and spec.progress_deadline_seconds <= spec.min_ready_seconds:
        causes.invalid(
            "spec.progressDeadlineSeconds", spec.progress_deadline_seconds, "must be greater than minReadySeconds"
        )
    return causes


def _deployment_strategy(causes: Causes, value: Deployment) -> None:
    strategy, field = value.spec.strategy, "spec.strategy"
    causes.one_of(f"{field}.type", strategy.type, ("Recreate", "RollingUpdate"), required=True)
    rolling = strategy.rolling_update
    if strategy.type == "Recreate" and rolling is not None:
        causes.forbidden(f"{field}.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
    if strategy.type != "RollingUpdate" or rolling is None:
        return
    count_or_percent(causes, f"{field}.rollingUpdate.maxUnavailable", rolling.max_unavailable, limited=True)
    count_or_percent(causes, f"{field}.rollingUpdate.maxSurge", rolling.max_surge, limited=False)
    if is_zero(rolling.max_unavailable) and is_zero(rolling.max_surge):
        causes.invalid(
            f"{field}.rollingUpdate.maxUnavailable",
            rolling.max_unavailable,
            "may not be 0 when `maxSurge` is 0",
        )


def deployment_update(causes: Causes, new: Deployment, old: Deployment) -> None:
    selector_update(causes, new.spec.selector, old.spec.selector)


def replica_set(value: ReplicaSet) -> Causes:
    causes, spec = Causes(), value.spec
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=True)
    causes.at_least("spec.replicas", spec.replicas, 0)
    causes.at_least("spec.minReadySeconds", spec.min_ready_seconds, 0)
    selector(causes, spec.selector, spec.template, "replicaset")
    pod_template(causes, "spec.template", spec.template)
    always_restarted(causes, spec.template, "ReplicaSet")
    return causes


def replica_set_update(causes: Causes, new: ReplicaSet, old: ReplicaSet) -> None:
    selector_update(causes, new.spec.selector, old.spec.selector)


def stateful_set(value: StatefulSet) -> Causes:
    causes, spec = Causes(), value.spec
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=True)
    causes.one_of("spec.podManagementPolicy", spec.pod_management_policy, ("OrderedReady", "Parallel"), required=True)
    strategy = spec.update_strategy
    causes.one_of("spec.updateStrategy.type", strategy.type, _STRATEGIES, required=True)
    rolling = strategy.rolling_update
    if rolling is not None:
        field = "spec.updateStrategy.rollingUpdate"
        if strategy.type == "OnDelete":
            causes.invalid(field, "{}", "only allowed for updateStrategy 'RollingUpdate'")
        causes.at_least(f"{field}.partition", rolling.partition, 0)
        count_or_percent(causes, f"{field}.maxUnavailable", rolling.max_unavailable, limited=True)
        if rolling.max_unavailable is not None and is_zero(rolling.max_unavailable):
            causes.invalid(f"{field}.maxUnavailable", rolling.max_unavailable, "cannot be 0")
    causes.at_least("spec.replicas", spec.replicas, 0)
    causes.at_least("spec.minReadySeconds", spec.min_ready_seconds, 0)
    causes.at_least("spec.revisionHistoryLimit", spec.revision_history_limit, 0)
    if spec.ordinals is not None:
        causes.at_least("spec.ordinals.start", spec.ordinals.start, 0)
    retention = spec.persistent_volume_claim_retention_policy
    if retention is not None:
        field = "spec.persistentVolumeClaimRetentionPolicy"
        causes.one_of(f"{field}.whenDeleted", retention.when_deleted, ("Delete", "Retain"))
        causes.one_of(f"{field}.whenScaled", retention.when_scaled, ("Delete", "Retain"))
    selector(causes, spec.selector, spec.template, "statefulset")
    _stateful_template(causes, value)
    always_restarted(causes, spec.template, "StatefulSet")
    return causes


def _stateful_template(causes: Causes, value: StatefulSet) -> None:
    """The template with the claims as its volumes, so that mounts of them are known."""
    from podrt.model.volume import PersistentVolumeClaimVolumeSource, Volume

    spec = value.spec
    names = {claim.metadata.name for claim in spec.volume_claim_templates}
    for index, claim in enumerate(spec.volume_claim_templates):
        field = f"spec.volumeClaimTemplates[{index}]"
        if not claim.metadata.name:
            causes.required(f"{field}.metadata.name")
        else:
            causes.check(f"{field}.metadata.name", claim.metadata.name, dns_subdomain_errors(claim.metadata.name))
        claim_spec(causes, f"{field}.spec", claim.spec)
    claims = tuple(
        Volume(name=name, persistent_volume_claim=PersistentVolumeClaimVolumeSource(claim_name=name))
        for name in sorted(filter(None, names))
    )
    kept = tuple(volume for volume in spec.template.spec.volumes if volume.name not in names)
    whole = replace(spec.template, spec=replace(spec.template.spec, volumes=(*kept, *claims)))
    pod_template(causes, "spec.template", whole)


def stateful_set_update(causes: Causes, new: StatefulSet, old: StatefulSet) -> None:
    kept = replace(
        new.spec,
        replicas=old.spec.replicas,
        ordinals=old.spec.ordinals,
        template=old.spec.template,
        update_strategy=old.spec.update_strategy,
        revision_history_limit=old.spec.revision_history_limit,
        persistent_volume_claim_retention_policy=old.spec.persistent_volume_claim_retention_policy,
        min_ready_seconds=old.spec.min_ready_seconds,
    )
    if kept != old.spec:
        causes.forbidden("spec", STATEFUL_FIELDS)


def daemon_set(value: DaemonSet) -> Causes:
    causes, spec = Causes(), value.spec
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=True)
    selector(causes, spec.selector, spec.template, "daemonset")
    pod_template(causes, "spec.template", spec.template)
    always_restarted(causes, spec.template, "DaemonSet")
    causes.at_least("spec.minReadySeconds", spec.min_ready_seconds, 0)
    causes.at_least("spec.revisionHistoryLimit", spec.revision_history_limit, 0)
    strategy = spec.update_strategy
    causes.one_of("spec.updateStrategy.type", strategy.type, _STRATEGIES, required=True)
    rolling, field = strategy.rolling_update, "spec.updateStrategy.rollingUpdate"
    if strategy.type == "RollingUpdate" and rolling is not None:
        count_or_percent(causes, f"{field}.maxUnavailable", rolling.max_unavailable, limited=True)
        count_or_percent(causes, f"{field}.maxSurge", rolling.max_surge, limited=True)
        if is_zero(rolling.max_unavailable) == is_zero(rolling.max_surge):
            causes.invalid(
                f"{field}.maxUnavailable", rolling.max_unavailable, "exactly one of maxSurge, maxUnavailable must be 0"
            )
    return causes


def daemon_set_update(causes: Causes, new: DaemonSet, old: DaemonSet) -> None:
    selector_update(causes, new.spec.selector, old.spec.selector)


def controller_revision(value: ControllerRevision) -> Causes:
    causes = Causes()
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=True)
    if value.data is None:
        causes.required("data", "data is mandatory")
    causes.at_least("revision", value.revision, 0)
    return causes


def controller_revision_update(causes: Causes, new: ControllerRevision, old: ControllerRevision) -> None:
    if new.data != old.data:
        causes.invalid("data", "{...}", "field is immutable")
