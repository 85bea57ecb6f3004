"""Job and CronJob."""

from __future__ import annotations

import zoneinfo

from podrt.model.batch import CronJob, Job, JobSpec, PodFailurePolicyRule
from podrt.model.indexes import IndexesError, parse_indexes
from podrt.model.names import dns_label_errors, dns_subdomain_errors
from podrt.model.schedule import Schedule, ScheduleError
from podrt.model.validation.causes import Causes
from podrt.model.validation.meta import label_selector, object_meta
from podrt.model.validation.template import pod_template, selector

MAX_PARALLELISM = 100_000
MAX_RULES = 20
CRON_NAME_LENGTH = 52
"""A Job's name is its CronJob's with a suffix of up to 11 characters, and is a label of its Pods."""
ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")


def job(value: Job) -> Causes:
    causes = Causes()
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=True)
    if value.spec.completion_mode == "Indexed":
        longest = f"{value.metadata.name}-{max((value.spec.completions or 1) - 1, 0)}"
        causes.check("metadata.name", value.metadata.name, dns_label_errors(longest))
    _job_spec(causes, "spec", value.spec)
    selector(causes, value.spec.selector, value.spec.template, "job")
    return causes


def _job_spec(causes: Causes, field: str, spec: JobSpec) -> None:
    for name, number in (
        ("parallelism", spec.parallelism),
        ("completions", spec.completions),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index),
        ("maxFailedIndexes", spec.max_failed_indexes),
    ):
        causes.at_least(f"{field}.{name}", number, 0)
    causes.one_of(f"{field}.completionMode", spec.completion_mode, ("Indexed", "NonIndexed"))
    causes.one_of(f"{field}.podReplacementPolicy", spec.pod_replacement_policy, ("Failed", "TerminatingOrFailed"))
    if spec.managed_by is not None and spec.managed_by != "kubernetes.io/job-controller":
        causes.forbidden(f"{field}.managedBy", "podrt has no other controller of Jobs than its own")
    if spec.manual_selector:
        label_selector(causes, f"{field}.selector", spec.selector)
    _indexed(causes, field, spec)
    _failure_policy(causes, field, spec)
    _success_policy(causes, field, spec)
    pod_template(causes, f"{field}.template", spec.template)
    if spec.template.spec.restart_policy not in ("OnFailure", "Never"):
        where = f"{field}.template.spec.restartPolicy"
        causes.not_supported(where, spec.template.spec.restart_policy, ("OnFailure", "Never"))


def _indexed(causes: Causes, field: str, spec: JobSpec) -> None:
    if spec.completion_mode == "Indexed":
        if spec.completions is None:
            causes.required(f"{field}.completions", "when completion mode is Indexed")
        if (spec.parallelism or 0) > MAX_PARALLELISM:
            causes.invalid(f"{field}.parallelism", spec.parallelism, f"must be less than or equal to {MAX_PARALLELISM}")
        if spec.max_failed_indexes is not None and spec.max_failed_indexes > (spec.completions or 0):
            causes.invalid(f"{field}.maxFailedIndexes", spec.max_failed_indexes, "must be no more than completions")
    elif spec.backoff_limit_per_index is not None:
        causes.invalid(
            f"{field}.backoffLimitPerIndex", spec.backoff_limit_per_index, "requires indexed completion mode"
        )
    if spec.max_failed_indexes is not None and spec.backoff_limit_per_index is None:
        causes.required(f"{field}.backoffLimitPerIndex", "when maxFailedIndexes is specified")


def _failure_policy(causes: Causes, field: str, spec: JobSpec) -> None:
    policy = spec.pod_failure_policy
    if policy is None:
        return
    if spec.template.spec.restart_policy != "Never":
        causes.invalid(
            f"{field}.template.spec.restartPolicy",
            spec.template.spec.restart_policy,
            'only "Never" is supported when podFailurePolicy is specified',
        )
    if spec.pod_replacement_policy != "Failed":
        causes.invalid(
            f"{field}.podReplacementPolicy", spec.pod_replacement_policy, 'must be "Failed" with podFailurePolicy'
        )
    if len(policy.rules) > MAX_RULES:
        causes.too_many(f"{field}.podFailurePolicy.rules", len(policy.rules), MAX_RULES)
    pod = spec.template.spec
    names = {container.name for container in (*pod.containers, *pod.init_containers)}
    for index, rule in enumerate(policy.rules):
        _rule(causes, f"{field}.podFailurePolicy.rules[{index}]", rule, names, spec)


