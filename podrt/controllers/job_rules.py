"""Job: what is counted, whether it is done, which Pods to make and to delete. Pure functions of the Job, its Pods and
the time.

Each finished Pod is counted once, whatever happens in between: its uid is first noted in the status
(uncountedTerminatedPods), then its finalizer goes, then it moves into the counter.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from podrt.controllers import job_policy as policy
from podrt.controllers.pods import is_active, is_finished, is_ready, restarts
from podrt.controllers.replicaset_rules import deletion_rank
from podrt.model.base import format_time, parse_time
from podrt.model.batch import TRACKING, Job, JobCondition, JobStatus, UncountedTerminatedPods
from podrt.model.indexes import format_indexes, parse_indexes
from podrt.model.pod import Pod

_ENDS = {"FailureTarget": "Failed", "SuccessCriteriaMet": "Complete"}


class Verdict(NamedTuple):
    """How a Job ends: the condition that announces it, with its reason."""

    type: str
    reason: str
    message: str


class New(NamedTuple):
    """A Pod to be made; ``number`` is its index, -1 for Jobs without."""

    number: int
    failures: int = 0


class Plan(NamedTuple):
    """``release``: Pods whose finalizer goes now; ``delete``: those deleted, uncounted if ``quiet``."""

    status: JobStatus
    release: tuple[Pod, ...] = ()
    delete: tuple[Pod, ...] = ()
    quiet: bool = True
    create: tuple[New, ...] = ()
    again: float | None = None


def finished(job: Job) -> JobCondition | None:
    """The condition that says that a Job is over."""
    return condition(job.status, "Complete") or condition(job.status, "Failed")


def condition(status: JobStatus, kind: str) -> JobCondition | None:
    return next((entry for entry in status.conditions if entry.type == kind and entry.status == "True"), None)


def with_condition(status: JobStatus, kind: str, value: str, reason: str, message: str, now: float) -> JobStatus:
    stamp = format_time(now)
    told = JobCondition(
        type=kind, status=value, reason=reason, message=message, last_probe_time=stamp, last_transition_time=stamp
    )
    kept = [entry for entry in status.conditions if entry.type != kind]
    old = next((entry for entry in status.conditions if entry.type == kind), None)
    if old is not None and old.status == value:
        return status
    return replace(status, conditions=(*kept, told))


def count(job: Job, pods: list[Pod]) -> tuple[JobStatus, tuple[Pod, ...]]:
    """The status with newly finished Pods noted, and all Pods whose finalizer may go then."""
    status = job.status
    noted = status.uncounted_terminated_pods or UncountedTerminatedPods()
    succeeded, failed = list(noted.succeeded), list(noted.failed)
    completed = parse_indexes(status.completed_indexes)
    lost = parse_indexes(status.failed_indexes or "")
    release: list[Pod] = []
    indexed = job.spec.completion_mode == "Indexed"
    for pod in pods:
        if TRACKING not in pod.metadata.finalizers:
            continue
        good, bad = pod.status.phase == "Succeeded", is_failed(job, pod)
        if not (good or bad):
            continue
        release.append(pod)
        uid, index = pod.metadata.uid, policy.index_of(pod)
        if uid in succeeded or uid in failed:
            continue
        if good:
            if not indexed:
                succeeded.append(uid)
            elif 0 <= index < (job.spec.completions or 0):
                completed.add(index)
        elif policy.match(job, pod).action != "Ignore":
            failed.append(uid)
            if policy.loses_index(job, pod) and index >= 0:
                lost.add(index)
    waiting = UncountedTerminatedPods(succeeded=tuple(succeeded), failed=tuple(failed))
    lost -= completed
    noted_status = replace(
        status,
        completed_indexes=format_indexes(completed),
        failed_indexes=format_indexes(lost) if job.spec.backoff_limit_per_index is not None else None,
        uncounted_terminated_pods=waiting if succeeded or failed else None,
    )
    return noted_status, tuple(release)


def is_failed(job: Job, pod: Pod) -> bool:
    """Failed, or being deleted where the Job doesn't wait for the end of such Pods."""
    if pod.status.phase == "Failed":
        return True
    deleted = pod.metadata.deletion_timestamp is not None and pod.status.phase != "Succeeded"
    return deleted and job.spec.pod_replacement_policy != "Failed"


