"""Defaults of the workload kinds (apps/v1, batch/v1); pure functions from struct to struct.

A Job without a selector of its own gets the one that Kubernetes generates: its uid, as label of its template too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from podrt.model import apps, batch
from podrt.model.defaults import pod_spec
from podrt.model.meta import LabelSelector
from podrt.model.object_defaults import claim_spec
from podrt.model.pod import PodTemplateSpec

HISTORY = 10
PROGRESS_DEADLINE = 600
BACKOFF_LIMIT = 6
MAX_INT32 = 2**31 - 1


def template(value: PodTemplateSpec) -> PodTemplateSpec:
    return replace(value, spec=pod_spec(value.spec))


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def deployment(value: apps.Deployment) -> apps.Deployment:
    spec = value.spec
    strategy = replace(spec.strategy, type=spec.strategy.type or "RollingUpdate")
    if strategy.type == "RollingUpdate":
        rolling = strategy.rolling_update or apps.RollingUpdateDeployment()
        rolling = replace(
            rolling,
            max_unavailable="25%" if rolling.max_unavailable is None else rolling.max_unavailable,
            max_surge="25%" if rolling.max_surge is None else rolling.max_surge,
        )
        strategy = replace(strategy, rolling_update=rolling)
    spec = replace(
        spec,
        replicas=_or(spec.replicas, 1),
        strategy=strategy,
        revision_history_limit=_or(spec.revision_history_limit, HISTORY),
        progress_deadline_seconds=_or(spec.progress_deadline_seconds, PROGRESS_DEADLINE),
        template=template(spec.template),
    )
    return replace(value, spec=spec)


def replica_set(value: apps.ReplicaSet) -> apps.ReplicaSet:
    spec = replace(value.spec, replicas=_or(value.spec.replicas, 1), template=template(value.spec.template))
    return replace(value, spec=spec)


def stateful_set(value: apps.StatefulSet) -> apps.StatefulSet:
    spec = value.spec
    strategy = replace(spec.update_strategy, type=spec.update_strategy.type or "RollingUpdate")
    if strategy.type == "RollingUpdate":
        rolling = strategy.rolling_update or apps.RollingUpdateStatefulSet()
        strategy = replace(strategy, rolling_update=replace(rolling, partition=_or(rolling.partition, 0)))
    retention = spec.persistent_volume_claim_retention_policy or apps.ClaimRetentionPolicy()
    claims = tuple(
        replace(claim, spec=claim_spec(claim.spec), status=replace(claim.status, phase=claim.status.phase or "Pending"))
        for claim in spec.volume_claim_templates
    )
    spec = replace(
        spec,
        replicas=_or(spec.replicas, 1),
        pod_management_policy=spec.pod_management_policy or "OrderedReady",
        update_strategy=strategy,
        revision_history_limit=_or(spec.revision_history_limit, HISTORY),
        volume_claim_templates=claims,
        template=template(spec.template),
        persistent_volume_claim_retention_policy=replace(
            retention,
            when_deleted=retention.when_deleted or "Retain",
            when_scaled=retention.when_scaled or "Retain",
        ),
    )
    return replace(value, spec=spec)


def daemon_set(value: apps.DaemonSet) -> apps.DaemonSet:
    spec = value.spec
    strategy = replace(spec.update_strategy, type=spec.update_strategy.type or "RollingUpdate")
    if strategy.type == "RollingUpdate":
        rolling = strategy.rolling_update or apps.RollingUpdateDaemonSet()
        rolling = replace(
            rolling,
            max_unavailable=1 if rolling.max_unavailable is None else rolling.max_unavailable,
            max_surge=0 if rolling.max_surge is None else rolling.max_surge,
        )
        strategy = replace(strategy, rolling_update=rolling)
    spec = replace(
        spec,
        update_strategy=strategy,
        revision_history_limit=_or(spec.revision_history_limit, HISTORY),
        template=template(spec.template),
    )
    return replace(value, spec=spec)


def job_spec(spec: batch.JobSpec) -> batch.JobSpec:
    completions, parallelism = spec.completions, spec.parallelism
    if completions is None and parallelism is None:
        completions = 1
    policy = spec.pod_failure_policy
    if policy is not None:
        rules = tuple(
            replace(
                rule,
                on_pod_conditions=tuple(replace(c, status=c.status or "True") for c in rule.on_pod_conditions),
            )
            for rule in policy.rules
        )
        policy = replace(policy, rules=rules)
    return replace(
        spec,
        completions=completions,
        parallelism=_or(parallelism, 1),
        backoff_limit=_or(spec.backoff_limit, BACKOFF_LIMIT if spec.backoff_limit_per_index is None else MAX_INT32),
        completion_mode=spec.completion_mode or "NonIndexed",
        suspend=bool(spec.suspend),
        pod_failure_policy=policy,
        pod_replacement_policy=spec.pod_replacement_policy or ("TerminatingOrFailed" if policy is None else "Failed"),
        manual_selector=bool(spec.manual_selector),
        template=template(spec.template),
    )


def job(value: batch.Job) -> batch.Job:
    """With the generated selector, where the object has its uid."""
    spec, uid = job_spec(value.spec), value.metadata.uid
    if not spec.manual_selector and uid:
        metadata = spec.template.metadata
        labels = {
            **metadata.labels,
            batch.CONTROLLER_UID: uid,
            batch.JOB_NAME: value.metadata.name,
            batch.OLD_CONTROLLER_UID: uid,
            batch.OLD_JOB_NAME: value.metadata.name,
        }
        spec = replace(
            spec,
            selector=spec.selector or LabelSelector(match_labels={batch.CONTROLLER_UID: uid}),
            template=replace(spec.template, metadata=replace(metadata, labels=labels)),
        )
    return replace(value, spec=spec)


def cron_job(value: batch.CronJob) -> batch.CronJob:
    spec = value.spec
    inner = spec.job_template.spec
    spec = replace(
        spec,
        concurrency_policy=spec.concurrency_policy or "Allow",
        suspend=bool(spec.suspend),
        successful_jobs_history_limit=_or(spec.successful_jobs_history_limit, 3),
        failed_jobs_history_limit=_or(spec.failed_jobs_history_limit, 1),
        job_template=replace(spec.job_template, spec=replace(inner, template=template(inner.template))),
    )
    return replace(value, spec=spec)


RULES: dict[type, Callable[[Any], Any]] = {
    apps.Deployment: deployment,
    apps.ReplicaSet: replica_set,
    apps.StatefulSet: stateful_set,
    apps.DaemonSet: daemon_set,
    batch.Job: job,
    batch.CronJob: cron_job,
}