def _rule(causes: Causes, field: str, rule: PodFailurePolicyRule, names: set[str], spec: JobSpec) -> None:
    causes.one_of(f"{field}.action", rule.action, ACTIONS, required=True)
    if rule.action == "FailIndex" and spec.backoff_limit_per_index is None:
        causes.invalid(f"{field}.action", rule.action, "requires the backoffLimitPerIndex to be set")
    codes = rule.on_exit_codes
    if (codes is None) == (not rule.on_pod_conditions):
        causes.invalid(field, rule.action, "specifying one of OnExitCodes and OnPodConditions is required")
    if codes is not None:
        causes.one_of(f"{field}.onExitCodes.operator", codes.operator, ("In", "NotIn"), required=True)
        if codes.container_name is not None and codes.container_name not in names:
            causes.invalid(
                f"{field}.onExitCodes.containerName", codes.container_name, "must be one of the container names"
            )
        if not codes.values:
            causes.invalid(f"{field}.onExitCodes.values", "[]", "at least one value is required")
        if list(codes.values) != sorted(set(codes.values)):
            causes.invalid(f"{field}.onExitCodes.values", list(codes.values), "must be ordered and without duplicates")
        if 0 in codes.values and codes.operator == "In":
            causes.invalid(f"{field}.onExitCodes.values", 0, "must not be 0 for the In operator")
    for position, condition in enumerate(rule.on_pod_conditions):
        where = f"{field}.onPodConditions[{position}]"
        if not condition.type:
            causes.required(f"{where}.type")
        causes.one_of(f"{where}.status", condition.status, ("False", "True", "Unknown"), required=True)


def _success_policy(causes: Causes, field: str, spec: JobSpec) -> None:
    policy = spec.success_policy
    if policy is None:
        return
    where = f"{field}.successPolicy"
    if spec.completion_mode != "Indexed":
        causes.invalid(where, spec.completion_mode, "requires indexed completion mode")
    if not policy.rules:
        causes.required(f"{where}.rules", "at least one rule is required")
    if len(policy.rules) > MAX_RULES:
        causes.too_many(f"{where}.rules", len(policy.rules), MAX_RULES)
    for index, rule in enumerate(policy.rules):
        place = f"{where}.rules[{index}]"
        if rule.succeeded_count is None and rule.succeeded_indexes is None:
            causes.required(place, "at least one of succeededCount or succeededIndexes must be specified")
        causes.at_least(f"{place}.succeededCount", rule.succeeded_count, 1)
        count = spec.completions or 0
        if rule.succeeded_indexes is not None:
            try:
                indexes = parse_indexes(rule.succeeded_indexes, spec.completions)
            except IndexesError as error:
                causes.invalid(f"{place}.succeededIndexes", rule.succeeded_indexes, str(error))
                continue
            count = len(indexes)
        if rule.succeeded_count is not None and rule.succeeded_count > count:
            causes.invalid(f"{place}.succeededCount", rule.succeeded_count, f"must be less than or equal to {count}")


def job_update(causes: Causes, new: Job, old: Job) -> None:
    after, before = new.spec, old.spec
    elastic = after.completion_mode == "Indexed" and after.completions == after.parallelism
    for name, value, kept in (
        ("completions", after.completions, after.completions if elastic else before.completions),
        ("selector", after.selector, before.selector),
        ("completionMode", after.completion_mode, before.completion_mode),
        ("podFailurePolicy", after.pod_failure_policy, before.pod_failure_policy),
        ("backoffLimitPerIndex", after.backoff_limit_per_index, before.backoff_limit_per_index),
        ("successPolicy", after.success_policy, before.success_policy),
        ("managedBy", after.managed_by, before.managed_by),
    ):
        if value != kept:
            causes.invalid(f"spec.{name}", "null" if value is None else value, "field is immutable")
    if after.template != before.template and not (before.suspend and old.status.start_time is None):
        causes.invalid("spec.template", "{...}", "field is immutable")


def cron_job(value: CronJob) -> Causes:
    causes, spec = Causes(), value.spec
    object_meta(causes, value.metadata, dns_subdomain_errors, namespaced=True)
    if len(value.metadata.name) > CRON_NAME_LENGTH:
        causes.invalid("metadata.name", value.metadata.name, f"must be no more than {CRON_NAME_LENGTH} characters")
    if not spec.schedule:
        causes.required("spec.schedule")
    else:
        try:
            Schedule(spec.schedule)
        except ScheduleError as error:
            causes.invalid("spec.schedule", spec.schedule, str(error))
    if spec.time_zone is not None:
        _time_zone(causes, spec.time_zone)
    causes.at_least("spec.startingDeadlineSeconds", spec.starting_deadline_seconds, 0)
    causes.one_of("spec.concurrencyPolicy", spec.concurrency_policy, ("Allow", "Forbid", "Replace"), required=True)
    causes.at_least("spec.successfulJobsHistoryLimit", spec.successful_jobs_history_limit, 0)
    causes.at_least("spec.failedJobsHistoryLimit", spec.failed_jobs_history_limit, 0)
    inner = spec.job_template.spec
    if inner.selector is not None:
        causes.invalid("spec.jobTemplate.spec.selector", "{...}", "`selector` will be auto-generated")
    if inner.manual_selector:
        causes.not_supported("spec.jobTemplate.spec.manualSelector", True, ("nil", "false"))
    _job_spec(causes, "spec.jobTemplate.spec", inner)
    return causes


def _time_zone(causes: Causes, name: str) -> None:
    if not name:
        causes.invalid("spec.timeZone", name, "timeZone must be nil or non-empty string")
        return
    if name.lower() == "local":
        causes.invalid("spec.timeZone", name, "timeZone must be an explicit time zone, not Local")
        return
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        causes.invalid("spec.timeZone", name, f"unknown time zone {name}")