def settle(job: Job, status: JobStatus) -> JobStatus:
    """What was noted moves into the counters; their finalizers are gone."""
    noted = status.uncounted_terminated_pods or UncountedTerminatedPods()
    succeeded = status.succeeded + len(noted.succeeded)
    if job.spec.completion_mode == "Indexed":
        succeeded = len(parse_indexes(status.completed_indexes))
    return replace(
        status, succeeded=succeeded, failed=status.failed + len(noted.failed), uncounted_terminated_pods=None
    )


def verdict(job: Job, status: JobStatus, pods: list[Pod], now: float) -> Verdict | None:
    """Whether and how a Job ends, from counters that are settled; None if it goes on."""
    for kind in _ENDS:
        if (told := condition(status, kind)) is not None:
            return Verdict(kind, told.reason, told.message)
    failed = _failure(job, status, pods, now)
    if failed is not None:
        return Verdict("FailureTarget", *failed)
    completed = parse_indexes(status.completed_indexes)
    if message := policy.success(job, completed):
        return Verdict("SuccessCriteriaMet", "SuccessPolicy", message)
    wanted, active = job.spec.completions, [pod for pod in pods if is_active(pod)]
    enough = status.succeeded >= wanted if wanted is not None else status.succeeded > 0 and not active
    if enough:
        return Verdict("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods")
    return None


def _failure(job: Job, status: JobStatus, pods: list[Pod], now: float) -> tuple[str, str] | None:
    spec = job.spec
    for pod in pods:
        found = policy.match(job, pod)
        if found.action == "FailJob":
            return "PodFailurePolicy", found.message
    limit = 6 if spec.backoff_limit is None else spec.backoff_limit
    if status.failed > limit or _restarted_too_often(job, pods, limit):
        return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    deadline = spec.active_deadline_seconds
    paused = spec.suspend or condition(status, "Suspended") is not None
    if deadline is not None and not paused and status.start_time is not None:
        started = parse_time(status.start_time).timestamp()
        if now - started >= deadline:
            return "DeadlineExceeded", "Job was active longer than specified deadline"
    if spec.backoff_limit_per_index is not None:
        lost, completed = parse_indexes(status.failed_indexes or ""), parse_indexes(status.completed_indexes)
        if spec.max_failed_indexes is not None and len(lost) > spec.max_failed_indexes:
            return "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes"
        if lost and len(lost) + len(completed) >= (spec.completions or 0):
            return "FailedIndexes", "Job has failed indexes"
    return None


def _restarted_too_often(job: Job, pods: list[Pod], limit: int) -> bool:
    """With OnFailure a Pod's own restarts count against the limit."""
    if job.spec.template.spec.restart_policy != "OnFailure":
        return False
    total = sum(restarts(pod) for pod in pods if pod.status.phase in ("Running", "Pending"))
    return total > 0 if limit == 0 else total >= limit


def plan(job: Job, status: JobStatus, pods: list[Pod], now: float) -> Plan:
    """What to do now, with settled counters: end the Job, or bring its active Pods to the wanted number."""
    active = [pod for pod in pods if is_active(pod)]
    terminating = [pod for pod in pods if pod.metadata.deletion_timestamp is not None and not is_finished(pod)]
    status = replace(status, active=len(active), ready=sum(map(is_ready, active)), terminating=len(terminating))
    end = verdict(job, status, pods, now)
    if end is not None:
        return _ending(status, end, active, terminating, now)
    if job.spec.suspend:
        status = with_condition(status, "Suspended", "True", "JobSuspended", "Job suspended", now)
        return Plan(status, delete=tuple(active))
    suspended = condition(status, "Suspended")
    if suspended is not None:
        status = with_condition(status, "Suspended", "False", "JobResumed", "Job resumed", now)
    if status.start_time is None or suspended is not None:
        status = replace(status, start_time=format_time(now))
    surplus, new, wait = _numbers(job, status, active, terminating, pods, now)
    waits = [seconds for seconds in (wait, _deadline(job, status, now)) if seconds is not None]
    return Plan(status, delete=surplus, create=new, again=min(waits, default=None))


