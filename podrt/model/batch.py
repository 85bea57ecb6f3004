"""batch/v1: Job and CronJob, all fields of Kubernetes 1.36."""

from __future__ import annotations

from podrt.model.base import Int32, Int64, Struct, Time, always, made
from podrt.model.event import ObjectReference
from podrt.model.meta import LabelSelector, ListMeta, ObjectMeta
from podrt.model.pod import PodTemplateSpec

TRACKING = "batch.kubernetes.io/job-tracking"
"""The finalizer that keeps a finished Pod until its Job has counted it."""
COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
INDEX_FAILURES = "batch.kubernetes.io/job-index-failure-count"
CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
JOB_NAME = "batch.kubernetes.io/job-name"
OLD_CONTROLLER_UID = "controller-uid"
OLD_JOB_NAME = "job-name"
SCHEDULED_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
INSTANTIATE = "cronjob.kubernetes.io/instantiate"


class OnExitCodes(Struct, frozen=True, kw_only=True):
    container_name: str | None = None
    operator: str = always("")
    """In or NotIn."""
    values: tuple[Int32, ...] = always(())


class OnPodCondition(Struct, frozen=True, kw_only=True):
    type: str = always("")
    status: str = always("")


class PodFailurePolicyRule(Struct, frozen=True, kw_only=True):
    action: str = always("")
    """FailJob, FailIndex, Ignore or Count."""
    on_exit_codes: OnExitCodes | None = None
    on_pod_conditions: tuple[OnPodCondition, ...] = ()


class PodFailurePolicy(Struct, frozen=True, kw_only=True):
    rules: tuple[PodFailurePolicyRule, ...] = always(())


class SuccessPolicyRule(Struct, frozen=True, kw_only=True):
    succeeded_indexes: str | None = None
    succeeded_count: Int32 | None = None


class SuccessPolicy(Struct, frozen=True, kw_only=True):
    rules: tuple[SuccessPolicyRule, ...] = always(())


class JobSpec(Struct, frozen=True, kw_only=True):
    parallelism: Int32 | None = None
    completions: Int32 | None = None
    active_deadline_seconds: Int64 | None = None
    pod_failure_policy: PodFailurePolicy | None = None
    success_policy: SuccessPolicy | None = None
    backoff_limit: Int32 | None = None
    backoff_limit_per_index: Int32 | None = None
    max_failed_indexes: Int32 | None = None
    selector: LabelSelector | None = None
    manual_selector: bool | None = None
    template: PodTemplateSpec = made(PodTemplateSpec)
    ttl_seconds_after_finished: Int32 | None = None
    completion_mode: str | None = None
    """NonIndexed or Indexed."""
    suspend: bool | None = None
    pod_replacement_policy: str | None = None
    """TerminatingOrFailed or Failed."""
    managed_by: str | None = None


class JobCondition(Struct, frozen=True, kw_only=True):
    type: str = always("")
    """Complete, Failed, Suspended, SuccessCriteriaMet or FailureTarget."""
    status: str = always("")
    last_probe_time: Time | None = None
    last_transition_time: Time | None = None
    reason: str = ""
    message: str = ""


class UncountedTerminatedPods(Struct, frozen=True, kw_only=True):
    succeeded: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class JobStatus(Struct, frozen=True, kw_only=True):
    conditions: tuple[JobCondition, ...] = ()
    start_time: Time | None = None
    completion_time: Time | None = None
    active: Int32 = 0
    succeeded: Int32 = 0
    failed: Int32 = 0
    terminating: Int32 | None = None
    completed_indexes: str = ""
    failed_indexes: str | None = None
    uncounted_terminated_pods: UncountedTerminatedPods | None = None
    ready: Int32 | None = None


class Job(Struct, frozen=True, kw_only=True):
    api_version: str = always("batch/v1")
    kind: str = always("Job")
    metadata: ObjectMeta = made(ObjectMeta)
    spec: JobSpec = made(JobSpec)
    status: JobStatus = made(JobStatus)


class JobList(Struct, frozen=True, kw_only=True):
    api_version: str = always("batch/v1")
    kind: str = always("JobList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[Job, ...] = always(())


class JobTemplateSpec(Struct, frozen=True, kw_only=True):
    metadata: ObjectMeta = made(ObjectMeta)
    spec: JobSpec = made(JobSpec)


class CronJobSpec(Struct, frozen=True, kw_only=True):
    schedule: str = always("")
    time_zone: str | None = None
    starting_deadline_seconds: Int64 | None = None
    concurrency_policy: str = ""
    """Allow, Forbid or Replace."""
    suspend: bool | None = None
    job_template: JobTemplateSpec = made(JobTemplateSpec)
    successful_jobs_history_limit: Int32 | None = None
    failed_jobs_history_limit: Int32 | None = None


class CronJobStatus(Struct, frozen=True, kw_only=True):
    active: tuple[ObjectReference, ...] = ()
    last_schedule_time: Time | None = None
    last_successful_time: Time | None = None


class CronJob(Struct, frozen=True, kw_only=True):
    api_version: str = always("batch/v1")
    kind: str = always("CronJob")
    metadata: ObjectMeta = made(ObjectMeta)
    spec: CronJobSpec = made(CronJobSpec)
    status: CronJobStatus = made(CronJobStatus)


class CronJobList(Struct, frozen=True, kw_only=True):
    api_version: str = always("batch/v1")
    kind: str = always("CronJobList")
    metadata: ListMeta = made(ListMeta)
    items: tuple[CronJob, ...] = always(())