def _ending(status: JobStatus, end: Verdict, active: list[Pod], terminating: list[Pod], now: float) -> Plan:
    status = with_condition(status, end.type, "True", end.reason, end.message, now)
    good = end.type == "SuccessCriteriaMet"
    if not active and not terminating:
        status = with_condition(status, _ENDS[end.type], "True", end.reason, end.message, now)
        if good:
            status = replace(status, completion_time=format_time(now))
    return Plan(status, delete=tuple(active), quiet=good)


def _deadline(job: Job, status: JobStatus, now: float) -> float | None:
    if job.spec.active_deadline_seconds is None or status.start_time is None:
        return None
    return max(0.0, parse_time(status.start_time).timestamp() + job.spec.active_deadline_seconds - now)


def wanted_active(job: Job, status: JobStatus, active: int) -> int:
    """How many Pods should be at work."""
    parallelism = 1 if job.spec.parallelism is None else job.spec.parallelism
    if job.spec.completions is None:
        # A work queue: after the first success no more are begun.
        return min(active, parallelism) if status.succeeded > 0 else parallelism
    left = job.spec.completions - status.succeeded - len(parse_indexes(status.failed_indexes or ""))
    return max(0, min(left, parallelism))


def _numbers(
    job: Job, status: JobStatus, active: list[Pod], terminating: list[Pod], pods: list[Pod], now: float
) -> tuple[tuple[Pod, ...], tuple[New, ...], float | None]:
    """(Pods too many, Pods to make, seconds until more may be made)."""
    wanted = wanted_active(job, status, len(active))
    extra = _duplicates(job, status, active)
    rest = [pod for pod in active if pod not in extra]
    if len(rest) > wanted:
        extra += sorted(rest, key=deletion_rank)[: len(rest) - wanted]
    if extra:
        return tuple(extra), (), None
    held = len(terminating) if job.spec.pod_replacement_policy == "Failed" else 0
    room = wanted - len(active) - held
    if room <= 0:
        return (), (), None
    if job.spec.completion_mode == "Indexed":
        return (), *_indexes(job, status, active, terminating, pods, room, now)
    wait = policy.backoff(job, pods, now)
    return ((), (), wait) if wait > 0 else ((), tuple(New(-1) for _ in range(room)), None)


def _duplicates(job: Job, status: JobStatus, active: list[Pod]) -> list[Pod]:
    """Active Pods of an index that is done, lost, out of range, or has another Pod already."""
    if job.spec.completion_mode != "Indexed":
        return []
    seen = parse_indexes(status.completed_indexes) | parse_indexes(status.failed_indexes or "")
    found: list[Pod] = []
    for pod in sorted(active, key=deletion_rank, reverse=True):
        index = policy.index_of(pod)
        if index in seen or not 0 <= index < (job.spec.completions or 0):
            found.append(pod)
        seen.add(index)
    return found


def _indexes(
    job: Job,
    status: JobStatus,
    active: list[Pod],
    terminating: list[Pod],
    pods: list[Pod],
    room: int,
    now: float,
) -> tuple[tuple[New, ...], float | None]:
    taken = parse_indexes(status.completed_indexes) | parse_indexes(status.failed_indexes or "")
    taken |= {policy.index_of(pod) for pod in active}
    if job.spec.pod_replacement_policy == "Failed":
        taken |= {policy.index_of(pod) for pod in terminating}
    per_index = job.spec.backoff_limit_per_index is not None
    wait = 0.0 if per_index else policy.backoff(job, pods, now)
    if wait > 0:
        return (), wait
    found: list[New] = []
    waits: list[float] = []
    of_index: dict[int, list[Pod]] = {}
    for pod in pods:
        of_index.setdefault(policy.index_of(pod), []).append(pod)
    for index in range(job.spec.completions or 0):
        if len(found) == room:
            break
        if index in taken:
            continue
        mine = of_index.get(index, [])
        later = policy.backoff(job, mine, now) if per_index else 0.0
        if later > 0:
            waits.append(later)
            continue
        found.append(New(index, _failures(job, mine)))
    return tuple(found), min(waits, default=None)


def _failures(job: Job, pods: list[Pod]) -> int:
    """How often an index has failed so far."""
    return max(
        (
            policy.index_failures(pod) + (policy.match(job, pod).action != "Ignore")
            for pod in pods
            if is_failed(job, pod)
        ),
        default=0,
    )
